// Finds a key that appears twice in one object of a JSON text. Parsers keep one of both and drop the other.
#ifndef LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_
#define LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_

#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace longembed {

// Returns the first key that appears twice in an object, or "" if there is none before the end of the text or its first
// syntax error. The keys of the outermost object have the depth 1; keys that are nested deeper than `deepest` are not
// compared. It reads the text by itself: nlohmann's parser with a callback, which could do both at once, takes time
// that grows with the square of an array's objects.
inline std::string FindDuplicateKey(std::string_view text, size_t deepest = std::numeric_limits<size_t>::max()) {
  using nlohmann::json;
  struct Reader final : json::json_sax_t {
    explicit Reader(size_t deepest) : deepest(deepest) {}

    bool start_object(size_t) override {
      objects.emplace_back();
      return true;
    }
    bool end_object() override {
      objects.pop_back();
      return true;
    }
    bool key(std::string& key) override {
      if (objects.size() > deepest || objects.back().insert(key).second) return true;
      duplicate = key;
      return false;  // Ends the reading.
    }
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(json::number_integer_t) override { return true; }
    bool number_unsigned(json::number_unsigned_t) override { return true; }
    bool number_float(json::number_float_t, const std::string&) override { return true; }
    bool string(std::string&) override { return true; }
    bool binary(json::binary_t&) override { return true; }
    bool start_array(size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

    const size_t deepest;
    std::vector<std::set<std::string>> objects;  // The keys of the open objects.
    std::string duplicate;
  } reader(deepest);
  json::sax_parse(text, &reader);
  return reader.duplicate;
}

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_
