#include "tests/simulation/checker.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batching/cost_model.h"

namespace longembed {
namespace {

// The tokens that FakeTokenizer and FakeManifest produce for a text.
constexpr int kWindow = 14, kSpecials = 2, kIdOfLength0 = 10;
constexpr double kSumOfSpecials = 3;
// Longer texts run one at a time, so that short ones find a free thread.
constexpr double kLongText = (64 << 10) + 64;

}  // namespace

// --------------------------------------------------------------------------------------------------------------- texts

std::unique_ptr<Text> Checker::MakeText(const std::vector<int>& words, Shape shape) {
  auto text = std::make_unique<Text>();
  if (words.empty()) return text;
  std::vector<int> lengths;
  for (const int word : words) {
    if (lengths.size() % kWindow == 0) {
      size_t rest = texts_.size();
      for (size_t digit = 0; digit < kDigits; ++digit, rest /= kBase) {
        lengths.push_back(static_cast<int>(kLengthOfZero + rest % kBase));
      }
    }
    lengths.push_back(word);
  }
  for (const int length : lengths) absl::StrAppend(&text->text, std::string(static_cast<size_t>(length), 'a'), " ");
  texts_.push_back(text.get());
  if (texts_.size() > kMostTexts) Violate("a world has more texts than there are numbers for them");
  if (shape == Shape::kTokens) return text;
  if (shape == Shape::kWhole && lengths.size() > kWindow) return text;
  if (shape == Shape::kCut) lengths.resize(std::min<size_t>(lengths.size(), kWindow));
  double sum = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (i % kWindow == 0) {
      text->sequences.push_back(kSpecials);
      sum += kSumOfSpecials;
    }
    ++text->sequences.back();
    sum += kIdOfLength0 + lengths[i];
  }
  text->value = sum / static_cast<double>(text->sequences.size());
  return text;
}

Text* Checker::TextOf(std::string_view text) const {
  std::array<int32_t, kDigits> ids{};
  for (int32_t& id : ids) {
    const size_t length = text.find(' ');
    if (length == std::string_view::npos) return nullptr;
    id = static_cast<int32_t>(kIdOfLength0 + length);
    text.remove_prefix(length + 1);
  }
  return TextOf(ids);
}

Text* Checker::TextOf(std::span<const int32_t> tokens) const {
  size_t number = 0, unit = 1;
  for (size_t digit = 0; digit < kDigits; ++digit, unit *= kBase) {
    const int64_t value = tokens[digit] - static_cast<int64_t>(kIdOfLength0 + kLengthOfZero);
    if (value < 0 || value >= static_cast<int64_t>(kBase)) return nullptr;
    number += unit * static_cast<size_t>(value);
  }
  return number < texts_.size() ? texts_[number] : nullptr;
}

// --------------------------------------------------------------------------------------------------------------- calls

std::shared_ptr<Call> Checker::Shared(const Call* call) const {
  return *std::ranges::find_if(calls_, [call](const auto& known) { return known.get() == call; });
}

void Checker::Begin(const std::shared_ptr<Call>& call) {
  call->began = loop_.Now();
  call->alone = open_.empty();
  for (const std::shared_ptr<Call>& other : open_) other->alone = false;
  for (const std::unique_ptr<Text>& text : call->texts) text->call = call.get();
  calls_.push_back(call);
  open_.push_back(call);
}

void Checker::End(Call& call) {
  if (std::exchange(call.over, true)) return;
  std::erase_if(open_, [&call](const auto& other) { return other.get() == &call; });
}

// ----------------------------------------------------------------------------------------------------------- tokenizer

void Checker::JoinTokenizer(Call& call) {
  if (call.tokenized) return;
  constexpr double kTask = 64;  // The least cost of a task, in bytes of text.
  call.pool_cost = kTask;
  for (const std::unique_ptr<Text>& text : call.texts) call.pool_cost += static_cast<double>(text->text.size());
  call.pool_bytes = call.pool_cost;
  turns_.Arrive(call.client, call.pool_cost);
}

void Checker::LeaveTokenizer(Call& call) {
  if (call.pool_cost == 0) return;
  // Long texts leave a thread free for short ones, so short texts may overtake them.
  if (!turns_.Serve(call.client, std::exchange(call.pool_cost, 0)) && !options_.long_texts) {
    Violate("a client's texts were tokenized out of turn");
  }
}

void Checker::Tokenize(std::string_view text) {
  Text* const known = TextOf(text);
  if (known == nullptr) return;
  Call& call = *known->call;
  LeaveTokenizer(call);
  if (!std::exchange(call.tokenized, true) && call.pool_bytes > kLongText && LongTextRuns()) {
    Violate("long texts take the thread that they should leave to short ones");
  }
  if (!tasks_.empty()) tasks_.back().push_back(&call);
}

void Checker::EndTask() {
  for (Call* const call : tasks_.back()) {
    if (call->over || call->queued) continue;
    call->queued = true;
    call->queued_at = loop_.Now();
  }
  tasks_.pop_back();
}

bool Checker::LongTextRuns() const {
  return std::ranges::any_of(tasks_, [](const std::vector<Call*>& calls) {
    return std::ranges::any_of(calls, [](const Call* call) { return call->pool_bytes > kLongText; });
  });
}

void Checker::CheckNoTextWaits() {
  const bool long_runs = LongTextRuns();
  for (const std::shared_ptr<Call>& call : open_) {
    if (call->pool_cost > 0 && (call->pool_cost <= kLongText || !long_runs)) {
      Violate("a text waits while a thread that tokenizes is free");
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- encoder

SimulatedBatch Checker::BeginBatch(int model, const PackedBatch& packed) {
  SimulatedBatch batch{.model = model, .began = loop_.Now()};
  std::vector<int64_t> sequences;
  for (size_t i = 0; i + 1 < packed.sequence_offsets.size(); ++i) {
    const auto begin = static_cast<size_t>(packed.sequence_offsets[i]);
    sequences.push_back(packed.sequence_offsets[i + 1] - packed.sequence_offsets[i]);
    Text* const text = TextOf(std::span(packed.tokens).subspan(begin + 1));
    if (text == nullptr || text->call->model != model) {
      Violate("an encoder was given a sequence that belongs to no text of its model");
      continue;
    }
    if (options_.exact) CheckSequence(*text, sequences.back());
    if (i == 0 && options_.exact) CheckOrder(*text->call);
    ++text->started;
    if (batch.calls.empty() || batch.calls.back().get() != text->call) batch.calls.push_back(Shared(text->call));
    batch.oversized = IsOversized(sequences.back());
    batch.poisoned |= text->poison;
  }
  std::vector<const Call*> calls;
  for (const std::shared_ptr<Call>& call : batch.calls) calls.push_back(call.get());
  std::ranges::sort(calls);
  if (std::ranges::adjacent_find(calls) != calls.end()) Violate("the sequences of a call stand apart in a batch");
  ++running_[static_cast<size_t>(model)];
  oversized_running_ += batch.oversized ? 1 : 0;
  if (running() > options_.workers) Violate("more batches run than there are workers");
  CheckSize(batch, sequences);
  if (options_.exact && !batch.oversized) CheckRoomIsUsed(model, sequences);
  return batch;
}

void Checker::CheckSequence(const Text& text, int64_t tokens) {
  const Call& call = *text.call;
  if (text.started >= text.sequences.size()) return Violate("an encoder was given a sequence twice");
  if (text.sequences[text.started] != tokens) Violate("a call's sequences came out of order");
  for (const std::unique_ptr<Text>& other : call.texts) {
    if (other.get() == &text) break;
    if (other->started < other->sequences.size()) Violate("a call's texts came out of order");
  }
  if (call.over) Violate("an encoder was given a text of a cancelled call");
  if (call.deadline <= loop_.Now()) Violate("an encoder was given a text whose deadline has passed");
}

void Checker::CheckSize(const SimulatedBatch& batch, const std::vector<int64_t>& sequences) {
  int64_t tokens = 0;
  for (const int64_t sequence : sequences) {
    tokens += sequence;
    if (IsOversized(sequence) && sequences.size() > 1) Violate("an oversized sequence shares a batch");
  }
  if (sequences.size() > 1 && tokens > options_.max_batch_tokens) Violate("a batch has too many tokens");
  if (sequences.size() > options_.max_batch_sequences) Violate("a batch has too many sequences");
  if (batch.oversized && oversized_running_ > std::max(1, options_.workers / 2)) {
    Violate("oversized sequences take workers that they should leave to others");
  }
}

bool Checker::CanRun(const Call& call) const {
  return call.Waits() && call.deadline > loop_.Now() && !IsOversized(*call.Next());
}

// Checks that a waiting interactive call is not passed by bulk batches. At most one bulk batch per other lane may begin
// first: if the jobs that gave a lane its turn have expired, that lane runs its own next job, which may be bulk.
void Checker::CheckOrder(const Call& first) {
  if (first.interactive) return;
  for (const std::shared_ptr<Call>& call : open_) {
    if (!call->interactive || !CanRun(*call)) continue;
    if (++call->bulk_batches_before >= options_.models) Violate("an interactive call waits behind bulk work");
  }
}

// Checks that a batch leaves out no sequence that fits. This holds for one worker, which takes all that fits. Several
// workers leave shares for each other.
void Checker::CheckRoomIsUsed(int model, const std::vector<int64_t>& sequences) {
  constexpr size_t kMaxMisses = 64;  // After this many misses in a row, the search for a fitting sequence may stop.
  if (options_.workers > 1 || sequences.size() >= options_.max_batch_sequences || open_.size() > kMaxMisses) return;
  int64_t room = options_.max_batch_tokens;
  for (const int64_t sequence : sequences) room -= sequence;
  for (const std::shared_ptr<Call>& call : open_) {
    if (call->model == model && CanRun(*call) && *call->Next() <= room) Violate("a batch leaves out what would fit");
  }
}

void Checker::CheckCancelled(const SimulatedBatch& batch, bool cancelled) {
  const bool waiting = std::ranges::any_of(
      batch.calls, [this](const auto& call) { return !call->over && call->deadline > loop_.Now(); });
  if (!waiting && !cancelled && !options_.halves) Violate("a cancelled batch runs on");
  if (waiting && cancelled && options_.exact) Violate("a batch that a caller waits for is cancelled");
}

void Checker::EndBatch(const SimulatedBatch& batch) {
  --running_[static_cast<size_t>(batch.model)];
  oversized_running_ -= batch.oversized ? 1 : 0;
  for (const std::shared_ptr<Call>& call : batch.calls) call->inference += loop_.Now() - batch.began;
}

// --------------------------------------------------------------------------------------------------------------- quiet

void Checker::CheckIdle(int model) {
  for (const std::shared_ptr<Call>& call : open_) {
    if (call->model == model && call->queued && !call->streamed)
      Violate("a lane is idle before its calls are answered");
  }
}

void Checker::CheckQuiet(int model, const QueueState& queue) {
  if (queue.running_batches < running_[static_cast<size_t>(model)]) Violate("a batch that runs is not counted");
  if (!options_.exact) return;
  if (queue.running_batches != running_[static_cast<size_t>(model)]) Violate("a batch that does not run is counted");
  const bool undisturbed = options_.workers == 1 && options_.no_tokenization_time;
  if (undisturbed && queue.hanging != absl::ZeroDuration()) Violate("a batch that runs normally is said to hang");
  size_t jobs = 0;
  int64_t tokens = 0, largest = 0;
  absl::Duration oldest;
  for (const std::shared_ptr<Call>& call : open_) {
    if (call->model != model || !call->Waits()) continue;
    ++jobs;
    tokens += call->WaitingTokens();
    largest = std::max(largest, call->WaitingTokens());
    oldest = std::max(oldest, loop_.Now() - call->queued_at);
    const bool may_run = oversized_running_ < std::max(1, options_.workers / 2) || !IsOversized(*call->Next());
    if (may_run && running() < options_.workers) Violate("a worker is free while a call waits");
  }
  // Long calls may add four times as much, and one call may have any size.
  if (options_.max_queued_tokens > 0 && tokens > 5 * options_.max_queued_tokens + largest) {
    Violate("more tokens wait than the limit allows");
  }
  if (queue.jobs != jobs) Violate(absl::StrCat("the queue has ", queue.jobs, " jobs instead of ", jobs));
  if (queue.tokens != tokens) Violate(absl::StrCat("the queue has ", queue.tokens, " tokens instead of ", tokens));
  if (queue.oldest != oldest) Violate("the queue's oldest job has another age");
}

}  // namespace longembed
