// Shows a progress line on a terminal, for runs that take longer than one second.
#ifndef LONGEMBED_CLIENT_CLI_PROGRESS_H_
#define LONGEMBED_CLIENT_CLI_PROGRESS_H_

#include <cstdint>
#include <ostream>

#include "absl/time/time.h"

namespace longembed::client {

// The progress line. Not thread-safe.
class Progress {
 public:
  // `visible` says whether `out` is a terminal. `total_bytes` is the size of all input, or 0 if unknown.
  Progress(std::ostream& out, bool visible, int64_t total_bytes);
  ~Progress() { Wipe(); }

  // Redraws the line, at most five times a second.
  void Update(int64_t texts, int64_t tokens, int64_t bytes);
  // Removes the line.
  void Wipe();

 private:
  std::ostream& out_;
  const bool visible_;
  const int64_t total_bytes_;
  const absl::Time started_;
  absl::Time drawn_ = absl::InfinitePast();
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_PROGRESS_H_
