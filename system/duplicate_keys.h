// Finds a key that appears twice in one object of a JSON text. Parsers keep one of both and drop the other.
#ifndef LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_
#define LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace longembed {

// A callback of nlohmann::json::parse. Pass it by std::ref.
class DuplicateKeys {
 public:
  // Keys that are nested deeper are not compared. The keys of the outermost object have the depth 1.
  explicit DuplicateKeys(int deepest = std::numeric_limits<int>::max()) : deepest_(deepest) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) objects_.emplace_back();
    if (event == Event::object_end) objects_.pop_back();
    if (event != Event::key || depth > deepest_) return true;
    const auto& key = parsed.get_ref<const std::string&>();
    if (!objects_.back().insert(key).second && duplicate_.empty()) duplicate_ = key;
    return true;
  }

  // Returns the first duplicate, or "".
  const std::string& duplicate() const { return duplicate_; }

 private:
  const int deepest_;
  std::vector<std::set<std::string>> objects_;
  std::string duplicate_;
};

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_DUPLICATE_KEYS_H_
