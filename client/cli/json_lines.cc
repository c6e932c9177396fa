#include "client/cli/json_lines.h"

#include <algorithm>
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

template <typename Messages, typename RangeOf>
std::string FormatRanges(const Messages& messages, RangeOf range_of) {
  std::string json = "[";
  for (const auto& message : messages) {
    const v1::Range& range = range_of(message);
    absl::StrAppend(&json, json.size() == 1 ? "" : ",", "[", range.start(), ",", range.end(), "]");
  }
  return json + "]";
}

// False where it is no list of pairs of numbers.
bool ReadRanges(const nlohmann::json& list, std::vector<std::pair<uint32_t, uint32_t>>& ranges) {
  if (!list.is_array()) return false;
  for (const nlohmann::json& pair : list) {
    const bool good = pair.is_array() && pair.size() == 2 && std::all_of(pair.begin(), pair.end(), [](const auto& n) {
                        return n.is_number_unsigned() && n.template get<uint64_t>() <= UINT32_MAX;
                      });
    if (!good) return false;
    ranges.emplace_back(pair[0].get<uint32_t>(), pair[1].get<uint32_t>());
  }
  return true;
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
  if (stream_.bad())
    return absl::InvalidArgumentError(absl::StrCat(name_, " cannot be read after line ", line_number_));
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
  InputLine input{.id = id == object.end() ? nlohmann::json(line_number_) : *id, .text = text->get<std::string>()};
  const auto ranges = object.find("ranges");
  if (ranges != object.end() && !ReadRanges(*ranges, input.ranges)) {
    return bad("has \"ranges\" that are no list of [start, end] in code points");
  }
  return input;
}

void FillInput(InputLine line, v1::Input& input) {
  input.set_text(std::move(line.text));
  for (const auto& [start, end] : line.ranges) {
    v1::Range& range = *input.add_ranges();
    range.set_start(start);
    range.set_end(end);
  }
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
      << ",\"truncated_tokens\":" << result.truncated_tokens() << ",\"windows\":"
      << FormatRanges(
             result.sequences(), [](const auto& s) -> const auto& { return s.content(); });
  if (result.embeddings_size() > 0 && result.embeddings(0).has_range()) {
    out << ",\"ranges\":"
        << FormatRanges(
               result.embeddings(), [](const auto& e) -> const auto& { return e.range(); });
  }
  const v1::Method::Kind kind = result.sequences_size() > 0 ? result.sequences(0).method().kind() : v1::Method::PLAIN;
  out << ",\"method\":\"" << v1::Method::Kind_Name(kind) << "\"}\n";
}

std::string FormatFloat(float value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return std::string(buffer, end);
}

}  // namespace longembed::client
