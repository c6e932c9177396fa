// Files that may change while the server runs: Kubernetes swaps mounted secrets, operators edit.
#ifndef LONGEMBED_SYSTEM_WATCHED_FILES_H_
#define LONGEMBED_SYSTEM_WATCHED_FILES_H_

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

// Detects changes of a few files. Not thread-safe.
class WatchedFiles {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;

  // Checks the files at most once every `interval`, however often it is called.
  WatchedFiles(std::vector<std::string> paths, absl::Duration interval)
      : paths_(std::move(paths)), interval_(absl::ToChronoNanoseconds(interval)) {}

  // Whether something is different from the last time that this returned true: contents, or who may read them. The
  // first time it is.
  bool Changed(SteadyTime now = std::chrono::steady_clock::now());

 private:
  const std::vector<std::string> paths_;
  const std::chrono::nanoseconds interval_;
  std::optional<SteadyTime> looked_;
  std::string seen_;
};

// Errors: NOT_FOUND with the system's message, or because the path is not that of a file, but of a pipe, for example.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_WATCHED_FILES_H_
