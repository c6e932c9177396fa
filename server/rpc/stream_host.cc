#include "server/rpc/stream_host.h"

#include <algorithm>
#include <new>
#include <utility>

#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {

std::shared_ptr<StreamHost> StreamHost::Make(const ApiMethod& method, const StreamOptions& options, Arrival arrival,
                                             const HostContext& host, StreamTransport& transport) {
  return std::shared_ptr<StreamHost>(new StreamHost(method, options, std::move(arrival), host, transport));
}

StreamHost::StreamHost(const ApiMethod& method, const StreamOptions& options, Arrival arrival, const HostContext& host,
                       StreamTransport& transport)
    : method_(method),
      options_(options),
      host_(host),
      transport_(transport),
      record_(method_, std::move(arrival), host),
      ends_(record_.arrival() + host.max_stream_age) {}

absl::Status StreamHost::TakeCall() {
  RETURN_IF_ERROR(record_.identity());
  if (!method_.missing_requirement.empty()) return NotOffered(method_.missing_requirement);
  absl::StatusOr<std::unique_ptr<Charge>> call = record_.Begin();
  if (call.ok()) call_ = *std::move(call);
  return call.status();
}

void StreamHost::Begin() {
  if (const absl::Status status = TakeCall(); !status.ok()) {
    {
      const MutexLock lock(mutex_);
      reading_ = false;
      read_all_ = finished_ = true;
    }
    return transport_.Finish(record_.Finish(status));
  }
  transport_.Read();
  if (host_.streams != nullptr) host_.streams->Add(shared_from_this());
}

absl::Status StreamHost::EndReason(bool ok) const {
  if (cancelled_ || finished_) return absl::OkStatus();  // The end has been sent, or the client has gone away.
  if (ok) return ServerDraining();                       // There is a message, but it is not accepted.
  return options_.check_end == nullptr ? absl::OkStatus() : options_.check_end();
}

void StreamHost::StopReading(const absl::Status& why) {
  read_all_ = true;
  if (refusal_.ok()) refusal_ = why;
}

std::shared_ptr<StreamHost::Slot> StreamHost::TakeMessage(bool ok, int64_t bytes) {
  const MutexLock lock(mutex_);
  const auto stop_reading = [this](const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    reading_ = false;
    StopReading(why);
    return nullptr;
  };
  if (!ok || read_all_ || finished_ || cancelled_ || draining_) return stop_reading(EndReason(ok));
  std::unique_ptr<Charge> memory = host_.ledger.BeginMessage(record_.caller().name);
  if (const absl::Status held = memory->Hold(Memory::kRequests, bytes); !held.ok()) return stop_reading(held);
  auto slot = std::make_shared<Slot>();
  slot->bytes = slot->request_bytes = bytes;
  slot->exchange = std::make_shared<Exchange>(method_, record_, host_, std::move(memory), /*may_wait=*/true);
  bytes_ += slot->bytes;
  slots_.push_back(slot);
  return slot;
}

void StreamHost::OnRead(bool ok, grpc::ByteBuffer request) {
  std::shared_ptr<Slot> slot;
  try {
    slot = TakeMessage(ok, static_cast<int64_t>(request.Length()));
  } catch (const std::bad_alloc&) {
    const MutexLock lock(mutex_);
    reading_ = false;
    StopReading(ServerOutOfMemory());
  }
  if (slot == nullptr) return Advance(/*in_reaction=*/true);
  slot->exchange->Start(std::move(request), [self = shared_from_this(), slot] { self->EndMessage(*slot); });
  bool cancel = false;
  {
    const MutexLock lock(mutex_);
    slot->started = true;
    if (!slot->ended) Resize(*slot, slot->bytes + slot->exchange->expected_answer_bytes());
    reading_ = false;  // Not earlier, because operations are started one after the other.
    cancel = (cancelled_ || finished_) && !slot->ended;
  }
  if (cancel) slot->exchange->Cancel();
  Advance(/*in_reaction=*/true);
}

void StreamHost::EndMessage(Slot& slot) {
  record_.EndMessage(slot.exchange->trace(), slot.exchange->status());
  {
    const MutexLock lock(mutex_);
    slot.ended = true;
    Resize(slot, slot.request_bytes + static_cast<int64_t>(slot.exchange->answer().Length()));
    if (model_.empty()) model_ = slot.exchange->model();
  }
  Advance(/*in_reaction=*/false);
}

bool StreamHost::DropIfEmpty(const Slot& slot) {
  // Waits until Start has returned, because the slot keeps the exchange alive.
  if (!slot.started || !slot.ended || slot.exchange->has_answer()) return false;
  bytes_ -= slot.bytes;
  if (!slot.exchange->status().ok()) StopReading(slot.exchange->status());
  return true;
}

void StreamHost::DropEmpty() {
  if (!options_.in_order) {
    std::erase_if(slots_,
                  [this](const auto& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return DropIfEmpty(*slot); });
    return;
  }
  while (!failed_ && !slots_.empty()) {
    const std::shared_ptr<Slot> slot = slots_.front();
    if (!DropIfEmpty(*slot)) return;
    failed_ = !slot->exchange->status().ok();
    if (failed_) refusal_ = slot->exchange->status();  // Also if reading has ended for another reason.
    slots_.pop_front();
  }
}

std::shared_ptr<StreamHost::Slot> StreamHost::TakeAnswer() {
  const auto ready = [](const std::shared_ptr<Slot>& slot) { return slot->ended && slot->exchange->has_answer(); };
  auto next = slots_.end();
  if (!options_.in_order) {
    next = std::find_if(slots_.begin(), slots_.end(), ready);
  } else if (!failed_ && !slots_.empty() && ready(slots_.front())) {
    next = slots_.begin();
  }
  if (next == slots_.end()) return nullptr;
  std::shared_ptr<Slot> slot = std::move(*next);
  slots_.erase(next);
  bytes_ -= slot->bytes;
  return slot;
}

bool StreamHost::IsOver() const { return failed_ || (slots_.empty() && (read_all_ || draining_)); }

void StreamHost::Advance(bool in_reaction) {
  absl::Status status;
  std::shared_ptr<Slot> answer;
  bool end = false, read = false;
  {
    const MutexLock lock(mutex_);
    if (finished_) return;
    DropEmpty();
    // A message that arrives while others are in progress is still accepted, because its client has sent it.
    const bool may_stop = !reading_ || (slots_.empty() && writing_ == nullptr);
    if (may_stop && !read_all_ && host_.clock.Now() >= ends_) StopReading(StreamTooOld(host_.max_stream_age));
    if (writing_ == nullptr) {
      answer = writing_ = TakeAnswer();
      end = finished_ = answer == nullptr && IsOver();
    }
    if (end) status = cancelled_ ? CallCancelled() : !read_all_ ? ServerDraining() : refusal_;
    if (in_reaction && !end && !reading_ && !read_all_ && !draining_ && HasRoom()) read = reading_ = true;
  }
  if (read) transport_.Read();
  if (answer != nullptr) {
    grpc::ByteBuffer bytes;
    bytes.Swap(&answer->exchange->answer());
    transport_.Write(std::move(bytes));
  }
  if (end) End(status);
}

bool StreamHost::HasRoom() const {
  if (slots_.empty()) return true;
  return slots_.size() < options_.max_messages && bytes_ < options_.max_bytes &&
         host_.ledger.HasRoom(record_.caller().name);
}

void StreamHost::Resize(Slot& slot, int64_t bytes) {
  bytes_ += bytes - slot.bytes;
  slot.bytes = bytes;
}

void StreamHost::OnWritten(bool ok) {
  std::shared_ptr<Slot> written;  // Freed without the lock held.
  {
    const MutexLock lock(mutex_);
    written.swap(writing_);
    if (!ok) cancelled_ = true;
  }
  written = nullptr;
  if (!ok) CancelAll();
  Advance(/*in_reaction=*/true);
}

void StreamHost::OnCancelled() {
  {
    const MutexLock lock(mutex_);
    cancelled_ = true;
  }
  CancelAll();
}

void StreamHost::OnFinished() {
  const MutexLock lock(mutex_);
  finished_ = true;
}

void StreamHost::Drain() {
  {
    const MutexLock lock(mutex_);
    draining_ = true;
  }
  Advance(/*in_reaction=*/false);
}

void StreamHost::EndIfOld() {
  if (host_.clock.Now() >= ends_) Advance(/*in_reaction=*/false);
}

void StreamHost::CancelAll() {
  std::vector<std::shared_ptr<Slot>> running;
  {
    const MutexLock lock(mutex_);
    for (const std::shared_ptr<Slot>& slot : slots_) {
      if (slot->started && !slot->ended) running.push_back(slot);
    }
  }
  for (const std::shared_ptr<Slot>& slot : running) slot->exchange->Cancel();
}

void StreamHost::End(const absl::Status& status) {
  CancelAll();
  {
    const MutexLock lock(mutex_);
    record_.set_model(model_);
  }
  transport_.Finish(record_.Finish(status));
}

void OpenStreams::Add(const std::shared_ptr<StreamHost>& stream) {
  {
    const MutexLock lock(mutex_);
    std::erase_if(streams_, [](const std::weak_ptr<StreamHost>& open) { return open.expired(); });
    streams_.push_back(stream);
    if (!draining_) return;
  }
  stream->Drain();
}

std::vector<std::shared_ptr<StreamHost>> OpenStreams::Live() {
  std::vector<std::shared_ptr<StreamHost>> live;
  for (const std::weak_ptr<StreamHost>& stream : streams_) {
    if (std::shared_ptr<StreamHost> host = stream.lock(); host != nullptr) live.push_back(std::move(host));
  }
  return live;
}

void OpenStreams::Drain() {
  std::vector<std::shared_ptr<StreamHost>> live;
  {
    const MutexLock lock(mutex_);
    draining_ = true;
    live = Live();
  }
  for (const std::shared_ptr<StreamHost>& stream : live) stream->Drain();
}

void OpenStreams::EndOld() {
  std::vector<std::shared_ptr<StreamHost>> live;
  {
    const MutexLock lock(mutex_);
    live = Live();
  }
  for (const std::shared_ptr<StreamHost>& stream : live) stream->EndIfOld();
}

}  // namespace longembed
