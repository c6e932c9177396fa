// Spans as OpenTelemetry defines them, and the trace context that a caller passes on (W3C Trace Context).
#ifndef LONGEMBED_SERVER_TELEMETRY_SPAN_H_
#define LONGEMBED_SERVER_TELEMETRY_SPAN_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace longembed {

// Ids in bytes, as in OTLP. All zeros: no id.
using TraceId = std::array<char, 16>;
using SpanId = std::array<char, 8>;

// Return random ids that are never all zeros.
TraceId NewTraceId();
SpanId NewSpanId();

std::string ToHex(const TraceId& id);
std::string ToHex(const SpanId& id);

struct TraceParent {
  TraceId trace_id{};
  SpanId span_id{};
  bool sampled = false;
};

// Parses the header "traceparent: VERSION-TRACE-SPAN-FLAGS". Returns nullopt if it is not valid by the specification;
// it then counts as absent.
std::optional<TraceParent> ParseTraceparent(std::string_view header);

using AttributeValue = std::variant<int64_t, std::string>;
using Attribute = std::pair<const char*, AttributeValue>;

struct Span {
  TraceId trace_id{};
  SpanId id{};
  SpanId parent{};
  std::string name;
  bool is_server = false;  // False: internal.
  absl::Time start;        // By the wall clock.
  absl::Time end;
  std::vector<Attribute> attributes;
  bool is_error = false;
  std::string error;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_SPAN_H_
