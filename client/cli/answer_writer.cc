#include "client/cli/answer_writer.h"

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/json_lines.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

void WriteText(const nlohmann::json& id, const v1::EmbedResult& result, std::ostream& out) {
  if (result.has_error()) {
    out << absl::StrFormat("%-20s error: %s\n", id.dump(), result.error().message());
    return;
  }
  for (const v1::Embedding& embedding : result.embeddings()) {
    out << absl::StrFormat("%-20s %5d tokens", id.dump(), result.tokens());
    if (result.truncated_tokens() > 0) {
      out << absl::StrFormat(", %s%d cut away", result.truncated_tokens_estimated() ? "about " : "",
                             result.truncated_tokens());
    }
    out << ": [";
    for (int i = 0; i < std::min(4, embedding.values_size()); ++i)
      out << absl::StrFormat("%+.4f, ", embedding.values(i));
    out << "...] of ";
    if (embedding.has_indices()) out << embedding.indices().ids_size() << " terms in ";
    out << embedding.dimensions() << "\n";
  }
}

}  // namespace

absl::Status CheckOneRecipe(const std::string& next, std::string& recipe) {
  if (next.empty()) return absl::OkStatus();
  if (recipe.empty()) recipe = next;
  if (recipe == next) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("vectors of recipe ", next,
                                                    " are not comparable with those before, of recipe ", recipe,
                                                    ": the server's model, its settings or the options have changed"));
}

void AnswerWriter::Expect(nlohmann::json id, int64_t bytes_read) {
  const MutexLock lock(mutex_);
  ids_.emplace(expected_++, std::move(id));
  bytes_read_ = bytes_read;
}

absl::Status AnswerWriter::Take(uint64_t number, v1::EmbedStreamResponse answer) {
  const MutexLock lock(mutex_);
  waiting_.emplace(number, std::move(answer));
  for (auto turn = waiting_.find(next_); turn != waiting_.end() && !closed_; turn = waiting_.find(next_)) {
    RETURN_IF_ERROR(Write(ids_.at(next_), turn->second));
    ids_.erase(next_++);
    waiting_.erase(turn);
  }
  return closed_ ? absl::CancelledError("interrupted") : absl::OkStatus();
}

absl::StatusOr<std::string> AnswerWriter::Format(const nlohmann::json& id, const v1::EmbedStreamResponse& answer) {
  const v1::EmbedResult& result = answer.result();
  std::ostringstream line;
  if (arguments_.text_output) {
    WriteText(id, result, line);
    return line.str();
  }
  std::optional<RowRange> rows;
  if (matrix_ != nullptr) {
    rows = RowRange{.start = matrix_->rows()};
    for (const v1::Embedding& embedding : result.embeddings()) {
      RETURN_IF_ERROR(matrix_->Append(embedding));
    }
    rows->end = matrix_->rows();
  }
  WriteResult(id, result, answer.recipe(), arguments_.options.encoding(), line, rows);
  return line.str();
}

absl::Status AnswerWriter::Write(const nlohmann::json& id, const v1::EmbedStreamResponse& answer) {
  const v1::EmbedResult& result = answer.result();
  if (result.has_error() && !arguments_.partial) {
    return absl::Status(static_cast<absl::StatusCode>(result.error().code()),
                        absl::StrCat("the text with the id ", id.dump(), ": ", result.error().message()));
  }
  if (!result.has_error()) RETURN_IF_ERROR(CheckOneRecipe(answer.recipe(), recipe_));
  const absl::StatusOr<std::string> line = Format(id, answer);
  if (!line.ok()) return line.status();
  RETURN_IF_ERROR(WriteOutput(*line, out_));
  some_failed_ |= result.has_error();
  tokens_ += result.tokens();
  progress_.Update(++texts_, tokens_, bytes_read_);
  return absl::OkStatus();
}

void AnswerWriter::Close() {
  closed_ = true;  // Set before taking the lock; otherwise Take could keep winning the lock.
  const MutexLock lock(mutex_);
  progress_.Wipe();
}

bool AnswerWriter::some_failed() const {
  const MutexLock lock(mutex_);
  return some_failed_;
}

}  // namespace longembed::client
