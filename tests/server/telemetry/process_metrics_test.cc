// Tests the heap metrics with the allocator that the server is linked with.
#include "server/telemetry/process_metrics.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>

#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "server/telemetry/metric_names.h"

namespace longembed {
namespace {

constexpr double kMiB = 1 << 20;

double HeapInUse() {
  for (const prometheus::MetricFamily& family : ProcessMetrics().Collect()) {
    if (family.name == metric::kHeapInUse.name) return family.metric.at(0).gauge.value;
  }
  ADD_FAILURE() << "no " << metric::kHeapInUse.name;
  return 0;
}

TEST(ProcessMetricsTest, HeapInUseGrowsByAllocations) {
  const double before = HeapInUse();
  const std::vector<char> block(64 << 20, 'x');
  EXPECT_GE(HeapInUse() - before, block.size());
  EXPECT_LT(HeapInUse() - before, static_cast<double>(block.size()) + kMiB);
}

// Eight threads keep about 5 MiB in jemalloc's caches.
TEST(ProcessMetricsTest, FreedMemoryIsNotInUse) {
  constexpr int kThreads = 8;
  const double before = HeapInUse();
  std::latch freed(kThreads), measured(1);
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      {
        std::vector<std::unique_ptr<char[]>> blocks;
        for (size_t size = 64; size < 2064; ++size) blocks.push_back(std::make_unique<char[]>(size));
      }
      freed.count_down();
      measured.wait();
    });
  }
  freed.wait();
  EXPECT_LT(HeapInUse() - before, kMiB);
  measured.count_down();
}

}  // namespace
}  // namespace longembed
