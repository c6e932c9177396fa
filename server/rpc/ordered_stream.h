// A bidirectional stream that answers each message, in order, with several of them in work at a time.
#ifndef LONGEMBED_SERVER_RPC_ORDERED_STREAM_H_
#define LONGEMBED_SERVER_RPC_ORDERED_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batching/clock.h"
#include "server/rpc/operation.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// Deletes itself when gRPC and all its operations are done with it. The first error ends the stream; what was begun
// after it is cancelled. A client that does not read its answers is not read from either.
class OrderedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  using MakeOperation = std::function<std::unique_ptr<Operation>()>;

  // What is in work or waits to be written, before the next message is read.
  struct Limits {
    size_t max_messages = 64;
    int64_t max_bytes = 16 << 20;  // Of their requests.
  };

  // `clock` and `metrics` must outlive it.
  OrderedStream(std::string method, grpc::CallbackServerContext* context, MakeOperation make_operation,
                const Limits& limits, const Clock& clock, Metrics& metrics);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Slot {
    std::unique_ptr<Operation> operation;
    int64_t bytes = 0;                   // Of its request.
    std::optional<absl::Status> status;  // Once it is done.
    bool started = false;                // Start has returned.
  };

  ~OrderedStream() override = default;

  void OperationDone(Slot& slot, const absl::Status& status);
  // Begins what can be begun: the next write, the end, or, in a reaction of gRPC's, the next read. Elsewhere the stream
  // may be finished by another thread between the decision and the read.
  void Advance(bool in_reaction);
  void CancelAll();
  void End(const absl::Status& status);
  void DeleteIfOver(std::unique_lock<std::mutex> lock);

  const std::string method_;
  grpc::CallbackServerContext* const context_;
  const MakeOperation make_operation_;
  const Limits limits_;
  const Clock& clock_;
  Metrics& metrics_;
  const absl::Time arrival_;

  std::mutex mutex_;
  std::deque<std::shared_ptr<Slot>> slots_ ABSL_GUARDED_BY(mutex_);  // In order; the first is written first.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;                        // Of the slots.
  int running_ ABSL_GUARDED_BY(mutex_) = 0;                          // Operations that have not left OperationDone.
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  std::string model_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_ORDERED_STREAM_H_
