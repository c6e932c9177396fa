// Rewords errors for APIs that name things in other words.
#ifndef LONGEMBED_SERVER_ERRORS_REWORDED_H_
#define LONGEMBED_SERVER_ERRORS_REWORDED_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace longembed {

// Returns the status with another code and message, and the same payloads.
inline absl::Status Reworded(const absl::Status& status, absl::StatusCode code, absl::string_view message) {
  absl::Status reworded(code, message);
  status.ForEachPayload(
      [&reworded](absl::string_view type, const absl::Cord& payload) { reworded.SetPayload(type, payload); });
  return reworded;
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_REWORDED_H_
