// Files that may change while the server runs: Kubernetes replaces mounted secrets, and operators edit files.
#ifndef LONGEMBED_SYSTEM_WATCHED_FILES_H_
#define LONGEMBED_SYSTEM_WATCHED_FILES_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

// Detects changes of a few files. Not thread-safe.
class WatchedFiles {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;

  // Checks the files at most once per `interval`, however often Changed is called.
  WatchedFiles(std::vector<std::string> paths, absl::Duration interval)
      : paths_(std::move(paths)), interval_(absl::ToChronoNanoseconds(interval)) {}

  // Returns whether contents or access rights of a file differ from those at the last call that returned true for
  // that reason, or a second try is due (TryAgain). The first call returns true.
  bool Changed(SteadyTime now = std::chrono::steady_clock::now());

  // Records the result of reading the files. Returns whether the caller should wait for a second try, an interval
  // later, before it rejects them: files are rarely replaced in one step.
  bool TryAgain(const absl::Status& read, SteadyTime now = std::chrono::steady_clock::now());

  // Records the result of reading the files. Files that could not be opened (NOT_FOUND) count as changed at the next
  // check, because they may be intact: the process may have run out of descriptors. Returns false
  // if the result need not be reported: the files could not be opened, with the same error as at the last attempt.
  bool ShouldReport(const absl::Status& read);

 private:
  // Returns whether the files have changed since the last look.
  bool Look(SteadyTime now);

  const std::vector<std::string> paths_;
  const std::chrono::nanoseconds interval_;
  std::optional<SteadyTime> looked_;
  SteadyTime second_try_at_ = SteadyTime::max();
  bool is_second_try_ = false;  // The caller reads the files because a second try was due.
  std::string seen_;
  absl::Status failure_;  // Of the last attempt to open the files.
};

// Largest file that ReadWholeFile reads: far more than any config, key or certificate has.
inline constexpr uintmax_t kMaxWholeFileBytes = 16 << 20;

// Reads a file. Errors: NOT_FOUND with the system's message, or because the path is that of a pipe, a device or the
// like; INVALID_ARGUMENT if the file is larger than kMaxWholeFileBytes.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_WATCHED_FILES_H_
