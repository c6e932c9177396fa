#include "client/stream.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace longembed::client {
namespace {

// As in deploy/client/retry_service_config.json.
constexpr absl::Duration kFirstDelay = absl::Milliseconds(200);
constexpr absl::Duration kMaxDelay = absl::Seconds(5);

// Returns true if the connection broke in the middle of a stream. gRPC then reports one of these codes; which one
// depends on the side that closed the connection, which may be a proxy. Errors of the server itself carry details.
bool TransportBroke(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return GetErrorDetails(status).reason.empty();
    default:
      return status.code() == absl::StatusCode::kUnavailable;
  }
}

// Returns the delay before the next attempt, after `failures` failures in a row. nullopt: another attempt is useless.
std::optional<absl::Duration> DelayAfter(const absl::Status& status, int failures) {
  thread_local absl::BitGen random;
  const std::optional<absl::Duration> told = GetErrorDetails(status).retry_delay;
  const bool is_overload = status.code() == absl::StatusCode::kResourceExhausted && told.has_value();
  if (!is_overload && !TransportBroke(status)) return std::nullopt;
  // The delay is randomized, so that clients that were refused together do not return together.
  if (told.has_value()) return *told * absl::Uniform(random, 1.0, 1.2);
  const absl::Duration doubled = kFirstDelay * std::exp2(std::min(failures - 1, 30));
  return std::min(doubled, kMaxDelay) * absl::Uniform(random, 0.8, 1.2);
}

// Returns `start` + `duration`, or the maximum time point on overflow.
template <typename TimePoint>
TimePoint After(TimePoint start, absl::Duration duration) {
  const bool is_endless = duration >= absl::FromChrono(TimePoint::max() - start);
  return is_endless ? TimePoint::max() : start + absl::ToChronoNanoseconds(duration);
}

// The longest code point in UTF-8. Parts of fewer bytes might have to cut it.
constexpr size_t kCodePointBytes = 4;

absl::Status CheckOptions(const StreamOptions& options) {
  if (options.max_message_bytes < kCodePointBytes) {
    return absl::InvalidArgumentError(absl::StrCat("max_message_bytes: is ", options.max_message_bytes, "; it must be ",
                                                   kCodePointBytes, " or more"));
  }
  if (options.max_attempts < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_attempts: is ", options.max_attempts, "; it must be 1 or more"));
  }
  return absl::OkStatus();
}

// Returns the end of a part of at most `max_bytes` bytes. The end is between two code points.
size_t CutAt(const std::string& text, size_t begin, size_t max_bytes) {
  if (text.size() - begin <= max_bytes) return text.size();
  size_t end = begin + max_bytes;
  while (end > begin + 1 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

}  // namespace

EmbedStream::EmbedStream(Client& client, const v1::EmbedOptions& options, const StreamOptions& stream_options,
                         OnAnswer on_answer)
    : client_(client),
      options_(options),
      stream_options_(stream_options),
      on_answer_(std::move(on_answer)),
      status_(CheckOptions(stream_options)),
      thread_([this] { Run(); }),
      on_stop_(stream_options.stop, [this] { End(absl::CancelledError("the stream was cancelled")); }) {}

EmbedStream::~EmbedStream() {
  {
    const MutexLock lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
}

absl::Status EmbedStream::Write(absl::StatusOr<v1::Input> input) {
  MutexLock lock(mutex_);
  changed_.wait(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !status_.ok() || MayWrite(); });
  if (!status_.ok()) return status_;
  const uint64_t number = written_++;
  if (!input.ok()) {
    lock.unlock();
    v1::EmbedStreamResponse answer;
    answer.mutable_result()->mutable_error()->set_code(static_cast<int>(input.status().code()));
    answer.mutable_result()->mutable_error()->set_message(std::string(input.status().message()));
    return Deliver(number, std::move(answer));
  }
  if (unanswered_.empty()) awaited_since_ = Clock::now();
  Item& item = unanswered_[number];
  item.input = *std::move(input);
  Schedule(number, item, next_attempt_);
  changed_.notify_all();
  return absl::OkStatus();
}

bool EmbedStream::MayWrite() const {
  return unanswered_.empty() || (unanswered_.size() < stream_options_.max_in_flight &&
                                 written_ - unanswered_.begin()->first < stream_options_.max_ahead);
}

absl::Status EmbedStream::Finish() {
  MutexLock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return IsOver(); });
  return status_;
}

void EmbedStream::Run() {
  while (true) {
    {
      MutexLock lock(mutex_);
      if (!WaitForDue(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return IsOver(); })) return;
      broken_ = false;
    }
    grpc::ClientContext context;
    if (const absl::Status status = client_.Authorize(context); !status.ok()) return End(status);
    if (!MayTryAgain(RunOnce(context))) break;
  }
  changed_.notify_all();
}

bool EmbedStream::WaitForDue(MutexLock& lock, const std::function<bool()>& is_over) {
  while (!is_over()) {
    if (unsent_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Clock::time_point due = unsent_.begin()->first;
    if (due <= Clock::now()) return true;
    changed_.wait_until(lock, due);
  }
  return false;
}

grpc::Status EmbedStream::RunOnce(grpc::ClientContext& context) {
  const std::jthread watcher([this, &context](const std::stop_token& stop) { Watch(stop, context); });
  const std::unique_ptr<Stub> stream = client_.stub().EmbedStream(&context);
  std::jthread sender([this, &stream] { Send(*stream); });
  for (v1::EmbedStreamResponse answer; stream->Read(&answer);) {
    if (!Receive(std::move(answer))) break;  // Watch cancels the rest of the stream.
  }
  {
    const MutexLock lock(mutex_);
    broken_ = true;
  }
  changed_.notify_all();
  sender.join();
  return stream->Finish();
}

void EmbedStream::Watch(const std::stop_token& stop, grpc::ClientContext& context) {
  MutexLock lock(mutex_);
  while (!abandoned_ && status_.ok()) {
    const Clock::time_point deadline = Deadline();
    if (Clock::now() >= deadline) {
      status_ = absl::DeadlineExceededError(
          absl::StrCat("the server gave no answer for ", absl::FormatDuration(stream_options_.timeout)));
      changed_.notify_all();
      break;
    }
    changed_.wait_until(lock, stop, deadline, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return abandoned_ || !status_.ok() || Deadline() != deadline;
    });
    if (stop.stop_requested()) return;
  }
  context.TryCancel();
}

void EmbedStream::Send(Stub& stream) {
  bool first = true;
  MutexLock lock(mutex_);
  while (WaitForDue(
      lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return broken_ || (closed_ && unsent_.empty()); })) {
    const uint64_t number = unsent_.extract(unsent_.begin()).value().second;
    Item& item = unanswered_.at(number);
    item.is_sent = true;
    // A copy is sent without holding the lock, because sending blocks while the server does not read.
    v1::Input input = item.input;
    lock.unlock();
    if (!SendInput(stream, number, std::move(input), first)) return;
    first = false;
    lock.lock();
  }
  if (broken_) return;
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
    const MutexLock lock(mutex_);
    const auto item = absl::SimpleAtoi(answer.id(), &number) ? unanswered_.find(number) : unanswered_.end();
    if (item == unanswered_.end() || !item->second.is_sent) {
      status_ =
          absl::InternalError(absl::StrCat("the server answered an input that it was not asked for: ", answer.id()));
      return false;
    }
    any_answer_ = true;
    failures_ = 0;
    if (WasRefused(number, answer.result().error())) return true;
    awaited_since_.reset();
  }
  if (!Deliver(number, std::move(answer)).ok()) return false;
  {
    const MutexLock lock(mutex_);
    // Erased only now: before on_answer returned, Finish could have returned and missed its error.
    unanswered_.erase(number);
    if (!unanswered_.empty()) awaited_since_ = Clock::now();
  }
  changed_.notify_all();
  return true;
}

bool EmbedStream::WasRefused(uint64_t number, const google::rpc::Status& error) {
  if (error.code() == 0) return false;
  Item& item = unanswered_.at(number);
  const absl::Status status = ToStatus(error);
  if (!GetErrorDetails(status).retry_delay.has_value() || ++item.refusals >= stream_options_.max_attempts) return false;
  const std::optional<absl::Duration> delay = DelayAfter(status, item.refusals);
  if (!delay.has_value() || *delay > stream_options_.timeout) return false;
  awaited_since_ = Clock::now();
  Schedule(number, item, After(Clock::now(), *delay));
  changed_.notify_all();
  return true;
}

void EmbedStream::Schedule(uint64_t number, Item& item, Clock::time_point due) {
  item.is_sent = false;
  item.due = std::max(item.due, due);
  unsent_.emplace(item.due, number);
}

absl::Status EmbedStream::Deliver(uint64_t number, v1::EmbedStreamResponse answer) {
  const MutexLock one_at_a_time(answering_);
  absl::Status status = on_answer_(number, std::move(answer));
  if (!status.ok()) End(status);
  return status;
}

void EmbedStream::End(absl::Status status) {
  {
    const MutexLock lock(mutex_);
    if (status_.ok()) status_ = std::move(status);
  }
  changed_.notify_all();
}

EmbedStream::Clock::time_point EmbedStream::Deadline() const {
  return awaited_since_.has_value() && !unanswered_.empty() ? After(*awaited_since_, stream_options_.timeout)
                                                            : Clock::time_point::max();
}

bool EmbedStream::MayTryAgain(const grpc::Status& end) {
  const MutexLock lock(mutex_);
  if (IsOver()) return false;
  // Refused inputs stay unanswered when a stream ends, since they wait until they are due.
  const bool is_incomplete = std::any_of(unanswered_.begin(), unanswered_.end(), [](const auto& item) {
    return item.second.is_sent || item.second.due <= Clock::now();
  });
  if (!end.ok() || is_incomplete) {
    // A server that ends a stream with OK before every input is answered has lost inputs. They are sent again, too.
    const absl::Status status =
        end.ok() ? absl::UnavailableError("the server did not answer every input") : ToStatus(end);
    const std::optional<absl::Duration> delay = DelayAfter(status, ++failures_);
    const bool is_last = !any_answer_ && failures_ >= stream_options_.max_attempts;
    if (is_last || !delay.has_value() || After(Clock::now(), *delay) > Deadline()) {
      status_ = status;
      return false;
    }
    next_attempt_ = After(Clock::now(), *delay);
  }
  unsent_.clear();
  for (auto& [number, item] : unanswered_) Schedule(number, item, next_attempt_);
  return true;
}

}  // namespace longembed::client
