#include "server/rpc/unary_host.h"

#include <new>
#include <utility>

#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {

UnaryHost::UnaryHost(const ApiMethod& method, Arrival arrival, const HostContext& host, Finish finish,
                     std::unique_ptr<Codec> codec)
    : method_(method),
      host_(host),
      record_(method_, std::move(arrival), host),
      finish_(std::move(finish)),
      codec_(std::move(codec)) {}

absl::Status UnaryHost::Admit() {
  RETURN_IF_ERROR(record_.identity());
  if (!method_.missing_requirement.empty()) return NotOffered(method_.missing_requirement);
  message_ = host_.ledger.BeginMessage(record_.caller().name, method_.exempt);
  absl::StatusOr<std::unique_ptr<Charge>> call = record_.Begin();
  if (!call.ok()) return call.status();
  call_ = *std::move(call);
  return absl::OkStatus();
}

absl::Status UnaryHost::TakeMemory(int64_t request_bytes) {
  if (message_ == nullptr) {
    RETURN_IF_ERROR(Admit());
  }
  return message_->Hold(Memory::kRequests, request_bytes);
}

bool UnaryHost::Receive(int64_t bytes) {
  const absl::Status status = TakeMemory(bytes);
  if (!status.ok()) End(status);
  return status.ok();
}

void UnaryHost::Start(grpc::ByteBuffer request) {
  if (!Receive(static_cast<int64_t>(request.Length()))) return;
  try {
    exchange_ = std::make_shared<Exchange>(method_, record_, host_, std::move(message_), /*may_wait=*/false,
                                           codec_ == nullptr ? WireCodec() : *codec_);
  } catch (const std::bad_alloc&) {
    return End(ServerOutOfMemory());
  }
  const std::shared_ptr<Exchange> exchange = exchange_;  // The end may destroy this object.
  exchange->Start(std::move(request), [this] {
    record_.set_model(exchange_->model());
    record_.set_request(exchange_->trace());
    End(exchange_->status());
  });
}

void UnaryHost::Cancel() {
  if (exchange_ != nullptr) exchange_->Cancel();
}

void UnaryHost::End(const absl::Status& status) {
  Outcome outcome{.status = record_.Finish(status)};
  if (status.ok()) {
    outcome.answer.Swap(&exchange_->answer());
    outcome.headers = exchange_->headers();
  }
  Finish finish = std::move(finish_);
  std::move(finish)(std::move(outcome));
}

}  // namespace longembed
