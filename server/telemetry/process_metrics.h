// Figures of this process from /proc, under the names that Prometheus client libraries share, and its cgroup's memory.
#ifndef LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
#define LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_

#include <prometheus/collectable.h>

#include <vector>

namespace longembed {

// Reads at every scrape. Any thread.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
