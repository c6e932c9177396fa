#include "tests/fuzz/expect.h"

#include <string>
#include <string_view>

#include "model/errors/errors.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

constexpr size_t kMaxMessageBytes =
    1024;  // A client accepts 8 KiB of trailers. The details repeat the message, in base64.

}  // namespace

void ExpectRefusal(const absl::Status& status) {
  const std::string_view message(status.message().data(), status.message().size());
  const bool good = status.code() == absl::StatusCode::kInvalidArgument && !ErrorReason(status).empty() &&
                    !message.empty() && message.size() <= kMaxMessageBytes &&
                    !FirstInvalidUtf8Byte(message).has_value() && !FirstInvalidUtf8Byte(ErrorField(status)).has_value();
  if (good) return;
  std::fprintf(stderr, "not a refusal with reason and words of at most %zu bytes: %s\n", kMaxMessageBytes,
               std::string(message.substr(0, 2 * kMaxMessageBytes)).c_str());
  std::abort();
}

}  // namespace longembed
