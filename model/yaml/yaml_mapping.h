// Reads the keys of a YAML mapping into fields that hold their defaults. Defines the syntax of numbers,
// durations and truth values in the project's files; ambiguous values are refused, with line and key.
//
//   struct Limits { int64_t max_bytes = 100; absl::Duration max_wait = absl::Seconds(1); };
//   auto describe = [](auto& keys, Limits& limits) {   // YamlMapping reads by it; others may list or compare.
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

// The resolution of durations: whole milliseconds.
struct DurationRange {
  absl::Duration least = absl::ZeroDuration();
  absl::Duration most;
  bool or_zero = false;  // 0s is allowed though `least` is more: it switches off what the duration bounds.
};

// Secrets that a file may contain: its text then stays out of errors.
enum class YamlWords { kQuoted, kSecret };

// Number of problems reported for a file: the first, or all that can be found, a line each. After a problem a field
// keeps its default; checks across fields must allow for that.
enum class YamlProblems { kFirst, kAll };

// A key that is absent leaves its field as it is; one without a value is refused. Its methods throw; ReadYaml catches.
class YamlMapping {
 public:
  // Plain decimal digits: no leading zeros, signs other than -, separators, exponents, hexadecimal or quotes.
  template <std::integral Value>
  void Integer(const std::string& key, Value& value, int64_t least, int64_t most) {
    int64_t read = value;
    ReadInteger(key, read, least, most);
    value = static_cast<Value>(read);
  }
  // Lists of such integers.
  template <std::integral Value>
  void Integers(const std::string& key, std::vector<Value>& values, int64_t least, int64_t most) {
    if (const YamlNode* const node = List(key)) values = ToIntegers<Value>(key, *node, least, most);
  }
  // A finite decimal number, such as 10000, 0.5 or 1.5e6.
  void Number(const std::string& key, double& value, double least, double most);
  // Lists of such numbers.
  void Numbers(const std::string& key, std::vector<double>& values, double least, double most);
  // true or false.
  void Flag(const std::string& key, bool& value);
  // Any scalar, as it stands in the file.
  void Text(const std::string& key, std::string& value);
  // Text -> text.
  void Texts(const std::string& key, std::map<std::string, std::string>& values);
  // JSON in quotes, or a mapping, as JSON whose scalars are all strings, which protobuf's JSON reader turns into what
  // each field holds.
  void Json(const std::string& key, std::string& json);
  // Such as 500ms, 10s or 1m30s.
  void Duration(const std::string& key, absl::Duration& value, const DurationRange& range);

  template <typename Value>
  void Choice(const std::string& key, Value& value, const std::vector<std::pair<const char*, Value>>& choices) {
    std::vector<std::string> names;
    for (const auto& [name, choice] : choices) names.push_back(name);
    if (const int chosen = ReadChoice(key, names); chosen >= 0) value = choices[static_cast<size_t>(chosen)].second;
  }

  // A mapping below this one, whose keys `read` reads.
  void Section(const std::string& key, const std::function<void(YamlMapping&)>& read);

  // A list of mappings: calls `read` for each.
  void Sections(const std::string& key, const std::function<void(YamlMapping&)>& read);

  // Whether a problem has been found, with YamlProblems::kAll.
  bool failed() const;

  // The mapping itself, for keys that its author names.
  const YamlNode& node() const { return node_; }

  // Marks the key as known, whatever its value.
  void Ignore(const std::string& key);

  // Refuses the mapping if the key is absent.
  void Require(const std::string& key);

  // Refuses the file because of the key's value: "line 3: PATH.KEY WHAT".
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;
  [[noreturn]] void Fail(const YamlNode& node, const std::string& key, const std::string& what) const;

 private:
  struct Problem {
    int line;  // 0: the node is of no file.
    std::string what;
  };

  const YamlNode* Node(const std::string& key);
  void AppendJson(std::string& json);

  friend absl::Status ReadYamlNode(const YamlNode& root, const std::function<void(YamlMapping&)>& read, YamlWords words,
                                   YamlProblems problems);

  // `problems` collects; nullptr: the first is thrown.
  YamlMapping(const YamlNode& node, std::string path, YamlWords words, std::vector<Problem>* problems);

  // Reads a key. Its problem, if it has one, does not end the reading of others where all are collected.
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
  // ", not VALUE", where values may be quoted.
  std::string Not(const YamlNode& node) const;

  template <typename Value>
  std::vector<Value> ToIntegers(const std::string& key, const YamlNode& list, int64_t least, int64_t most) const {
    std::vector<Value> values;
    for (const YamlNode& item : list.items) values.push_back(static_cast<Value>(ToInteger(key, item, least, most)));
    return values;
  }

  const YamlNode& node_;
  const std::string path_;  // Of this mapping, with a dot at its end; empty: the root.
  const YamlWords words_;
  std::vector<Problem>* const problems_;
  std::set<std::string> known_;
};

// Parses the text and calls `read` with its root, which must be a mapping. Keys that `read` did not read are
// refused, as is a key that appears twice. Takes untrusted text. Errors: INVALID_ARGUMENT, "line N: PATH.KEY what is
// wrong".
absl::Status ReadYaml(const std::string& text, const std::function<void(YamlMapping&)>& read,
                      YamlWords words = YamlWords::kQuoted, YamlProblems problems = YamlProblems::kFirst);

// The same from a tree. Errors of a node on line 0 name no line.
absl::Status ReadYamlNode(const YamlNode& root, const std::function<void(YamlMapping&)>& read,
                          YamlWords words = YamlWords::kQuoted, YamlProblems problems = YamlProblems::kFirst);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_YAML_YAML_MAPPING_H_
