// Reads the texts that a command works on.
#ifndef LONGEMBED_CLIENT_CLI_TEXT_READER_H_
#define LONGEMBED_CLIENT_CLI_TEXT_READER_H_

#include <fstream>
#include <optional>
#include <vector>

#include "client/cli/command_line.h"
#include "client/cli/json_lines.h"

namespace longembed::client {

// Reads the texts of a TextSource one after the other, on demand. Not thread-safe.
class TextReader {
 public:
  TextReader(const TextSource& source, std::istream& in);

  // Returns the next text, or nullopt at the end. Errors: INVALID_ARGUMENT if a file cannot be read. If a line is
  // wrong, its `input` is the error.
  absl::StatusOr<std::optional<InputLine>> Next();

  // Size of all files together. 0 if the input does not come from files.
  int64_t total_bytes() const { return total_bytes_; }
  int64_t bytes_read() const { return bytes_of_finished_ + (reader_.has_value() ? reader_->bytes_read() : 0); }

 private:
  // Opens the next file. Returns false if there is none.
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
