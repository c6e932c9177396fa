#include "server/rpc/message_stream.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "server/errors/errors.h"
#include "server/rpc/wire.h"

namespace longembed {

MessageStream::MessageStream(std::string method, const ServiceContext& service, grpc::CallbackServerContext* context,
                             MakeOperation make_operation, const Options& options)
    : service_(service),
      make_operation_(std::move(make_operation)),
      options_(options),
      record_(std::move(method), *context, service, options.client_status),
      ends_(record_.arrival() + options.max_age) {
  absl::Status status = record_.identity();
  if (status.ok()) {
    absl::StatusOr<std::unique_ptr<PendingCall>> call = record_.Begin(0);
    status = call.status();
    if (call.ok()) call_ = *std::move(call);
  }
  if (!status.ok()) {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    read_all_ = finished_ = true;
    Finish(record_.Finish(status));
    return;
  }
  StartRead(&incoming_);
  if (service_.streams != nullptr) service_.streams->Add(*this);
}

absl::Status MessageStream::WhyNoMore(bool ok) const {
  if (cancelled_ || finished_) return absl::OkStatus();  // The end has been said, or there is nobody to say it to.
  if (ok) return ServerDraining();                       // A message that is not taken.
  return options_.check_end == nullptr ? absl::OkStatus() : options_.check_end();
}

std::shared_ptr<MessageStream::Slot> MessageStream::TakeMessage(bool ok, grpc::ByteBuffer& request) {
  const std::lock_guard lock(mutex_);
  const auto no_more = [this](const absl::Status& why) {
    reading_ = false;
    read_all_ = true;
    refusal_ = why;
    return nullptr;
  };
  if (!ok || finished_ || cancelled_ || draining_) return no_more(WhyNoMore(ok));
  const auto bytes = static_cast<int64_t>(incoming_.Length());
  absl::StatusOr<std::unique_ptr<PendingCall>> pending = record_.Hold(bytes);
  if (!pending.ok()) return no_more(pending.status());
  auto slot = std::make_shared<Slot>();
  slot->bytes = slot->request_bytes = bytes;
  slot->pending = *std::move(pending);
  slot->operation = make_operation_(record_);
  request.Swap(&incoming_);
  incoming_.Clear();
  bytes_ += slot->bytes;
  slots_.push_back(slot);
  ++running_;
  return slot;
}

void MessageStream::OnReadDone(bool ok) {
  grpc::ByteBuffer request;
  const std::shared_ptr<Slot> slot = TakeMessage(ok, request);
  if (slot == nullptr) return Advance(/*in_reaction=*/true);
  StartOperation(slot, request);
  bool cancel = false;
  {
    const std::lock_guard lock(mutex_);
    slot->started = true;
    if (!slot->status.has_value()) Resize(*slot, slot->bytes + slot->operation->expected_answer_bytes());
    reading_ = false;  // Not before: operations are begun one after the other.
    cancel = (cancelled_ || finished_) && !slot->status.has_value();
  }
  if (cancel) slot->operation->Cancel();
  Advance(/*in_reaction=*/true);
}

void MessageStream::StartOperation(const std::shared_ptr<Slot>& slot, const grpc::ByteBuffer& request) {
  try {
    slot->operation->Start(request, record_.deadline(),
                           [this, slot](const absl::Status& status) { OperationDone(*slot, status); });
  } catch (const std::bad_alloc&) {  // While the request was parsed or checked: nothing has been begun.
    OperationDone(*slot, ServerOutOfMemory());
  }
}

void MessageStream::OperationDone(Slot& slot, absl::Status status) {
  grpc::ByteBuffer answer;
  if (status.ok() && slot.operation->has_response()) {
    try {
      answer = SerializeMessage(slot.operation->response());
    } catch (const std::bad_alloc&) {
      status = ServerOutOfMemory();
    }
  }
  const auto bytes = static_cast<int64_t>(answer.Length());
  slot.pending->Add(bytes);
  {
    std::unique_lock lock(mutex_);
    slot.status = status;
    slot.answer.Swap(&answer);
    Resize(slot, slot.request_bytes + bytes);
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

void MessageStream::DropSilent() {
  std::erase_if(slots_, [this](const std::shared_ptr<Slot>& slot) {
    // Not before Start has returned: the slot keeps the operation alive.
    if (!slot->started || slot->status != absl::OkStatus() || slot->operation->has_response()) return false;
    bytes_ -= slot->bytes;
    return true;
  });
}

MessageStream::Slots::iterator MessageStream::NextDone() {
  const auto ready = [](const std::shared_ptr<Slot>& slot) {
    return slot->status.has_value() && (!slot->status->ok() || slot->operation->has_response());
  };
  if (!options_.in_order) return std::find_if(slots_.begin(), slots_.end(), ready);
  return !slots_.empty() && ready(slots_.front()) ? slots_.begin() : slots_.end();
}

void MessageStream::Advance(bool in_reaction) {
  absl::Status failure;
  std::shared_ptr<Slot> answer;
  bool end = false, read = false;
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    DropSilent();
    if (!reading_ && !read_all_ && service_.clock.Now() >= ends_) {
      refusal_ = StreamTooOld(options_.max_age);
      read_all_ = true;
    }
    const auto next = writing_ ? slots_.end() : NextDone();
    if (next != slots_.end()) {
      failure = *(*next)->status;
      end = finished_ = !failure.ok();
      if (!end) {
        answer = std::move(*next);
        slots_.erase(next);
        bytes_ -= answer->bytes;
        writing_ = true;
      }
    } else if (slots_.empty() && !writing_ && (read_all_ || draining_)) {
      end = finished_ = true;
      failure = cancelled_ ? CallCancelled() : !read_all_ ? ServerDraining() : refusal_;
    }
    if (in_reaction && !end && !reading_ && !read_all_ && !draining_ && HasRoom()) read = reading_ = true;
  }
  if (read) StartRead(&incoming_);
  if (answer != nullptr) {
    outgoing_.Swap(&answer->answer);  // Nobody else touches it while writing_ is true.
    writing_pending_ = std::move(answer->pending);
    StartWrite(&outgoing_);
  }
  if (end) End(failure);
}

bool MessageStream::HasRoom() const {
  if (slots_.empty()) return true;
  return slots_.size() < options_.max_messages && bytes_ < options_.max_bytes && record_.HasRoom();
}

void MessageStream::Resize(Slot& slot, int64_t bytes) {
  bytes_ += bytes - slot.bytes;
  slot.bytes = bytes;
}

void MessageStream::OnWriteDone(bool ok) {
  writing_pending_ = nullptr;
  outgoing_.Clear();
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  if (!ok) CancelAll();
  Advance(/*in_reaction=*/true);
}

void MessageStream::OnCancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  CancelAll();
}

void MessageStream::Pin() {
  const std::lock_guard lock(mutex_);
  ++running_;
}

void MessageStream::DrainAndUnpin() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }
  Advance(/*in_reaction=*/false);
  std::unique_lock lock(mutex_);
  --running_;
  DeleteIfOver(std::move(lock));
}

void MessageStream::CancelAll() {
  std::vector<std::shared_ptr<Slot>> running;
  {
    const std::lock_guard lock(mutex_);
    for (const std::shared_ptr<Slot>& slot : slots_) {
      if (slot->started && !slot->status.has_value()) running.push_back(slot);
    }
  }
  for (const std::shared_ptr<Slot>& slot : running) slot->operation->Cancel();
}

void MessageStream::End(const absl::Status& status) {
  CancelAll();
  {
    const std::lock_guard lock(mutex_);
    record_.set_model(model_);
  }
  Finish(record_.Finish(status));
}

void MessageStream::OnDone() {
  // From then on nobody new drains it; who does so already has pinned it.
  if (service_.streams != nullptr) service_.streams->Remove(*this);
  std::unique_lock lock(mutex_);
  done_ = true;
  DeleteIfOver(std::move(lock));
}

void MessageStream::DeleteIfOver(std::unique_lock<std::mutex> lock) {
  const bool over = done_ && running_ == 0;
  lock.unlock();
  if (over) delete this;
}

void OpenStreams::Add(MessageStream& stream) {
  {
    const std::lock_guard lock(mutex_);
    streams_.insert(&stream);
    if (!draining_) return;
    stream.Pin();
  }
  stream.DrainAndUnpin();
}

void OpenStreams::Remove(MessageStream& stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(&stream);
}

void OpenStreams::Drain() {
  std::vector<MessageStream*> open;
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    open.assign(streams_.begin(), streams_.end());
    for (MessageStream* const stream : open) stream->Pin();
  }
  // Outside of the lock: a stream that ends at once removes itself.
  for (MessageStream* const stream : open) stream->DrainAndUnpin();
}

}  // namespace longembed
