// Fuzzes the text of a configuration file, and of a file of API keys. Whatever ParseConfig accepts must be within its
// documented ranges, and its profiles must be JSON that the next step accepts or refuses.

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/core/profiles.h"
#include "server/security/api_keys.h"
#include "tests/fuzz/expect.h"

namespace longembed {
namespace {

void ExpectLimits(const LimitsConfig& limits) {
  for (const int64_t limit :
       {limits.max_request_bytes, limits.max_response_bytes, limits.max_inputs_per_call, limits.max_tokens_per_input,
        limits.max_tokens_per_sequence, limits.max_run_tokens_per_call, limits.max_vectors_per_call}) {
    FUZZ_EXPECT(limit >= 1 && limit <= INT32_MAX);
  }
  FUZZ_EXPECT(limits.max_prompt_bytes >= 0 && limits.max_pending_bytes >= 1);
}

// Checks all durations. They are added to times, and passed to gRPC as milliseconds in an int.
void ExpectDurations(const ServerConfig& config) {
  const ConnectionsConfig& connections = config.connections;
  for (const absl::Duration duration :
       {config.drain_delay, config.drain_timeout, config.limits.max_queue_wait, config.limits.max_bulk_queue_wait,
        connections.max_age, connections.max_idle, connections.handshake_timeout, connections.keepalive}) {
    FUZZ_EXPECT(duration >= absl::ZeroDuration() && duration <= absl::Milliseconds(INT32_MAX));
  }
}

void ExpectSafe(const ServerConfig& config) {
  FUZZ_EXPECT(config.tls.certificate.empty() == config.tls.key.empty());
  FUZZ_EXPECT(config.tls.client_ca.empty() || config.tls.enabled());
  const bool keys_in_the_clear = !config.api_keys.empty() && !config.tls.enabled();
  FUZZ_EXPECT(!keys_in_the_clear || (!config.reflection && !config.channelz));
}

void ExpectModel(const ModelConfig& model) {
  FUZZ_EXPECT(!model.path.empty());
  FUZZ_EXPECT(model.max_batch_tokens >= 0 && model.max_batch_sequences >= 1 && model.max_queued_tokens >= 1);
}

void ExpectConfig(const ServerConfig& config) {
  FUZZ_EXPECT(!config.models.empty());
  FUZZ_EXPECT(config.compute_threads >= 0 && config.cuda_streams >= 1 && config.tokenization_threads >= 0);
  FUZZ_EXPECT(config.connections.max >= 1 && config.connections.max_streams >= 1);
  FUZZ_EXPECT(config.connections.max_client_share > 0 && config.connections.max_client_share <= 1);
  ExpectDurations(config);
  ExpectSafe(config);
  ExpectLimits(config.limits);
  for (const ModelConfig& model : config.models) ExpectModel(model);
  const absl::StatusOr<Profiles> profiles = ParseProfiles(config.profiles);
  FUZZ_EXPECT(profiles.ok() || !profiles.status().message().empty());
}

void ExpectKeys(const std::vector<ApiKey>& keys) {
  FUZZ_EXPECT(!keys.empty());
  for (const ApiKey& key : keys) {
    FUZZ_EXPECT(!key.name.empty() && key.max_queued_tokens >= 0 && key.max_concurrent_calls >= 0);
    FUZZ_EXPECT(FindApiKey(keys, "no key") == nullptr);
  }
}

void ExpectRefused(const absl::Status& status) {
  FUZZ_EXPECT(status.code() == absl::StatusCode::kInvalidArgument && !status.message().empty());
}

}  // namespace
}  // namespace longembed

// Runs without protobuf's log (quiet_protobuf.cc), which would have a line for each string that is not UTF-8.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longembed;
  const std::string yaml(reinterpret_cast<const char*>(data), size);
  const auto config = ParseConfig(yaml, "/etc/longembed");
  config.ok() ? ExpectConfig(*config) : ExpectRefused(config.status());
  const auto keys = ParseApiKeys(yaml);
  keys.ok() ? ExpectKeys(*keys) : ExpectRefused(keys.status());
  return 0;
}
