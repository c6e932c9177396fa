#include "client/stream.h"

#include <grpcpp/client_context.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace longembed::client {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(200);  // How often deadlines are looked at.

// A connection that broke in the middle of a stream is seen as one of these, depending on who broke it (a proxy among
// others). The server's own errors carry details.
bool TransportBroke(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return true;
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
      return status.error_details().empty();
    default:
      return false;
  }
}

// Where to cut so that a part of at most `most` bytes ends between two code points.
size_t CutAt(const std::string& text, size_t begin, size_t most) {
  if (text.size() - begin <= most) return text.size();
  size_t end = begin + most;
  while (end > begin + 1 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

}  // namespace

EmbedStream::EmbedStream(Client& client, const v1::EmbedOptions& options, const StreamOptions& stream_options,
                         OnAnswer on_answer)
    : client_(client), options_(options), stream_options_(stream_options), on_answer_(std::move(on_answer)) {
  thread_ = std::jthread([this] { Run(); });
}

EmbedStream::~EmbedStream() {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
}

absl::Status EmbedStream::Write(v1::Input input) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !status_.ok() || MayWrite(); });
  if (!status_.ok()) return status_;
  if (unanswered_.empty()) progress_ = absl::Now();
  unanswered_.emplace(written_++, std::move(input));
  changed_.notify_all();
  return absl::OkStatus();
}

bool EmbedStream::MayWrite() const {
  return unanswered_.empty() || (unanswered_.size() < stream_options_.max_in_flight &&
                                 written_ - unanswered_.begin()->first < stream_options_.max_ahead);
}

absl::Status EmbedStream::Finish() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return Over(); });
  return status_;
}

void EmbedStream::Run() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return Over() || !unanswered_.empty(); });
      if (Over()) return;
      next_ = 0;
      broken_ = false;
    }
    grpc::ClientContext context;
    const grpc::Status status = RunOnce(context);
    if (!MayTryAgain(status, context)) break;
  }
  changed_.notify_all();
}

grpc::Status EmbedStream::RunOnce(grpc::ClientContext& context) {
  client_.Authorize(context);
  const std::jthread watcher([this, &context](const std::stop_token& stop) { Watch(stop, context); });
  const std::unique_ptr<Stub> stream = client_.stub().EmbedStream(&context);
  std::jthread sender([this, &stream] { Send(*stream); });
  bool good = true;
  for (v1::EmbedStreamResponse answer; good && stream->Read(&answer);) good = Receive(std::move(answer));
  if (!good) context.TryCancel();
  {
    const std::lock_guard lock(mutex_);
    broken_ = true;
  }
  changed_.notify_all();
  sender.join();
  return stream->Finish();
}

void EmbedStream::Watch(const std::stop_token& stop, grpc::ClientContext& context) {
  std::unique_lock lock(mutex_);
  while (!abandoned_ && absl::Now() <= Deadline()) {
    changed_.wait_for(lock, stop, absl::ToChronoNanoseconds(kLook), [this] { return abandoned_; });
    if (stop.stop_requested()) return;
  }
  if (!abandoned_ && status_.ok()) status_ = absl::DeadlineExceededError("the server did not answer in time");
  context.TryCancel();
}

void EmbedStream::Send(Stub& stream) {
  bool first = true;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return broken_ || closed_ || unanswered_.lower_bound(next_) != unanswered_.end(); });
    if (broken_) return;
    const auto item = unanswered_.lower_bound(next_);
    if (item == unanswered_.end()) break;
    next_ = item->first + 1;
    // Sent from a copy, without the lock: sending blocks while the server does not read.
    auto [number, input] = *item;
    lock.unlock();
    if (!SendInput(stream, number, std::move(input), first)) return;
    first = false;
    lock.lock();
  }
  lock.unlock();
  stream.WritesDone();
}

bool EmbedStream::SendInput(Stub& stream, uint64_t number, v1::Input input, bool first) {
  v1::EmbedStreamRequest message;
  message.set_id(absl::StrCat(number));
  if (first) *message.mutable_options() = options_;
  if (input.text().size() <= stream_options_.max_message_bytes) {
    *message.mutable_input() = std::move(input);
    return stream.Write(message);
  }
  const std::string& text = input.text();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = CutAt(text, begin, stream_options_.max_message_bytes);
    message.mutable_input()->set_text(text.substr(begin, end - begin));
    if (end == text.size()) *message.mutable_input()->mutable_ranges() = input.ranges();
    message.set_more_parts(end < text.size());
    if (!stream.Write(message)) return false;
    message.clear_options();
    begin = end;
  }
  return true;
}

bool EmbedStream::Receive(v1::EmbedStreamResponse answer) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!absl::SimpleAtoi(answer.id(), &number) || !unanswered_.contains(number)) {
      status_ =
          absl::InternalError(absl::StrCat("the server answered an input that it was not asked for: ", answer.id()));
      return false;
    }
    any_answer_ = true;
    attempt_ = 0;
    progress_ = absl::InfiniteFuture();  // What the caller does with the answer may take its time.
  }
  const absl::Status status = on_answer_(number, std::move(answer));
  {
    const std::lock_guard lock(mutex_);
    unanswered_.erase(number);  // Not before: Finish would return while the answer, and its error, are still out.
    progress_ = absl::Now();
    if (status_.ok()) status_ = status;
  }
  changed_.notify_all();
  return status.ok();
}

absl::Time EmbedStream::Deadline() const {
  return unanswered_.empty() ? absl::InfiniteFuture() : progress_ + stream_options_.timeout;
}

bool EmbedStream::MayTryAgain(const grpc::Status& end, const grpc::ClientContext& context) {
  std::unique_lock lock(mutex_);
  if (Over()) return false;
  // A server that ends a stream with OK before everything is answered lost something; that, too, is sent again.
  const grpc::Status status =
      end.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server did not answer every input") : end;
  RetryPolicy policy = client_.retry_policy();
  if (any_answer_ && policy.max_attempts > 1) policy.max_attempts = std::numeric_limits<int>::max();
  const grpc::StatusCode code = TransportBroke(status) ? grpc::StatusCode::UNAVAILABLE : status.error_code();
  thread_local absl::BitGen random;
  const std::optional<absl::Duration> delay =
      DelayBeforeRetry(policy, ++attempt_, code, ReadPushback(context, status), absl::Uniform(random, 0.0, 1.0));
  if (!delay.has_value() || absl::Now() + *delay > Deadline()) {
    status_ = ToStatus(status);
    return false;
  }
  changed_.wait_for(lock, absl::ToChronoNanoseconds(*delay), [this] { return abandoned_; });
  return !Over();
}

}  // namespace longembed::client
