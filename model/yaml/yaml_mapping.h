// Reads the keys of a YAML mapping into variables that hold their defaults. Defines the syntax of numbers, durations
// and booleans in the project's YAML files. Ambiguous values are refused with their line and key.
//
//   struct Limits { int64_t max_bytes = 100; absl::Duration max_wait = absl::Seconds(1); };
//   auto describe = [](auto& keys, Limits& limits) {   // `keys` is a YamlMapping, or lists or compares keys.
//     keys.Integer("max_bytes", limits.max_bytes, 1, 1 << 20);
//     keys.Duration("max_wait", limits.max_wait, {.least = absl::Milliseconds(100), .most = absl::Hours(1)});
//   };
//   Limits limits;
//   absl::Status status = ReadYaml(text, [&](YamlMapping& root) { describe(root, limits); });
#ifndef LONGEMBED_MODEL_YAML_YAML_MAPPING_H_
#define LONGEMBED_MODEL_YAML_YAML_MAPPING_H_

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/yaml/yaml_node.h"

namespace longembed {

// The allowed values of a duration, which must also be whole milliseconds.
struct DurationRange {
  absl::Duration least = absl::ZeroDuration();
  absl::Duration most;
  // Whether 0s is allowed in addition to [least, most]. It disables what the duration limits.
  bool or_zero = false;
};

// Whether errors may quote the file's text. kSecret: they must not, because it may contain secrets.
enum class YamlWords { kQuoted, kSecret };

// Whether the first problem of a file is reported, or all that can be found, one per line. With kAll, a variable with a
// problem keeps its default, and checks across variables must allow for that.
enum class YamlProblems { kFirst, kAll };

// A YAML mapping. Each method below that takes `key` and a variable reads the key's value into the variable. An absent
// key leaves the variable unchanged; a key without a value is refused. Methods throw on problems; ReadYaml catches.
class YamlMapping {
 public:
  // Reads an integer in plain decimal digits, without leading zeros, signs other than -, separators, exponents,
  // hexadecimal or quotes.
  template <std::integral Value>
  void Integer(const std::string& key, Value& value, int64_t least, int64_t most) {
    int64_t read = value;
    ReadInteger(key, read, least, most);
    value = static_cast<Value>(read);
  }
  // Reads a list of such integers.
  template <std::integral Value>
  void Integers(const std::string& key, std::vector<Value>& values, int64_t least, int64_t most) {
    if (const YamlNode* const node = List(key)) values = ToIntegers<Value>(key, *node, least, most);
  }
  // Reads a finite decimal number, such as 10000, 0.5 or 1.5e6.
  void Number(const std::string& key, double& value, double least, double most);
  // Reads a list of such numbers.
  void Numbers(const std::string& key, std::vector<double>& values, double least, double most);
  // Reads true or false.
  void Flag(const std::string& key, bool& value);
  // Reads any scalar, without conversion.
  void Text(const std::string& key, std::string& value);
  // Reads a mapping of text to text.
  void Texts(const std::string& key, std::map<std::string, std::string>& values);
  // Reads quoted JSON as it is, or converts a mapping to JSON. In the conversion all scalars become strings, which
  // protobuf's JSON reader converts to the type of each field.
  void Json(const std::string& key, std::string& json);
  // Reads a duration, such as 500ms, 10s or 1m30s.
  void Duration(const std::string& key, absl::Duration& value, const DurationRange& range);

  template <typename Value>
  void Choice(const std::string& key, Value& value, const std::vector<std::pair<const char*, Value>>& choices) {
    std::vector<std::string> names;
    for (const auto& [name, choice] : choices) names.push_back(name);
    if (const int chosen = ReadChoice(key, names); chosen >= 0) value = choices[static_cast<size_t>(chosen)].second;
  }

  // Reads a nested mapping: calls `read` with it.
  void Section(const std::string& key, const std::function<void(YamlMapping&)>& read);

  // Reads a list of mappings: calls `read` with each.
  void Sections(const std::string& key, const std::function<void(YamlMapping&)>& read);

  // Returns whether a problem has been found. Only with YamlProblems::kAll.
  bool failed() const;

  // Returns the mapping's node, for keys that the file's author chooses.
  const YamlNode& node() const { return node_; }

  // Marks the key as known, without reading its value.
  void Ignore(const std::string& key);

  // Reports a problem if the key is absent.
  void Require(const std::string& key);

  // Throws a problem with the key's value: "line 3: PATH.KEY WHAT".
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;
  [[noreturn]] void Fail(const YamlNode& node, const std::string& key, const std::string& what) const;

 private:
  struct Problem {
    int line;  // 0 if the node is not from a file.
    std::string what;
  };

  const YamlNode* Node(const std::string& key);
  void AppendJson(std::string& json);
  // Refuses a key that appears twice in one object of quoted JSON: protobuf's reader would drop one of the two.
  void RefuseDuplicates(const std::string& key, const std::string& json) const;

  friend absl::Status ReadYamlNode(const YamlNode& root, const std::function<void(YamlMapping&)>& read, YamlWords words,
                                   YamlProblems problems);

  // Problems are added to `problems`; if it is nullptr, the first one is thrown.
  YamlMapping(const YamlNode& node, std::string path, YamlWords words, std::vector<Problem>* problems);

  // Calls `read`, which reads a key. If all problems are collected, adds a problem instead of throwing it.
  void Collect(const std::function<void()>& read) const;

  void RefuseUnknownKeys() const;
  void ReadMapping(const YamlNode& node, const std::string& path, const std::function<void(YamlMapping&)>& read) const;
  void ReadInteger(const std::string& key, int64_t& value, int64_t least, int64_t most);
  int ReadChoice(const std::string& key, const std::vector<std::string>& names);
  double ToNumber(const std::string& key, const YamlNode& node, double least, double most) const;
  int64_t ToInteger(const std::string& key, const YamlNode& node, int64_t least, int64_t most) const;
  absl::Duration ToDuration(const std::string& key, const YamlNode& node, const DurationRange& range) const;
  const YamlNode* Scalar(const std::string& key, const char* kind);
  const YamlNode* List(const std::string& key);
  // Returns ", not VALUE" if errors may quote values, else "".
  std::string Not(const YamlNode& node) const;

  template <typename Value>
  std::vector<Value> ToIntegers(const std::string& key, const YamlNode& list, int64_t least, int64_t most) const {
    std::vector<Value> values;
    for (const YamlNode& item : list.items) values.push_back(static_cast<Value>(ToInteger(key, item, least, most)));
    return values;
  }

  const YamlNode& node_;
  const std::string path_;  // Path of this mapping with a final dot; empty for the root.
  const YamlWords words_;
  std::vector<Problem>* const problems_;
  std::set<std::string> known_;
};

// Parses the text and calls `read` with its root, which must be a mapping. Keys that `read` did not read are refused,
// as are keys that appear twice. Accepts untrusted text. Errors: INVALID_ARGUMENT, "line N: PATH.KEY what is wrong".
absl::Status ReadYaml(const std::string& text, const std::function<void(YamlMapping&)>& read,
                      YamlWords words = YamlWords::kQuoted, YamlProblems problems = YamlProblems::kFirst);

// Reads a tree in the same way. Errors of nodes with line 0 name no line.
absl::Status ReadYamlNode(const YamlNode& root, const std::function<void(YamlMapping&)>& read,
                          YamlWords words = YamlWords::kQuoted, YamlProblems problems = YamlProblems::kFirst);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_YAML_YAML_MAPPING_H_
