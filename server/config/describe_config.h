// The keys of the server's configuration: name, type and range of each. The structs have the defaults.
//
// `Keys` is a YamlMapping, which reads a config, or any other type with its methods.
#ifndef LONGEMBED_SERVER_CONFIG_DESCRIBE_CONFIG_H_
#define LONGEMBED_SERVER_CONFIG_DESCRIBE_CONFIG_H_

#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "model/yaml/yaml_mapping.h"
#include "server/config/config.h"

namespace longembed {

inline constexpr int64_t kMany = std::numeric_limits<int32_t>::max();
inline constexpr int64_t kGibibyte = int64_t{1} << 30;
inline constexpr absl::Duration kLongest = absl::Hours(480);  // gRPC stores milliseconds in an int.

template <typename Keys>
void Describe(Keys& keys, LogConfig& log) {
  keys.Choice("level", log.level,
              {{"debug", LogLevel::kDebug},
               {"info", LogLevel::kInfo},
               {"warning", LogLevel::kWarning},
               {"error", LogLevel::kError}});
  keys.Choice("format", log.format, {{"json", LogFormat::kJson}, {"text", LogFormat::kText}});
}

template <typename Keys>
void Describe(Keys& keys, TracingConfig& tracing) {
  keys.Text("endpoint", tracing.endpoint);
  keys.Number("sample_ratio", tracing.sample_ratio, 0, 1);
  keys.Text("service_name", tracing.service_name);
}

template <typename Keys>
void Describe(Keys& keys, TlsConfig& tls) {
  keys.Text("certificate", tls.certificate);
  keys.Text("key", tls.key);
  keys.Text("client_ca", tls.client_ca);
}

template <typename Keys>
void Describe(Keys& keys, ConnectionsConfig& connections) {
  // A shorter age would end a connection before its first call.
  constexpr DurationRange kAge{.least = absl::Milliseconds(100), .most = kLongest, .or_zero = true};
  constexpr DurationRange kTimeout{.least = absl::Milliseconds(100), .most = kLongest};
  keys.Integer("max", connections.max, 1, 1 << 20);
  keys.Number("max_client_share", connections.max_client_share, 0.01, 1);
  keys.Integer("max_streams", connections.max_streams, 1, kMany);
  keys.Duration("max_age", connections.max_age, kAge);
  keys.Duration("max_idle", connections.max_idle, kAge);
  keys.Duration("handshake_timeout", connections.handshake_timeout, kTimeout);
  keys.Duration("keepalive", connections.keepalive, kTimeout);
}

template <typename Keys>
void Describe(Keys& keys, LimitsConfig& limits) {
  // With a limit of 0, calls would be charged nothing.
  constexpr DurationRange kWait{.least = absl::Milliseconds(100), .most = kLongest};
  keys.Integer("max_request_bytes", limits.max_request_bytes, 1, kGibibyte);
  keys.Integer("max_response_bytes", limits.max_response_bytes, 1, kGibibyte);
  keys.Integer("max_inputs_per_call", limits.max_inputs_per_call, 1, kMany);
  keys.Integer("max_tokens_per_input", limits.max_tokens_per_input, 1, kMany);
  keys.Integer("max_tokens_per_sequence", limits.max_tokens_per_sequence, 1, kMany);
  keys.Integer("max_run_tokens_per_call", limits.max_run_tokens_per_call, 1, kMany);
  keys.Integer("max_vectors_per_call", limits.max_vectors_per_call, 1, kMany);
  keys.Integer("max_prompt_bytes", limits.max_prompt_bytes, 0, kMany);
  keys.Duration("max_queue_wait", limits.max_queue_wait, kWait);
  keys.Duration("max_bulk_queue_wait", limits.max_bulk_queue_wait, kWait);
  keys.Integer("max_pending_bytes", limits.max_pending_bytes, 1, 1024 * kGibibyte);
}

template <typename Keys>
void Describe(Keys& keys, ModelConfig& model) {
  keys.Text("path", model.path);
  keys.Text("name", model.name);
  keys.Text("device", model.device);
  keys.Choice("precision", model.precision,
              {{"fp32", Precision::kFloat32},
               {"bf16", Precision::kBfloat16},
               {"fp16", Precision::kFloat16},
               {"int8", Precision::kInt8}});
  keys.Choice("engine", model.engine, {{"auto", Engine::kAuto}, {"torchscript", Engine::kTorchScript}});
  keys.Integer("max_batch_tokens", model.max_batch_tokens, 0, kMany);
  keys.Integer("max_batch_sequences", model.max_batch_sequences, 1, kMany);
  keys.Integer("max_queued_tokens", model.max_queued_tokens, 1, kMany);
}

// Describes all keys except profiles, whose keys the config's author names, and models, which is a list (see above).
template <typename Keys>
void Describe(Keys& keys, ServerConfig& config) {
  const auto section = [&keys](const char* name, auto& part) {
    keys.Section(name, [&part](Keys& below) { Describe(below, part); });
  };
  keys.Text("listen", config.listen);
  keys.Text("http_listen", config.http_listen);
  keys.Text("health_listen", config.health_listen);
  keys.Text("metrics_listen", config.metrics_listen);
  keys.Flag("reflection", config.reflection);
  keys.Flag("channelz", config.channelz);
  section("log", config.log);
  section("tracing", config.tracing);
  section("tls", config.tls);
  keys.Text("api_keys", config.api_keys);
  section("connections", config.connections);
  keys.Text("cpu_kernels", config.cpu_kernels);
  keys.Integer("compute_threads", config.compute_threads, 0, 1024);
  keys.Integer("cuda_streams", config.cuda_streams, 1, 64);
  keys.Integer("tokenization_threads", config.tokenization_threads, 0, 256);
  keys.Section("drain", [&config](Keys& drain) {
    drain.Duration("delay", config.drain_delay, {.most = kLongest});
    drain.Duration("timeout", config.drain_timeout, {.most = kLongest});
  });
  section("limits", config.limits);
  keys.Section("tei", [&config](Keys& tei) {
    tei.Text("model", config.tei.model);
    tei.Text("default_prompt", config.tei.default_prompt);
    tei.Text("profile", config.tei.profile);
    tei.Json("extension", config.tei.extension);
  });
  keys.Section("http", [&config](Keys& http) {
    http.Text("openai_prompt", config.http.openai_prompt);
    http.Text("allowed_origin", config.http.allowed_origin);
  });
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_DESCRIBE_CONFIG_H_
