// SHA-256 by OpenSSL. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_MANIFEST_SHA256_H_
#define LONGEMBED_MODEL_MANIFEST_SHA256_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// Return the hash of `bytes` or of a file as 64 lower-case hex digits. `on_read` is called with the size in bytes of
// each piece of the file.
std::string Sha256(std::string_view bytes);
absl::StatusOr<std::string> Sha256OfFile(const std::string& path, const std::function<void(int64_t)>& on_read = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_MANIFEST_SHA256_H_
