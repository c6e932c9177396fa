// A progress line on a terminal, for input that takes longer than a second.
#ifndef LONGEMBED_CLIENT_CLI_PROGRESS_H_
#define LONGEMBED_CLIENT_CLI_PROGRESS_H_

#include <cstdint>
#include <ostream>

#include "absl/time/time.h"

namespace longembed::client {

// Not thread-safe.
class Progress {
 public:
  // `visible`: whether `out` is a terminal. `total_bytes`: of all input; 0 = unknown.
  Progress(std::ostream& out, bool visible, int64_t total_bytes);
  ~Progress() { Wipe(); }

  // Redraws at most five times a second.
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
