#include "server/core/recipe.h"

#include <gtest/gtest.h>

#include "model/manifest/sha256.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

const RecipeOptions kPlain{.dimensions = 4, .encoding = "FLOAT32"};

TEST(RecipeTest, IsTheHashOfCanonicalJson) {
  const std::string json =
      R"({"dimensions":4,"encoding":"FLOAT32","extension":{},"files":{"encoder.pt":"00"},"normalize":true,)"
      R"("plan_version":1,"precision":"fp32","truncate":"NONE"})";
  EXPECT_EQ(Recipe(FakeManifest(), kPlain), Sha256(json).substr(0, 32));
}

TEST(RecipeTest, ChangesWithWhatShapesVectorsOnly) {
  const std::string plain = Recipe(FakeManifest(), kPlain);
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 2, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 4, .encoding = "INT8"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 4, .normalize = false, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.truncate = Truncate::kEnd, .dimensions = 4, .encoding = "FLOAT32"}));
  ModelManifest other = FakeManifest();
  other.file_sha256["encoder.pt"] = "01";
  EXPECT_NE(plain, Recipe(other, kPlain));
  ModelManifest renamed = FakeManifest();
  renamed.name = "another name";
  EXPECT_EQ(plain, Recipe(renamed, kPlain));
}

}  // namespace
}  // namespace longembed
