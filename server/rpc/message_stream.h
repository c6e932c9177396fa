// A bidirectional stream that answers each message, with several of them in work at a time.
#ifndef LONGEMBED_SERVER_RPC_MESSAGE_STREAM_H_
#define LONGEMBED_SERVER_RPC_MESSAGE_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "server/rpc/call_record.h"
#include "server/rpc/operation.h"
#include "server/rpc/service_context.h"

namespace longembed {

// Deletes itself when gRPC and all its operations are done with it. Messages are begun one after the other. The first
// operation that fails ends the stream; what was begun after it is cancelled. A client that does not read its answers
// is not read from either. When the server drains, nothing more is read, what was read is answered, and the stream ends
// with ServerDraining.
class MessageStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  using MakeOperation = std::function<std::unique_ptr<Operation>(const CallRecord&)>;

  struct Options {
    bool in_order = true;  // Answers come in the order of their messages; else as they are ready.
    // What is in work or waits to be written, before the next message is read.
    size_t max_messages = 64;
    int64_t max_bytes = 16 << 20;  // Of their requests and answers.
    // After that nothing more is read, what was read is answered, and the stream ends with StreamTooOld. A client that
    // says nothing at that time may say one thing more.
    absl::Duration max_age = absl::InfiniteDuration();
    // What the client left unfinished when it says that it has sent everything: what the stream then ends with. Null:
    // nothing can be.
    std::function<absl::Status()> check_end;
    ClientStatus client_status = nullptr;
  };

  // `service` must outlive it.
  MessageStream(std::string method, const ServiceContext& service, grpc::CallbackServerContext* context,
                MakeOperation make_operation, const Options& options);

  // For OpenStreams: keeps the stream alive, from within its lock, until it has been drained outside of that.
  void Pin();
  void DrainAndUnpin();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Slot {
    std::unique_ptr<Operation> operation;
    std::unique_ptr<PendingCall> pending;
    int64_t request_bytes = 0;
    int64_t bytes = 0;                   // Of its request and its answer; until that is ready, of what is expected.
    std::optional<absl::Status> status;  // Once it is done.
    grpc::ByteBuffer answer;             // When the status is OK and there is one.
    bool started = false;                // Start has returned.
  };
  using Slots = std::deque<std::shared_ptr<Slot>>;

  ~MessageStream() override = default;

  // Null when there is nothing to begin: the last message was read, or the stream is over, or may hold no more.
  std::shared_ptr<Slot> TakeMessage(bool ok, grpc::ByteBuffer& request);
  // Why there is no next message; OK at an end in order.
  absl::Status WhyNoMore(bool ok) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartOperation(const std::shared_ptr<Slot>& slot, const grpc::ByteBuffer& request);
  void OperationDone(Slot& slot, absl::Status status);
  // Begins what can be begun: the next write, the end, or, in a reaction of gRPC's, the next read. Elsewhere the stream
  // may be finished by another thread between the decision and the read.
  void Advance(bool in_reaction);
  // The slot to be written or failed next; end() when there is none.
  Slots::iterator NextDone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Answers without a response are no more than a place in the order.
  void DropSilent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Another size than it was thought.
  void Resize(Slot& slot, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelAll();
  void End(const absl::Status& status);
  void DeleteIfOver(std::unique_lock<std::mutex> lock);

  const ServiceContext& service_;
  const MakeOperation make_operation_;
  const Options options_;
  CallRecord record_;
  const absl::Time ends_;  // When it is too old.
  std::unique_ptr<PendingCall> call_;

  std::mutex mutex_;
  Slots slots_ ABSL_GUARDED_BY(mutex_);          // In order of arrival.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;    // Of the slots.
  int running_ ABSL_GUARDED_BY(mutex_) = 0;      // Operations that have not left OperationDone.
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // Until what was read has been begun.
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);  // Why no more is read; ends the stream once all is answered.
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  std::unique_ptr<PendingCall> writing_pending_;  // Of the answer that is being written.
  std::string model_ ABSL_GUARDED_BY(mutex_);
};

// The streams of a server, so that it can drain them. Thread-safe.
class OpenStreams {
 public:
  void Add(MessageStream& stream);
  void Remove(MessageStream& stream);
  // Drains those that are open, and those that are opened later.
  void Drain();

 private:
  std::mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<MessageStream*> streams_ ABSL_GUARDED_BY(mutex_);
};

// Answers a stream with a status and nothing else.
class RefusedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_MESSAGE_STREAM_H_
