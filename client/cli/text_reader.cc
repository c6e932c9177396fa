#include "client/cli/text_reader.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace longembed::client {

TextReader::TextReader(const TextSource& source, std::istream& in) : source_(source), in_(in) {
  for (const std::string& file : source_.files) {
    if (file == kStandardInput) continue;
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    if (!error) total_bytes_ += static_cast<int64_t>(size);
  }
}

absl::StatusOr<std::optional<InputLine>> TextReader::Next() {
  if (next_text_ < source_.texts.size()) {
    absl::StatusOr<v1::Input> input = TextInput(source_.texts[next_text_++]);
    if (!input.ok()) {
      input = absl::InvalidArgumentError(absl::StrCat("--text, number ", next_text_, ": ", input.status().message()));
    }
    return std::optional<InputLine>(InputLine{.id = next_text_, .input = std::move(input)});
  }
  while (true) {
    if (!reader_.has_value()) {
      const absl::StatusOr<bool> opened = OpenNext();
      if (!opened.ok()) return opened.status();
      if (!*opened) return std::optional<InputLine>();
    }
    auto line = reader_->Next();
    if (!line.ok() || line->has_value()) return line;
    bytes_of_finished_ += reader_->bytes_read();
    reader_.reset();
  }
}

absl::StatusOr<bool> TextReader::OpenNext() {
  if (next_file_ < source_.files.size()) {
    const std::string& name = source_.files[next_file_++];
    if (name == kStandardInput) {
      reader_.emplace(in_, "standard input", source_.format);
      return true;
    }
    file_ = std::ifstream(name);
    if (!file_.is_open())
      return absl::InvalidArgumentError(absl::StrCat(name, " cannot be opened: ", std::strerror(errno)));
    reader_.emplace(file_, name, source_.format);
    return true;
  }
  if (!source_.texts.empty() || !source_.files.empty() || read_standard_input_) return false;
  read_standard_input_ = true;
  reader_.emplace(in_, "standard input", source_.format);
  return true;
}

}  // namespace longembed::client
