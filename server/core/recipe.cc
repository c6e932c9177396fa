#include "server/core/recipe.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/manifest/sha256.h"

namespace longembed {
namespace {

const char* NameOf(Truncate truncate) {
  switch (truncate) {
    case Truncate::kNone:
      return "NONE";
    case Truncate::kEnd:
      return "END";
    case Truncate::kStart:
      return "START";
  }
  return "";
}

std::string FilesJson(const ModelManifest& model) {
  // A std::map is sorted already; file names and sums need no escaping.
  return absl::StrCat("{",
                      absl::StrJoin(model.file_sha256, ",",
                                    [](std::string* out, const auto& file) {
                                      absl::StrAppend(out, "\"", file.first, "\":\"", file.second, "\"");
                                    }),
                      "}");
}

}  // namespace

std::string Recipe(const ModelManifest& model, const RecipeOptions& options) {
  const std::string json =
      absl::StrCat("{\"dimensions\":", options.dimensions, ",\"encoding\":\"", options.encoding,
                   "\",\"extension\":{},\"files\":", FilesJson(model),
                   ",\"normalize\":", options.normalize ? "true" : "false", ",\"plan_version\":", kPlanVersion,
                   ",\"precision\":\"", model.precision, "\",\"truncate\":\"", NameOf(options.truncate), "\"}");
  return Sha256(json).substr(0, 32);
}

}  // namespace longembed
