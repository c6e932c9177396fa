// Decides which calls are traced, and makes their spans.
#ifndef LONGEMBED_SERVER_TELEMETRY_CALL_TRACE_H_
#define LONGEMBED_SERVER_TELEMETRY_CALL_TRACE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/telemetry/request_trace.h"
#include "server/telemetry/span.h"
#include "server/telemetry/span_exporter.h"

namespace longembed {

// The outcome of a call. Never text of its client.
struct CallEnd {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string reason;  // Of an error (ErrorReason).
  std::string model;
  std::vector<Attribute> attributes;  // Of its front.
};

// One call that is traced. Times are those of the server's clock; the spans' are the wall clock's at the arrival and
// what the server's clock went on since, so that they add up while the wall clock is set.
class CallTrace {
 public:
  // `exporter` must outlive it.
  CallTrace(SpanExporter& exporter, const TraceParent& parent, absl::Time arrival, absl::Time wall_arrival);

  // Also of the call's span and of all below it.
  const TraceId& trace_id() const { return trace_id_; }

  // Exports a message of a stream that has ended: a span below the call's, and its phases below that. Of the first
  // kMaxMessages; the rest are counted. Any thread.
  void EndMessage(const RequestTrace& request, const absl::Status& status, const std::string& reason, absl::Time now);

  // Exports the call's span, and the phases of `request` below it. Null: a stream, or a call that was refused at once.
  void EndCall(const std::string& method, const CallEnd& end, const RequestTrace* request, absl::Time now);

  static constexpr int64_t kMaxMessages = 128;

 private:
  Span MakeSpan(std::string name, const SpanId& parent, absl::Time start, absl::Time end) const;
  void AddPhases(const RequestTrace& request, const SpanId& parent, absl::Time end, std::vector<Span>& spans) const;

  SpanExporter& exporter_;
  const TraceId trace_id_;
  const SpanId parent_;
  const SpanId id_;
  const absl::Time arrival_;
  const absl::Duration to_wall_;  // From the server's clock to the wall's.
  std::atomic<int64_t> messages_ = 0;
  std::atomic<int64_t> tokens_ = 0;  // Of the messages.
};

// Thread-safe.
class Tracer {
 public:
  // A caller's sampled flag decides; of calls without a valid traceparent, so large a share is traced. `exporter` must
  // outlive the tracer and its calls.
  Tracer(double sample_ratio, SpanExporter& exporter) : sample_ratio_(sample_ratio), exporter_(exporter) {}

  // Null: the call is not traced.
  std::unique_ptr<CallTrace> Begin(std::string_view traceparent, absl::Time arrival) const;

 private:
  const double sample_ratio_;
  SpanExporter& exporter_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_CALL_TRACE_H_
