#include "server/http/json.h"

#include <algorithm>
#include <charconv>

#include "model/text/utf8.h"
#include "server/errors/errors.h"
#include "system/duplicate_keys.h"

namespace longembed {
namespace {

using nlohmann::json;

constexpr int64_t kMaxValues = 1 << 20;
constexpr int kMaxDepth = 32;  // The server's messages nest half as deep.

struct Shape {
  int64_t values = 1;  // An upper bound.
  int64_t keys = 0;
  int64_t key_bytes = 0;
  int64_t longest_string = 0;
  int depth = 0;  // Number of open arrays and objects.
};

// Counts values and depth outside strings, whether or not the text is valid JSON.
Shape ShapeOf(std::string_view text) {
  Shape shape;
  int depth = 0;
  size_t string_begin = 0, string_end = 0;  // The latest string.
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        string_begin = i;
        for (++i; i < text.size() && text[i] != '"'; ++i) {
          if (text[i] == '\\') ++i;
        }
        string_end = std::min(i, text.size());
        shape.longest_string = std::max(shape.longest_string, static_cast<int64_t>(string_end - string_begin));
        break;
      case '[':
      case '{':
        shape.depth = std::max(shape.depth, ++depth);
        ++shape.values;
        break;
      case ']':
      case '}':
        --depth;
        break;
      case ':':
        ++shape.keys;
        shape.key_bytes += static_cast<int64_t>(string_end - string_begin);
        string_begin = string_end;
        [[fallthrough]];
      case ',':
        ++shape.values;
        break;
      default:
        break;
    }
  }
  return shape;
}

}  // namespace

int64_t JsonParsingBytes(std::string_view text) {
  // A value has 16 bytes. A string has 32 more, and its characters, which are no more than those of the text.
  constexpr int64_t kBytesPerValue = 48;
  // A key has a node of 80 bytes in its object, and one of 64 in the set that finds duplicates while its object is
  // read, each with a copy of the key. Its colon counts as a value already.
  constexpr int64_t kBytesPerKey = 80 + 64 - kBytesPerValue;
  const Shape shape = ShapeOf(text);
  if (shape.values > kMaxValues) return static_cast<int64_t>(text.size());  // Refused before it is parsed.
  // The parser has two buffers for the current string, each of which doubles as it grows.
  constexpr int64_t kBuffers = 4;
  return static_cast<int64_t>(text.size()) + shape.values * kBytesPerValue + shape.keys * kBytesPerKey +
         2 * shape.key_bytes + kBuffers * shape.longest_string;
}

absl::StatusOr<json> ParseJson(std::string_view text) {
  const Shape shape = ShapeOf(text);
  if (shape.values > kMaxValues) return TooManyElements("", shape.values, kMaxValues);
  if (shape.depth > kMaxDepth) return JsonTooDeep(shape.depth, kMaxDepth);
  try {
    json value = json::parse(text);
    // The parser takes a NUL byte for the end of the text, and ignores what follows.
    const size_t nul = text.find('\0');
    if (nul != std::string_view::npos) {
      return MalformedJson(static_cast<int64_t>(nul) + 1, static_cast<int64_t>(text.size()));
    }
    if (const std::string key = FindDuplicateKey(text); !key.empty()) return DuplicateField(key);
    return value;
  } catch (const json::parse_error& error) {
    return MalformedJson(static_cast<int64_t>(error.byte), static_cast<int64_t>(text.size()));
  } catch (const json::out_of_range&) {
    return JsonNumberTooLarge();
  }
}

std::string JsonText(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

void AppendJsonString(std::string_view value, std::string& json_text) { json_text += JsonText(json(value)); }

namespace {

template <typename Number>
void AppendNumber(Number value, std::string& json_text) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value);
  json_text.append(digits, end.ptr);
}

}  // namespace

void AppendJsonNumber(float value, std::string& json_text) { AppendNumber(value, json_text); }
void AppendJsonNumber(double value, std::string& json_text) { AppendNumber(value, json_text); }

}  // namespace longembed
