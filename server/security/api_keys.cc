#include "server/security/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <yaml-cpp/yaml.h>

#include <exception>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace longembed {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);

std::array<unsigned char, 32> Sha256(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

// Collects what one entry says; the words of its errors never hold a key.
class Entry {
 public:
  Entry(const YAML::Node& node, size_t index) : node_(node), path_(absl::StrCat("keys[", index, "]")) {}

  absl::Status Read(ApiKey& key) const {
    if (!node_.IsMap()) return Wrong(" must be a mapping");
    std::set<std::string> seen;
    for (const auto& member : node_) {
      const auto name = member.first.as<std::string>("");
      // It is not told: where the blank after a colon is missing it holds the key.
      if (!kKnown.contains(name)) {
        return Wrong(" has an unknown member; known: key, max_concurrent_calls, max_queued_tokens, name, sha256");
      }
      if (!seen.insert(name).second) return Wrong(absl::StrCat(".", name, " is there twice"));
    }
    key.name = Text("name");
    if (key.name.empty()) return Wrong(".name is missing");
    for (const auto& [field, limit] : {std::pair{"max_queued_tokens", &key.max_queued_tokens},
                                       std::pair{"max_concurrent_calls", &key.max_concurrent_calls}}) {
      if (!node_[field].IsDefined()) continue;
      *limit = node_[field].as<int64_t>(0);
      if (*limit < 1) return Wrong(absl::StrCat(".", field, " must be a whole number of at least 1"));
    }
    return ReadSecret(key);
  }

 private:
  absl::Status ReadSecret(ApiKey& key) const {
    const bool plain = node_["key"].IsDefined(), hashed = node_["sha256"].IsDefined();
    if (plain == hashed) return Wrong(" needs exactly one of key and sha256");
    const std::string text = Text(plain ? "key" : "sha256");
    if (plain) {
      if (text.empty()) return Wrong(".key is empty");
      key.sha256 = Sha256(text);
      return absl::OkStatus();
    }
    constexpr size_t kHexDigits = 64;
    bool hexadecimal = text.size() == kHexDigits;
    for (const char c : text) hexadecimal = hexadecimal && absl::ascii_isxdigit(static_cast<unsigned char>(c));
    if (!hexadecimal) return Wrong(".sha256 must be 64 hexadecimal digits");
    const std::string bytes = absl::HexStringToBytes(text);
    std::copy(bytes.begin(), bytes.end(), key.sha256.begin());
    return key.sha256 == Sha256("") ? Wrong(".sha256 is that of an empty key") : absl::OkStatus();
  }

  // Empty for what is no text. (yaml-cpp reads a missing value as "null".)
  std::string Text(const char* member) const {
    const YAML::Node value = node_[member];
    return value.IsDefined() && value.IsScalar() ? value.Scalar() : "";
  }

  absl::Status Wrong(const std::string& what) const { return absl::InvalidArgumentError(absl::StrCat(path_, what)); }

  inline static const std::set<std::string> kKnown{"name", "key", "sha256", "max_queued_tokens",
                                                   "max_concurrent_calls"};
  const YAML::Node node_;
  const std::string path_;
};

absl::StatusOr<std::vector<ApiKey>> ReadKeys(const YAML::Node& document) {
  const bool only_keys = document.IsMap() && document.size() == 1 && document["keys"].IsDefined();
  if (!only_keys || !document["keys"].IsSequence() || document["keys"].size() == 0) {
    return absl::InvalidArgumentError("must hold `keys:`, a list of at least one key, and nothing else");
  }
  std::vector<ApiKey> keys;
  std::set<std::string> names;
  std::set<std::array<unsigned char, 32>> hashes;
  for (size_t i = 0; i < document["keys"].size(); ++i) {
    ApiKey& key = keys.emplace_back();
    if (const absl::Status status = Entry(document["keys"][i], i).Read(key); !status.ok()) return status;
    if (!names.insert(key.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("keys[", i, "].name is ", key.name, ", as another one's"));
    }
    if (!hashes.insert(key.sha256).second) {
      return absl::InvalidArgumentError(absl::StrCat("keys[", i, "] has the same key as another one"));
    }
  }
  return keys;
}

absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<ApiKey>> keys = ParseApiKeys(*text);
  if (!keys.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", keys.status().message()));
  return keys;
}

}  // namespace

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(const std::string& yaml) {
  try {
    return ReadKeys(YAML::Load(yaml));
  } catch (const YAML::Exception& error) {
    // Its words may quote the file, and so a key: only the place is told.
    return absl::InvalidArgumentError(absl::StrCat("is no YAML of the expected form, line ", error.mark.line + 1));
  }
}

const ApiKey* FindApiKey(const std::vector<ApiKey>& keys, std::string_view presented) {
  const std::array<unsigned char, 32> digest = Sha256(presented);
  const ApiKey* found = nullptr;
  for (const ApiKey& key : keys) {
    if (CRYPTO_memcmp(key.sha256.data(), digest.data(), digest.size()) == 0) found = &key;
  }
  return found;
}

ApiKeyStore::ApiKeyStore(const std::string& path, OnReload on_reload)
    : path_(path), on_reload_(std::move(on_reload)), file_({path}, kLookInterval) {}

absl::StatusOr<std::unique_ptr<ApiKeyStore>> ApiKeyStore::Open(const std::string& path, OnReload on_reload) {
  std::unique_ptr<ApiKeyStore> store(new ApiKeyStore(path, std::move(on_reload)));
  const std::lock_guard lock(store->mutex_);
  store->file_.Changed(absl::Now());
  absl::StatusOr<Keys> keys = ReadApiKeys(path);
  if (!keys.ok()) return keys.status();
  store->keys_ = std::make_shared<const Keys>(*std::move(keys));
  return store;
}

std::shared_ptr<const ApiKeyStore::Keys> ApiKeyStore::Current() {
  const std::lock_guard lock(mutex_);
  if (file_.Changed(absl::Now())) {
    absl::StatusOr<Keys> read = ReadApiKeys(path_);
    if (read.ok()) keys_ = std::make_shared<const Keys>(*std::move(read));
    if (on_reload_) on_reload_(read.status());
  }
  return keys_;
}

std::shared_ptr<const ApiKey> ApiKeyStore::Find(std::string_view presented) {
  const std::shared_ptr<const Keys> keys = Current();
  const ApiKey* const found = FindApiKey(*keys, presented);
  return found == nullptr ? nullptr : std::shared_ptr<const ApiKey>(keys, found);
}

}  // namespace longembed
