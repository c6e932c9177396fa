#include "server/telemetry/process_metrics.h"

#include <malloc.h>
#include <prometheus/metric_family.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "server/telemetry/log.h"
#include "server/telemetry/metric_names.h"
#include "system/cgroup.h"

// A function of jemalloc, if the program is linked with it (jemalloc(3)).
extern "C" int mallctl(const char* name, void* old_value, size_t* old_length, void* new_value, size_t new_length)
    __attribute__((weak));

namespace longembed {
namespace {

// Returns the fields of /proc/self/stat after the command's name, which may contain blanks; [0] is field 3 of proc(5).
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream rest(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  return {std::istream_iterator<std::string>(rest), {}};
}

double BootTime() {
  std::ifstream file("/proc/stat");
  for (std::string key; file >> key;) {
    if (double seconds = 0; key == "btime" && file >> seconds) return seconds;
    file.ignore(1 << 16, '\n');
  }
  return 0;
}

double OpenFds() {
  std::error_code error;
  const std::filesystem::directory_iterator fds("/proc/self/fd", error);
  return error ? 0 : static_cast<double>(std::distance(begin(fds), end(fds)));
}

// Returns 0 if this jemalloc does not have the statistic.
double JemallocBytes(const char* name) {
  size_t bytes = 0, length = sizeof(bytes);
  mallctl(name, &bytes, &length, nullptr, 0);
  return static_cast<double>(bytes);
}

double HeapInUse() {
  if (mallctl != nullptr) {
    uint64_t epoch = 1;  // Writing to the epoch updates the statistics.
    mallctl("epoch", nullptr, nullptr, &epoch, sizeof(epoch));
    // jemalloc counts memory in threads' caches as allocated, although it has been freed. It amounts to megabytes, and
    // grows while threads with little work fill their caches. 4096 stands for all arenas.
    return JemallocBytes("stats.allocated") - JemallocBytes("stats.arenas.4096.tcache_bytes") -
           JemallocBytes("stats.arenas.4096.tcache_stashed_bytes");
  }
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
}

prometheus::MetricFamily MemoryLimitFamily() {
  prometheus::MetricFamily family{.name = metric::kMemoryLimit.name,
                                  .help = metric::kMemoryLimit.help,
                                  .type = prometheus::MetricType::Gauge,
                                  .metric = {}};
  const CgroupLimits limits = ReadCgroupLimits();
  if (limits.memory_bytes.has_value()) {
    family.metric.emplace_back().gauge.value = static_cast<double>(limits.memory_bytes->value);
  }
  return family;
}

prometheus::MetricFamily Family(const metric::Name& name, prometheus::MetricType type, double value) {
  prometheus::ClientMetric metric;
  (type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  return {.name = name.name, .help = name.help, .type = type, .metric = {metric}};
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  using prometheus::MetricType;
  // Read only once: the kernel's boot time sometimes moves by a second, which would look like a restart.
  static const double boot_time = BootTime();
  const std::vector<std::string> stat = StatFields();
  constexpr size_t kUserTicks = 11, kSystemTicks = 12, kThreadCount = 17, kStartTicks = 19, kVirtualBytes = 20,
                   kResidentPages = 21;
  if (stat.size() <= kResidentPages) return {};
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto number = [&stat](size_t field) { return std::stod(stat[field]); };
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  return {
      Family(metric::kCpuSeconds, MetricType::Counter, (number(kUserTicks) + number(kSystemTicks)) / ticks),
      Family(metric::kResidentMemory, MetricType::Gauge,
             number(kResidentPages) * static_cast<double>(sysconf(_SC_PAGESIZE))),
      MemoryLimitFamily(),
      Family(metric::kLogLinesDropped, MetricType::Counter, static_cast<double>(LogLinesDropped())),
      Family(metric::kVirtualMemory, MetricType::Gauge, number(kVirtualBytes)),
      Family(metric::kHeapInUse, MetricType::Gauge, HeapInUse()),
      Family(metric::kStartTime, MetricType::Gauge, boot_time + number(kStartTicks) / ticks),
      Family(metric::kThreads, MetricType::Gauge, number(kThreadCount)),
      Family(metric::kOpenFds, MetricType::Gauge, OpenFds()),
      Family(metric::kMaxFds, MetricType::Gauge, static_cast<double>(files.rlim_cur)),
  };
}

}  // namespace longembed
