#include "server/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <list>
#include <map>

#include "server/telemetry/metric_names.h"
#include "server/telemetry/metrics_port.h"
#include "server/telemetry/process_metrics.h"
#include "system/mutex.h"

namespace longembed {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

// 0.5 ms to 2 minutes: from a short query on an idle machine to a 32k-token document on a busy one.
const Buckets kSeconds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
const Buckets kTokenCounts{16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
const Buckets kSequenceCounts{1, 2, 4, 8, 16, 32, 64, 128, 256, 512};

template <typename Metric>
prometheus::Family<Metric>& FamilyOf(Registry& registry, const metric::Name& name) {
  return prometheus::detail::Builder<Metric>().Name(name.name).Help(name.help).Register(registry);
}

class RegisteredModelMetrics final : public ModelMetrics {
 public:
  RegisteredModelMetrics(Registry& registry, const std::string& model)
      : inputs_(FamilyOf<Counter>(registry, metric::kInputs).Add({{"model", model}})),
        tokens_(FamilyOf<Counter>(registry, metric::kTokens).Add({{"model", model}})),
        truncated_tokens_(FamilyOf<Counter>(registry, metric::kTruncatedTokens).Add({{"model", model}})),
        tokenization_(FamilyOf<Histogram>(registry, metric::kTokenizationDuration).Add({{"model", model}}, kSeconds)),
        tokenization_wait_(FamilyOf<Histogram>(registry, metric::kTokenizationWait).Add({{"model", model}}, kSeconds)),
        queue_(FamilyOf<Histogram>(registry, metric::kQueueDuration).Add({{"model", model}}, kSeconds)),
        inference_(FamilyOf<Histogram>(registry, metric::kInferenceDuration).Add({{"model", model}}, kSeconds)),
        batch_tokens_(FamilyOf<Histogram>(registry, metric::kBatchTokens).Add({{"model", model}}, kTokenCounts)),
        batch_sequences_(
            FamilyOf<Histogram>(registry, metric::kBatchSequences).Add({{"model", model}}, kSequenceCounts)),
        encoder_failures_(FamilyOf<Counter>(registry, metric::kEncoderFailures).Add({{"model", model}})),
        client_tokens_(FamilyOf<Counter>(registry, metric::kClientTokens)),
        sequences_(FamilyOf<Counter>(registry, metric::kSequences)),
        model_(model) {}

  void CountInputs(int64_t inputs, int64_t tokens, int64_t truncated_tokens) override {
    inputs_.Increment(static_cast<double>(inputs));
    tokens_.Increment(static_cast<double>(tokens));
    truncated_tokens_.Increment(static_cast<double>(truncated_tokens));
  }
  void CountSequences(std::string_view method, int64_t sequences) override {
    sequences_.Add({{"model", model_}, {"method", std::string(method.empty() ? "plain" : method)}})
        .Increment(static_cast<double>(sequences));
  }
  void ObserveTokenizationWait(absl::Duration duration) override {
    tokenization_wait_.Observe(absl::ToDoubleSeconds(duration));
  }
  void ObserveTokenization(absl::Duration duration) override { tokenization_.Observe(absl::ToDoubleSeconds(duration)); }
  void ObserveQueue(absl::Duration duration) override { queue_.Observe(absl::ToDoubleSeconds(duration)); }
  void ObserveBatch(int64_t tokens, int64_t sequences, absl::Duration inference) override {
    batch_tokens_.Observe(static_cast<double>(tokens));
    batch_sequences_.Observe(static_cast<double>(sequences));
    inference_.Observe(absl::ToDoubleSeconds(inference));
  }
  void CountEncoderFailure() override { encoder_failures_.Increment(); }
  void CountClientTokens(const std::string& client, int64_t tokens) override {
    client_tokens_.Add({{"client", client}}).Increment(static_cast<double>(tokens));
  }

 private:
  Counter& inputs_;
  Counter& tokens_;
  Counter& truncated_tokens_;
  Histogram& tokenization_;
  Histogram& tokenization_wait_;
  Histogram& queue_;
  Histogram& inference_;
  Histogram& batch_tokens_;
  Histogram& batch_sequences_;
  Counter& encoder_failures_;
  prometheus::Family<Counter>& client_tokens_;
  prometheus::Family<Counter>& sequences_;
  const std::string model_;
};

prometheus::MetricFamily GaugeFamily(const metric::Name& name) {
  return {.name = name.name, .help = name.help, .type = prometheus::MetricType::Gauge, .metric = {}};
}

void AddGauge(prometheus::MetricFamily& family, const std::string& model, double value) {
  prometheus::ClientMetric metric;
  metric.label = {{"model", model}};
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

// Reads the queues at every scrape, so that depth and age are current.
class QueueMetrics final : public prometheus::Collectable {
 public:
  struct Queue {
    std::string model;
    std::function<QueueReading()> read;
  };
  using Queues = std::list<Queue>;

  Queues::iterator Add(Queue queue) {
    const MutexLock lock(mutex_);
    return queues_.insert(queues_.end(), std::move(queue));
  }

  void Remove(Queues::iterator queue) {
    const MutexLock lock(mutex_);
    queues_.erase(queue);
  }

  void SetHeldBytes(std::function<Metrics::HeldBytes()> held_bytes) {
    const MutexLock lock(mutex_);
    held_bytes_ = std::move(held_bytes);
  }

  void SetTokenizationQueue(std::function<TokenizationReading()> queue) {
    const MutexLock lock(mutex_);
    tokenization_queue_ = std::move(queue);
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    const MutexLock lock(mutex_);
    auto tasks = GaugeFamily(metric::kTokenizationTasks);
    const TokenizationReading tokenization = tokenization_queue_ ? tokenization_queue_() : TokenizationReading();
    if (tokenization_queue_) tasks.metric.emplace_back().gauge.value = static_cast<double>(tokenization.tasks);
    auto jobs = GaugeFamily(metric::kQueueJobs);
    auto tokens = GaugeFamily(metric::kQueueTokens);
    auto age = GaugeFamily(metric::kQueueAge);
    auto running = GaugeFamily(metric::kBatchesRunning);
    auto wait = GaugeFamily(metric::kExpectedWait);
    auto held = GaugeFamily(metric::kHeldBytes);
    if (held_bytes_) {
      for (const auto& [kind, bytes] : held_bytes_()) {
        prometheus::ClientMetric& metric = held.metric.emplace_back();
        metric.label.push_back({"kind", kind});
        metric.gauge.value = static_cast<double>(bytes);
      }
    }
    for (const auto& [model, read] : queues_) {
      const QueueReading reading = read();
      AddGauge(jobs, model, static_cast<double>(reading.jobs));
      AddGauge(tokens, model, static_cast<double>(reading.tokens));
      AddGauge(age, model, absl::ToDoubleSeconds(reading.oldest));
      AddGauge(running, model, reading.running_batches);
      AddGauge(wait, model, absl::ToDoubleSeconds(tokenization.longest_wait + reading.expected_wait));
    }
    return {tasks, jobs, tokens, age, running, wait, held};
  }

 private:
  mutable Mutex mutex_;  // Held during Collect.
  Queues queues_;
  std::function<Metrics::HeldBytes()> held_bytes_;
  std::function<TokenizationReading()> tokenization_queue_;
};

}  // namespace

struct Metrics::State {
  const std::shared_ptr<Registry> registry = std::make_shared<Registry>();
  const std::shared_ptr<QueueMetrics> queues = std::make_shared<QueueMetrics>();
  const std::shared_ptr<ProcessMetrics> process = std::make_shared<ProcessMetrics>();
  prometheus::Family<Counter>& requests = FamilyOf<Counter>(*registry, metric::kRequests);
  prometheus::Family<Histogram>& durations = FamilyOf<Histogram>(*registry, metric::kRequestDuration);
  prometheus::Family<Gauge>& in_flight = FamilyOf<Gauge>(*registry, metric::kRequestsInFlight);
  std::atomic<int64_t> calls_in_flight = 0;
  prometheus::Family<Gauge>& queue_wait_limit = FamilyOf<Gauge>(*registry, metric::kQueueWaitLimit);
  prometheus::Family<Counter>& rejected = FamilyOf<Counter>(*registry, metric::kRejected);
  prometheus::Family<Counter>& authentication_failures = FamilyOf<Counter>(*registry, metric::kAuthenticationFailures);
  Counter& connections = FamilyOf<Counter>(*registry, metric::kConnectionsAccepted).Add({});
  prometheus::Family<Counter>& refused_connections = FamilyOf<Counter>(*registry, metric::kConnectionsRefused);
  prometheus::Family<Counter>& tls_reloads = FamilyOf<Counter>(*registry, metric::kTlsReloads);
  prometheus::Family<Gauge>& certificate_expiry = FamilyOf<Gauge>(*registry, metric::kCertificateExpiry);
  prometheus::Family<Counter>& api_key_reloads = FamilyOf<Counter>(*registry, metric::kApiKeyReloads);
  prometheus::Family<Counter>& spans_dropped = FamilyOf<Counter>(*registry, metric::kSpansDropped);
  prometheus::Family<Gauge>& model_info = FamilyOf<Gauge>(*registry, metric::kModelInfo);
  prometheus::Family<Gauge>& model_load = FamilyOf<Gauge>(*registry, metric::kModelLoad);
  Gauge& serving = FamilyOf<Gauge>(*registry, metric::kServing).Add({});
  std::list<RegisteredModelMetrics> models;
  std::unique_ptr<MetricsPort> port;  // Last, because its scrapes read all other members.
};

Metrics::Metrics(const BuildInfo& build) : state_(std::make_unique<State>()) {
  // Creates counters before their first event, which rate() would miss otherwise.
  for (const char* reason : {"missing", "unknown"}) state_->authentication_failures.Add({{"reason", reason}});
  // These are also reasons to refuse a call before its request is read, which names the model.
  for (const char* reason :
       {"pending_bytes", "client_pending_bytes", "concurrent_calls", "health_watches", "out_of_memory"}) {
    state_->rejected.Add({{"model", ""}, {"reason", reason}});
  }
  for (const char* reason : {"limit", "client_share", "idle"}) state_->refused_connections.Add({{"reason", reason}});
  for (const char* result : {"ok", "refused"}) state_->api_key_reloads.Add({{"result", result}});
  for (const char* reason : {"queue_full", "export_failed", "rejected", "shutdown", "out_of_memory"}) {
    state_->spans_dropped.Add({{"reason", reason}});
  }
  FamilyOf<Gauge>(*state_->registry, metric::kBuildInfo)
      .Add({{"version", build.version}, {"torch", build.torch}})
      .Set(1);
}

Metrics::~Metrics() = default;

ModelMetrics& Metrics::ForModel(const std::string& model) {
  for (const char* reason :
       {"queue_tokens", "queue_wait", "client_share", "client_limit", "pending_bytes", "client_pending_bytes",
        "concurrent_calls", "deadline_too_short", "health_watches", "out_of_memory"}) {
    state_->rejected.Add({{"model", model}, {"reason", reason}});
  }
  return state_->models.emplace_back(*state_->registry, model);
}

Registration Metrics::ReadQueue(const std::string& model, std::function<QueueReading()> queue) {
  const auto queues = state_->queues;
  const auto added = queues->Add({.model = model, .read = std::move(queue)});
  return Registration([queues, added] { queues->Remove(added); });
}

void Metrics::SetQueueWaitLimit(const std::string& model, absl::Duration limit) {
  state_->queue_wait_limit.Add({{"model", model}}).Set(absl::ToDoubleSeconds(limit));
}

void Metrics::SetModelInfo(const std::string& model, const ModelInfo& info) {
  state_->model_info
      .Add({{"model", model},
            {"architecture", info.architecture},
            {"precision", info.precision},
            {"engine", info.engine},
            {"kernels", info.kernels},
            {"device", info.device},
            {"dimensions", std::to_string(info.dimensions)},
            {"trained_window", std::to_string(info.trained_window)}})
      .Set(1);
}

Registration Metrics::ReadTokenizationQueue(std::function<TokenizationReading()> queue) {
  state_->queues->SetTokenizationQueue(std::move(queue));
  return Registration([queues = state_->queues] { queues->SetTokenizationQueue(nullptr); });
}

Registration Metrics::ReadHeldBytes(std::function<HeldBytes()> held_bytes) {
  state_->queues->SetHeldBytes(std::move(held_bytes));
  return Registration([queues = state_->queues] { queues->SetHeldBytes(nullptr); });
}

void Metrics::RequestStarted(const std::string& method) {
  ++state_->calls_in_flight;
  state_->in_flight.Add({{"method", method}}).Increment();
}

void Metrics::RequestFinished(const std::string& method, const std::string& code, const std::string& model,
                              absl::Duration duration) {
  --state_->calls_in_flight;
  state_->in_flight.Add({{"method", method}}).Decrement();
  state_->requests.Add({{"method", method}, {"code", code}, {"model", model}}).Increment();
  state_->durations.Add({{"method", method}, {"model", model}}, kSeconds).Observe(absl::ToDoubleSeconds(duration));
}

int64_t Metrics::in_flight() const { return state_->calls_in_flight; }

void Metrics::CountRejected(const std::string& model, const std::string& reason) {
  state_->rejected.Add({{"model", model}, {"reason", reason}}).Increment();
}

void Metrics::CountAuthenticationFailure(const std::string& reason) {
  state_->authentication_failures.Add({{"reason", reason}}).Increment();
}

void Metrics::CountConnection() { state_->connections.Increment(); }

void Metrics::CountRefusedConnection(const std::string& reason) {
  state_->refused_connections.Add({{"reason", reason}}).Increment();
}

void Metrics::CountTlsReload(bool ok) { state_->tls_reloads.Add({{"result", ok ? "ok" : "refused"}}).Increment(); }

void Metrics::SetCertificateExpiry(absl::Time not_after) {
  for (const char* result : {"ok", "refused"}) state_->tls_reloads.Add({{"result", result}});
  state_->certificate_expiry.Add({}).Set(static_cast<double>(absl::ToUnixSeconds(not_after)));
}

void Metrics::CountApiKeyReload(bool ok) {
  state_->api_key_reloads.Add({{"result", ok ? "ok" : "refused"}}).Increment();
}

void Metrics::CountDroppedSpans(const std::string& reason, int64_t spans) {
  state_->spans_dropped.Add({{"reason", reason}}).Increment(static_cast<double>(spans));
}

void Metrics::SetServing(bool serving) { state_->serving.Set(serving ? 1 : 0); }

void Metrics::SetLoadRatio(const std::string& model, double ratio) {
  state_->model_load.Add({{"model", model}}).Set(ratio);
}

std::string Metrics::Scrape() const {
  std::vector<prometheus::MetricFamily> families = state_->registry->Collect();
  for (auto&& family : state_->queues->Collect()) families.push_back(std::move(family));
  for (auto&& family : state_->process->Collect()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

absl::StatusOr<int> Metrics::Listen(const std::string& address) {
  absl::StatusOr<std::unique_ptr<MetricsPort>> port = MetricsPort::Start(address, [this] { return Scrape(); });
  if (!port.ok()) return port.status();
  state_->port = *std::move(port);
  return state_->port->port();
}

}  // namespace longembed
