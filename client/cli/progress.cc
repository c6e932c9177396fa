#include "client/cli/progress.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace longembed::client {
namespace {

constexpr absl::Duration kDelay = absl::Seconds(1);  // Time before the line first appears.
constexpr absl::Duration kInterval = absl::Milliseconds(200);
constexpr int kBarWidth = 24;
constexpr char kWipe[] = "\r\x1b[K";

std::string Bar(double share) {
  const int filled = static_cast<int>(kBarWidth * std::clamp(share, 0.0, 1.0));
  return absl::StrCat("[", std::string(filled, '='), std::string(kBarWidth - filled, ' '), "] ");
}

}  // namespace

Progress::Progress(std::ostream& out, bool visible, int64_t total_bytes)
    : out_(out), visible_(visible), total_bytes_(total_bytes), started_(absl::Now()) {}

void Progress::Wipe() {
  if (drawn_ != absl::InfinitePast()) out_ << kWipe << std::flush;
}

void Progress::Update(int64_t texts, int64_t tokens, int64_t bytes) {
  const absl::Time now = absl::Now();
  if (!visible_ || now - started_ < kDelay || now - drawn_ < kInterval) return;
  drawn_ = now;
  const double seconds = absl::ToDoubleSeconds(now - started_);
  const double share = total_bytes_ > 0 ? static_cast<double>(bytes) / static_cast<double>(total_bytes_) : 0;
  out_ << kWipe << (total_bytes_ > 0 ? Bar(share) + absl::StrFormat("%3.0f %%  ", 100 * share) : "")
       << absl::StrFormat("%d texts, %.1f texts/s, %.0f tokens/s", texts, static_cast<double>(texts) / seconds,
                          static_cast<double>(tokens) / seconds)
       << std::flush;
}

}  // namespace longembed::client
