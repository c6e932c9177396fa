// The texts that a command works on, one after the other.
#ifndef LONGEMBED_CLIENT_CLI_TEXT_READER_H_
#define LONGEMBED_CLIENT_CLI_TEXT_READER_H_

#include <fstream>
#include <optional>
#include <vector>

#include "client/cli/command_line.h"
#include "client/cli/json_lines.h"

namespace longembed::client {

// The texts of a TextSource one after the other, read on demand. Not thread-safe.
class TextReader {
 public:
  TextReader(const TextSource& source, std::istream& in);

  // nullopt at the end. Errors (INVALID_ARGUMENT): a file cannot be read. A wrong line has its error in its input.
  absl::StatusOr<std::optional<InputLine>> Next();

  // Of all files together; 0 when the input is not made of files.
  int64_t total_bytes() const { return total_bytes_; }
  int64_t bytes_read() const { return bytes_of_finished_ + (reader_.has_value() ? reader_->bytes_read() : 0); }

 private:
  // False when there is nothing left to open.
  absl::StatusOr<bool> OpenNext();

  const TextSource& source_;
  std::istream& in_;
  size_t next_text_ = 0;
  size_t next_file_ = 0;
  bool read_standard_input_ = false;
  std::ifstream file_;
  std::optional<LineReader> reader_;
  int64_t total_bytes_ = 0;
  int64_t bytes_of_finished_ = 0;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_TEXT_READER_H_
