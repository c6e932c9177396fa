// Exports spans without ever holding up the threads that make them.
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

// Exports spans.
class SpanSender {
 public:
  virtual ~SpanSender() = default;
  // Waits for the receiver, within a limit of its own. Returns how many spans it refused. Called by one thread.
  virtual absl::StatusOr<int64_t> Send(std::span<const Span> spans) = 0;
  // Ends the Send that runs, and any later one, at once. Any thread.
  virtual void Cancel() = 0;
};

struct SpanExporterOptions {
  size_t capacity = 8192;                       // Spans that wait; about 4 MiB.
  size_t max_batch = 512;                       // Spans of one Send.
  absl::Duration max_delay = absl::Seconds(1);  // That a span waits for others of its batch.
};

// A bounded queue of spans and the one thread that sends them, in batches. Where the receiver is slow or gone the queue
// fills, and further spans are dropped and counted. Multiple threads can call its methods without external
// synchronization.
class SpanExporter {
 public:
  // Called with lost spans, by reason: queue_full, export_failed (no answer, or an error), rejected (the receiver
  // refused them), shutdown, out_of_memory. Must not block.
  using OnDropped = std::function<void(const char* reason, int64_t count)>;

  // `sender` must outlive it.
  SpanExporter(const SpanExporterOptions& options, SpanSender& sender, OnDropped on_dropped);

  // Drops what waits. Cancels the sender.
  ~SpanExporter();

  // Queues all of the spans, or drops them. Never waits for the receiver.
  void Add(std::vector<Span> spans);

  // Waits until what was added before has been sent or dropped, at most for `timeout`. Returns whether it was.
  bool Flush(absl::Duration timeout);

  void CountDropped(const char* reason, int64_t count) const { on_dropped_(reason, count); }

 private:
  void Run();
  // Waits for a batch. Empty: the end.
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
