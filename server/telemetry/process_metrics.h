// Metrics of this process from /proc, with the names that Prometheus client libraries share, and its cgroup's memory
// limit.
#ifndef LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
#define LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_

#include <prometheus/collectable.h>

#include <vector>

namespace longembed {

// Reads them at every scrape. Thread-safe.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
