// Figures of this process from /proc, under the names that Prometheus client libraries share, and its cgroup's memory.
#ifndef LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
#define LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_

#include <prometheus/collectable.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longembed {

// Reads at every scrape. Any thread.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

// What the cgroup whose files are in `folder` may hold in memory, of version 2 or 1; nothing where it is not limited.
std::optional<int64_t> MemoryLimit(const std::string& folder);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_PROCESS_METRICS_H_
