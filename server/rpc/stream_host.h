// The host of a bidirectional stream that answers each message, with several of them in work at a time.
#ifndef LONGEMBED_SERVER_RPC_STREAM_HOST_H_
#define LONGEMBED_SERVER_RPC_STREAM_HOST_H_

#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "server/core/operation.h"
#include "server/rpc/call_record.h"
#include "server/rpc/exchange.h"
#include "server/rpc/host_context.h"
#include "system/mutex.h"

namespace longembed {

// The transport of a stream. The host calls none of these after Finish, and the front none of the host's before it has
// called Begin.
class StreamFront {
 public:
  virtual ~StreamFront() = default;
  virtual void Read() = 0;                          // Then OnRead is called.
  virtual void Write(grpc::ByteBuffer answer) = 0;  // Then OnWritten is called.
  virtual void Finish(const absl::Status& status) = 0;
};

// Messages are begun one after the other. A client that does not read its answers is not read from either. An error of
// a message stays with its answer where its API has a place for it. Where an operation ends with an error, no more is
// read; what was read is answered (all of it, or, in order, what came before), and the stream ends with that error.
// When the server drains, nothing more is read, what was read is answered, and the stream ends with ServerDraining.
class StreamHost : public std::enable_shared_from_this<StreamHost> {
 public:
  // `front` lives until it has called OnOver, `host` longer.
  static std::shared_ptr<StreamHost> Make(const ApiMethod& method, const StreamOptions& options, Arrival arrival,
                                          const HostContext& host, StreamFront& front);

  // Reads the first message, or finishes.
  void Begin();
  // `ok`: there is a message, `request`; else the client has sent all, or is gone.
  void OnRead(bool ok, grpc::ByteBuffer request);
  void OnWritten(bool ok);
  void OnCancelled();
  // The call is cancelled, and the front is going away.
  void OnOver();
  // Any thread.
  void Drain();

 private:
  struct Slot {
    std::shared_ptr<Exchange> exchange;
    int64_t request_bytes = 0;
    int64_t bytes = 0;     // Of its request and its answer; until that is ready, of what is expected.
    bool started = false;  // Start has returned.
    bool ended = false;    // The exchange has its status.
  };
  using Slots = std::deque<std::shared_ptr<Slot>>;

  StreamHost(const ApiMethod& method, const StreamOptions& options, Arrival arrival, const HostContext& host,
             StreamFront& front);

  absl::Status TakeCall();
  // Null when there is nothing to begin: the last message was read, or the stream is over, or may hold no more.
  std::shared_ptr<Slot> TakeMessage(bool ok, int64_t bytes);
  // Reason why there is no next message; OK after the last one.
  absl::Status EndReason(bool ok) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndMessage(Slot& slot);
  // Begins what can be begun: the next write, the end, or, in a reaction of the front's, the next read. Elsewhere the
  // stream may be finished by another thread between the decision and the read.
  void Advance(bool in_reaction);
  // The slot to be written next, taken out; null when there is none.
  std::shared_ptr<Slot> TakeAnswer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Slots that have nothing to write: parts of larger messages, and those that failed.
  void DropEmpty() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DropIfEmpty(const Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopReading(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Another size than it was thought.
  void Resize(Slot& slot, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelAll();
  void End(const absl::Status& status);

  const ApiMethod method_;
  const StreamOptions options_;
  const HostContext& host_;
  StreamFront& front_;
  CallRecord record_;
  const absl::Time ends_;  // When it is too old.
  std::unique_ptr<Charge> call_;

  Mutex mutex_;
  Slots slots_ ABSL_GUARDED_BY(mutex_);          // In order of arrival.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;    // Of the slots.
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // Until what was read has been begun.
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;   // In order: the next answer would be an error.
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);  // Reason for reading no more; ends the stream once all is answered.
  std::shared_ptr<Slot> writing_ ABSL_GUARDED_BY(mutex_);  // The slot whose answer is being written.
  std::string model_ ABSL_GUARDED_BY(mutex_);
};

// The streams of a server, so that it can drain them. Thread-safe.
class OpenStreams {
 public:
  void Add(const std::shared_ptr<StreamHost>& stream);
  // Drains those that are open, and those that are opened later.
  void Drain();

 private:
  Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<StreamHost>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_STREAM_HOST_H_
