#include "server/telemetry/otlp_sender.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.grpc.pb.h"
#include "system/mutex.h"

namespace longembed {
namespace {

namespace collector = opentelemetry::proto::collector::trace::v1;
namespace trace = opentelemetry::proto::trace::v1;
using opentelemetry::proto::common::v1::KeyValue;

void Fill(const std::string& key, const AttributeValue& value, KeyValue& message) {
  message.set_key(key);
  if (const auto* number = std::get_if<int64_t>(&value)) {
    message.mutable_value()->set_int_value(*number);
  } else {
    message.mutable_value()->set_string_value(std::get<std::string>(value));
  }
}

template <size_t kSize>
std::string Bytes(const std::array<char, kSize>& id) {
  return {id.data(), id.size()};
}

void Fill(const Span& span, trace::Span& message) {
  message.set_trace_id(Bytes(span.trace_id));
  message.set_span_id(Bytes(span.id));
  if (span.parent != SpanId{}) message.set_parent_span_id(Bytes(span.parent));
  message.set_name(span.name);
  message.set_kind(span.is_server ? trace::Span::SPAN_KIND_SERVER : trace::Span::SPAN_KIND_INTERNAL);
  message.set_start_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.start)));
  message.set_end_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.end)));
  for (const auto& [key, value] : span.attributes) Fill(key, value, *message.add_attributes());
  if (!span.is_error) return;
  message.mutable_status()->set_code(trace::Status::STATUS_CODE_ERROR);
  message.mutable_status()->set_message(span.error);
}

std::shared_ptr<grpc::Channel> Connect(const OtlpOptions& options) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = options.roots;
  grpc::ChannelArguments arguments;
  // Keepalive pings detect a collector that vanished without closing its connection.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  return grpc::CreateCustomChannel(
      options.address, options.tls ? grpc::SslCredentials(tls) : grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

struct OtlpSender::State {
  explicit State(const OtlpOptions& from) : options(from), stub(collector::TraceService::NewStub(Connect(from))) {}

  const OtlpOptions options;
  const std::unique_ptr<collector::TraceService::Stub> stub;
  Mutex mutex;
  bool cancelled ABSL_GUARDED_BY(mutex) = false;
  grpc::ClientContext* running ABSL_GUARDED_BY(mutex) = nullptr;
};

OtlpSender::OtlpSender(const OtlpOptions& options) : state_(std::make_unique<State>(options)) {}
OtlpSender::~OtlpSender() = default;

absl::StatusOr<int64_t> OtlpSender::Send(std::span<const Span> spans) {
  const OtlpOptions& options = state_->options;
  collector::ExportTraceServiceRequest request;
  trace::ResourceSpans& all = *request.add_resource_spans();
  for (const auto& [key, value] : options.resource) Fill(key, value, *all.mutable_resource()->add_attributes());
  trace::ScopeSpans& scope = *all.add_scope_spans();
  scope.mutable_scope()->set_name("longembed-server");
  scope.mutable_scope()->set_version(options.version);
  for (const Span& span : spans) Fill(span, *scope.add_spans());
  grpc::ClientContext context;
  context.set_wait_for_ready(true);  // Then nothing is lost while a collector restarts.
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(options.timeout));
  for (const auto& [key, value] : options.headers) context.AddMetadata(key, value);
  {
    const MutexLock lock(state_->mutex);
    if (state_->cancelled) return absl::CancelledError("the server is shutting down");
    state_->running = &context;
  }
  collector::ExportTraceServiceResponse response;
  const grpc::Status status = state_->stub->Export(&context, request, &response);
  {
    const MutexLock lock(state_->mutex);
    state_->running = nullptr;
  }
  if (status.ok()) return response.partial_success().rejected_spans();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(options.address, ": ", status.error_message()));
}

void OtlpSender::Cancel() {
  const MutexLock lock(state_->mutex);
  state_->cancelled = true;
  if (state_->running != nullptr) state_->running->TryCancel();
}

}  // namespace longembed
