#include "server/security/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/yaml/yaml_mapping.h"

namespace longembed {
namespace {

constexpr absl::Duration kKeysCheckInterval = absl::Seconds(1);

std::array<unsigned char, 32> Sha256(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

std::array<unsigned char, 32> ParseDigest(const YamlMapping& entry, const std::string& text) {
  std::array<unsigned char, 32> digest{};
  bool hexadecimal = text.size() == 2 * digest.size();
  for (const char c : text) hexadecimal = hexadecimal && absl::ascii_isxdigit(static_cast<unsigned char>(c));
  if (!hexadecimal) entry.Fail("sha256", "must be 64 hexadecimal digits");
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  if (digest == Sha256("")) entry.Fail("sha256", "is that of an empty key");
  return digest;
}

void ReadKey(YamlMapping& entry, ApiKey& key) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  std::string plain, digest;
  entry.Text("name", key.name);
  entry.Text("key", plain);
  entry.Text("sha256", digest);
  entry.Integer("max_queued_tokens", key.max_queued_tokens, 1, kMost);
  entry.Integer("max_concurrent_calls", key.max_concurrent_calls, 1, kMost);
  if (key.name.empty()) entry.Fail("name", "is missing");
  const bool has_plain = entry.node().Find("key") != nullptr, has_digest = entry.node().Find("sha256") != nullptr;
  if (has_plain == has_digest) entry.Fail("", "needs exactly one of key and sha256");
  if (has_plain && plain.empty()) entry.Fail("key", "is empty");
  key.sha256 = has_plain ? Sha256(plain) : ParseDigest(entry, digest);
}

void ReadKeys(YamlMapping& root, std::vector<ApiKey>& keys) {
  std::set<std::string> names;
  std::set<std::array<unsigned char, 32>> digests;
  root.Require("keys");
  root.Sections("keys", [&](YamlMapping& entry) {
    ApiKey& key = keys.emplace_back();
    ReadKey(entry, key);
    if (!names.insert(key.name).second) entry.Fail("name", absl::StrCat("is ", key.name, ", the name of another key"));
    if (!digests.insert(key.sha256).second) entry.Fail("", "has the same key as another one");
  });
  if (keys.empty()) root.Fail("keys", "must be a list of at least one key");
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
  std::vector<ApiKey> keys;
  const absl::Status status = ReadYaml(
      yaml, [&keys](YamlMapping& root) { ReadKeys(root, keys); }, YamlWords::kSecret);
  if (!status.ok()) return status;
  return keys;
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
    : path_(path), on_reload_(std::move(on_reload)), file_({path}, kKeysCheckInterval) {}

absl::StatusOr<std::unique_ptr<ApiKeyStore>> ApiKeyStore::Open(const std::string& path, OnReload on_reload) {
  std::unique_ptr<ApiKeyStore> store(new ApiKeyStore(path, std::move(on_reload)));
  const MutexLock lock(store->mutex_);
  store->file_.Changed();
  absl::StatusOr<Keys> keys = ReadApiKeys(path);
  if (!keys.ok()) return keys.status();
  store->keys_ = std::make_shared<const Keys>(*std::move(keys));
  return store;
}

std::shared_ptr<const ApiKeyStore::Keys> ApiKeyStore::Current() {
  const MutexLock lock(mutex_);
  if (file_.Changed()) Read();
  return keys_;
}

void ApiKeyStore::Reload() {
  const MutexLock lock(mutex_);
  requested_ = true;
  Read();
}

void ApiKeyStore::Read() {
  absl::StatusOr<Keys> read = ReadApiKeys(path_);
  const absl::Status status = read.status();
  if (file_.TryAgain(status)) return;
  if (read.ok()) keys_ = std::make_shared<const Keys>(*std::move(read));
  // A file that still cannot be opened is reported again if the reload was requested.
  const bool report = file_.ShouldReport(status), requested = std::exchange(requested_, false);
  if (on_reload_ && (report || requested)) on_reload_(status);
}

std::shared_ptr<const ApiKey> ApiKeyStore::Find(std::string_view presented) {
  const std::shared_ptr<const Keys> keys = Current();
  const ApiKey* const found = FindApiKey(*keys, presented);
  return found == nullptr ? nullptr : std::shared_ptr<const ApiKey>(keys, found);
}

}  // namespace longembed
