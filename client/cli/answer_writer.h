// Writes answers in the order of their inputs. The answers may arrive in any order.
#ifndef LONGEMBED_CLIENT_CLI_ANSWER_WRITER_H_
#define LONGEMBED_CLIENT_CLI_ANSWER_WRITER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command_line.h"
#include "client/cli/npy_file.h"
#include "client/cli/progress.h"
#include "longembed/v1/embedding.pb.h"
#include "system/mutex.h"

namespace longembed::client {

// Checks that vectors with the recipe `next` are comparable with those before. `recipe` is theirs and becomes `next` if
// it is empty. Errors: FAILED_PRECONDITION.
absl::Status CheckOneRecipe(const std::string& next, std::string& recipe);

// Writes answers as JSON lines. Multiple threads can call its methods without external synchronization.
class AnswerWriter {
 public:
  // All arguments must outlive the writer. If `matrix` is not nullptr, vectors are written to it, and each line names
  // the rows of its vectors. Otherwise the lines contain the vectors. All vectors must have the recipe of those that
  // `out` has already; it is empty if there are none.
  AnswerWriter(const Arguments& arguments, std::ostream& out, NpyFile* matrix, std::string recipe, Progress& progress)
      : arguments_(arguments), out_(out), matrix_(matrix), progress_(progress), recipe_(std::move(recipe)) {}

  // Announces an input, before it is sent. Inputs are numbered from 0 in the order of these calls.
  void Expect(nlohmann::json id, int64_t bytes_read);

  // Takes an answer, and writes every answer whose turn has come. Errors: the error of the input, unless --partial is
  // set; FAILED_PRECONDITION if its vectors have another recipe than those before; DATA_LOSS if the output cannot be
  // written; CANCELLED after Close.
  absl::Status Take(uint64_t number, v1::EmbedStreamResponse answer);

  // Stops writing, so that the output ends with a complete line. Waits for a line that is being written.
  void Close();

  bool some_failed() const;

 private:
  absl::Status Write(const nlohmann::json& id, const v1::EmbedStreamResponse& answer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::string> Format(const nlohmann::json& id, const v1::EmbedStreamResponse& answer);

  const Arguments& arguments_;
  std::ostream& out_;
  NpyFile* const matrix_;
  Progress& progress_;

  std::atomic<bool> closed_ = false;
  mutable Mutex mutex_;
  std::map<uint64_t, nlohmann::json> ids_ ABSL_GUARDED_BY(mutex_);  // Ids of inputs that are not written yet.
  // Answers that wait for an earlier one.
  std::map<uint64_t, v1::EmbedStreamResponse> waiting_ ABSL_GUARDED_BY(mutex_);
  std::string recipe_ ABSL_GUARDED_BY(mutex_);  // Of the vectors so far.
  uint64_t expected_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  bool some_failed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t texts_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_ANSWER_WRITER_H_
