// Simulates how the order of batches affects waiting times. The server's queue (BatchQueue, CostModel) runs under a
// virtual clock, with workers whose batches take as long as their cost says, and seeded arrivals. The results do not
// depend on the machine: a seed always gives the same table.
//
//   scheduling_simulation [--seeds N] [--seconds S]
//
// Arrivals are Poisson, at loads relative to the capacity of the workers: mostly short texts, some of hundreds of
// tokens, a few bulk jobs of 32 windows, and one job in 4,000 with an oversized sequence of 16,384 tokens. A third of
// the interactive jobs has a deadline. Policies:
//   FIFO           in order of arrival, batches up to the budget; one oversized sequence may take every worker.
//   longest first  the longest of the waiting sequences, as in servers that pad: batches of nearly equal lengths.
//   ours           BatchQueue: priority, nearest deadline, age, whatever fits the budget; oversized sequences on at
//                  most half of the workers.
// Goodput is the number of jobs per second that are answered within their deadline, or within ten seconds if they have
// none.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "server/batching/batch_queue.h"

namespace longembed {
namespace {

constexpr int kWorkers = 4;
constexpr double kTokensPerSecond = 5000;  // Per worker.
constexpr int64_t kBatchTokens = 512;
constexpr absl::Duration kTimeout = absl::Seconds(10);
const CostModel kCosts{.attention = 1.0 / 2300, .oversized = 8 * kBatchTokens};
const absl::Time kStart = absl::UnixEpoch();

struct Arrival {
  absl::Time at;
  std::vector<int> sizes;
  JobOptions options;
  const char* kind = "";
};

Sequence Tokens(int size) {
  Sequence sequence;
  sequence.tokens.assign(size, 1);
  sequence.spans = {{0, size}};
  return sequence;
}

// Draws a job by the shares of the kinds. The mean cost determines the rate of arrivals for a load.
Arrival Draw(std::mt19937& random) {
  Arrival arrival;
  const double kind = std::uniform_real_distribution<>(0, 1)(random);
  const auto uniform = [&](int least, int most) { return std::uniform_int_distribution<>(least, most)(random); };
  if (kind < 0.00025) {
    arrival = {.sizes = {16384}, .kind = "oversized"};
  } else if (kind < 0.005) {
    arrival = {.sizes = std::vector<int>(32, 512), .options = {.priority = Priority::kBulk}, .kind = "bulk"};
  } else if (kind < 0.15) {
    arrival = {.sizes = {uniform(100, 512)}, .kind = "medium"};
  } else {
    arrival = {.sizes = {uniform(8, 64)}, .kind = "short"};
  }
  return arrival;
}

std::vector<Arrival> MakeArrivals(uint32_t seed, double load, double seconds) {
  std::mt19937 random(seed);
  double mean_cost = 0;
  for (int i = 0; i < 200000; ++i) {
    for (const int size : Draw(random).sizes) mean_cost += static_cast<double>(kCosts.CostOf(size)) / 200000;
  }
  const double rate = load * kWorkers * kTokensPerSecond / mean_cost;
  std::vector<Arrival> arrivals;
  double at = 0;
  while ((at += std::exponential_distribution<>(rate)(random)) < seconds) {
    Arrival arrival = Draw(random);
    arrival.at = kStart + absl::Seconds(at);
    const bool interactive = arrival.options.priority == Priority::kInteractive;
    if (interactive && arrival.kind != std::string("oversized") && random() % 3 == 0) {
      arrival.options.deadline = arrival.at + absl::Milliseconds(500);
    }
    arrivals.push_back(std::move(arrival));
  }
  return arrivals;
}

// A waiting sequence, as the two simple policies see it.
struct Waiting {
  size_t job;
  int size;
};

// A batch that a policy takes: the job of each of its sequences, and its cost.
struct SimulatedBatch {
  std::vector<size_t> jobs;
  int64_t cost = 0;
  bool oversized = false;
};

// The interface of a policy.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual void Arrive(size_t job, const Arrival& arrival) = 0;
  virtual SimulatedBatch Take(int free_workers, int running_oversized, absl::Time now) = 0;
};

class SimplePolicy final : public Policy {
 public:
  explicit SimplePolicy(bool longest_first) : longest_first_(longest_first) {}

  void Arrive(size_t job, const Arrival& arrival) override {
    for (const int size : arrival.sizes) waiting_.push_back({job, size});
  }

  SimulatedBatch Take(int, int, absl::Time) override {
    if (longest_first_) {
      std::ranges::stable_sort(waiting_, std::greater<>(), &Waiting::size);
    }
    SimulatedBatch batch;
    size_t taken = 0;
    for (; taken < waiting_.size(); ++taken) {
      const int64_t cost = kCosts.CostOf(waiting_[taken].size);
      if (taken > 0 && batch.cost + cost > kBatchTokens) break;
      batch.jobs.push_back(waiting_[taken].job);
      batch.cost += cost;
    }
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(taken));
    return batch;
  }

 private:
  const bool longest_first_;
  std::vector<Waiting> waiting_;
};

class OurPolicy final : public Policy {
 public:
  void Arrive(size_t job, const Arrival& arrival) override {
    std::vector<Sequence> sequences;
    for (const int size : arrival.sizes) sequences.push_back(Tokens(size));
    auto made = std::make_shared<Job>(std::move(sequences), arrival.options, [](absl::StatusOr<JobResult>) {});
    numbers_[made.get()] = job;
    queue_.Push(std::move(made), arrival.at);
  }

  SimulatedBatch Take(int free_workers, int running_oversized, absl::Time now) override {
    BatchLimits limits{.oversized = running_oversized < MaxRunningOversized(kWorkers)};
    limits.max_tokens = std::clamp<int64_t>(queue_.cost() / free_workers, 64, kBatchTokens);
    SimulatedBatch batch;
    for (const BatchItem& item : queue_.TakeBatch(limits, now)) {
      const int64_t tokens = item.job->sequences()[item.sequence].size();
      batch.jobs.push_back(numbers_.at(item.job.get()));
      batch.cost += kCosts.CostOf(tokens);
      batch.oversized |= kCosts.IsOversizedCost(kCosts.CostOf(tokens));
    }
    return batch;
  }

 private:
  BatchQueue queue_{kCosts};
  std::map<const Job*, size_t> numbers_;
};

struct Outcome {
  std::map<std::string, std::vector<double>> milliseconds;  // Keyed by kind.
  double goodput = 0;
};

Outcome Simulate(Policy& policy, const std::vector<Arrival>& arrivals, double seconds) {
  struct Running {
    absl::Time end;
    SimulatedBatch batch;
  };
  std::vector<Running> running;
  std::vector<size_t> left;
  for (const Arrival& arrival : arrivals) left.push_back(arrival.sizes.size());
  Outcome outcome;
  size_t next = 0;
  int oversized = 0;
  const auto finish = [&](const Running& done) {
    oversized -= done.batch.oversized ? 1 : 0;
    for (const size_t job : done.batch.jobs) {
      if (--left[job] > 0) continue;
      const Arrival& arrival = arrivals[job];
      const absl::Duration took = done.end - arrival.at;
      outcome.milliseconds[arrival.kind].push_back(absl::ToDoubleMilliseconds(took));
      const absl::Time due = std::min(arrival.options.deadline, arrival.at + kTimeout);
      outcome.goodput += done.end <= due ? 1 / seconds : 0;
    }
  };
  for (absl::Time now = kStart; next < arrivals.size() || !running.empty();) {
    const auto first = std::ranges::min_element(running, {}, &Running::end);
    if (first != running.end() && (next == arrivals.size() || first->end <= arrivals[next].at)) {
      const Running done = *first;
      running.erase(first);
      now = done.end;
      finish(done);
    } else {
      now = arrivals[next].at;
      policy.Arrive(next, arrivals[next]);
      ++next;
    }
    while (static_cast<int>(running.size()) < kWorkers) {
      SimulatedBatch batch = policy.Take(kWorkers - static_cast<int>(running.size()), oversized, now);
      if (batch.jobs.empty()) break;
      oversized += batch.oversized ? 1 : 0;
      const absl::Duration takes = absl::Seconds(static_cast<double>(batch.cost) / kTokensPerSecond);
      running.push_back({now + takes, std::move(batch)});
    }
  }
  return outcome;
}

double Percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

void Run(int seeds, double seconds) {
  std::printf("%d workers of %.0f tokens/s, %d seeds of %.0f s; milliseconds\n", kWorkers, kTokensPerSecond, seeds,
              seconds);
  std::printf(
      "| load | policy | short p50 | short p99 | medium p50 | medium p99 | bulk p50 | oversized p50 | goodput, jobs/s "
      "|\n");
  std::printf("|---|---|---|---|---|---|---|---|---|\n");
  for (const double load : {0.5, 0.8, 0.95, 1.1}) {
    for (const std::string name : {"FIFO", "longest first", "ours"}) {
      Outcome all;
      for (int seed = 1; seed <= seeds; ++seed) {
        const std::vector<Arrival> arrivals = MakeArrivals(static_cast<uint32_t>(seed), load, seconds);
        std::unique_ptr<Policy> policy;
        if (name == "ours") {
          policy = std::make_unique<OurPolicy>();
        } else {
          policy = std::make_unique<SimplePolicy>(name != "FIFO");
        }
        Outcome one = Simulate(*policy, arrivals, seconds);
        for (auto& [kind, times] : one.milliseconds) {
          all.milliseconds[kind].insert(all.milliseconds[kind].end(), times.begin(), times.end());
        }
        all.goodput += one.goodput / seeds;
      }
      const auto at = [&](const char* kind, double share) { return Percentile(all.milliseconds[kind], share); };
      std::printf("| %.2f | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.1f |\n", load, name.c_str(),
                  at("short", 0.5), at("short", 0.99), at("medium", 0.5), at("medium", 0.99), at("bulk", 0.5),
                  at("oversized", 0.5), all.goodput);
    }
  }
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) {
  int seeds = 5;
  double seconds = 300;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--seeds") seeds = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--seconds") seconds = std::atof(argv[i + 1]);
  }
  longembed::Run(seeds, seconds);
  return 0;
}
