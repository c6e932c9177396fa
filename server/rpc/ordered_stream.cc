#include "server/rpc/ordered_stream.h"

#include <grpcpp/server_context.h>

#include <utility>
#include <vector>

#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace longembed {

OrderedStream::OrderedStream(std::string method, grpc::CallbackServerContext* context, MakeOperation make_operation,
                             const Limits& limits, const Clock& clock, Metrics& metrics)
    : method_(std::move(method)),
      context_(context),
      make_operation_(std::move(make_operation)),
      limits_(limits),
      clock_(clock),
      metrics_(metrics),
      arrival_(clock.Now()) {
  metrics_.RequestStarted(method_);
  StartRead(&incoming_);
}

void OrderedStream::OnReadDone(bool ok) {
  auto slot = std::make_shared<Slot>();
  grpc::ByteBuffer request;
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    if (!ok || finished_ || cancelled_) {
      read_all_ = true;
      slot = nullptr;
    } else {
      slot->operation = make_operation_();
      request.Swap(&incoming_);
      slot->bytes = static_cast<int64_t>(request.Length());
      bytes_ += slot->bytes;
      slots_.push_back(slot);
      ++running_;
    }
  }
  if (slot == nullptr) return Advance(/*in_reaction=*/true);
  slot->operation->Start(request, DeadlineOf(*context_),
                         [this, slot](const absl::Status& status) { OperationDone(*slot, status); });
  bool cancel = false;
  {
    const std::lock_guard lock(mutex_);
    slot->started = true;
    cancel = (cancelled_ || finished_) && !slot->status.has_value();
  }
  if (cancel) slot->operation->Cancel();
  Advance(/*in_reaction=*/true);
}

void OrderedStream::OperationDone(Slot& slot, const absl::Status& status) {
  {
    std::unique_lock lock(mutex_);
    slot.status = status;
    if (model_.empty()) model_ = slot.operation->model();
    if (done_) {
      --running_;
      return DeleteIfOver(std::move(lock));
    }
  }
  Advance(/*in_reaction=*/false);
  std::unique_lock lock(mutex_);
  --running_;
  DeleteIfOver(std::move(lock));
}

void OrderedStream::Advance(bool in_reaction) {
  absl::Status failure;
  std::shared_ptr<Slot> answer;
  bool end = false, read = false;
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    const bool ready = !slots_.empty() && slots_.front()->status.has_value();
    if (ready && !writing_) {
      failure = *slots_.front()->status;
      end = finished_ = !failure.ok();
      if (!end) {
        answer = std::move(slots_.front());
        slots_.pop_front();
        bytes_ -= answer->bytes;
        writing_ = true;
      }
    } else if (slots_.empty() && !writing_ && read_all_) {
      end = finished_ = true;
      if (cancelled_) failure = CallCancelled();
    }
    const bool room = slots_.size() < limits_.max_messages && bytes_ < limits_.max_bytes;
    if (in_reaction && !end && !reading_ && !read_all_ && room) read = reading_ = true;
  }
  if (read) StartRead(&incoming_);
  if (answer != nullptr) {
    outgoing_ = SerializeMessage(answer->operation->response());  // Nobody else touches it while writing_ is true.
    StartWrite(&outgoing_);
  }
  if (end) End(failure);
}

void OrderedStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  if (!ok) CancelAll();
  Advance(/*in_reaction=*/true);
}

void OrderedStream::OnCancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  CancelAll();
}

void OrderedStream::CancelAll() {
  std::vector<std::shared_ptr<Slot>> running;
  {
    const std::lock_guard lock(mutex_);
    for (const std::shared_ptr<Slot>& slot : slots_) {
      if (slot->started && !slot->status.has_value()) running.push_back(slot);
    }
  }
  for (const std::shared_ptr<Slot>& slot : running) slot->operation->Cancel();
}

void OrderedStream::End(const absl::Status& status) {
  CancelAll();
  std::string model;
  {
    const std::lock_guard lock(mutex_);
    model = model_;
  }
  AddRetryPushback(status, *context_);
  metrics_.RequestFinished(method_, absl::StatusCodeToString(status.code()), model, clock_.Now() - arrival_);
  Finish(ToGrpcStatus(status));
}

void OrderedStream::OnDone() {
  std::unique_lock lock(mutex_);
  done_ = true;
  DeleteIfOver(std::move(lock));
}

void OrderedStream::DeleteIfOver(std::unique_lock<std::mutex> lock) {
  const bool over = done_ && running_ == 0;
  lock.unlock();
  if (over) delete this;
}

}  // namespace longembed
