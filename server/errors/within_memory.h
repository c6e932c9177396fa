// Turns a failed allocation into the error of its request.
#ifndef LONGEMBED_SERVER_ERRORS_WITHIN_MEMORY_H_
#define LONGEMBED_SERVER_ERRORS_WITHIN_MEMORY_H_

#include <new>

#include "absl/status/status.h"
#include "server/errors/errors.h"

namespace longembed {

// Returns the status of `work()`, or ServerOutOfMemory if it throws bad_alloc.
template <typename Work>
absl::Status WithinMemory(Work&& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return ServerOutOfMemory();
  }
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_WITHIN_MEMORY_H_
