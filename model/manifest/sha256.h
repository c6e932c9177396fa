// SHA-256 by OpenSSL. Stateless: any thread.
#ifndef LONGEMBED_MODEL_MANIFEST_SHA256_H_
#define LONGEMBED_MODEL_MANIFEST_SHA256_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// Both give 64 lower-case hex digits. Calls `on_read` with the size of each piece of the file, in bytes.
std::string Sha256(std::string_view bytes);
absl::StatusOr<std::string> Sha256OfFile(const std::string& path, const std::function<void(int64_t)>& on_read = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_MANIFEST_SHA256_H_
