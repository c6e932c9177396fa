// Files that may change while the server runs: Kubernetes swaps mounted secrets, people edit.
#ifndef LONGEMBED_SERVER_FILES_WATCHED_FILES_H_
#define LONGEMBED_SERVER_FILES_WATCHED_FILES_H_

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

// Says when any of a few files has changed. Not thread-safe.
class WatchedFiles {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;

  // Looks at the files once every `interval` at most, however often it is asked.
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

// Errors: NOT_FOUND with the system's words, or because the path leads to something that is no file, such as a pipe.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_FILES_WATCHED_FILES_H_
