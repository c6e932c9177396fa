// Collects the phases of one request while it runs. Code that works on the request holds a pointer, which is null
// unless the call is traced:
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

// Names of the spans below a call's span, in the order of the phases.
namespace phase {
inline constexpr char kReceive[] = "receive";             // Parsing the message and checking its options.
inline constexpr char kAdmission[] = "admission";         // Until admission; a message of a stream waits here for room.
inline constexpr char kTokenizeWait[] = "tokenize.wait";  // Wait for a thread that tokenizes.
inline constexpr char kTokenize[] = "tokenize";           // Tokenizing and planning; all work of Explain and Tokenize.
inline constexpr char kQueue[] = "queue";                 // From the job's submission to its first batch.
inline constexpr char kInference[] = "inference";         // From its first batch to the end of its last.
inline constexpr char kFinish[] = "finish";               // Making the answer from the vectors.
}  // namespace phase

// The phases of one request, which follow each other without a gap, so that they add up. Does not allocate. Not
// thread-safe: only one thread at a time works on a request.
class RequestTrace {
 public:
  struct Phase {
    const char* name = "";
    absl::Time start;
  };

  // Times are those of the server's clock (system/clock.h).
  explicit RequestTrace(absl::Time start) { Begin(phase::kReceive, start); }

  // Ends the current phase and begins another.
  void Begin(const char* name, absl::Time now) {
    if (count_ < phases_.size()) phases_[count_++] = {.name = name, .start = now};
  }

  std::span<const Phase> phases() const { return {phases_.data(), count_}; }

  // Set once they are known.
  int64_t inputs = 0;
  int64_t tokens = 0;
  int64_t truncated_tokens = 0;
  int64_t sequences = 0;
  std::string_view method;  // Positions method, a static string; empty: plain.
  absl::Status error;       // The error that an OK answer contains for its request.

 private:
  std::array<Phase, 8> phases_;
  size_t count_ = 0;
};

inline void BeginPhase(RequestTrace* trace, const char* name, absl::Time now) {
  if (trace != nullptr) trace->Begin(name, now);
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_REQUEST_TRACE_H_
