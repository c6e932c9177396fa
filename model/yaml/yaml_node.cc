#include "model/yaml/yaml_node.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cstdint>
#include <sstream>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longembed {
namespace {

constexpr char kWriteOut[] = "are not supported; write the values out";
constexpr char kNotUtf8[] = "holds text that is not UTF-8, or one of the escapes \\N and \\_; write the character";

struct Refusal {
  int line;
  std::string what;
};

[[noreturn]] void Refuse(const YAML::Mark& mark, const std::string& what) { throw Refusal{mark.line + 1, what}; }

// Returns the length of the UTF-8 character at the beginning of a text; 0 if none begins there. model/text, which has
// the same check for long texts, depends on this folder.
size_t CharacterLength(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  uint32_t point = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return 0;
    point = point << 6 | (byte & 0x3fu);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = point >= 0xd800 && point <= 0xdfff;
  return point < kLeast[length] || surrogate || point > 0x10ffff ? 0 : length;
}

// Builds the tree, and refuses everything outside the supported subset of YAML.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode& root() { return root_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { Add(mark, "?", anchor, {}); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { Refuse(mark, absl::StrCat("aliases ", kWriteOut)); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // yaml-cpp passes bytes of a file as they are, and writes its escapes \N and \_ as bytes of Latin-1.
    if (!IsUtf8(value)) Refuse(mark, kNotUtf8);
    Add(mark, tag, anchor, {.kind = YamlNode::Kind::kScalar, .scalar = value, .quoted = tag == "!"});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kMapping);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  // A list or mapping whose end has not been read.
  struct OpenNode {
    YamlNode* node;
    bool has_key = false;  // The next node is the value of the last key.
  };

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    if (open_.size() >= kMaxYamlDepth) Refuse(mark, absl::StrCat("is nested deeper than ", kMaxYamlDepth, " levels"));
    YamlNode& node = Add(mark, tag, anchor, {.kind = kind});
    open_.push_back({.node = &node});
  }

  // Adds a node to its parent. A parent grows only while none of its other children is open, so pointers to open nodes
  // stay valid.
  YamlNode& Add(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode node) {
    if (anchor != YAML::NullAnchor) Refuse(mark, absl::StrCat("anchors ", kWriteOut));
    if (!tag.empty() && tag != "?" && tag != "!") Refuse(mark, absl::StrCat("tags ", kWriteOut));
    node.line = mark.line + 1;
    if (open_.empty()) return root_ = std::move(node);
    OpenNode& parent = open_.back();
    if (parent.node->kind == YamlNode::Kind::kList) return parent.node->items.emplace_back(std::move(node));
    if (parent.has_key) {
      parent.has_key = false;
      // The parser gives a missing value the line of the next node, so the line of its key is used.
      if (node.kind == YamlNode::Kind::kNull) node.line = parent.node->entries.back().key.line;
      return parent.node->entries.back().value = std::move(node);
    }
    return AddKey(mark, parent, std::move(node));
  }

  static YamlNode& AddKey(const YAML::Mark& mark, OpenNode& mapping, YamlNode key) {
    if (key.kind != YamlNode::Kind::kScalar) Refuse(mark, "a key must be text");
    if (!key.quoted && key.scalar == "<<") Refuse(mark, absl::StrCat("merge keys ", kWriteOut));
    mapping.has_key = true;
    mapping.node->entries.push_back({.key = std::move(key), .value = {}});
    return mapping.node->entries.back().key;
  }

  YamlNode root_;
  std::vector<OpenNode> open_;
};

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

const YamlNode* YamlNode::Find(const std::string& key) const {
  for (const auto& [name, value] : entries) {
    if (name.scalar == key) return &value;
  }
  return nullptr;
}

absl::StatusOr<YamlNode> ParseYaml(const std::string& text) {
  if (text.size() > kMaxYamlBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("line 1: the file has ", text.size(), " bytes; at most ", kMaxYamlBytes, " are read"));
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder builder, rest;
    if (!parser.HandleNextDocument(builder)) return YamlNode{};
    if (parser.HandleNextDocument(rest)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", rest.root().line, ": a second document begins; the file must hold one"));
    }
    return std::move(builder.root());
  } catch (const Refusal& refusal) {
    return absl::InvalidArgumentError(absl::StrCat("line ", refusal.line, ": ", refusal.what));
  } catch (const YAML::Exception& error) {
    // Only the part before a colon is used, because the rest quotes the file.
    return absl::InvalidArgumentError(
        absl::StrCat("line ", error.mark.line + 1, ": ", error.msg.substr(0, error.msg.find(':'))));
  }
}

}  // namespace longembed
