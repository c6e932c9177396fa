#include "client/cli/json_lines.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "system/duplicate_keys.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // Some editors write it at the start of a file.

std::string FormatValues(const v1::Embedding& embedding) {
  std::string json = "[";
  for (const float value : embedding.values()) {
    if (json.size() > 1) json += ',';
    json += FormatFloat(value);
  }
  return json + "]";
}

std::string FormatEmbedding(const v1::Embedding& embedding, v1::EmbedOptions::Encoding encoding) {
  const bool packed = encoding != v1::EmbedOptions::FLOAT32;
  if (!packed && !embedding.has_indices()) return FormatValues(embedding);
  std::string json = "{";
  if (packed) absl::StrAppend(&json, "\"encoding\":\"", v1::EmbedOptions::Encoding_Name(encoding), "\",");
  absl::StrAppend(&json, "\"dimensions\":", embedding.dimensions());
  if (embedding.has_indices()) {
    absl::StrAppend(&json, ",\"indices\":[", absl::StrJoin(embedding.indices().ids(), ","), "]");
  }
  if (packed) absl::StrAppend(&json, ",\"data\":\"", absl::Base64Escape(embedding.packed()), "\"");
  if (!packed) absl::StrAppend(&json, ",\"values\":", FormatValues(embedding));
  if (encoding == v1::EmbedOptions::INT8) absl::StrAppend(&json, ",\"scale\":", FormatFloat(embedding.scale()));
  return json + "}";
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

// Appends the ranges to `input`. Returns false if `list` is not a list of pairs of numbers.
bool ReadRanges(const nlohmann::json& list, v1::Input& input) {
  if (!list.is_array()) return false;
  for (const nlohmann::json& pair : list) {
    const bool good = pair.is_array() && pair.size() == 2 && std::all_of(pair.begin(), pair.end(), [](const auto& n) {
                        return n.is_number_unsigned() && n.template get<uint64_t>() <= UINT32_MAX;
                      });
    if (!good) return false;
    v1::Range& range = *input.add_ranges();
    range.set_start(pair[0].get<uint32_t>());
    range.set_end(pair[1].get<uint32_t>());
  }
  return true;
}

// The most levels of lists and objects in an id. Copying and writing JSON recurses, so that a deeper one could overflow
// the stack.
constexpr int kMaxIdDepth = 100;

bool IsDeeper(const nlohmann::json& value, int levels) {
  if (!value.is_structured()) return false;
  return levels == 0 || std::any_of(value.begin(), value.end(),
                                    [levels](const auto& element) { return IsDeeper(element, levels - 1); });
}

// Returns true for a whole number beyond 64 bits. The parser reads it as a double, which changes its digits.
bool HasLongNumber(const nlohmann::json& value) {
  if (value.is_structured()) return std::any_of(value.begin(), value.end(), HasLongNumber);
  return value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63;
}

// Returns the "id" of a line that is not valid JSON, if the id comes before the error. Otherwise returns `otherwise`.
nlohmann::json FindId(const std::string& line, nlohmann::json otherwise) {
  using Event = nlohmann::json::parse_event_t;
  bool id_is_next = false;
  const auto visit = [&](int depth, Event event, nlohmann::json& parsed) {
    if (depth != 1) return true;
    const bool is_value = event == Event::value || event == Event::array_end || event == Event::object_end;
    if (id_is_next && is_value && CheckId(parsed).ok()) otherwise = parsed;
    if (event == Event::key || is_value) id_is_next = event == Event::key && parsed == "id";
    return true;
  };
  [[maybe_unused]] const auto discarded = nlohmann::json::parse(line, visit, /*allow_exceptions=*/false);
  return otherwise;
}

absl::StatusOr<v1::Input> ReadInput(const nlohmann::json& object) {
  const auto text = object.find("text");
  if (text == object.end() || !text->is_string()) {
    return absl::InvalidArgumentError("has no \"text\" that is a string");
  }
  v1::Input input;
  input.set_text(text->get<std::string>());
  const auto ranges = object.find("ranges");
  if (ranges != object.end() && !ReadRanges(*ranges, input)) {
    return absl::InvalidArgumentError("has \"ranges\" that are not a list of [start, end] in code points");
  }
  return input;
}

absl::Status CheckUtf8(const std::string& text) {
  try {
    static_cast<void>(nlohmann::json(text).dump());
    return absl::OkStatus();
  } catch (const nlohmann::json::type_error& error) {
    const std::string words = error.what();  // The message has the form "[...] invalid UTF-8 byte at index 2: 0xFF".
    const size_t where = std::min(words.find(" byte at"), words.size());
    return absl::InvalidArgumentError(absl::StrCat("not UTF-8:", words.substr(where)));
  }
}

// Returns an error that says why the line is not a JSON object, with the parser's reason if the line is not JSON.
absl::Status WhyNoObject(const std::string& line) {
  std::string why;
  try {
    static_cast<void>(nlohmann::json::parse(line));
  } catch (const nlohmann::json::parse_error& error) {
    // The message has the form "[...] parse error at line 1, column 9: syntax error while parsing value - WHY; last
    // read: '...'".
    const std::string words = error.what();
    const size_t dash = words.find(" - ");
    if (dash != std::string::npos) {
      why =
          absl::StrCat(" (at byte ", error.byte, ": ", words.substr(dash + 3, words.find("; ", dash) - dash - 3), ")");
    }
  } catch (const nlohmann::json::out_of_range&) {
    why = " (it has a number beyond the range of a double)";
  }
  return absl::InvalidArgumentError(
      absl::StrCat("not a JSON object", why, "; each line is {\"id\": ..., \"text\": \"...\"}"));
}

InputLine ParseJson(const std::string& line, int64_t number) {
  const nlohmann::json object = nlohmann::json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
  // The parser takes a NUL byte for the end of the line, and ignores what follows.
  const size_t nul = line.find('\0');
  if (object.is_object() && nul == std::string::npos) {
    const auto found = object.find("id");
    const absl::Status checked = found == object.end() ? absl::OkStatus() : CheckId(*found);
    if (!checked.ok()) return {.id = number, .input = checked};
    const nlohmann::json id = found == object.end() ? nlohmann::json(number) : *found;
    const std::string duplicate = FindDuplicateKey(line, /*deepest=*/1);
    if (duplicate.empty()) return {.id = id, .input = ReadInput(object)};
    return {.id = id, .input = absl::InvalidArgumentError(absl::StrCat("has \"", duplicate, "\" twice"))};
  }
  absl::Status status = CheckUtf8(line);
  if (status.ok() && object.is_object()) {
    status = absl::InvalidArgumentError(absl::StrCat("not a JSON object (at byte ", nul + 1, ": a NUL byte)"));
  }
  if (status.ok()) status = WhyNoObject(line);
  return {.id = FindId(line, number), .input = std::move(status)};
}

}  // namespace

absl::Status CheckId(const nlohmann::json& id) {
  if (IsDeeper(id, kMaxIdDepth)) {
    return absl::InvalidArgumentError(absl::StrCat("has an \"id\" nested deeper than ", kMaxIdDepth, " levels"));
  }
  if (!HasLongNumber(id)) return absl::OkStatus();
  return absl::InvalidArgumentError("has an \"id\" with a number beyond 64 bits; write it as a string");
}

absl::StatusOr<v1::Input> TextInput(std::string text) {
  RETURN_IF_ERROR(CheckUtf8(text));
  v1::Input input;
  input.set_text(std::move(text));
  return input;
}

LineReader::LineReader(std::istream& stream, std::string name, LineFormat format)
    : stream_(stream), name_(std::move(name)), format_(format) {}

absl::StatusOr<std::optional<InputLine>> LineReader::Next() {
  for (std::string line; std::getline(stream_, line);) {
    if (++line_number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
    bytes_read_ += static_cast<int64_t>(line.size()) + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    InputLine parsed = format_ == LineFormat::kJson
                           ? ParseJson(line, line_number_)
                           : InputLine{.id = line_number_, .input = TextInput(std::move(line))};
    if (!parsed.input.ok()) {
      parsed.input = absl::InvalidArgumentError(
          absl::StrCat(name_, ", line ", line_number_, ": ", parsed.input.status().message()));
    }
    return std::optional<InputLine>(std::move(parsed));
  }
  if (stream_.bad())
    return absl::InvalidArgumentError(absl::StrCat(name_, " cannot be read after line ", line_number_));
  return std::optional<InputLine>();
}

void WriteResult(const nlohmann::json& id, const v1::EmbedResult& result, const std::string& recipe,
                 v1::EmbedOptions::Encoding encoding, std::ostream& out, const std::optional<RowRange>& rows) {
  out << "{\"id\":" << id.dump();
  if (result.has_error()) {
    const nlohmann::json error{{"code", result.error().code()}, {"message", result.error().message()}};
    // The message may contain a file name, which need not be UTF-8.
    out << ",\"error\":" << error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "}\n";
    return;
  }
  out << ","
      << (rows.has_value() ? absl::StrCat("\"rows\":[", rows->start, ",", rows->end, "]")
                           : FormatEmbeddings(result, encoding))
      << ",\"tokens\":" << result.tokens() << ",\"truncated_tokens\":" << result.truncated_tokens()
      << (result.truncated_tokens_estimated() ? ",\"truncated_tokens_estimated\":true" : "") << ",\"windows\":"
      << FormatRanges(
             result.sequences(), [](const auto& s) -> const auto& { return s.content(); });
  if (result.embeddings_size() > 0 && result.embeddings(0).has_range()) {
    out << ",\"ranges\":"
        << FormatRanges(
               result.embeddings(), [](const auto& e) -> const auto& { return e.range(); });
  }
  const v1::Method::Kind kind = result.sequences_size() > 0 ? result.sequences(0).method().kind() : v1::Method::PLAIN;
  out << ",\"method\":\"" << v1::Method::Kind_Name(kind) << "\"";
  if (!recipe.empty()) out << ",\"recipe\":" << nlohmann::json(recipe).dump();
  out << "}\n";
}

std::string FormatFloat(float value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return std::string(buffer, end);
}

}  // namespace longembed::client
