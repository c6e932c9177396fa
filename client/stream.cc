#include "client/stream.h"

#include <grpcpp/client_context.h>

#include <algorithm>
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
  changed_.wait(lock, [this] { return !status_.ok() || unanswered_.size() < stream_options_.max_in_flight; });
  if (!status_.ok()) return status_;
  if (unanswered_.empty()) progress_ = absl::Now();
  unanswered_.emplace(written_++, std::move(input));
  changed_.notify_all();
  return absl::OkStatus();
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
  const std::unique_ptr<Stub> stream = client_.stub().EmbedStream(&context);
  std::jthread sender([this, &stream, &context] { Send(*stream, context); });
  absl::Status failure;
  for (v1::EmbedStreamResponse answer; failure.ok() && stream->Read(&answer);) failure = Receive(std::move(answer));
  if (!failure.ok()) context.TryCancel();
  {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    if (!failure.ok() && status_.ok()) status_ = failure;
  }
  changed_.notify_all();
  sender.join();
  return stream->Finish();
}

void EmbedStream::Send(Stub& stream, grpc::ClientContext& context) {
  bool first = true;
  std::unique_lock lock(mutex_);
  while (!broken_) {
    if (GivesUp(context)) return;
    const auto item = unanswered_.lower_bound(next_);
    if (item == unanswered_.end()) {
      if (closed_) break;
      changed_.wait_for(lock, absl::ToChronoNanoseconds(kLook));
      continue;
    }
    next_ = item->first + 1;
    // Sent from a copy, without the lock: sending blocks while the server does not read.
    const auto [number, input] = *item;
    lock.unlock();
    const bool sent = SendInput(stream, number, input, first);
    first = false;
    lock.lock();
    if (!sent) return;
  }
  lock.unlock();
  stream.WritesDone();
  lock.lock();
  // What was sent is waited for under the same timeout.
  while (!broken_ && !unanswered_.empty()) {
    if (GivesUp(context)) return;
    changed_.wait_for(lock, absl::ToChronoNanoseconds(kLook));
  }
}

bool EmbedStream::GivesUp(grpc::ClientContext& context) {
  if (!abandoned_ && !Overdue()) return false;
  if (!abandoned_) status_ = absl::DeadlineExceededError("the server did not answer in time");
  context.TryCancel();
  return true;
}

bool EmbedStream::SendInput(Stub& stream, uint64_t number, const v1::Input& input, bool first) {
  v1::EmbedStreamRequest message;
  message.set_id(absl::StrCat(number));
  if (first) *message.mutable_options() = options_;
  if (input.text().size() <= stream_options_.max_message_bytes) {
    *message.mutable_input() = input;
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

absl::Status EmbedStream::Receive(v1::EmbedStreamResponse answer) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!absl::SimpleAtoi(answer.id(), &number) || unanswered_.erase(number) == 0) {
      return absl::InternalError(absl::StrCat("the server answered an input that it was not asked for: ", answer.id()));
    }
    progress_ = absl::Now();
    any_answer_ = true;
    attempt_ = 0;
  }
  const absl::Status status = on_answer_(number, std::move(answer));
  changed_.notify_all();
  return status;
}

bool EmbedStream::Overdue() const { return !unanswered_.empty() && absl::Now() - progress_ > stream_options_.timeout; }

bool EmbedStream::MayTryAgain(const grpc::Status& status, const grpc::ClientContext& context) {
  std::unique_lock lock(mutex_);
  // A server that ends a stream with OK before everything is answered lost something; that, too, is sent again.
  if (Over()) return false;
  RetryPolicy policy = client_.retry_policy();
  if (any_answer_ && policy.max_attempts > 1) policy.max_attempts = std::numeric_limits<int>::max();
  const grpc::StatusCode code =
      status.ok() || TransportBroke(status) ? grpc::StatusCode::UNAVAILABLE : status.error_code();
  thread_local absl::BitGen random;
  const std::optional<absl::Duration> delay =
      DelayBeforeRetry(policy, ++attempt_, code, ReadPushback(context, status), absl::Uniform(random, 0.0, 1.0));
  if (!delay.has_value()) {
    status_ = ToStatus(status);
    return false;
  }
  changed_.wait_for(lock, absl::ToChronoNanoseconds(*delay), [this] { return abandoned_; });
  if (Overdue() && status_.ok()) status_ = ToStatus(status);
  return !Over();
}

}  // namespace longembed::client
