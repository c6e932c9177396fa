// Reads the answers that earlier runs wrote to the file of --out, so that --resume continues after them.
#ifndef LONGEMBED_CLIENT_CLI_RESUME_H_
#define LONGEMBED_CLIENT_CLI_RESUME_H_

#include <cstdint>
#include <string>
#include <unordered_set>

#include "absl/status/statusor.h"

namespace longembed::client {

struct EarlierAnswers {
  std::unordered_multiset<std::string> ids;  // As JSON, one for each answer: ids need not tell texts apart.
  int64_t failed = 0;                        // Answers that are an error.
};

// Reads a file of answers. A last line that was cut off, because the run that wrote it was ended, is removed from the
// file. A file that does not exist has no answers. Errors, which leave the file as it is: INVALID_ARGUMENT for a file
// that cannot be opened or cut, and for a line that `longembed embed` did not write; DATA_LOSS where reading fails.
absl::StatusOr<EarlierAnswers> ReadEarlierAnswers(const std::string& path);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_RESUME_H_
