// A corpus over EmbedStream: any number of inputs with bounded memory, through servers that come and go.
//
//   EmbedStream stream(client, options, {.timeout = absl::Minutes(1)},
//                      [](uint64_t number, v1::EmbedStreamResponse answer) { ... });
//   for (v1::Input& input : inputs) {
//     if (!stream.Write(std::move(input)).ok()) break;  // Blocks while enough is in flight.
//   }
//   const absl::Status status = stream.Finish();
#ifndef LONGEMBED_CLIENT_STREAM_H_
#define LONGEMBED_CLIENT_STREAM_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "longembed/v1/embedding.grpc.pb.h"

namespace longembed::client {

struct StreamOptions {
  size_t max_in_flight = 256;  // Inputs sent, or to be sent, without an answer.
  // Inputs from the first without an answer on, answered or not: what a caller may have to hold that wants the answers
  // in order.
  size_t max_ahead = std::numeric_limits<size_t>::max();
  // Without an answer, while there is something to be answered. The time that on_answer takes does not count.
  absl::Duration timeout = absl::Minutes(5);
  size_t max_message_bytes = 1 << 20;  // A longer text is sent in parts.
};

// One thread writes, the stream's own ones send and read. When a stream breaks (a server died, drains or is overloaded,
// or has had the stream for long enough) another is opened, and what has no answer is sent again: every input is
// answered once. Until the first answer the client's RetryPolicy bounds the attempts, then the timeout does.
class EmbedStream {
 public:
  // Called on a thread of the stream's, one call at a time, in any order of inputs. `number` counts inputs from 0. A
  // status other than OK ends the stream with it.
  using OnAnswer = std::function<absl::Status(uint64_t number, v1::EmbedStreamResponse answer)>;

  // `client` must outlive it.
  EmbedStream(Client& client, const v1::EmbedOptions& options, const StreamOptions& stream_options, OnAnswer on_answer);
  // Gives up what has no answer, unless it was finished.
  ~EmbedStream();

  // Waits while max_in_flight or max_ahead forbid another input. Not after Finish. Errors: what ended the stream.
  absl::Status Write(v1::Input input);

  // Waits until everything is answered and on_answer has returned. Errors: what ended the stream: the server's error,
  // DEADLINE_EXCEEDED, or what on_answer returned.
  absl::Status Finish();

 private:
  using Stub = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;

  void Run();
  // One stream from its opening to its end.
  grpc::Status RunOnce(grpc::ClientContext& context);
  // Cancels the stream at hand when nobody wants its answers any more, or they did not come in time. On a thread of its
  // own: opening, sending and reading block for as long as the server likes.
  void Watch(const std::stop_token& stop, grpc::ClientContext& context);
  void Send(Stub& stream);
  bool SendInput(Stub& stream, uint64_t number, v1::Input input, bool first);
  // False: the stream is over, and status_ says why.
  bool Receive(v1::EmbedStreamResponse answer);
  // Waits before the next attempt. False: there will be none, and status_ says why.
  bool MayTryAgain(const grpc::Status& end, const grpc::ClientContext& context);
  bool MayWrite() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of the next answer.
  absl::Time Deadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || abandoned_ || (closed_ && unanswered_.empty());
  }

  Client& client_;
  const v1::EmbedOptions options_;
  const StreamOptions stream_options_;
  const OnAnswer on_answer_;

  std::mutex mutex_;
  std::condition_variable_any changed_;  // _any: waits for a stop_token, too.
  std::map<uint64_t, v1::Input> unanswered_ ABSL_GUARDED_BY(mutex_);
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;  // Inputs so far.
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;     // The first that the stream at hand has not been sent.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;   // Nothing more will be written.
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // The stream at hand ended.
  bool any_answer_ ABSL_GUARDED_BY(mutex_) = false;
  int attempt_ ABSL_GUARDED_BY(mutex_) = 0;                               // Failed in a row.
  absl::Time progress_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // Since when the next answer is waited for.
  absl::Status status_ ABSL_GUARDED_BY(mutex_);

  std::jthread thread_;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_STREAM_H_
