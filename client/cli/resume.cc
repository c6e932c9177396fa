#include "client/cli/resume.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "client/cli/answer_writer.h"
#include "client/cli/json_lines.h"

namespace longembed::client {
namespace {

constexpr std::string_view kLineStart = "{\"id\":";  // The start of every line that WriteResult writes.

bool IsAnswer(const nlohmann::json& object) {
  return object.is_object() && object.contains("id") && CheckId(object["id"]).ok() &&
         (object.contains("embedding") || object.contains("embeddings") || object.contains("error")) &&
         (!object.contains("recipe") || object["recipe"].is_string());
}

// Returns true if a last line without a newline may come from an interrupted run. Any other text must be kept.
bool MayBeCutOff(const std::string& line, const nlohmann::json& object) {
  if (!object.is_discarded()) return IsAnswer(object);
  return line.starts_with(kLineStart) || kLineStart.starts_with(line);
}

}  // namespace

absl::StatusOr<EarlierAnswers> ReadEarlierAnswers(const std::string& path) {
  EarlierAnswers earlier;
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) {
    if (errno == ENOENT) return earlier;
    return absl::InvalidArgumentError(absl::StrCat(path, " cannot be opened: ", std::strerror(errno)));
  }
  std::uintmax_t whole = 0;  // Bytes of complete lines.
  int64_t number = 0;
  bool cut_off = false;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    cut_off = file.eof() && MayBeCutOff(line, object);
    if (cut_off) break;
    if (!IsAnswer(object)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ", line ", number, ": is not an answer of `longembed embed`; give another file to --out"));
    }
    if (const absl::Status status = CheckOneRecipe(object.value("recipe", ""), earlier.recipe); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ", line ", number, ": ", std::string(status.message())));
    }
    earlier.ids.insert(object["id"].dump());
    earlier.failed += object.contains("error") ? 1 : 0;
    whole += line.size() + 1;
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, " cannot be read after line ", number));
  if (cut_off) {
    std::error_code error;
    std::filesystem::resize_file(path, whole, error);
    if (error) return absl::InvalidArgumentError(absl::StrCat(path, " cannot be cut: ", error.message()));
  }
  return earlier;
}

}  // namespace longembed::client
