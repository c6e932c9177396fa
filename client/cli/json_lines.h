// The command line's input and output: one JSON object a line. Stateless functions over streams.
#ifndef LONGEMBED_CLIENT_CLI_JSON_LINES_H_
#define LONGEMBED_CLIENT_CLI_JSON_LINES_H_

#include <cstdint>
#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::client {

// One text to embed. `id` is any JSON value; a line without one, or with none that can be read, is known by its number.
struct InputLine {
  nlohmann::json id;
  absl::StatusOr<v1::Input> input;  // Errors (INVALID_ARGUMENT): the line is wrong; names it by its number.
};

// Errors (INVALID_ARGUMENT): not UTF-8; names the first bad byte.
absl::StatusOr<v1::Input> TextInput(std::string text);

enum class LineFormat {
  kJson,  // {"id": ..., "text": ..., "ranges": [[start, end], ...]}; id and ranges may be left out
  kText,  // The line is the text.
};

// Reads lines of one stream, skipping blank ones. `name` and the line's number stand in errors.
class LineReader {
 public:
  LineReader(std::istream& stream, std::string name, LineFormat format);

  // nullopt at the end. Errors (INVALID_ARGUMENT): reading failed. A line that is wrong (not UTF-8, not JSON, without a
  // "text" that is a string, with "ranges" that are none) has its error in its input.
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

// {"id":..., "embedding":[...], "tokens":N, "truncated_tokens":N, "windows":[[start,end],...], "method":"PLAIN"}, the
// method being that of the first window; "embeddings" in place of "embedding" when there are several, and "ranges" when
// each stands for a part of the text; {"id":..., "error":{"code":..., "message":...}} for an input that failed. An
// embedding in an encoding other than FLOAT32 is {"encoding":..., "dimensions":N, "data":"base64"} and, for INT8,
// "scale". A sparse one is {"dimensions":N, "indices":[...], "values":[...]}, or has "indices" beside "data". With
// `rows` "rows":[start,end] stands in place of the embeddings.
void WriteResult(const nlohmann::json& id, const v1::EmbedResult& result, v1::EmbedOptions::Encoding encoding,
                 std::ostream& out, const std::optional<RowRange>& rows = std::nullopt);

// The shortest decimal that reads back as the same float.
std::string FormatFloat(float value);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_JSON_LINES_H_
