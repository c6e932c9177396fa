// Hosts a bidirectional stream that answers each message. Several messages may be in progress at a time.
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

// The transport of a stream. The host calls no method after Finish. The transport calls no method of the host before
// the host's Begin.
class StreamTransport {
 public:
  virtual ~StreamTransport() = default;
  virtual void Read() = 0;                          // OnRead is called afterwards.
  virtual void Write(grpc::ByteBuffer answer) = 0;  // OnWritten is called afterwards.
  virtual void Finish(const absl::Status& status) = 0;
};

// Starts messages one after the other. If a client does not read its answers, the host stops reading from it. If the
// API has a place for a message's error, the error is that message's answer. If an operation ends with an error, the
// host reads no more, answers what was read (all of it, or with ordered answers what came before), and ends the stream
// with that error. When the server drains, the host reads no more, answers what was read, and ends the stream with
// ServerDraining.
class StreamHost : public std::enable_shared_from_this<StreamHost> {
 public:
  // `transport` must live until it has called OnFinished, and `host` longer.
  static std::shared_ptr<StreamHost> Make(const ApiMethod& method, const StreamOptions& options, Arrival arrival,
                                          const HostContext& host, StreamTransport& transport);

  // Reads the first message, or ends the stream.
  void Begin();
  // `ok` is true if there is a message, `request`. Otherwise the client has sent all its messages or has gone away.
  void OnRead(bool ok, grpc::ByteBuffer request);
  void OnWritten(bool ok);
  void OnCancelled();
  // The call has ended, and the transport is about to be destroyed.
  void OnFinished();
  // Any thread.
  void Drain();
  // Ends the stream if it is too old, once what was read is answered. Call it from time to time, because a client
  // that sends nothing causes no event. Any thread.
  void EndIfOld();

 private:
  struct Slot {
    std::shared_ptr<Exchange> exchange;
    int64_t request_bytes = 0;
    int64_t bytes = 0;     // Size of its request and its answer; an estimate until the answer is ready.
    bool started = false;  // Start has returned.
    bool ended = false;    // The exchange has its status.
  };
  using Slots = std::deque<std::shared_ptr<Slot>>;

  StreamHost(const ApiMethod& method, const StreamOptions& options, Arrival arrival, const HostContext& host,
             StreamTransport& transport);

  absl::Status TakeCall();
  // Takes a message. Returns null if there is nothing to start: the last message was read, or the stream has ended or
  // has no room.
  std::shared_ptr<Slot> TakeMessage(bool ok, int64_t bytes);
  // Returns why there is no next message; OK after the last one.
  absl::Status EndReason(bool ok) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndMessage(Slot& slot);
  // Starts the next write or the end of the stream, or the next read. It reads only in a reaction to the transport
  // (`in_reaction`), because elsewhere another thread may finish the stream between the decision and the read.
  void Advance(bool in_reaction);
  // Removes and returns the slot to write next; null if there is none.
  std::shared_ptr<Slot> TakeAnswer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Removes slots that have nothing to write: parts of larger messages, and failed messages.
  void DropEmpty() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DropIfEmpty(const Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopReading(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sets the slot's bytes when its size becomes known.
  void Resize(Slot& slot, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelAll();
  void End(const absl::Status& status);

  const ApiMethod method_;
  const StreamOptions options_;
  const HostContext& host_;
  StreamTransport& transport_;
  CallRecord record_;
  const absl::Time ends_;  // Time from which on the stream is too old.
  std::unique_ptr<Charge> call_;

  Mutex mutex_;
  Slots slots_ ABSL_GUARDED_BY(mutex_);          // In order of arrival.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;    // Sum over the slots.
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // Until the message that was read has been started.
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;            // With ordered answers: the next one would be an error.
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);           // Why reading stopped; the stream's status at its end.
  std::shared_ptr<Slot> writing_ ABSL_GUARDED_BY(mutex_);  // The slot whose answer is being written.
  std::string model_ ABSL_GUARDED_BY(mutex_);
};

// The streams of a server. Used to end them. Thread-safe.
class OpenStreams {
 public:
  void Add(const std::shared_ptr<StreamHost>& stream);
  // Drains all open streams, and any that are opened later.
  void Drain();
  // Ends the streams that are too old. Call it about once a second.
  void EndOld();

 private:
  std::vector<std::shared_ptr<StreamHost>> Live() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<StreamHost>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_STREAM_HOST_H_
