// Reads and writes the command line's JSON lines: one JSON object per line. All functions are stateless.
#ifndef LONGEMBED_CLIENT_CLI_JSON_LINES_H_
#define LONGEMBED_CLIENT_CLI_JSON_LINES_H_

#include <cstdint>
#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::client {

// One text to embed. `id` is any JSON value. If the line has no id, or none that can be read, the line number is the
// id.
struct InputLine {
  nlohmann::json id;
  absl::StatusOr<v1::Input> input;  // INVALID_ARGUMENT if the line is wrong. The error names the line number.
};

// Checks that an answer can repeat the id as it is. Errors: INVALID_ARGUMENT if the id is nested too deeply, or has a
// number that no type of JSON's parser holds.
absl::Status CheckId(const nlohmann::json& id);

// Returns an input with the text. Errors: INVALID_ARGUMENT if the text is not UTF-8. The error names the first bad
// byte.
absl::StatusOr<v1::Input> TextInput(std::string text);

enum class LineFormat {
  kJson,  // {"id": ..., "text": ..., "ranges": [[start, end], ...]}. "id" and "ranges" are optional.
  kText,  // The whole line is the text.
};

// Reads the lines of one stream and skips blank ones. Errors contain `name` and the line number.
class LineReader {
 public:
  LineReader(std::istream& stream, std::string name, LineFormat format);

  // Returns the next line, or nullopt at the end. Errors: INVALID_ARGUMENT if reading fails. If a line is wrong, its
  // `input` is the error. A wrong line is not UTF-8, is not JSON, has no string "text", has invalid "ranges", or has an
  // id that CheckId refuses.
  absl::StatusOr<std::optional<InputLine>> Next();

  int64_t bytes_read() const { return bytes_read_; }

 private:
  std::istream& stream_;
  const std::string name_;
  const LineFormat format_;
  int64_t line_number_ = 0;
  int64_t bytes_read_ = 0;
};

// The rows [start, end) of a matrix.
struct RowRange {
  int64_t start = 0;
  int64_t end = 0;
};

// Writes the answer of one input as a JSON line:
//
//   {"id":..., "embedding":[...], "tokens":N, "truncated_tokens":N, "windows":[[start,end],...], "method":"PLAIN",
//    "recipe":"..."}
//
// "method" is that of the first window. Vectors with equal recipes are comparable. If there are several embeddings, the
// line has "embeddings" instead of "embedding". If each embedding stands for a part of the text, the line also has
// "ranges". If truncated_tokens is an estimate, it also has "truncated_tokens_estimated":true. If the input failed, the
// line is {"id":..., "error":{"code":..., "message":...}}. In an encoding other than FLOAT32 an embedding is
// {"encoding":..., "dimensions":N, "data":"base64"}, plus "scale" for INT8. A sparse embedding is {"dimensions":N,
// "indices":[...], "values":[...]}, or has "indices" next to "data". If `rows` is set, "rows":[start,end] replaces the
// embeddings.
void WriteResult(const nlohmann::json& id, const v1::EmbedResult& result, const std::string& recipe,
                 v1::EmbedOptions::Encoding encoding, std::ostream& out,
                 const std::optional<RowRange>& rows = std::nullopt);

// Returns the shortest decimal that reads back as the same float.
std::string FormatFloat(float value);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_JSON_LINES_H_
