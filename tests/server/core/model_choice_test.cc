#include "server/core/model_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/errors/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelChoiceTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, ModelManifest manifest = FakeManifest()) {
    auto model = std::make_unique<const Model>(Model{std::move(manifest), std::make_unique<FakeTokenizer>()});
    ASSERT_TRUE(models_
                    .Add(std::make_unique<ServedModel>(name, std::move(model), std::make_unique<FakeEncoder>(),
                                                       Device{scheduler_, admission_}, ServedModelOptions{}, metrics_))
                    .ok());
  }

  absl::StatusOr<ModelChoice> Resolve(std::string_view name) const {
    return ResolveModel(models_, profiles_, name, "options.model");
  }

  void ExpectRefused(std::string_view name, absl::StatusCode code, const std::string& reason, const std::string& said) {
    const absl::Status status = Resolve(name).status();
    EXPECT_EQ(status.code(), code) << name;
    EXPECT_EQ(ErrorField(status), "options.model") << name;
    EXPECT_EQ(ErrorReason(status), reason) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(said)) << name;
  }

  FakeClock clock_;
  Admission admission_{{}, clock_};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  Profiles profiles_ = *ParseProfiles({{"archive", R"({"windows": {"tokens": 6}})"},
                                       {"b:c", R"({"windows": {"tokens": 8}})"},
                                       {"rotary", R"({"yarn": {}})"}});
  ModelRegistry models_;
};

TEST_F(ModelChoiceTest, AnAliasIsItsModelUnderItsProfile) {
  Add("e5");
  const absl::StatusOr<ModelChoice> choice = Resolve("e5:archive");
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->model->name(), "e5");
  EXPECT_EQ(choice->profile, "archive");
  EXPECT_EQ(choice->extension, &profiles_.at("archive"));
  EXPECT_EQ(Resolve("e5:b:c")->profile, "b:c");
  for (const char* name : {"", "e5"}) {
    EXPECT_EQ(Resolve(name)->model->name(), "e5");
    EXPECT_EQ(Resolve(name)->extension, nullptr);
  }
}

TEST_F(ModelChoiceTest, UnknownNamesListTheKnownOnes) {
  Add("e5");
  Add("rope", FakeRopeManifest());
  ExpectRefused("bge", absl::StatusCode::kNotFound, "UNKNOWN_MODEL",
                "is \"bge\"; this server has: e5, e5:archive, e5:b:c, rope, rope:archive, rope:b:c, rope:rotary");
  ExpectRefused("bge:archive", absl::StatusCode::kNotFound, "UNKNOWN_MODEL", "is \"bge:archive\"");
  ExpectRefused(":archive", absl::StatusCode::kNotFound, "UNKNOWN_MODEL", "is \":archive\"");
  ExpectRefused("e5:nope", absl::StatusCode::kNotFound, "UNKNOWN_PROFILE",
                "is \"e5:nope\"; the model e5 has the profiles: archive, b:c");
  ExpectRefused("e5:", absl::StatusCode::kNotFound, "UNKNOWN_PROFILE", "is \"e5:\"; the model e5 has the profiles");
  ExpectRefused("e5:rotary", absl::StatusCode::kInvalidArgument, "METHOD_NOT_AVAILABLE",
                "this model does not support the profile \"rotary\": yarn");
  ExpectRefused("", absl::StatusCode::kInvalidArgument, "MODEL_NOT_NAMED", "this one has: e5, e5:archive");
  profiles_.clear();
  ExpectRefused("e5:archive", absl::StatusCode::kNotFound, "UNKNOWN_PROFILE", "the model e5 has no profiles");
}

TEST_F(ModelChoiceTest, AModelsNameWins) {
  Add("e5");
  Add("e5:latest");
  EXPECT_EQ(Resolve("e5:latest")->model->name(), "e5:latest");
  EXPECT_EQ(Resolve("e5:latest")->extension, nullptr);
  EXPECT_EQ(Resolve("e5:latest:archive")->model->name(), "e5:latest");
  EXPECT_EQ(Resolve("e5:latest:archive")->profile, "archive");
  EXPECT_TRUE(CheckAliases(models_.manifests(), profiles_).ok());
}

TEST_F(ModelChoiceTest, AModelNamedLikeAnAliasIsRefused) {
  Add("e5");
  Add("e5:archive");
  EXPECT_THAT(std::string(CheckAliases(models_.manifests(), profiles_).message()),
              HasSubstr("\"e5:archive\" would name two things"));
}

TEST_F(ModelChoiceTest, TwoAliasesOfOneNameAreRefused) {
  profiles_ = *ParseProfiles({{"b:c", R"({"windows": {}})"}, {"c", R"({"windows": {}})"}});
  Add("a");
  Add("a:b");
  EXPECT_THAT(std::string(CheckAliases(models_.manifests(), profiles_).message()),
              HasSubstr("\"a:b:c\" would name two things"));
}

TEST_F(ModelChoiceTest, ListsTheAliasesThatAModelSupports) {
  Add("e5");
  EXPECT_THAT(AliasesOf(models_.manifests().front(), profiles_), ElementsAre("e5:archive", "e5:b:c"));
}

}  // namespace
}  // namespace longembed
