#include "server/rpc/unary_host.h"

#include <new>
#include <utility>

#include "server/errors/errors.h"

namespace longembed {

UnaryHost::UnaryHost(const ApiMethod& method, Arrival arrival, const HostContext& host, Finish finish)
    : method_(method), host_(host), record_(method_, std::move(arrival), host), finish_(std::move(finish)) {}

absl::StatusOr<std::unique_ptr<Charge>> UnaryHost::TakeMemory(int64_t request_bytes) {
  if (absl::Status status = record_.identity(); !status.ok()) return status;
  if (!method_.lacks.empty()) return NotOffered(method_.lacks);
  std::unique_ptr<Charge> memory = host_.ledger.BeginMessage(record_.caller().name);
  if (method_.exempt) return memory;
  absl::StatusOr<std::unique_ptr<Charge>> call = record_.Begin();
  if (!call.ok()) return call.status();
  call_ = *std::move(call);
  if (absl::Status held = memory->Hold(Memory::kRequests, request_bytes); !held.ok()) return held;
  return memory;
}

void UnaryHost::Start(grpc::ByteBuffer request) {
  absl::StatusOr<std::unique_ptr<Charge>> memory = TakeMemory(static_cast<int64_t>(request.Length()));
  if (!memory.ok()) return End(memory.status());
  try {
    exchange_ = std::make_shared<Exchange>(method_, record_, host_, *std::move(memory), /*may_wait=*/false);
  } catch (const std::bad_alloc&) {
    return End(ServerOutOfMemory());
  }
  const std::shared_ptr<Exchange> exchange = exchange_;  // The end may destroy this.
  exchange->Start(std::move(request), [this] {
    record_.set_model(exchange_->model());
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
