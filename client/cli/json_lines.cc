#include "client/cli/json_lines.h"

#include <charconv>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace longembed::client {
namespace {

std::string FormatEmbedding(const v1::Embedding& embedding, v1::EmbedOptions::Encoding encoding) {
  if (encoding != v1::EmbedOptions::FLOAT32) {
    std::string json = absl::StrCat("{\"encoding\":\"", v1::EmbedOptions::Encoding_Name(encoding),
                                    "\",\"dimensions\":", embedding.dimensions(), ",\"data\":\"",
                                    absl::Base64Escape(embedding.packed()), "\"");
    if (encoding == v1::EmbedOptions::INT8) absl::StrAppend(&json, ",\"scale\":", FormatFloat(embedding.scale()));
    return json + "}";
  }
  std::string json = "[";
  for (const float value : embedding.values()) {
    if (json.size() > 1) json += ',';
    json += FormatFloat(value);
  }
  return json + "]";
}

std::string FormatEmbeddings(const v1::EmbedResult& result, v1::EmbedOptions::Encoding encoding) {
  if (result.embeddings_size() == 1) {
    return absl::StrCat("\"embedding\":", FormatEmbedding(result.embeddings(0), encoding));
  }
  std::string json = "\"embeddings\":[";
  for (int i = 0; i < result.embeddings_size(); ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", FormatEmbedding(result.embeddings(i), encoding));
  }
  return json + "]";
}

std::string FormatWindows(const v1::EmbedResult& result) {
  std::string json = "[";
  for (int i = 0; i < result.sequences_size(); ++i) {
    const v1::Range& content = result.sequences(i).content();
    absl::StrAppend(&json, i == 0 ? "" : ",", "[", content.start(), ",", content.end(), "]");
  }
  return json + "]";
}

}  // namespace

LineReader::LineReader(std::istream& stream, std::string name, LineFormat format)
    : stream_(stream), name_(std::move(name)), format_(format) {}

absl::StatusOr<std::optional<InputLine>> LineReader::Next() {
  for (std::string line; std::getline(stream_, line);) {
    ++line_number_;
    bytes_read_ += static_cast<int64_t>(line.size()) + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    absl::StatusOr<InputLine> parsed = Parse(line);
    if (!parsed.ok()) return parsed.status();
    return std::optional<InputLine>(*std::move(parsed));
  }
  return std::optional<InputLine>();
}

absl::StatusOr<InputLine> LineReader::Parse(const std::string& line) const {
  if (format_ == LineFormat::kText) return InputLine{.id = line_number_, .text = line};
  const auto bad = [this](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ", line ", line_number_, ": ", what));
  };
  nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return bad("not a JSON object; each line is {\"id\": ..., \"text\": \"...\"}");
  const auto text = object.find("text");
  if (text == object.end() || !text->is_string()) return bad("has no \"text\" that is a string");
  const auto id = object.find("id");
  return InputLine{.id = id == object.end() ? nlohmann::json(line_number_) : *id, .text = text->get<std::string>()};
}

void WriteResult(const nlohmann::json& id, const v1::EmbedResult& result, v1::EmbedOptions::Encoding encoding,
                 std::ostream& out) {
  out << "{\"id\":" << id.dump();
  if (result.has_error()) {
    const nlohmann::json error{{"code", result.error().code()}, {"message", result.error().message()}};
    out << ",\"error\":" << error.dump() << "}\n";
    return;
  }
  out << "," << FormatEmbeddings(result, encoding) << ",\"tokens\":" << result.tokens()
      << ",\"truncated_tokens\":" << result.truncated_tokens() << ",\"windows\":" << FormatWindows(result) << "}\n";
}

std::string FormatFloat(float value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return std::string(buffer, end);
}

}  // namespace longembed::client
