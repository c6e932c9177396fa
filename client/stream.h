// A corpus over EmbedStream: any number of inputs with bounded memory, across restarts of the server.
//
//   EmbedStream stream(client, options, {.timeout = absl::Minutes(1)},
//                      [](uint64_t number, v1::EmbedStreamResponse answer) { return absl::OkStatus(); });
//   for (v1::Input& input : inputs) {
//     if (!stream.Write(std::move(input)).ok()) break;  // Blocks while enough is in flight.
//   }
//   const absl::Status status = stream.Finish();
#ifndef LONGEMBED_CLIENT_STREAM_H_
#define LONGEMBED_CLIENT_STREAM_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "system/mutex.h"

namespace longembed::client {

struct StreamOptions {
  size_t max_in_flight = 256;  // Inputs without an answer, sent or not.
  // Inputs from the first without an answer on, answered or not. A caller that wants answers in order holds as many.
  size_t max_ahead = std::numeric_limits<size_t>::max();
  // Longest time without an answer while one is due. Time spent in on_answer does not count.
  absl::Duration timeout = absl::Minutes(5);
  size_t max_message_bytes = 1 << 20;  // A longer text is sent in parts.
  // Times that a stream is opened in a row before its first answer, and that a refused input is sent; at least 1.
  int max_attempts = 6;
  // Ends the stream with CANCELLED, from any thread.
  std::stop_token stop = {};
};

// Answers every input once. A gRPC stream that breaks (its server died, drains or is overloaded, or ended a stream that
// was too old) is followed by another, which sends everything without an answer again. An input that the server refuses
// with a retry delay is sent again after it. Delays grow from 0.2 to 5 seconds where the server names none. After the
// first answer only the timeout bounds the attempts to open a stream.
//
// One thread at a time may call Write and Finish; the stream's own threads send and read. Requesting `stop` is safe
// from any thread.
class EmbedStream {
 public:
  // Called by one thread at a time, in any order of inputs: a thread of the stream's, or one in Write. `number` counts
  // inputs from 0. An input that failed has answer.result().error(). A status other than OK ends the stream with it.
  // Must not call the stream.
  using OnAnswer = std::function<absl::Status(uint64_t number, v1::EmbedStreamResponse answer)>;

  // `client` must outlive the stream.
  EmbedStream(Client& client, const v1::EmbedOptions& options, const StreamOptions& stream_options, OnAnswer on_answer);
  // Unless the stream is finished, drops every input without an answer.
  ~EmbedStream();

  // Waits while max_in_flight or max_ahead forbid another input. An error in place of an input takes its number and is
  // its answer: Write itself calls on_answer. Not after Finish. Errors: the one that ended the stream.
  absl::Status Write(absl::StatusOr<v1::Input> input);

  // Waits until everything is answered and on_answer has returned. Errors: the one that ended the stream: the server's,
  // DEADLINE_EXCEEDED, CANCELLED, or that of on_answer.
  absl::Status Finish();

 private:
  using Stub = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;
  using Clock = std::chrono::steady_clock;

  struct Item {
    v1::Input input;
    Clock::time_point due;  // Not sent before.
    bool is_sent = false;   // On the gRPC stream at hand.
    int refusals = 0;
  };

  void Run();
  // One gRPC stream from its opening to its end.
  grpc::Status RunOnce(grpc::ClientContext& context);
  // Cancels the gRPC stream at hand when its answers are not needed any more, or overdue. Has a thread of its own:
  // opening, sending and reading block for as long as the server likes.
  void Watch(const std::stop_token& stop, grpc::ClientContext& context);
  void Send(Stub& stream);
  bool SendInput(Stub& stream, uint64_t number, v1::Input input, bool first);
  // False: the stream is over, with status_.
  bool Receive(v1::EmbedStreamResponse answer);
  // Calls on_answer.
  absl::Status Deliver(uint64_t number, v1::EmbedStreamResponse answer);
  // Schedules the next attempt. False: there will be none, because of status_.
  bool MayTryAgain(const grpc::Status& end);
  // Whether the server refused the input for now; then schedules it.
  bool WasRefused(uint64_t number, const google::rpc::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Schedule(uint64_t number, Item& item, Clock::time_point due) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until an input is due. False: is_over came first.
  bool WaitForDue(MutexLock& lock, const std::function<bool()>& is_over) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(absl::Status status);
  bool MayWrite() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of the next answer.
  Clock::time_point Deadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || abandoned_ || (closed_ && unanswered_.empty());
  }

  Client& client_;
  const v1::EmbedOptions options_;
  const StreamOptions stream_options_;
  const OnAnswer on_answer_;
  Mutex answering_;  // Held while on_answer_ runs.

  Mutex mutex_;
  std::condition_variable_any changed_;  // _any: waits for a stop_token, too.
  std::map<uint64_t, Item> unanswered_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<Clock::time_point, uint64_t>> unsent_ ABSL_GUARDED_BY(mutex_);  // Of unanswered_, by when due.
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_);                           // Nothing is sent before.
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;                                     // Inputs so far.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;                                      // Nothing more will be written.
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // The gRPC stream at hand ended.
  bool any_answer_ ABSL_GUARDED_BY(mutex_) = false;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;  // Of gRPC streams in a row, without an answer.
  // Since when the next answer is awaited; nullopt: none is.
  std::optional<Clock::time_point> awaited_since_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);

  std::jthread thread_;
  std::stop_callback<std::function<void()>> on_stop_;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_STREAM_H_
