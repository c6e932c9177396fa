// Authenticates callers by API keys from a file that may be replaced while the server runs.
//
//   keys:
//     - name: search-frontend            # Appears in logs and metrics; the key itself never does.
//       sha256: 5e884898da28047151d0...  # SHA-256 of the key, in hexadecimal; or `key: KEY` in plain text.
//       max_queued_tokens: 200000        # Optional: limit of this client's waiting tokens.
//       max_concurrent_calls: 64         # Optional.
#ifndef LONGEMBED_SERVER_SECURITY_API_KEYS_H_
#define LONGEMBED_SERVER_SECURITY_API_KEYS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "system/mutex.h"
#include "system/watched_files.h"

namespace longembed {

struct ApiKey {
  std::string name;
  std::array<unsigned char, 32> sha256{};
  int64_t max_queued_tokens = 0;     // 0 = no limit of its own.
  int64_t max_concurrent_calls = 0;  // 0 = no limit of its own.
};

// Parses a file of keys. Errors (INVALID_ARGUMENT) name the entry and what is wrong with it, but never a key.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(const std::string& yaml);

// Returns the entry of the presented key; null if there is none. The time that it takes depends neither on the key nor
// on the entry.
const ApiKey* FindApiKey(const std::vector<ApiKey>& keys, std::string_view presented);

// The keys of a file, which may change. Multiple threads can call its methods without external synchronization.
class ApiKeyStore {
 public:
  using OnReload = std::function<void(const absl::Status&)>;

  static absl::StatusOr<std::unique_ptr<ApiKeyStore>> Open(const std::string& path, OnReload on_reload);

  // Reloads the file if it has changed. Returns null if the key is unknown.
  std::shared_ptr<const ApiKey> Find(std::string_view presented);

  // Checks once a second at most whether the file has changed, and reloads it. Files are rarely replaced in one step,
  // so a file that is invalid is read again a second later, and only then rejected; the old keys stay in use. If it
  // cannot be opened, the next check tries again. The owner calls this so that removed keys are noticed even if no call
  // arrives.
  void ReloadIfChanged() { Current(); }

  // Reads the file, changed or not.
  void Reload();

 private:
  using Keys = std::vector<ApiKey>;

  ApiKeyStore(const std::string& path, OnReload on_reload);
  std::shared_ptr<const Keys> Current();
  void Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const OnReload on_reload_;

  Mutex mutex_;
  WatchedFiles file_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Keys> keys_ ABSL_GUARDED_BY(mutex_);
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;  // Reload was called, and its outcome is not reported yet.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_SECURITY_API_KEYS_H_
