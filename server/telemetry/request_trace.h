// Collects the phases of one request while it runs. What works on the request holds a pointer, which is null unless
// the call is traced:
//
//   BeginPhase(call.trace, phase::kQueue, now);
#ifndef LONGEMBED_SERVER_TELEMETRY_REQUEST_TRACE_H_
#define LONGEMBED_SERVER_TELEMETRY_REQUEST_TRACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace longembed {

// Names of the spans below a call's, in the order in which a call goes through them.
namespace phase {
inline constexpr char kReceive[] = "receive";             // Bytes to a message, options checked.
inline constexpr char kAdmission[] = "admission";         // A message of a stream waits here for room.
inline constexpr char kTokenizeWait[] = "tokenize.wait";  // For a thread that tokenizes.
inline constexpr char kTokenize[] = "tokenize";           // And planning. Of Explain and Tokenize, the whole work.
inline constexpr char kQueue[] = "queue";                 // From the job's submission to its first batch.
inline constexpr char kInference[] = "inference";         // From its first batch to the end of its last.
inline constexpr char kFinish[] = "finish";               // Vectors to an answer.
}  // namespace phase

// Phases follow each other without a gap, so that they add up. Allocates nothing. Not thread-safe: a request passes
// from thread to thread.
class RequestTrace {
 public:
  struct Phase {
    const char* name = "";
    absl::Time start;
  };

  // Times are those of the server's clock (system/clock.h).
  explicit RequestTrace(absl::Time start) { Begin(phase::kReceive, start); }

  // Ends the phase that runs and begins another.
  void Begin(const char* name, absl::Time now) {
    if (count_ < phases_.size()) phases_[count_++] = {.name = name, .start = now};
  }

  std::span<const Phase> phases() const { return {phases_.data(), count_}; }

  // Once known.
  int64_t inputs = 0;
  int64_t tokens = 0;
  int64_t truncated_tokens = 0;
  int64_t sequences = 0;
  std::string_view method;  // Positions method, a static string; empty: plain.
  absl::Status error;       // That stands in the answer of a request that is answered.

 private:
  std::array<Phase, 8> phases_;
  size_t count_ = 0;
};

inline void BeginPhase(RequestTrace* trace, const char* name, absl::Time now) {
  if (trace != nullptr) trace->Begin(name, now);
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_REQUEST_TRACE_H_
