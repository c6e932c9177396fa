// A strict subset of YAML as a plain tree: one document, no anchors, aliases, merge keys or tags.
#ifndef LONGEMBED_MODEL_YAML_YAML_NODE_H_
#define LONGEMBED_MODEL_YAML_YAML_NODE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longembed {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMapping };

  Kind kind = Kind::kNull;
  int line = 1;                    // Of the file, from 1.
  std::string scalar;              // As in the file: nothing is converted to a number or a truth value here.
  bool quoted = false;             // A quoted scalar is always text.
  std::vector<YamlNode> items;     // Of a list.
  std::vector<YamlEntry> entries;  // Of a mapping, in their order.

  // The value of a key; nullptr where the mapping has none.
  const YamlNode* Find(const std::string& key) const;
};

struct YamlEntry {
  YamlNode key;  // A scalar.
  YamlNode value;
};

inline constexpr size_t kMaxYamlBytes = 1 << 20;
inline constexpr int kMaxYamlDepth = 16;

// Takes untrusted text. An empty text is a null. Errors: INVALID_ARGUMENT that starts with "line N: "; it holds no word
// of the text, which may be a secret.
absl::StatusOr<YamlNode> ParseYaml(const std::string& text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_YAML_YAML_NODE_H_
