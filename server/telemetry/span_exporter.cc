#include "server/telemetry/span_exporter.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "server/telemetry/log.h"

namespace longembed {

SpanExporter::SpanExporter(const SpanExporterOptions& options, SpanSender& sender, OnDropped on_dropped)
    : options_(options), sender_(sender), on_dropped_(std::move(on_dropped)), thread_([this] { Run(); }) {}

SpanExporter::~SpanExporter() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  sender_.Cancel();
  added_.NotifyOne();
  thread_.join();
  if (!waiting_.empty()) CountDropped("shutdown", static_cast<int64_t>(waiting_.size()));
}

void SpanExporter::Add(std::vector<Span> spans) {
  const size_t count = spans.size();
  bool full_batch = false, first = false;
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() + count > options_.capacity) return CountDropped("queue_full", static_cast<int64_t>(count));
    first = waiting_.empty();
    waiting_.insert(waiting_.end(), std::make_move_iterator(spans.begin()), std::make_move_iterator(spans.end()));
    full_batch = waiting_.size() >= options_.max_batch;
  }
  if (first || full_batch) added_.NotifyOne();
}

bool SpanExporter::Flush(absl::Duration timeout) {
  MutexLock lock(mutex_);
  ++flushing_;
  added_.NotifyOne();
  const bool all = sent_.WaitFor(
      lock, timeout, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return waiting_.empty() && !sending_; });
  --flushing_;
  return all;
}

std::vector<Span> SpanExporter::TakeBatch() {
  MutexLock lock(mutex_);
  added_.Wait(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); });
  added_.WaitFor(lock, options_.max_delay, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || flushing_ > 0 || waiting_.size() >= options_.max_batch;
  });
  if (stopping_) return {};
  const auto end = waiting_.begin() + static_cast<int64_t>(std::min(waiting_.size(), options_.max_batch));
  std::vector<Span> batch(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
  waiting_.erase(waiting_.begin(), end);
  sending_ = true;
  return batch;
}

void SpanExporter::Run() {
  for (std::vector<Span> batch = TakeBatch(); !batch.empty(); batch = TakeBatch()) {
    Send(batch);
    const MutexLock lock(mutex_);
    sending_ = false;
    if (waiting_.empty()) sent_.NotifyAll();
  }
}

void SpanExporter::Send(const std::vector<Span>& batch) {
  static LogSampler sampler;
  const absl::StatusOr<int64_t> rejected = sender_.Send(batch);
  const auto count = static_cast<int64_t>(batch.size());
  if (rejected.ok() && *rejected > 0) CountDropped("rejected", std::min(*rejected, count));
  if (rejected.ok()) return;
  CountDropped("export_failed", count);
  int64_t suppressed = 0;
  if (!sampler.Take(suppressed)) return;
  Log(LogLevel::kWarning, "spans dropped: the collector did not accept them",
      {{"spans", count}, {"why", std::string(rejected.status().message())}, {"suppressed", suppressed}});
}

}  // namespace longembed
