// Exports spans without ever blocking the threads that create them.
#ifndef LONGEMBED_SERVER_TELEMETRY_SPAN_EXPORTER_H_
#define LONGEMBED_SERVER_TELEMETRY_SPAN_EXPORTER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/telemetry/span.h"
#include "system/mutex.h"

namespace longembed {

// Sends spans to a receiver.
class SpanSender {
 public:
  virtual ~SpanSender() = default;
  // Waits for the receiver, within a time limit of its own. Returns the number of spans that it rejected. Called by one
  // thread.
  virtual absl::StatusOr<int64_t> Send(std::span<const Span> spans) = 0;
  // Ends a running Send, and all later ones, at once. May be called on any thread.
  virtual void Cancel() = 0;
};

struct SpanExporterOptions {
  size_t capacity = 8192;                       // Waiting spans; about 4 MiB.
  size_t max_batch = 512;                       // Spans of one Send.
  absl::Duration max_delay = absl::Seconds(1);  // Longest wait of a span for others of its batch.
};

// A bounded queue of spans, and a thread that sends them in batches. If the receiver is slow or unavailable, the queue
// fills up, and further spans are dropped and counted. Multiple threads can call its methods without external
// synchronization.
class SpanExporter {
 public:
  // Called with the number of dropped spans and the reason: queue_full, export_failed (no answer, or an error),
  // rejected (by the receiver), shutdown, out_of_memory. Must not block.
  using OnDropped = std::function<void(const char* reason, int64_t count)>;

  // `sender` must outlive the exporter.
  SpanExporter(const SpanExporterOptions& options, SpanSender& sender, OnDropped on_dropped);

  // Drops waiting spans and cancels the sender.
  ~SpanExporter();

  // Queues all of the spans, or drops all of them. Never waits for the receiver.
  void Add(std::vector<Span> spans);

  // Waits until all spans added before have been sent or dropped, for at most `timeout`. Returns whether they have
  // been.
  bool Flush(absl::Duration timeout);

  void CountDropped(const char* reason, int64_t count) const { on_dropped_(reason, count); }

 private:
  void Run();
  // Waits for a batch. Returns an empty one when the exporter ends.
  std::vector<Span> TakeBatch();
  void Send(const std::vector<Span>& batch);

  const SpanExporterOptions options_;
  SpanSender& sender_;
  const OnDropped on_dropped_;

  Mutex mutex_;
  ConditionVariable added_, sent_;
  std::deque<Span> waiting_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  int flushing_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_SPAN_EXPORTER_H_
