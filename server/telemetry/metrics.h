// The server's metrics and the HTTP port that Prometheus scrapes. Metric names are in metric_names.h.
#ifndef LONGEMBED_SERVER_TELEMETRY_METRICS_H_
#define LONGEMBED_SERVER_TELEMETRY_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

struct BuildInfo {
  std::string version;
  std::string torch;
};

// Description of a served model.
struct ModelInfo {
  std::string architecture;
  std::string precision;
  std::string engine;
  std::string kernels;  // Instruction set of the native engine's kernels.
  std::string device;
  int64_t dimensions = 0;
  int64_t trained_window = 0;  // Tokens.
};

// Current state of a queue.
struct QueueReading {
  int64_t jobs = 0;
  int64_t tokens = 0;
  absl::Duration oldest;
  int running_batches = 0;
  absl::Duration expected_wait;
};

// Current state of the queue for tokenizing threads.
struct TokenizationReading {
  int64_t tasks = 0;
  absl::Duration longest_wait;  // That of the client that waits longest.
};

// A callback registered for every scrape. Its destruction waits for a running scrape. So if the Registration is the
// last member of an object, its callback may read all other members.
class [[nodiscard]] Registration {
 public:
  Registration() = default;
  explicit Registration(std::function<void()> end) : end_(std::move(end)) {}
  Registration(Registration&& other) noexcept : end_(std::exchange(other.end_, nullptr)) {}
  Registration& operator=(Registration&& other) noexcept {
    std::swap(end_, other.end_);
    return *this;
  }
  ~Registration() {
    if (end_) end_();
  }

 private:
  std::function<void()> end_;
};

// The metrics of one model. Metrics::ForModel creates them, and Metrics owns them. Thread-safe.
class ModelMetrics {
 public:
  virtual ~ModelMetrics() = default;
  virtual void CountInputs(int64_t inputs, int64_t tokens, int64_t truncated_tokens) = 0;
  // `method` is the positions method; empty: plain.
  virtual void CountSequences(std::string_view method, int64_t sequences) = 0;
  virtual void ObserveTokenization(absl::Duration duration) = 0;
  virtual void ObserveTokenizationWait(absl::Duration duration) = 0;
  virtual void ObserveQueue(absl::Duration duration) = 0;
  virtual void ObserveBatch(int64_t tokens, int64_t sequences, absl::Duration inference) = 0;
  virtual void CountEncoderFailure() = 0;
  // `client` is the name of an API key, never anything that a client can choose.
  virtual void CountClientTokens(const std::string& client, int64_t tokens) = 0;
};

// All metrics of the server. Multiple threads can call the methods of one Metrics without external synchronization.
class Metrics {
 public:
  explicit Metrics(const BuildInfo& build);
  ~Metrics();

  // Creates the metrics of a model of the server's config.
  ModelMetrics& ForModel(const std::string& model);
  Registration ReadQueue(const std::string& model, std::function<QueueReading()> queue);
  void SetQueueWaitLimit(const std::string& model, absl::Duration limit);
  void SetModelInfo(const std::string& model, const ModelInfo& info);

  Registration ReadTokenizationQueue(std::function<TokenizationReading()> queue);
  // Kind (MemoryName) -> bytes.
  using HeldBytes = std::map<std::string, int64_t>;
  Registration ReadHeldBytes(std::function<HeldBytes()> held_bytes);

  void RequestStarted(const std::string& method);
  // `code` is a gRPC status name such as "OK". `model` is a model of the config or empty, so that clients cannot choose
  // label values.
  void RequestFinished(const std::string& method, const std::string& code, const std::string& model,
                       absl::Duration duration);
  // Returns the number of calls of any method that have started and not finished.
  int64_t in_flight() const;

  // `reason` is one of OverloadLabel's.
  void CountRejected(const std::string& model, const std::string& reason);
  void CountAuthenticationFailure(const std::string& reason);  // missing | unknown
  void CountConnection();
  void CountRefusedConnection(const std::string& reason);  // limit | client_share | idle
  void CountTlsReload(bool ok);
  void SetCertificateExpiry(absl::Time not_after);
  void CountApiKeyReload(bool ok);
  // `reason` is one of SpanExporter's.
  void CountDroppedSpans(const std::string& reason, int64_t spans);
  void SetServing(bool serving);
  // `ratio` is from 0 to 1.
  void SetLoadRatio(const std::string& model, double ratio);

  // Returns the text for a scrape.
  std::string Scrape() const;

  // Serves GET /metrics on `address` ("127.0.0.1:9464", "[::]:9464"; port 0 picks one). Returns the port. Errors: those
  // of Acceptor::Listen.
  absl::StatusOr<int> Listen(const std::string& address);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_METRICS_H_
