#include "model/yaml/yaml_mapping.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace longembed {
namespace {

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

// Returns whether the text begins with an integer in plain decimal digits, without leading zeros.
bool StartsDecimal(const std::string& text) {
  const size_t digits = text.starts_with('-') ? 1 : 0;
  if (digits >= text.size() || !IsDigit(text[digits])) return false;
  return text[digits] != '0' || digits + 1 == text.size() || !IsDigit(text[digits + 1]);
}

bool IsDecimal(const std::string& text) {
  return StartsDecimal(text) && std::all_of(text.begin() + 1, text.end(), IsDigit);
}

bool IsMilliseconds(absl::Duration duration) { return duration == absl::Trunc(duration, absl::Milliseconds(1)); }

}  // namespace

YamlMapping::YamlMapping(const YamlNode& node, std::string path, YamlWords words, std::vector<Problem>* problems)
    : node_(node), path_(std::move(path)), words_(words), problems_(problems) {
  if (node.kind != YamlNode::Kind::kMapping) Fail(node, "", "must be a mapping of keys to values");
  std::set<std::string> seen;
  for (const auto& [key, value] : node.entries) {
    if (seen.insert(key.scalar).second) continue;
    words_ == YamlWords::kSecret ? Fail(key, "", "has a key twice") : Fail(key, key.scalar, "appears twice");
  }
}

bool YamlMapping::failed() const { return problems_ != nullptr && !problems_->empty(); }

void YamlMapping::Collect(const std::function<void()>& read) const {
  if (problems_ == nullptr) return read();
  try {
    read();
  } catch (const Problem& problem) {
    problems_->push_back(problem);
  }
}

void YamlMapping::ReadInteger(const std::string& key, int64_t& value, int64_t least, int64_t most) {
  Collect([&] {
    if (const YamlNode* const node = Node(key)) value = ToInteger(key, *node, least, most);
  });
}

int64_t YamlMapping::ToInteger(const std::string& key, const YamlNode& node, int64_t least, int64_t most) const {
  int64_t value = 0;
  if (node.kind != YamlNode::Kind::kScalar || node.quoted || !IsDecimal(node.scalar) ||
      !absl::SimpleAtoi(node.scalar, &value) || value < least || value > most) {
    Fail(node, key, absl::StrCat("must be a whole number from ", least, " to ", most, ", in plain digits", Not(node)));
  }
  return value;
}

double YamlMapping::ToNumber(const std::string& key, const YamlNode& node, double least, double most) const {
  double read = 0;
  if (node.kind != YamlNode::Kind::kScalar || node.quoted || !StartsDecimal(node.scalar) ||
      node.scalar.find_first_not_of("-+.eE0123456789") != std::string::npos || !absl::SimpleAtod(node.scalar, &read) ||
      !std::isfinite(read) || read < least || read > most) {
    Fail(node, key, absl::StrCat("must be a number from ", least, " to ", most, Not(node)));
  }
  return read;
}

void YamlMapping::Number(const std::string& key, double& value, double least, double most) {
  Collect([&] {
    if (const YamlNode* const node = Node(key)) value = ToNumber(key, *node, least, most);
  });
}

void YamlMapping::Numbers(const std::string& key, std::vector<double>& values, double least, double most) {
  const YamlNode* const list = List(key);
  if (list == nullptr) return;
  values.clear();
  for (const YamlNode& item : list->items) values.push_back(ToNumber(key, item, least, most));
}

void YamlMapping::Flag(const std::string& key, bool& value) {
  Collect([&] {
    const YamlNode* const node = Node(key);
    if (node == nullptr) return;
    const bool on = node->scalar == "true";
    if (node->kind != YamlNode::Kind::kScalar || node->quoted || (!on && node->scalar != "false")) {
      Fail(*node, key, absl::StrCat("must be true or false", Not(*node)));
    }
    value = on;
  });
}

void YamlMapping::Text(const std::string& key, std::string& value) {
  Collect([&] {
    if (const YamlNode* const node = Scalar(key, "a string")) value = node->scalar;
  });
}

void YamlMapping::Texts(const std::string& key, std::map<std::string, std::string>& values) {
  Section(key, [&values](YamlMapping& mapping) {
    for (const auto& [name, value] : mapping.node_.entries) mapping.Text(name.scalar, values[name.scalar]);
  });
}

void YamlMapping::Json(const std::string& key, std::string& json) {
  const YamlNode* const node = node_.Find(key);
  if (node != nullptr && node->kind == YamlNode::Kind::kScalar && node->scalar.starts_with("{")) {
    RefuseDuplicates(key, node->scalar);
    return Text(key, json);
  }
  Section(key, [&json](YamlMapping& mapping) {
    json.clear();
    mapping.AppendJson(json);
  });
}

void YamlMapping::RefuseDuplicates(const std::string& key, const std::string& json) const {
  const absl::StatusOr<YamlNode> parsed = ParseYaml(json);  // JSON is YAML. If this is neither, its reader says why.
  if (!parsed.ok()) return;
  Collect([&] {
    ReadMapping(*parsed, absl::StrCat(path_, key, "."), [](YamlMapping& mapping) {
      for (const auto& [name, value] : mapping.node_.entries) mapping.Ignore(name.scalar);
    });
  });
}

void YamlMapping::AppendJson(std::string& json) {
  json += "{";
  const char* separator = "";
  for (const auto& [key, value] : node_.entries) {
    absl::StrAppend(&json, separator, "\"", absl::Utf8SafeCEscape(key.scalar), "\":");
    separator = ",";
    if (value.kind == YamlNode::Kind::kMapping) {
      Section(key.scalar, [&json](YamlMapping& below) { below.AppendJson(json); });
    } else {
      std::string text;
      Text(key.scalar, text);
      absl::StrAppend(&json, "\"", absl::Utf8SafeCEscape(text), "\"");
    }
  }
  json += "}";
}

void YamlMapping::Duration(const std::string& key, absl::Duration& value, const DurationRange& range) {
  Collect([&] {
    const YamlNode* const node = Scalar(key, "a duration such as 500ms, 10s or 2m");
    if (node != nullptr) value = ToDuration(key, *node, range);
  });
}

absl::Duration YamlMapping::ToDuration(const std::string& key, const YamlNode& node, const DurationRange& range) const {
  absl::Duration read;
  if (!absl::ParseDuration(node.scalar, &read) || read < absl::ZeroDuration()) {
    Fail(node, key, absl::StrCat("must be a duration such as 500ms, 10s or 2m", Not(node)));
  }
  const bool in_range = (read >= range.least && read <= range.most) || (range.or_zero && read == absl::ZeroDuration());
  if (!in_range || !IsMilliseconds(read)) {
    Fail(node, key,
         absl::StrCat("must be ", range.or_zero ? "0s, or " : "", "from ", absl::FormatDuration(range.least), " to ",
                      absl::FormatDuration(range.most), " in whole milliseconds", Not(node)));
  }
  return read;
}

int YamlMapping::ReadChoice(const std::string& key, const std::vector<std::string>& names) {
  int chosen = -1;
  Collect([&] {
    const std::string expected = absl::StrCat("one of ", absl::StrJoin(names, ", "));
    const YamlNode* const node = Scalar(key, expected.c_str());
    if (node == nullptr) return;
    const auto found = std::find(names.begin(), names.end(), node->scalar);
    if (found == names.end()) Fail(*node, key, absl::StrCat("must be ", expected, Not(*node)));
    chosen = static_cast<int>(found - names.begin());
  });
  return chosen;
}

void YamlMapping::ReadMapping(const YamlNode& node, const std::string& path,
                              const std::function<void(YamlMapping&)>& read) const {
  YamlMapping mapping(node, path, words_, problems_);
  read(mapping);
  mapping.RefuseUnknownKeys();
}

void YamlMapping::Section(const std::string& key, const std::function<void(YamlMapping&)>& read) {
  Collect([&] {
    if (const YamlNode* const node = Node(key)) ReadMapping(*node, absl::StrCat(path_, key, "."), read);
  });
}

void YamlMapping::Sections(const std::string& key, const std::function<void(YamlMapping&)>& read) {
  const YamlNode* list = nullptr;
  Collect([&] { list = List(key); });
  for (size_t i = 0; list != nullptr && i < list->items.size(); ++i) {
    Collect([&] { ReadMapping(list->items[i], absl::StrCat(path_, key, "[", i, "]."), read); });
  }
}

void YamlMapping::Ignore(const std::string& key) {
  known_.insert(key);
  const YamlNode* const node = node_.Find(key);
  if (node == nullptr || node->kind != YamlNode::Kind::kMapping) return;
  ReadMapping(*node, absl::StrCat(path_, key, "."), [](YamlMapping& mapping) {
    for (const auto& [name, value] : mapping.node_.entries) mapping.Ignore(name.scalar);
  });
}

const YamlNode* YamlMapping::Node(const std::string& key) {
  known_.insert(key);
  const YamlNode* const node = node_.Find(key);
  if (node != nullptr && node->kind == YamlNode::Kind::kNull) {
    Fail(*node, key, "is empty; write a value, or leave the key out");
  }
  return node;
}

const YamlNode* YamlMapping::Scalar(const std::string& key, const char* kind) {
  const YamlNode* const node = Node(key);
  if (node != nullptr && node->kind != YamlNode::Kind::kScalar) Fail(*node, key, absl::StrCat("must be ", kind));
  return node;
}

const YamlNode* YamlMapping::List(const std::string& key) {
  const YamlNode* const node = Node(key);
  if (node != nullptr && node->kind != YamlNode::Kind::kList) Fail(*node, key, "must be a list");
  return node;
}

void YamlMapping::Require(const std::string& key) {
  Collect([&] {
    if (node_.Find(key) == nullptr) Fail(key, "is missing");
  });
}

void YamlMapping::RefuseUnknownKeys() const {
  for (const auto& [key, value] : node_.entries) {
    if (known_.contains(key.scalar)) continue;
    const std::string known = absl::StrCat("; known here: ", absl::StrJoin(known_, ", "));
    Collect([&, &key = key] {
      // The key is not quoted: if the space after its colon is missing, it includes the value, which may be a secret.
      if (words_ == YamlWords::kSecret) Fail(key, "", absl::StrCat("has an unknown key", known));
      Fail(key, key.scalar, absl::StrCat("is unknown", known));
    });
  }
}

void YamlMapping::Fail(const std::string& key, const std::string& what) const {
  const YamlNode* const node = node_.Find(key);
  Fail(node == nullptr ? node_ : *node, key, what);
}

void YamlMapping::Fail(const YamlNode& node, const std::string& key, const std::string& what) const {
  std::string place = path_ + key;
  if (place.ends_with('.')) place.pop_back();
  throw Problem{node.line, absl::StrCat(place.empty() ? "the file" : place, " ", what)};
}

std::string YamlMapping::Not(const YamlNode& node) const {
  if (words_ == YamlWords::kSecret || node.kind != YamlNode::Kind::kScalar) return "";
  return absl::StrCat(", not ", node.quoted ? "the text " : "", node.scalar);
}

absl::Status ReadYamlNode(const YamlNode& root, const std::function<void(YamlMapping&)>& read, YamlWords words,
                          YamlProblems problems) {
  std::vector<YamlMapping::Problem> found;
  try {
    YamlMapping mapping(root, "", words, problems == YamlProblems::kAll ? &found : nullptr);
    read(mapping);
    mapping.RefuseUnknownKeys();
  } catch (const YamlMapping::Problem& problem) {
    found.push_back(problem);
  }
  if (found.empty()) return absl::OkStatus();
  std::ranges::stable_sort(found, {}, &YamlMapping::Problem::line);
  return absl::InvalidArgumentError(absl::StrJoin(found, "\n", [](std::string* out, const auto& problem) {
    absl::StrAppend(out, problem.line == 0 ? "" : absl::StrCat("line ", problem.line, ": "), problem.what);
  }));
}

absl::Status ReadYaml(const std::string& text, const std::function<void(YamlMapping&)>& read, YamlWords words,
                      YamlProblems problems) {
  const absl::StatusOr<YamlNode> root = ParseYaml(text);
  return root.ok() ? ReadYamlNode(*root, read, words, problems) : root.status();
}

}  // namespace longembed
