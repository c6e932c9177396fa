// Reads the answers that earlier runs wrote to the file of --out, so that --resume can continue after them.
#ifndef LONGEMBED_CLIENT_CLI_RESUME_H_
#define LONGEMBED_CLIENT_CLI_RESUME_H_

#include <cstdint>
#include <string>
#include <unordered_set>

#include "absl/status/statusor.h"

namespace longembed::client {

struct EarlierAnswers {
  std::unordered_multiset<std::string> ids;  // The ids as JSON, one per answer. Several texts may share an id.
  int64_t failed = 0;                        // Answers that are errors.
  std::string recipe;                        // Of their vectors. Empty: no line tells it.
};

// Reads a file of answers. If an earlier run was interrupted and its last line is incomplete, that line is removed from
// the file. A file that does not exist has no answers. Errors leave the file unchanged: INVALID_ARGUMENT if the file
// cannot be opened or truncated, or has a line that `longembed embed` did not write, or vectors of several recipes;
// DATA_LOSS if reading fails.
absl::StatusOr<EarlierAnswers> ReadEarlierAnswers(const std::string& path);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_RESUME_H_
