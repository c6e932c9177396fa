#include "server/telemetry/call_trace.h"

#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "absl/time/clock.h"

namespace longembed {
namespace {

// Decides by the trace's id, so that other services with the same ratio decide alike.
bool IsInShare(const TraceId& id, double share) {
  if (share >= 1) return true;
  uint64_t random = 0;
  std::memcpy(&random, id.data() + sizeof random, sizeof random);
  return static_cast<double>(random) < share * static_cast<double>(std::numeric_limits<uint64_t>::max());
}

void SetError(absl::StatusCode code, const std::string& reason, Span& span) {
  if (code == absl::StatusCode::kOk) return;
  span.is_error = true;
  span.error = reason;
  span.attributes.emplace_back("error.type", absl::StatusCodeToString(code));
  if (!reason.empty()) span.attributes.emplace_back("longembed.reason", reason);
}

void AddNumbers(const RequestTrace& request, Span& span) {
  if (request.sequences == 0) return;
  span.attributes.emplace_back("gen_ai.usage.input_tokens", request.tokens);
  span.attributes.emplace_back("longembed.inputs", request.inputs);
  span.attributes.emplace_back("longembed.sequences", request.sequences);
  span.attributes.emplace_back("longembed.truncated_tokens", request.truncated_tokens);
  span.attributes.emplace_back("longembed.method", std::string(request.method.empty() ? "plain" : request.method));
}

}  // namespace

CallTrace::CallTrace(SpanExporter& exporter, const TraceParent& parent, absl::Time arrival, absl::Time wall_arrival)
    : exporter_(exporter),
      trace_id_(parent.trace_id),
      parent_(parent.span_id),
      id_(NewSpanId()),
      arrival_(arrival),
      to_wall_(wall_arrival - arrival) {}

Span CallTrace::MakeSpan(std::string name, const SpanId& parent, absl::Time start, absl::Time end) const {
  return {.trace_id = trace_id_,
          .id = NewSpanId(),
          .parent = parent,
          .name = std::move(name),
          .start = start + to_wall_,
          .end = end + to_wall_};
}

void CallTrace::AddPhases(const RequestTrace& request, const SpanId& parent, absl::Time end,
                          std::vector<Span>& spans) const {
  const auto phases = request.phases();
  for (size_t i = 0; i < phases.size(); ++i) {
    const absl::Time next = i + 1 < phases.size() ? phases[i + 1].start : end;
    spans.push_back(MakeSpan(phases[i].name, parent, phases[i].start, next));
  }
}

void CallTrace::EndMessage(const RequestTrace& request, const absl::Status& status, const std::string& reason,
                           absl::Time now) {
  tokens_ += request.tokens;
  if (messages_++ >= kMaxMessages) return;
  try {
    std::vector<Span> spans;
    Span& span = spans.emplace_back(MakeSpan("message", id_, request.phases().front().start, now));
    AddNumbers(request, span);
    SetError(status.code(), reason, span);
    AddPhases(request, SpanId(span.id), now, spans);
    exporter_.Add(std::move(spans));
  } catch (const std::bad_alloc&) {
    exporter_.CountDropped("out_of_memory", 1);
  }
}

void CallTrace::EndCall(const std::string& method, const CallEnd& end, const RequestTrace* request, absl::Time now) {
  try {
    std::vector<Span> spans;
    Span& span = spans.emplace_back(MakeSpan(method, parent_, arrival_, now));
    span.id = id_;
    span.is_server = true;
    span.attributes = end.attributes;
    if (!end.model.empty()) span.attributes.emplace_back("gen_ai.request.model", end.model);
    if (messages_ > 0) {
      span.attributes.emplace_back("longembed.messages", messages_.load());
      span.attributes.emplace_back("gen_ai.usage.input_tokens", tokens_.load());
    }
    SetError(end.code, end.reason, span);
    if (request != nullptr) {
      AddNumbers(*request, span);
      AddPhases(*request, id_, now, spans);
    }
    exporter_.Add(std::move(spans));
  } catch (const std::bad_alloc&) {
    exporter_.CountDropped("out_of_memory", 1);
  }
}

std::unique_ptr<CallTrace> Tracer::Begin(std::string_view traceparent, absl::Time arrival) const {
  const std::optional<TraceParent> parent = ParseTraceparent(traceparent);
  if (parent.has_value() && !parent->sampled) return nullptr;
  const TraceParent context = parent.has_value() ? *parent : TraceParent{.trace_id = NewTraceId()};
  if (!parent.has_value() && !IsInShare(context.trace_id, sample_ratio_)) return nullptr;
  return std::make_unique<CallTrace>(exporter_, context, arrival, absl::Now());
}

}  // namespace longembed
