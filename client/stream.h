// Embeds a corpus over EmbedStream: any number of inputs, with bounded memory, across restarts of the server.
//
//   EmbedStream stream(client, options, {.timeout = absl::Minutes(1)},
//                      [](uint64_t number, v1::EmbedStreamResponse answer) { return absl::OkStatus(); });
//   for (v1::Input& input : inputs) {
//     if (!stream.Write(std::move(input)).ok()) break;  // Blocks while too many inputs are in flight.
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
  size_t max_in_flight = 256;  // The most inputs without an answer, whether sent or not.
  // The most inputs, with or without an answer, from the first unanswered one to the last written one. A caller that
  // writes answers in order has to buffer up to this many.
  size_t max_ahead = std::numeric_limits<size_t>::max();
  // The longest time to wait for the next answer. Time spent in on_answer does not count.
  absl::Duration timeout = absl::Minutes(5);
  size_t max_message_bytes = 1 << 20;  // Longer texts are sent in parts of whole code points. At least 4.
  // The most attempts to open a stream before its first answer, and the most attempts to send one refused input. At
  // least 1.
  int max_attempts = 6;
  // Ends the stream with CANCELLED. May be requested from any thread.
  std::stop_token stop = {};
};

// Delivers exactly one answer for every input.
//
// When a gRPC stream breaks, another one is opened, and all inputs without an answer are sent again. A stream breaks if
// its server dies, drains or is overloaded, or if it ends a stream that is too old. When the server refuses an input
// and names a retry delay, the input is sent again after that delay. If the server names no delay, delays grow from 0.2
// to 5 seconds. After the first answer, the number of attempts to open a stream is limited only by the timeout.
//
// One thread at a time may call Write and Finish. Sending and receiving happen on the stream's own threads. Requesting
// `stop` is safe from any thread.
class EmbedStream {
 public:
  // Receives one answer. Calls never overlap and may come in any order of inputs. They are made on one of the stream's
  // threads or inside Write. `number` counts inputs from 0. If an input failed, answer.result().error() is set.
  // Returning a status other than OK ends the stream with that status. The callback must not call the stream.
  using OnAnswer = std::function<absl::Status(uint64_t number, v1::EmbedStreamResponse answer)>;

  // `client` must outlive the stream.
  EmbedStream(Client& client, const v1::EmbedOptions& options, const StreamOptions& stream_options, OnAnswer on_answer);
  // Drops all inputs without an answer, if Finish has not returned.
  ~EmbedStream();

  // Adds an input. Waits while max_in_flight or max_ahead forbid another one. If `input` is an error, the error takes
  // the next number and is the answer, and Write itself calls on_answer. Must not be called after Finish. Errors: the
  // error that ended the stream; INVALID_ARGUMENT if an option is below its minimum.
  absl::Status Write(absl::StatusOr<v1::Input> input);

  // Waits until every input is answered and on_answer has returned. Errors: the error that ended the stream, which is
  // the server's, DEADLINE_EXCEEDED, CANCELLED, or the one that on_answer returned.
  absl::Status Finish();

 private:
  using Stub = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;
  using Clock = std::chrono::steady_clock;

  struct Item {
    v1::Input input;
    Clock::time_point due;  // Not sent before this time.
    bool is_sent = false;   // Sent on the current gRPC stream.
    int refusals = 0;
  };

  void Run();
  // Runs one gRPC stream from its opening to its end.
  grpc::Status RunOnce(grpc::ClientContext& context);
  // Cancels the current gRPC stream when its answers are no longer needed or are overdue. Runs on its own thread,
  // because opening, sending and reading may block for any time.
  void Watch(const std::stop_token& stop, grpc::ClientContext& context);
  void Send(Stub& stream);
  bool SendInput(Stub& stream, uint64_t number, v1::Input input, bool first);
  // Handles one answer. Returns false if the stream is over; status_ is then set.
  bool Receive(v1::EmbedStreamResponse answer);
  // Calls on_answer.
  absl::Status Deliver(uint64_t number, v1::EmbedStreamResponse answer);
  // Schedules the next attempt. Returns false if there is none; status_ then holds the reason.
  bool MayTryAgain(const grpc::Status& end);
  // Returns true if the server refused the input for now, and schedules the input again.
  bool WasRefused(uint64_t number, const google::rpc::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Schedule(uint64_t number, Item& item, Clock::time_point due) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until an input is due. Returns false if is_over returns true first.
  bool WaitForDue(MutexLock& lock, const std::function<bool()>& is_over) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(absl::Status status);
  bool MayWrite() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns the time by which the next answer must arrive.
  Clock::time_point Deadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || abandoned_ || (closed_ && unanswered_.empty());
  }

  Client& client_;
  const v1::EmbedOptions options_;
  const StreamOptions stream_options_;
  const OnAnswer on_answer_;
  Mutex answering_;  // Held while on_answer_ runs.

  Mutex mutex_;
  std::condition_variable_any changed_;  // The _any variant can also wait for a stop_token.
  std::map<uint64_t, Item> unanswered_ ABSL_GUARDED_BY(mutex_);
  // The unsent inputs of unanswered_, ordered by due time.
  std::set<std::pair<Clock::time_point, uint64_t>> unsent_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_);  // Nothing is sent before this time.
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;            // Number of inputs so far.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;             // No more inputs will be written.
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // The current gRPC stream ended.
  bool any_answer_ ABSL_GUARDED_BY(mutex_) = false;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;  // gRPC streams in a row that ended without an answer.
  // The start of the wait for the next answer. nullopt: no answer is awaited.
  std::optional<Clock::time_point> awaited_since_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);

  std::jthread thread_;
  std::stop_callback<std::function<void()>> on_stop_;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_STREAM_H_
