// The server's configuration: one YAML file. deploy/config.yaml is the sample that holds every key with its default and
// says what it does.
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
  std::string path;            // Of the model directory; relative to the config file.
  std::string name;            // Empty: the manifest's.
  std::string device = "cpu";  // cpu | cuda | cuda:N
  Precision precision = Precision::kFloat32;
  Engine engine = Engine::kAuto;
  int64_t max_batch_tokens = 0;  // 0 = what suits the device.
  int64_t max_batch_sequences = 512;
  int64_t max_queued_tokens = 1 << 20;
};

// The tei.v1 API, which has no field for a model.
struct TeiConfig {
  std::string model;           // That answers. Empty: the only one; with several, tei.v1 is not served.
  std::string default_prompt;  // Of requests that name no prompt. Empty: the model's default prompt, if any.
  // The way of a long text through the model; at most one of these.
  std::string profile;           // A name in ServerConfig::profiles. Empty: none.
  std::string extension = "{}";  // JSON of longembed.v1.Extension. {}: none.

  bool has_extension() const { return extension != "{}"; }
};

// The HTTP front (http_listen).
struct HttpConfig {
  std::string openai_prompt;   // Name of the prompt of OpenAI's requests, which name none. Empty: the model's default.
  std::string allowed_origin;  // Of browsers' pages (CORS): "https://example.org", or "*". Empty: none.
};

// TLS on `listen` and `http_listen`. Paths are relative to the config file.
struct TlsConfig {
  std::string certificate;  // PEM chain. Empty: plaintext.
  std::string key;          // PEM.
  std::string client_ca;    // PEM. Set: clients must show a certificate that one of these signed.

  bool enabled() const { return !certificate.empty(); }
};

struct ConnectionsConfig {
  int max = 1000;                                       // Open at a time on `listen`, and on `http_listen`.
  double max_client_share = 0.8;                        // Of `max`, that one client address holds at most alone.
  int max_streams = 100;                                // Calls at a time on one connection.
  absl::Duration max_age = absl::Minutes(10);           // Then GOAWAY, so that new replicas get load. 0 = never.
  absl::Duration max_idle = absl::Minutes(30);          // Without a call. 0 = never closed.
  absl::Duration handshake_timeout = absl::Seconds(5);  // For the first bytes, TLS and HTTP/2 settings, each.
  absl::Duration keepalive = absl::Seconds(60);         // A connection that is idle so long is pinged.
};

// Every limit of the server's; a request beyond one of the first group gets INVALID_ARGUMENT, which names it.
struct LimitsConfig {
  int64_t max_request_bytes = 16 << 20;
  int64_t max_response_bytes = 64 << 20;
  int64_t max_inputs_per_call = 1024;
  int64_t max_tokens_per_input = 1 << 20;     // As truncation leaves it; of a Tokenize call, all texts together.
  int64_t max_tokens_per_sequence = 1 << 15;  // One pass through the model: attention takes the square of it.
  int64_t max_run_tokens_per_call = 4 << 20;  // All windows of all inputs, overlaps and prompts counted.
  int64_t max_vectors_per_call = 1 << 16;     // Windows or spans of all inputs.
  int64_t max_prompt_bytes = 1 << 14;         // Of a literal prompt, which is tokenized with every input.

  // Beyond these a call gets RESOURCE_EXHAUSTED, at once, with a hint when to try again. See also
  // ModelConfig::max_queued_tokens.
  absl::Duration max_queue_wait = absl::Seconds(10);       // That a new interactive call would wait, by estimate.
  absl::Duration max_bulk_queue_wait = absl::Seconds(60);  // The same for priority BULK.
  int64_t max_pending_bytes = 256 << 20;                   // Of the requests of all calls without an answer.
};

// Of one text of EmbedStream, which may come in parts.
inline int64_t MaxStreamedTextBytes(const LimitsConfig& limits) { return 4 * limits.max_request_bytes; }

// A plain value.
struct ServerConfig {
  std::string listen = "127.0.0.1:50051";
  std::string http_listen;                        // OpenAI's, TEI's and Cohere's routes. Empty: no HTTP port.
  std::string health_listen;                      // grpc.health.v1 alone, in plaintext. Empty: on `listen` only.
  std::string metrics_listen = "127.0.0.1:9464";  // Empty: no metrics port.
  bool reflection = true;
  bool channelz = false;
  LogConfig log;
  TracingConfig tracing;
  TlsConfig tls;
  std::string api_keys;  // File (security/api_keys.h), relative to the config file. Empty: no key is asked for.
  ConnectionsConfig connections;
  std::string cpu_kernels;  // Instruction set of our own kernels (model/encoder/cpu/kernels.h). Empty: the fastest.
  int compute_threads = 0;  // That run models on the CPU, for all of them together. 0 = one a core.
  int cuda_streams = 2;     // Batches that run at the same time on one GPU.
  int tokenization_threads = 0;  // 0 = one for every two cores, three at least.
  absl::Duration drain_delay =
      absl::Seconds(0);  // Between NOT_SERVING and refusing new calls, for load balancers to notice.
  absl::Duration drain_timeout = absl::Seconds(75);  // Longer than admitted bulk work waits: max_bulk_queue_wait.
  LimitsConfig limits;
  TeiConfig tei;
  HttpConfig http;
  std::map<std::string, std::string> profiles;  // Name -> JSON of longembed.v1.Extension.
  std::vector<ModelConfig> models;              // At least one.

  std::vector<std::string> overrides;  // Environment variables that set a key (overrides.h), by name.
};

// Every key with its value as text, "connections.max_age" -> "10m": for comparing two configurations. Sections that the
// author names stand as "profiles.NAME" and "models[0].path".
std::map<std::string, std::string> ConfigValues(const ServerConfig& config);

// Reads the file and the environment's overrides (overrides.h). Unknown keys, values of the wrong type or out of range,
// and a file without models are errors (INVALID_ARGUMENT) that name line and key, or the variable; a line each.
absl::StatusOr<ServerConfig> ReadConfig(const std::string& path);

// The same from text; `directory` is what relative paths start from, and `environment` holds "NAME=VALUE" each. Takes
// untrusted text.
absl::StatusOr<ServerConfig> ParseConfig(const std::string& yaml, const std::string& directory,
                                         const std::vector<std::string>& environment = {});

// The log's format, also where the config cannot be used: that of the environment, else of the file as far as it can be
// read, else the default.
LogFormat FindLogFormat(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_CONFIG_H_
