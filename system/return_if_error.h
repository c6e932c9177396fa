// Passes an error on. For .cc files: a macro in an installed header could collide with macros of its users.
//
//   absl::Status Load(const std::string& path) {
//     RETURN_IF_ERROR(CheckPath(path));
//     ...
//   }
#ifndef LONGEMBED_SYSTEM_RETURN_IF_ERROR_H_
#define LONGEMBED_SYSTEM_RETURN_IF_ERROR_H_

#include "absl/status/status.h"

// Evaluates an expression of type absl::Status, and returns it from the calling function unless it is OK. The function
// returns absl::Status or absl::StatusOr<T>.
#define RETURN_IF_ERROR(...)                                                   \
  do {                                                                         \
    if (absl::Status error_to_return = (__VA_ARGS__); !error_to_return.ok()) { \
      return error_to_return;                                                  \
    }                                                                          \
  } while (false)

#endif  // LONGEMBED_SYSTEM_RETURN_IF_ERROR_H_
