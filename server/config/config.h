// The server's configuration: one YAML file. The sample deploy/config.yaml has every key with its default and explains
// it.
#ifndef LONGEMBED_SERVER_CONFIG_CONFIG_H_
#define LONGEMBED_SERVER_CONFIG_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/encoder/load_encoder.h"
#include "model/encoder/precision.h"
#include "server/config/log_config.h"
#include "server/config/tracing_config.h"

namespace longembed {

struct ModelConfig {
  std::string path;            // Path of the model directory, relative to the config file.
  std::string name;            // Empty: the manifest's name.
  std::string device = "cpu";  // cpu | cuda | cuda:N
  Precision precision = Precision::kFloat32;
  Engine engine = Engine::kAuto;
  int64_t max_batch_tokens = 0;  // 0 = a number that suits the device.
  int64_t max_batch_sequences = 512;
  int64_t max_queued_tokens = 1 << 20;
};

// The tei.v1 API, which has no field for a model.
struct TeiConfig {
  std::string model;           // The model that answers. Empty: the only one; with several, tei.v1 is not served.
  std::string default_prompt;  // The prompt of requests that name none. Empty: the model's default prompt, if any.
  // The extension for long texts. At most one of these keys may be set.
  std::string profile;           // A name in ServerConfig::profiles. Empty: none.
  std::string extension = "{}";  // JSON of longembed.v1.Extension. {}: none.

  bool has_extension() const { return extension != "{}"; }
};

// The HTTP port (http_listen).
struct HttpConfig {
  std::string openai_prompt;   // Name of the prompt of OpenAI's requests, which name none. Empty: the model's default.
  std::string allowed_origin;  // Origin of web pages that may call (CORS): "https://example.org", or "*". Empty: none.
};

// TLS on `listen` and `http_listen`. Paths are relative to the config file.
struct TlsConfig {
  std::string certificate;  // PEM chain. Empty: plaintext.
  std::string key;          // PEM.
  std::string client_ca;    // PEM. If set, clients must present a certificate signed by one of these.

  bool enabled() const { return !certificate.empty(); }
};

struct ConnectionsConfig {
  int max = 1000;                                       // Open connections on `listen`, and on `http_listen`.
  double max_client_share = 0.8;                        // Part of `max` that one client address may hold alone.
  int max_streams = 100;                                // Concurrent calls on one connection.
  absl::Duration max_age = absl::Minutes(10);           // GOAWAY at this age, so that load is balanced. 0 = never.
  absl::Duration max_idle = absl::Minutes(30);          // Closes a connection without calls for so long. 0 = never.
  absl::Duration handshake_timeout = absl::Seconds(5);  // For each of: first bytes, TLS, HTTP/2 settings.
  absl::Duration keepalive = absl::Seconds(60);         // A connection that is idle for this long is pinged.
};

// The server's limits. A request beyond one of the first group gets INVALID_ARGUMENT, which names the limit.
struct LimitsConfig {
  int64_t max_request_bytes = 16 << 20;
  int64_t max_response_bytes = 64 << 20;
  int64_t max_inputs_per_call = 1024;
  int64_t max_tokens_per_input = 1 << 20;     // After truncation; for a Tokenize call, all texts together.
  int64_t max_tokens_per_sequence = 1 << 15;  // One pass through the model; attention is quadratic in it.
  int64_t max_run_tokens_per_call = 4 << 20;  // All windows of all inputs, with overlaps and prompts; also all spans.
  int64_t max_vectors_per_call = 1 << 16;     // Windows or spans of all inputs.
  int64_t max_prompt_bytes = 1 << 14;         // A literal prompt, which is tokenized with every input.

  // A call beyond one of these gets RESOURCE_EXHAUSTED at once, with a retry delay. See also
  // ModelConfig::max_queued_tokens.
  absl::Duration max_queue_wait = absl::Seconds(10);       // Estimated wait of a new interactive call.
  absl::Duration max_bulk_queue_wait = absl::Seconds(60);  // Estimated wait of a new call of priority BULK.
  int64_t max_pending_bytes = 256 << 20;                   // Memory that all calls hold (admission/ledger.h).
};

// Returns the limit for one text of EmbedStream, which may come in parts.
inline int64_t MaxStreamedTextBytes(const LimitsConfig& limits) { return 4 * limits.max_request_bytes; }

// The whole configuration. A plain value.
struct ServerConfig {
  std::string listen = "127.0.0.1:50051";
  std::string http_listen;                        // The HTTP APIs. Empty: no HTTP port.
  std::string health_listen;                      // Serves only grpc.health.v1, in plaintext. Empty: `listen` does.
  std::string metrics_listen = "127.0.0.1:9464";  // Empty: no metrics port.
  bool reflection = true;
  bool channelz = false;
  LogConfig log;
  TracingConfig tracing;
  TlsConfig tls;
  std::string api_keys;  // File (security/api_keys.h), relative to the config file. Empty: no API keys.
  ConnectionsConfig connections;
  std::string cpu_kernels;  // Instruction set of our own kernels (model/encoder/cpu/kernels.h). Empty: the fastest.
  int compute_threads = 0;  // Threads that run models on the CPU, for all models together. 0 = one a core.
  int cuda_streams = 2;     // Batches that run at the same time on one GPU.
  int tokenization_threads = 0;  // 0 = one for every two cores, three at least.
  absl::Duration drain_delay =
      absl::Seconds(0);  // Between NOT_SERVING and refusing new calls, for load balancers to notice.
  absl::Duration drain_timeout = absl::Seconds(75);  // More than max_bulk_queue_wait, so that bulk work can finish.
  LimitsConfig limits;
  TeiConfig tei;
  HttpConfig http;
  std::map<std::string, std::string> profiles;  // Name -> JSON of longembed.v1.Extension.
  std::vector<ModelConfig> models;              // At least one.

  std::vector<std::string> overrides;  // Names of environment variables that set a key (overrides.h).
};

// Returns every key with its value as text, such as "connections.max_age" -> "10m", to compare two configurations. A
// profile's key is "profiles.NAME", and a model's keys are "models[0].path" and so on.
std::map<std::string, std::string> ConfigValues(const ServerConfig& config);

// Reads the file and the environment's overrides (overrides.h). Errors (INVALID_ARGUMENT), one a line, name the line
// and the key, or the variable: unknown keys, values of the wrong type or out of range, and a file without models. A
// file that cannot be read gives the error of ReadWholeFile.
absl::StatusOr<ServerConfig> ReadConfig(const std::string& path);

// Does the same with text. Relative paths start from `directory`. `environment` holds entries "NAME=VALUE". The text
// may be untrusted.
absl::StatusOr<ServerConfig> ParseConfig(const std::string& yaml, const std::string& directory,
                                         const std::vector<std::string>& environment = {});

// Returns the format of the log even if the config is invalid: the environment's, else the file's as far as it can be
// read, else the default.
LogFormat FindLogFormat(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_CONFIG_H_
