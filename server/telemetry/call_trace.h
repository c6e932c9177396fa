// Decides which calls are traced, and creates their spans.
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

// The outcome of a call. Never contains a client's text.
struct CallEnd {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string reason;  // Reason of an error (ErrorReason).
  std::string model;
  std::vector<Attribute> attributes;  // Attributes that depend on the transport.
};

// A traced call. Its times are those of the server's clock. The times of spans are the wall clock's time at the arrival
// plus what has passed on the server's clock since, so that they stay consistent when the wall clock is set.
class CallTrace {
 public:
  // `exporter` must outlive the trace.
  CallTrace(SpanExporter& exporter, const TraceParent& parent, absl::Time arrival, absl::Time wall_arrival);

  // The trace's id, which the call's span and all spans below it share.
  const TraceId& trace_id() const { return trace_id_; }

  // Exports a span for a message of a stream that has ended, below the call's span, with its phases below that. Only
  // the first kMaxMessages are exported; the rest are counted. May be called on any thread.
  void EndMessage(const RequestTrace& request, const absl::Status& status, const std::string& reason, absl::Time now);

  // Exports the call's span, with the phases of `request` below it. `request` is null for a stream, and for a call that
  // was rejected at once.
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
  const absl::Duration to_wall_;  // Wall clock minus server's clock.
  std::atomic<int64_t> messages_ = 0;
  std::atomic<int64_t> tokens_ = 0;  // Tokens of all messages.
};

// Decides whether a call is traced. Thread-safe.
class Tracer {
 public:
  // A call with a valid traceparent is traced if its sampled flag is set. Of all other calls the fraction
  // `sample_ratio` is traced. `exporter` must outlive the tracer and its calls.
  Tracer(double sample_ratio, SpanExporter& exporter) : sample_ratio_(sample_ratio), exporter_(exporter) {}

  // Returns null if the call is not traced.
  std::unique_ptr<CallTrace> Begin(std::string_view traceparent, absl::Time arrival) const;

 private:
  const double sample_ratio_;
  SpanExporter& exporter_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_CALL_TRACE_H_
