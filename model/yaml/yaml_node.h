// Parses a strict subset of YAML into a plain tree: one document without anchors, aliases, merge keys or tags.
#ifndef LONGEMBED_MODEL_YAML_YAML_NODE_H_
#define LONGEMBED_MODEL_YAML_YAML_NODE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace longembed {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMapping };

  Kind kind = Kind::kNull;
  int line = 1;                    // Line in the file, from 1.
  std::string scalar;              // Text as in the file. It is not converted to a number or a boolean.
  bool quoted = false;             // A quoted scalar is always text.
  std::vector<YamlNode> items;     // Items of a list.
  std::vector<YamlEntry> entries;  // Entries of a mapping, in the file's order.

  // Returns the value of a key, or nullptr if the mapping does not have the key.
  const YamlNode* Find(const std::string& key) const;
};

struct YamlEntry {
  YamlNode key;  // A scalar.
  YamlNode value;
};

inline constexpr size_t kMaxYamlBytes = 1 << 20;
inline constexpr int kMaxYamlDepth = 16;

// Returns whether the text is UTF-8.
bool IsUtf8(std::string_view text);

// Parses untrusted text. An empty text is a null node. Errors: INVALID_ARGUMENT that begins with "line N: ". Errors do
// not quote the text, which may contain secrets.
absl::StatusOr<YamlNode> ParseYaml(const std::string& text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_YAML_YAML_NODE_H_
