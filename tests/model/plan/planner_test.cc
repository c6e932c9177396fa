#include "model/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "model/errors/errors.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options) {
  RotaryTableCache tables;
  return longembed::PlanInput(model, input, options, tables);
}

std::vector<int32_t> Ids(int count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 20);
  return ids;
}

void ExpectSameTable(const std::shared_ptr<const RotaryTable>& a, const std::shared_ptr<const RotaryTable>& b,
                     int32_t rows) {
  ASSERT_EQ(a == nullptr, b == nullptr);
  if (a == nullptr) return;
  const auto size = static_cast<size_t>(rows) * static_cast<size_t>(a->width);
  ASSERT_TRUE(a->cos.size() >= size && b->cos.size() >= size && a->width == b->width);
  EXPECT_TRUE(std::equal(a->cos.begin(), a->cos.begin() + size, b->cos.begin()));
  EXPECT_TRUE(std::equal(a->sin.begin(), a->sin.begin() + size, b->sin.begin()));
}

// Compares bit by bit.
void ExpectSameArrays(const Sequence& a, const Sequence& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.query_scale, b.query_scale);
  EXPECT_EQ(a.neighbor_window, b.neighbor_window);
  EXPECT_EQ(a.spans, b.spans);
  ExpectSameTable(a.rotary, b.rotary, a.size());
  ExpectSameTable(a.rotary_grouped, b.rotary_grouped, a.size());
  ExpectSameTable(a.rotary_shifted, b.rotary_shifted, a.size());
}

ModelManifest TokenVectorManifest() {
  ModelManifest model = FakeManifest();
  model.token_vectors = {.query_tokens = 8, .expansion_tokens = 8, .expansion_token = 50, .skipped_tokens = {21, 23}};
  return model;
}

TEST(PlannerTest, AQuerysMaskTokensAreUnattendedUnlessTheModelSaysOtherwise) {
  ModelManifest model = TokenVectorManifest();
  const std::vector<int32_t> content{20, 21, 22};
  const InputTokens input{.content = content};
  const PlanOptions options{.token_vectors = TokenVectors::kQuery};
  const auto plan = PlanInput(model, input, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Sequence& sequence = plan->sequences[0].sequence;
  EXPECT_THAT(sequence.tokens, ElementsAre(1, 20, 21, 22, 2, 50, 50, 50));
  EXPECT_EQ(sequence.positions.size(), 8u);
  EXPECT_EQ(sequence.neighbor_window, -3);
  EXPECT_EQ(plan->tokens, 8);
  EXPECT_EQ(plan->sequences[0].tokens, 8);
  EXPECT_EQ(plan->vectors(), 8);
  model.token_vectors->expansion_attended = true;
  EXPECT_EQ(PlanInput(model, input, options)->sequences[0].sequence.neighbor_window, 0);
}

TEST(PlannerTest, TokenVectorsAreCountedAgainstTheirLimit) {
  const std::vector<int32_t> content{20, 21, 22, 23};
  PlanOptions options{.limits = {.max_vectors = 3}, .token_vectors = TokenVectors::kDocument};
  const auto plan = PlanInput(TokenVectorManifest(), {.content = content}, options);
  EXPECT_EQ(ErrorReason(plan.status()), "TOO_MANY_VECTORS");
  options.limits.max_vectors = 4;
  EXPECT_TRUE(PlanInput(TokenVectorManifest(), {.content = content}, options).ok());
}

TEST(PlannerTest, PutsSpecialsAndPromptAroundTheContent) {
  const std::vector<int32_t> prompt{10, 11}, content{20, 21, 22};
  const auto plan = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sequences.size(), 1u);
  const Sequence& sequence = plan->sequences[0].sequence;
  EXPECT_THAT(sequence.tokens, ElementsAre(1, 10, 11, 20, 21, 22, 2));
  EXPECT_THAT(sequence.positions, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(sequence.spans, ElementsAre(Range{0, 7}));
  EXPECT_EQ(sequence.query_scale, 1.0f);
  EXPECT_EQ(sequence.neighbor_window, 0);
  EXPECT_EQ(plan->sequences[0].content, (Range{0, 3}));
  EXPECT_EQ(plan->tokens, 7);
  EXPECT_EQ(plan->truncated_tokens, 0);
  EXPECT_EQ(plan->capacity, 16);
}

TEST(PlannerTest, PoolsAsTheModelDoes) {
  const std::vector<int32_t> content{20, 21};
  ModelManifest model = FakeManifest();
  model.pooling = Pooling::kCls;
  EXPECT_THAT(PlanInput(model, {.content = content}, {})->sequences[0].sequence.spans, ElementsAre(Range{0, 1}));
  model.pooling = Pooling::kLast;
  EXPECT_THAT(PlanInput(model, {.content = content}, {})->sequences[0].sequence.spans, ElementsAre(Range{3, 4}));
}

// Only the row of the pooled special token is calibrated, or every row if anything else of the last layer is used.
TEST(PlannerTest, CalibratesTheRowsThatThePoolingNeeds) {
  const std::vector<int32_t> content = Ids(10), short_content = Ids(6);
  const Range whole[] = {{0, 10}};
  const SpanChoice spans{.ranges = whole};
  ModelManifest model = FakeManifest();
  model.layers = 5;
  PlanOptions options{.extension = {.when = When::kAlways, .attention_calibration = AttentionCalibration{.basket = 8}}};
  const auto calibration = [&](const InputTokens& input) {
    return PlanInput(model, input, options)->sequences[0].sequence.calibration;
  };
  EXPECT_EQ(calibration({.content = content}).rows, (Range{0, 12}));
  EXPECT_EQ(calibration({.content = content}).apart, -1);
  EXPECT_EQ(calibration({.content = content}).first_layer, 2);
  EXPECT_EQ(calibration({.content = content}).basket, 8);
  EXPECT_EQ(calibration({.content = content}).strength, 0.5f);
  EXPECT_EQ(calibration({.content = short_content}).basket, 0);  // The sequence has 8 tokens.
  for (const auto& [pooling, special] : {std::pair{Pooling::kCls, 0}, std::pair{Pooling::kLast, 11}}) {
    model.pooling = pooling;
    EXPECT_EQ(calibration({.content = content}).rows, (Range{special, special + 1}));
    EXPECT_EQ(calibration({.content = content}).apart, special);
    EXPECT_EQ(calibration({.content = content, .spans = &spans}).rows, (Range{0, 12}));
    EXPECT_EQ(calibration({.content = content, .spans = &spans}).apart, -1);
  }
  options.sparse = true;
  EXPECT_EQ(calibration({.content = content}).rows, (Range{0, 12}));
  options.sparse = false;
  model.token_vectors = TokenVectorManifest().token_vectors;
  options.token_vectors = TokenVectors::kDocument;
  EXPECT_EQ(calibration({.content = content}).rows, (Range{0, 12}));
  options.token_vectors = TokenVectors::kQuery;
  EXPECT_EQ(calibration({.content = short_content}).basket, 0);
  options.token_vectors = TokenVectors::kNone;
  options.extension.when = When::kLong;
  EXPECT_EQ(calibration({.content = content}).basket, 0);
}

TEST(PlannerTest, TakesExactlyTheCapacity) {
  const std::vector<int32_t> fits = Ids(14), over = Ids(15);
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = fits}, {})->tokens, 16);
  const auto refused = PlanInput(FakeManifest(), {.content = over}, {});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("17"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("16"));
}

// Windows do not apply to queries.
TEST(PlannerTest, AQueryThatIsTooLongIsNotToldToUseWindows) {
  const ModelManifest model = TokenVectorManifest();
  const std::vector<int32_t> content = Ids(100);
  const auto refused = PlanInput(model, {.content = content}, {.token_vectors = TokenVectors::kQuery});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("the limit of a query"), Not(HasSubstr("windows"))));
}

TEST(PlannerTest, TruncatesAtTheEndOrTheStart) {
  const std::vector<int32_t> prompt{10}, content = Ids(100);
  const auto end = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kEnd});
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->sequences[0].content, (Range{0, 13}));
  EXPECT_EQ(end->sequences[0].sequence.tokens[2], 20);
  EXPECT_EQ(end->sequences[0].sequence.tokens.back(), 2);
  EXPECT_EQ(end->tokens, 16);
  EXPECT_EQ(end->truncated_tokens, 87);
  const auto start = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kStart});
  ASSERT_TRUE(start.ok());
  EXPECT_EQ(start->sequences[0].content, (Range{87, 100}));
  EXPECT_EQ(start->sequences[0].sequence.tokens[2], 107);
}

// A model, options and an input, drawn at random.
struct Drawn {
  ModelManifest model;
  PlanOptions options;
  std::vector<int32_t> prompt, content;
};

Drawn Draw(std::mt19937& random) {
  const auto up_to = [&random](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
  Drawn drawn{.model = up_to(1) > 0 ? FakeManifest() : FakeRopeManifest()};
  drawn.prompt = Ids(up_to(3));
  drawn.content = Ids(1 + up_to(79));
  drawn.options.truncate = up_to(1) > 0 ? Truncate::kEnd : Truncate::kStart;
  Extension& extension = drawn.options.extension;
  if (up_to(1) > 0) extension.when = When::kAlways;
  if (up_to(2) == 0) extension.windows = Windows{.tokens = 8 + up_to(8), .overlap = up_to(1)};
  if (up_to(2) == 0) extension.positions = Interpolation{.factor = 2};
  if (up_to(2) == 0) extension.positions = Recurrent{};
  if (up_to(1) > 0) drawn.options.limits.max_sequence_tokens = 30;
  return drawn;
}

TEST(PlannerTest, MaxTokensCutsBeforeTheExtensionApplies) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    Drawn drawn = Draw(random);
    const auto overhead = static_cast<int64_t>(2 + drawn.prompt.size()), whole = std::ssize(drawn.content);
    const int64_t max_tokens = overhead + 1 + static_cast<int64_t>(random() % 60);
    const auto kept = static_cast<int32_t>(std::min(whole, max_tokens - overhead));
    const auto moved = drawn.options.truncate == Truncate::kStart ? static_cast<int32_t>(whole) - kept : 0;
    const std::vector<int32_t> left(drawn.content.begin() + moved, drawn.content.begin() + moved + kept);
    const auto oracle = PlanInput(drawn.model, {.prompt = drawn.prompt, .content = left}, drawn.options);
    drawn.options.max_tokens = max_tokens;
    const auto plan = PlanInput(drawn.model, {.prompt = drawn.prompt, .content = drawn.content}, drawn.options);
    ASSERT_EQ(plan.ok(), oracle.ok()) << plan.status() << oracle.status();
    if (!plan.ok()) continue;
    EXPECT_EQ(plan->tokens, oracle->tokens);
    EXPECT_EQ(plan->truncated_tokens, oracle->truncated_tokens + whole - kept);
    ASSERT_EQ(plan->sequences.size(), oracle->sequences.size());
    for (size_t i = 0; i < plan->sequences.size(); ++i) {
      ExpectSameArrays(plan->sequences[i].sequence, oracle->sequences[i].sequence);
      const Range content = oracle->sequences[i].content;
      EXPECT_EQ(plan->sequences[i].content, (Range{content.start + moved, content.end + moved}));
    }
  }
}

TEST(PlannerTest, MaxTokensRefusesLongInputsWithoutTruncation) {
  const std::vector<int32_t> content = Ids(9), complete = Ids(11);
  EXPECT_TRUE(PlanInput(FakeManifest(), {.content = content}, {.max_tokens = 11}).ok());
  const auto refused = PlanInput(FakeManifest(), {.content = content}, {.max_tokens = 10});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("has 11 tokens"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("options.max_tokens is 10"));
  const auto ids = PlanInput(FakeManifest(), {.content = complete, .complete = true},
                             {.truncate = Truncate::kEnd, .max_tokens = 10});
  EXPECT_EQ(ErrorField(ids.status()), "token_ids");
  const auto prompt = PlanInput(FakeManifest(), {.prompt = complete, .content = content},
                                {.truncate = Truncate::kEnd, .max_tokens = 13});
  EXPECT_EQ(ErrorReason(prompt.status()), "PROMPT_TOO_LONG");
  EXPECT_EQ(ErrorField(prompt.status()), "options.max_tokens");
  EXPECT_FALSE(CheckMaxTokens(0).ok());
  EXPECT_TRUE(CheckMaxTokens(std::nullopt).ok());
}

TEST(PlannerTest, TheServersLimitAppliesAfterTruncation) {
  const std::vector<int32_t> content = Ids(100);
  PlanOptions options{.truncate = Truncate::kEnd, .limits = {.max_tokens = 40}};
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, options)->truncated_tokens, 86);
  options.extension.windows.emplace();
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()),
            "INPUT_BEYOND_SERVER_LIMIT");
  options.max_tokens = 40;
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, options)->truncated_tokens, 62);
  options.limits.max_tokens = 39;
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()),
            "INPUT_BEYOND_SERVER_LIMIT");
  options = {.truncate = Truncate::kEnd, .limits = {.max_tokens = 10}};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()),
            "INPUT_BEYOND_SERVER_LIMIT");
  options = {.limits = {.max_tokens = 40}};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()),
            "INPUT_BEYOND_SERVER_LIMIT");
}

TEST(PlannerTest, SpansAreClippedToMaxTokens) {
  const std::vector<int32_t> content = Ids(9);
  const std::vector<Range> ranges{{0, 3}, {3, 9}};
  const SpanChoice spans{.ranges = ranges};
  const auto plan =
      PlanInput(FakeManifest(), {.content = content, .spans = &spans}, {.truncate = Truncate::kStart, .max_tokens = 6});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->spans, ElementsAre(Range{5, 9}));
  EXPECT_THAT(plan->sequences[0].sequence.spans, ElementsAre(Range{1, 5}));
}

TEST(PlannerTest, TokensThatDoNotMatterMayBeMissing) {
  std::mt19937 random(2);
  int parts = 0;
  for (int round = 0; round < 5000; ++round) {
    Drawn drawn = Draw(random);
    if (random() % 2 > 0) drawn.options.max_tokens = 6 + random() % 60;
    const auto whole = PlanInput(drawn.model, {.prompt = drawn.prompt, .content = drawn.content}, drawn.options);
    const std::optional<int64_t> needed = TokensNeededForPlan(drawn.model, drawn.options);
    const int64_t overhead = 2 + std::ssize(drawn.prompt), all = std::ssize(drawn.content);
    if (!needed.has_value() || *needed - overhead >= all || *needed <= overhead) continue;
    ++parts;
    const int64_t here = *needed - overhead;
    const bool keeps_end = drawn.options.truncate == Truncate::kStart;
    // Replaces tokens that should not matter by -7, so that using one of them would show.
    const auto poisoned = keeps_end ? drawn.content.begin() : drawn.content.begin() + here;
    std::fill(poisoned, poisoned + (all - here), -7);
    InputTokens part{.prompt = drawn.prompt, .content = drawn.content, .estimated = true};
    if (!keeps_end) {
      part.content = part.content.first(static_cast<size_t>(here));
      part.after = all - here;
    } else {
      part.content = part.content.last(static_cast<size_t>(here));
      part.before = all - here;
    }
    const auto plan = PlanInput(drawn.model, part, drawn.options);
    ASSERT_EQ(plan.ok(), whole.ok()) << plan.status() << whole.status();
    if (!plan.ok()) continue;
    EXPECT_EQ(plan->tokens, whole->tokens);
    EXPECT_EQ(plan->truncated_tokens, whole->truncated_tokens);
    EXPECT_TRUE(plan->estimated);
    ASSERT_EQ(plan->sequences.size(), whole->sequences.size());
    for (size_t i = 0; i < plan->sequences.size(); ++i) {
      ExpectSameArrays(plan->sequences[i].sequence, whole->sequences[i].sequence);
      EXPECT_EQ(plan->sequences[i].content, whole->sequences[i].content);
    }
  }
  EXPECT_GT(parts, 1000);
}

TEST(PlannerTest, CompleteIdsStayAsTheyAre) {
  const std::vector<int32_t> content = Ids(16), over = Ids(17);
  const auto plan = PlanInput(FakeManifest(), {.content = content, .complete = true}, {});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->sequences[0].sequence.tokens, content);
  const auto refused = PlanInput(FakeManifest(), {.content = over, .complete = true}, {.truncate = Truncate::kEnd});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_EQ(ErrorField(refused.status()), "token_ids");
  const auto beyond =
      PlanInput(FakeManifest(), {.content = content, .complete = true}, {.truncate = Truncate::kEnd, .max_tokens = 15});
  EXPECT_EQ(ErrorField(beyond.status()), "token_ids");
  EXPECT_THAT(std::string(beyond.status().message()), HasSubstr("has 16 tokens; options.max_tokens is 15"));
}

TEST(PlannerTest, RefusesEmptyContentAndPromptsWithoutRoom) {
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {}, {}).status()), "EMPTY_INPUT");
  const std::vector<int32_t> prompt = Ids(14), content{20};
  const auto refused = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kEnd});
  EXPECT_EQ(ErrorReason(refused.status()), "PROMPT_TOO_LONG");
}

TEST(PlannerTest, ShortInputsStayPlainUnlessAlwaysIsAsked) {
  const std::vector<int32_t> content = Ids(14);
  PlanOptions options{.extension = {.windows = Windows{.tokens = 6}, .positions = Grouped{2}}};
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, options)->sequences.size(), 1u);
  options.extension.when = When::kAlways;
  const auto plan = PlanInput(FakeManifest(), {.content = content}, options);
  EXPECT_EQ(plan->sequences.size(), 4u);
  EXPECT_THAT(plan->sequences[0].sequence.positions, ElementsAre(0, 0, 1, 1, 2, 2));
}

TEST(PlannerTest, WindowsCarryPromptAndSpecials) {
  const std::vector<int32_t> prompt{10}, content = Ids(20);
  const auto plan = PlanInput(FakeManifest(), {.prompt = prompt, .content = content},
                              {.extension = {.windows = Windows{.tokens = 8, .overlap = 2}}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sequences.size(), 6u);  // By the formula 1 + ceil((20 - 5) / 3).
  EXPECT_THAT(plan->sequences[1].sequence.tokens, ElementsAre(1, 10, 23, 24, 25, 26, 27, 2));
  EXPECT_EQ(plan->sequences[5].content, (Range{15, 20}));
  EXPECT_EQ(plan->tokens, 23);
  EXPECT_EQ(plan->run_tokens(), 48);
  EXPECT_EQ(plan->vectors(), 6);
}

TEST(PlannerTest, CapacityFollowsFromTheFactor) {
  const std::vector<int32_t> content = Ids(60);
  const PlanOptions grouped{.extension = {.positions = Grouped{2}}};
  const auto refused = PlanInput(FakeManifest(), {.content = content}, grouped);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("the limit is 32"));
  const auto cut =
      PlanInput(FakeManifest(), {.content = content}, {.truncate = Truncate::kEnd, .extension = grouped.extension});
  EXPECT_EQ(cut->tokens, 32);
  EXPECT_EQ(cut->truncated_tokens, 30);
  EXPECT_EQ(cut->capacity, 32);
  const PlanOptions adaptive{.extension = {.positions = Grouped{}}, .limits = {.max_sequence_tokens = 100}};
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, adaptive)->capacity, 100);
  const PlanOptions windows{.extension = {.windows = Windows{.tokens = 9}, .positions = Grouped{}}};
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, windows)->capacity, 9);
}

TEST(PlannerTest, OnePassIsBoundedByTheServer) {
  const std::vector<int32_t> content = Ids(60);
  PlanOptions options{.extension = {.positions = Recurrent{}}, .limits = {.max_sequence_tokens = 50}};
  const auto refused = PlanInput(FakeManifest(), {.content = content}, options);
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("the limit is 50"));
  options.truncate = Truncate::kEnd;
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = content}, options)->tokens, 50);
  options.extension.windows = Windows{.tokens = 51};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()), "WINDOW_TOO_LARGE");
}

// Lo is 16. A text of 16 tokens does not fit into one sequence of the server, so windows divide it like a longer one.
TEST(PlannerTest, WindowsDivideATextWithinLoThatTheServerCannotTakeWhole) {
  const std::vector<int32_t> content = Ids(14);
  PlanOptions options{.extension = {.windows = Windows{.tokens = 10}}, .limits = {.max_sequence_tokens = 12}};
  for (const Truncate truncate : {Truncate::kNone, Truncate::kEnd}) {
    options.truncate = truncate;
    const auto plan = PlanInput(FakeManifest(), {.content = content}, options);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->sequences.size(), 2u);
    EXPECT_EQ(plan->tokens, 16);
    EXPECT_EQ(plan->truncated_tokens, 0);
  }
  const auto whole = PlanInput(FakeManifest(), {.content = Ids(10)}, options);
  EXPECT_EQ(whole->sequences.size(), 1u);
  EXPECT_EQ(whole->sequences.front().tokens, 12);
  options.extension = {.positions = Grouped{}};
  options.truncate = Truncate::kNone;
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()), "INPUT_TOO_LONG");
}

TEST(PlannerTest, WindowsOfOneLengthShareTheirTables) {
  const std::vector<int32_t> content = Ids(100);
  const PlanOptions options{
      .extension = {.windows = Windows{.tokens = 20, .last = LastWindow::kShort}, .positions = SelfExtend{2, 4}}};
  const auto plan = PlanInput(FakeRopeManifest(), {.content = content}, options);
  ASSERT_EQ(plan->sequences.size(), 6u);  // Five windows have 18 content tokens, and one has 10.
  EXPECT_EQ(plan->sequences[0].sequence.rotary_shifted, plan->sequences[4].sequence.rotary_shifted);
  EXPECT_EQ(plan->sequences[4].sequence.neighbor_window, 4);
  EXPECT_EQ(plan->sequences[5].sequence.rotary_shifted->rows(), 12);
}

// The arrays of a plan depend only on the input and its options. They must be the same alone, after other inputs, and
// for a single window.
TEST(PlannerTest, ArraysAreTheSameAloneAndBatched) {
  std::mt19937 random(7);
  RotaryTableCache shared;
  const auto draw = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
  for (int round = 0; round < 300; ++round) {
    const PositionsMethod methods[] = {PlainPositions{}, Grouped{},    Recurrent{}, Interpolation{}, Ntk{.factor = 64},
                                       NtkDynamic{},     NtkByParts{}, Yarn{},      SelfExtend{},    ShiftedRotary{}};
    const auto kind = static_cast<size_t>(draw(0, 9));
    const std::vector<int32_t> content = Ids(draw(1, kind == 0 ? 14 : kind == 9 ? 17 : 120));
    const PlanOptions options{.extension = {.when = draw(0, 1) == 0 ? When::kLong : When::kAlways,
                                            .positions = methods[kind],
                                            .attention_log_scaling = draw(0, 1) == 0}};
    RotaryTableCache own;
    const auto alone = PlanInput(FakeRopeManifest(), {.content = content}, options, own);
    const auto batched = PlanInput(FakeRopeManifest(), {.content = content}, options, shared);
    ASSERT_TRUE(alone.ok()) << alone.status();
    ExpectSameArrays(alone->sequences[0].sequence, batched->sequences[0].sequence);
    PlanOptions one_window = options;
    one_window.extension.windows = Windows{.tokens = std::max<int64_t>(16, static_cast<int64_t>(content.size()) + 2)};
    const auto windowed = PlanInput(FakeRopeManifest(), {.content = content}, one_window, shared);
    ASSERT_TRUE(kind != 0 || windowed.ok()) << windowed.status();
    if (windowed.ok()) ExpectSameArrays(alone->sequences[0].sequence, windowed->sequences[0].sequence);
    if (content.size() + 2 <= 16 && options.extension.when == When::kLong) {
      const auto plain = PlanInput(FakeRopeManifest(), {.content = content}, {}, own);
      ExpectSameArrays(plain->sequences[0].sequence, batched->sequences[0].sequence);
    }
  }
}

TEST(PlannerTest, LimitsHoldBeforeMemoryIsTaken) {
  const std::vector<int32_t> content = Ids(1000);
  PlanOptions options{.extension = {.windows = Windows{.tokens = 16, .overlap = 13}}};
  options.limits.max_vectors = 100;
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()), "TOO_MANY_VECTORS");
  options.limits = {.max_run_tokens = 10000};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()), "TOO_MANY_TOKENS");
  options.extension = {.positions = Recurrent{}};
  options.limits = {.max_run_tokens = 1001};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()), "TOO_MANY_TOKENS");
  options.limits = {.max_tokens = 1001};
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {.content = content}, options).status()),
            "INPUT_BEYOND_SERVER_LIMIT");
}

TEST(PlannerTest, AnOverlapThatThePromptLeavesNoRoomForIsRefused) {
  const std::vector<int32_t> prompt = Ids(10), content = Ids(40);
  const auto refused = PlanInput(FakeManifest(), {.prompt = prompt, .content = content},
                                 {.extension = {.windows = Windows{.tokens = 16, .overlap = 4}}});
  EXPECT_EQ(ErrorField(AtField(refused.status(), "inputs[0]")), "options.extension.windows.overlap");
}

TEST(PlannerTest, CompleteIdsAreNotCutIntoWindows) {
  const std::vector<int32_t> content = Ids(30);
  const auto refused =
      PlanInput(FakeManifest(), {.content = content, .complete = true}, {.extension = {.windows = Windows{}}});
  EXPECT_EQ(ErrorField(refused.status()), "token_ids");
}

TEST(PlannerTest, InterpolatedPositionsMeetTheRows) {
  const std::vector<int32_t> content = Ids(98);
  for (const double s : {7.0, 8.0, 12.5, 25.0}) {
    const auto plan = PlanInput(FakeManifest(), {.content = content}, {.extension = {.positions = Interpolation{s}}});
    const std::vector<float>& positions = plan->sequences[0].sequence.positions;
    for (int row = 0; row * s < 100; ++row) {
      if (row * s != std::floor(row * s)) continue;
      EXPECT_EQ(positions[static_cast<size_t>(row * s)], row) << s;
    }
  }
}

TEST(PlannerTest, TunedTablesUseEveryRowOnlyBeyondTheTrainedWindow) {
  ModelManifest model = FakeManifest();
  model.position_stride = 4;
  model.position_rows = model.plain_limit = 64;
  const std::vector<int32_t> fits = Ids(2), over = Ids(15);
  EXPECT_THAT(PlanInput(model, {.content = fits}, {})->sequences[0].sequence.positions, ElementsAre(0, 4, 8, 12));
  const auto long_plan = PlanInput(model, {.content = over}, {});
  EXPECT_EQ(long_plan->sequences[0].sequence.positions[16], 16);
  const auto interpolated = PlanInput(model, {.content = over}, {.extension = {.positions = Interpolation{2}}});
  // The position is 3 / 2 in trained positions, with 4 rows each.
  EXPECT_EQ(interpolated->sequences[0].sequence.positions[3], 6);
}

TEST(PlannerTest, SpansMoveWithPromptAndTruncation) {
  const std::vector<int32_t> prompt{10, 11}, content = Ids(30);
  const std::vector<Range> ranges{{0, 5}, {18, 22}, {29, 30}};
  const SpanChoice choice{.ranges = ranges};
  const InputTokens input{.prompt = prompt, .content = content, .spans = &choice};
  const auto plan = PlanInput(FakeManifest(), input, {.truncate = Truncate::kStart});  // Keeps the last 12: [18, 30).
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->spans, ElementsAre(Range{18, 22}, Range{29, 30}));
  EXPECT_THAT(plan->sequences[0].sequence.spans, ElementsAre(Range{3, 7}, Range{14, 15}));
  const SpanChoice required{.ranges = ranges, .required = true};
  const auto refused = PlanInput(FakeManifest(), {.prompt = prompt, .content = content, .spans = &required},
                                 {.truncate = Truncate::kStart});
  EXPECT_EQ(ErrorField(refused.status()), "ranges[0]");
}

// Tests long late chunking. Windows of 12 content tokens that share 4, [0, 12) [8, 20) [16, 28) [18, 30), provide the
// tokens [0, 10) [10, 18) [18, 23) [23, 30).
TEST(PlannerTest, SpansTakeEachTokenFromTheWindowInWhichItIsFarthestFromAnEdge) {
  const std::vector<int32_t> prompt{10, 11}, content = Ids(30);
  const std::vector<Range> ranges{{0, 10}, {8, 25}, {29, 30}};
  const SpanChoice choice{.ranges = ranges, .required = true};
  const InputTokens input{.prompt = prompt, .content = content, .spans = &choice};
  PlanOptions options{.extension = {.windows = Windows{.tokens = 16, .overlap = 4}}};
  const auto plan = PlanInput(FakeManifest(), input, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->spans, ranges);
  ASSERT_EQ(plan->sequences.size(), 4u);
  EXPECT_THAT(plan->sequences[0].sequence.spans, ElementsAre(Range{3, 13}, Range{11, 13}));
  EXPECT_THAT(plan->sequences[1].sequence.spans, ElementsAre(Range{5, 13}));
  EXPECT_THAT(plan->sequences[2].sequence.spans, ElementsAre(Range{5, 10}));
  EXPECT_THAT(plan->sequences[3].sequence.spans, ElementsAre(Range{8, 10}, Range{14, 15}));
  std::vector<std::pair<int32_t, int32_t>> parts;
  for (const SpanPart& part : plan->parts) parts.emplace_back(part.span, part.tokens);
  using Parts = std::vector<std::pair<int32_t, int32_t>>;
  EXPECT_EQ(parts, (Parts{{0, 10}, {1, 2}, {1, 8}, {1, 5}, {1, 2}, {2, 1}}));
  EXPECT_EQ(plan->vectors(), 3);
  EXPECT_EQ(plan->rows(), 6);
  EXPECT_EQ(plan->truncated_tokens, 0);
  options.limits.max_vectors = 5;
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), input, options).status()), "TOO_MANY_VECTORS");
}

// Overlapping spans of one text take many times as long to pool as its tokens.
TEST(PlannerTest, TheTokensOfAllSpansAreBounded) {
  const std::vector<int32_t> content = Ids(10);
  const std::vector<Range> ranges(5, Range{0, 10});
  const SpanChoice choice{.ranges = ranges};
  PlanOptions options{.limits = {.max_run_tokens = 50}};
  const auto plan = PlanInput(FakeManifest(), {.content = content, .spans = &choice}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->span_tokens(), 50);
  options.limits.max_run_tokens = 49;
  for (const bool windows : {false, true}) {
    if (windows) options.extension.windows = Windows{.tokens = 8};
    const auto refused = PlanInput(FakeManifest(), {.content = content, .spans = &choice}, options);
    EXPECT_EQ(ErrorReason(refused.status()), "TOO_MANY_TOKENS") << windows;
    EXPECT_THAT(refused.status().message(), HasSubstr("spans of 50 tokens together"));
  }
}

// Uses the same windows for the last 30 of 40 content tokens.
TEST(PlannerTest, SpansOverWindowsAreClippedToMaxTokens) {
  const std::vector<int32_t> prompt{10, 11}, content = Ids(40);
  const std::vector<Range> ranges{{0, 12}, {2, 5}, {18, 35}};
  const SpanChoice choice{.ranges = ranges}, required{.ranges = ranges, .required = true};
  const PlanOptions options{
      .truncate = Truncate::kStart, .max_tokens = 34, .extension = {.windows = Windows{.tokens = 16, .overlap = 4}}};
  const auto plan = PlanInput(FakeManifest(), {.prompt = prompt, .content = content, .spans = &choice}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->truncated_tokens, 10);
  EXPECT_THAT(plan->spans, ElementsAre(Range{10, 12}, Range{18, 35}));
  ASSERT_EQ(plan->sequences.size(), 4u);
  EXPECT_EQ(plan->sequences[0].content, (Range{10, 22}));
  EXPECT_THAT(plan->sequences[0].sequence.spans, ElementsAre(Range{3, 5}, Range{11, 13}));
  EXPECT_THAT(plan->sequences[1].sequence.spans, ElementsAre(Range{5, 13}));
  EXPECT_THAT(plan->sequences[2].sequence.spans, ElementsAre(Range{5, 10}));
  EXPECT_THAT(plan->sequences[3].sequence.spans, ElementsAre(Range{8, 10}));
  const auto refused = PlanInput(FakeManifest(), {.prompt = prompt, .content = content, .spans = &required}, options);
  EXPECT_EQ(ErrorReason(refused.status()), "SPAN_TRUNCATED");
}

TEST(PlannerTest, WindowsThatNoSpanNeedsAreNotRun) {
  const std::vector<int32_t> content = Ids(30);
  const std::vector<Range> ranges{{28, 30}};
  const SpanChoice choice{.ranges = ranges};
  const auto plan = PlanInput(FakeManifest(), {.content = content, .spans = &choice},
                              {.extension = {.windows = Windows{.tokens = 16, .overlap = 4}}});
  ASSERT_EQ(plan->sequences.size(), 1u);
  EXPECT_EQ(plan->sequences[0].content, (Range{16, 30}));
  EXPECT_EQ(plan->tokens, 32);
  EXPECT_EQ(plan->run_tokens(), 16);
}

TEST(PlannerTest, SpansOfATextWithinLoArePlain) {
  const std::vector<int32_t> content = Ids(14);
  const std::vector<Range> ranges{{3, 6}};
  const SpanChoice choice{.ranges = ranges};
  const InputTokens input{.content = content, .spans = &choice};
  const auto plain = PlanInput(FakeManifest(), input, {});
  const auto windows = PlanInput(FakeManifest(), input, {.extension = {.windows = Windows{.tokens = 8, .overlap = 2}}});
  EXPECT_EQ(windows->sequences[0].sequence.spans, plain->sequences[0].sequence.spans);
  EXPECT_TRUE(windows->parts.empty());
}

TEST(PlannerTest, SelfExtendTablesAreRowsOfThePlainOne) {
  // The worked example has 10 tokens, w = 4 and g = 2.
  const std::vector<int32_t> content = Ids(8);
  const auto plan = PlanInput(FakeRopeManifest(), {.content = content},
                              {.extension = {.when = When::kAlways, .positions = SelfExtend{2, 4}}});
  const Sequence& sequence = plan->sequences[0].sequence;
  EXPECT_EQ(sequence.neighbor_window, 4);
  const auto position_of = [](const RotaryTable& table, int64_t row) {
    // The slowest pair, theta = 10000^(-6/8), identifies the position, since it makes less than half a turn.
    const double theta = std::pow(10000, -6.0 / 8);
    return std::lround(std::asin(table.sin[static_cast<size_t>(row * table.width + 3)]) / theta);
  };
  std::vector<int64_t> grouped, shifted;
  for (int64_t i = 0; i < 10; ++i) {
    grouped.push_back(position_of(*sequence.rotary_grouped, i));
    shifted.push_back(position_of(*sequence.rotary_shifted, i));
  }
  EXPECT_THAT(grouped, ElementsAre(0, 0, 1, 1, 2, 2, 3, 3, 4, 4));
  EXPECT_THAT(shifted, ElementsAre(2, 2, 3, 3, 4, 4, 5, 5, 6, 6));
}

// The distance of every pair, as the encoder gets it from the three tables, must be d below S, and d - S + W from S on.
TEST(PlannerTest, ShiftedRotaryTablesGiveThePapersDistances) {
  const int n = 12, s = 5, w = 2;
  const std::vector<int32_t> content = Ids(n - 2);
  const auto plan = PlanInput(FakeRopeManifest(), {.content = content},
                              {.extension = {.when = When::kAlways, .positions = ShiftedRotary{s, w}}});
  const Sequence& sequence = plan->sequences[0].sequence;
  ASSERT_EQ(sequence.neighbor_window, s);
  const auto angle = [](const RotaryTable& table, int64_t row) {
    const auto at = static_cast<size_t>(row * table.width + 3);
    return std::atan2(table.sin[at], table.cos[at]) / std::pow(10000, -6.0 / 8);
  };
  for (int j = 0; j < n; ++j) {
    for (int i = j; i < n; ++i) {
      const int d = i - j;
      const double found = d < s ? angle(*sequence.rotary, i) - angle(*sequence.rotary, j)
                                 : angle(*sequence.rotary_shifted, i) - angle(*sequence.rotary_grouped, j);
      EXPECT_NEAR(found, d < s ? d : d - s + w, 1e-3) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace longembed
