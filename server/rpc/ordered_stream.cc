#include "server/rpc/ordered_stream.h"

#include <grpcpp/server_context.h>

#include <utility>

#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace longembed {

OrderedStream::OrderedStream(std::string method, grpc::CallbackServerContext* context, MakeOperation make_operation,
                             size_t max_parallel, const Clock& clock, Metrics& metrics)
    : method_(std::move(method)),
      context_(context),
      make_operation_(std::move(make_operation)),
      max_parallel_(max_parallel),
      clock_(clock),
      metrics_(metrics),
      arrival_(clock.Now()) {
  metrics_.RequestStarted(method_);
  StartRead(&incoming_);
}

void OrderedStream::OnReadDone(bool ok) {
  auto slot = std::make_shared<Slot>();
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    if (!ok || finished_ || cancelled_) {
      read_all_ = true;
      slot = nullptr;
    } else {
      slot->operation = make_operation_();
      slot->request = std::move(incoming_);
      incoming_.Clear();
      slots_.push_back(slot);
      ++running_;
    }
  }
  if (slot == nullptr) return Advance();
  slot->operation->Start(slot->request, DeadlineOf(*context_),
                         [this, slot](const absl::Status& status) { OperationDone(*slot, status); });
  bool cancel = false;
  {
    const std::lock_guard lock(mutex_);
    slot->started = true;
    cancel = (cancelled_ || finished_) && !slot->status.has_value();
  }
  if (cancel) slot->operation->Cancel();
  Advance();
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
  Advance();
  std::unique_lock lock(mutex_);
  --running_;
  DeleteIfOver(std::move(lock));
}

void OrderedStream::Advance() {
  absl::Status failure;
  bool end = false, read = false, write = false;
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    const bool ready = !slots_.empty() && slots_.front()->status.has_value();
    if (ready && !writing_) {
      failure = *slots_.front()->status;
      if (failure.ok()) {
        outgoing_ = SerializeMessage(slots_.front()->operation->response());
        slots_.pop_front();
        write = writing_ = true;
      } else {
        end = finished_ = true;
      }
    } else if (slots_.empty() && !writing_ && read_all_) {
      end = finished_ = true;
      if (cancelled_) failure = CallCancelled();
    }
    if (!end && !reading_ && !read_all_ && slots_.size() < max_parallel_) read = reading_ = true;
  }
  if (read) StartRead(&incoming_);
  if (write) StartWrite(&outgoing_);
  if (end) End(failure);
}

void OrderedStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  if (!ok) CancelAll();
  Advance();
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
