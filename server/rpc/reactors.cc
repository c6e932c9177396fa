#include "server/rpc/reactors.h"

#include <grpc/support/time.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/unary_host.h"

namespace longembed {
namespace {

std::string Header(const grpc::ServerContextBase& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return "";
  return {found->second.data(), found->second.size()};
}

// Returns the name in the client's certificate, which TLS has verified.
std::string CertificateOf(const grpc::CallbackServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> authentication = context.auth_context();
  if (authentication == nullptr || !authentication->IsPeerAuthenticated()) return "";
  const std::vector<grpc::string_ref> names = authentication->GetPeerIdentity();
  return names.empty() ? "" : std::string(names.front().data(), names.front().size());
}

// Returns the time until the deadline. It is not taken from context.deadline(), which gRPC converts to the wall clock:
// a timeout of more than 292 years, which clients send for "never", would overflow there.
absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return absl::InfiniteDuration();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  return absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  UnaryReactor(const ApiMethod& method, const HostContext& host, grpc::CallbackServerContext& context,
               grpc::ByteBuffer& response)
      : context_(context),
        response_(response),
        host_(method, ArrivalOf(context), host, [this](UnaryHost::Outcome outcome) { End(std::move(outcome)); }) {}

  void Start(grpc::ByteBuffer request) { host_.Start(std::move(request)); }
  void OnCancel() override { host_.Cancel(); }
  void OnDone() override { delete this; }

 private:
  void End(UnaryHost::Outcome outcome) {
    response_.Swap(&outcome.answer);
    for (const auto& [key, value] : outcome.headers) context_.AddInitialMetadata(key, value);
    Finish(ToGrpcEnd(context_, outcome.status));
  }

  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer& response_;
  UnaryHost host_;
};

class StreamReactor final : public RawStream, private StreamTransport {
 public:
  StreamReactor(const ApiMethod& method, const StreamOptions& options, const HostContext& host,
                grpc::CallbackServerContext& context)
      : context_(context), host_(StreamHost::Make(method, options, ArrivalOf(context), host, *this)) {
    host_->Begin();
  }

  void OnReadDone(bool ok) override {
    grpc::ByteBuffer request;
    request.Swap(&incoming_);
    host_->OnRead(ok, std::move(request));
  }
  void OnWriteDone(bool ok) override {
    outgoing_.Clear();
    host_->OnWritten(ok);
  }
  void OnCancel() override { host_->OnCancelled(); }
  void OnDone() override {
    host_->OnFinished();
    delete this;
  }

 private:
  void Read() override { StartRead(&incoming_); }
  void Write(grpc::ByteBuffer answer) override {
    outgoing_.Swap(&answer);
    StartWrite(&outgoing_);
  }
  void Finish(const absl::Status& status) override { RawStream::Finish(ToGrpcEnd(context_, status)); }

  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  const std::shared_ptr<StreamHost> host_;
};

class RefusedReader final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedReader(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

Arrival ArrivalOf(const grpc::CallbackServerContext& context) {
  return {.address = context.peer(),
          .certificate = CertificateOf(context),
          .authorization = Header(context, "authorization"),
          .api_key = Header(context, "x-api-key"),
          .traceparent = Header(context, "traceparent"),
          .time_left = TimeLeft(context)};
}

grpc::Status ToGrpcEnd(grpc::CallbackServerContext& context, const absl::Status& status) {
  if (const std::optional<absl::Duration> delay = RetryDelay(status); delay.has_value()) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
  return ToGrpcStatus(status);
}

grpc::ServerUnaryReactor* ServeUnary(const ApiMethod& method, const HostContext& host,
                                     grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) {
  auto* const reactor = new UnaryReactor(method, host, *context, *response);  // Deletes itself in OnDone.
  // gRPC owns the request until the call ends, which may be long after its bytes were last needed.
  grpc::ByteBuffer bytes;
  bytes.Swap(const_cast<grpc::ByteBuffer*>(request));
  reactor->Start(std::move(bytes));
  return reactor;
}

RawStream* ServeStream(const ApiMethod& method, const StreamOptions& options, const HostContext& host,
                       grpc::CallbackServerContext* context) {
  return new StreamReactor(method, options, host, *context);  // Deletes itself in OnDone.
}

grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseReads(const ApiMethod& method, const HostContext& host,
                                                       grpc::CallbackServerContext* context) {
  CallRecord record(method, ArrivalOf(*context), host);
  const absl::Status status = record.identity().ok() ? NotOffered(method.missing_requirement) : record.identity();
  return new RefusedReader(ToGrpcEnd(*context, record.Finish(status)));  // Deletes itself in OnDone.
}

}  // namespace longembed
