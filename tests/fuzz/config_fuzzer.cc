// The text of a configuration file. What ParseConfig accepts is within its documented ranges, and its profiles are JSON
// that the next step reads or refuses.
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/rpc/extension_converter.h"
#include "tests/fuzz/expect.h"

namespace longembed {
namespace {

void ExpectLimits(const LimitsConfig& limits) {
  for (const int64_t limit :
       {limits.max_request_bytes, limits.max_inputs_per_call, limits.max_tokens_per_input,
        limits.max_tokens_per_sequence, limits.max_run_tokens_per_call, limits.max_vectors_per_call}) {
    FUZZ_EXPECT(limit >= 1 && limit <= INT32_MAX);
  }
  FUZZ_EXPECT(limits.max_prompt_bytes >= 0);
}

void ExpectModel(const ModelConfig& model) {
  FUZZ_EXPECT(!model.path.empty());
  FUZZ_EXPECT(model.max_batch_tokens >= 0 && model.max_batch_sequences >= 1 && model.max_queued_tokens >= 1);
}

void ExpectConfig(const ServerConfig& config) {
  FUZZ_EXPECT(!config.models.empty());
  FUZZ_EXPECT(config.compute_threads >= 0 && config.cuda_streams >= 1 && config.tokenization_threads >= 0);
  // Not infinite: these are added to times and handed to gRPC in milliseconds.
  FUZZ_EXPECT(config.drain_delay >= absl::ZeroDuration() && config.drain_delay < absl::InfiniteDuration());
  FUZZ_EXPECT(config.drain_timeout >= absl::ZeroDuration() && config.drain_timeout < absl::InfiniteDuration());
  ExpectLimits(config.limits);
  for (const ModelConfig& model : config.models) ExpectModel(model);
  const absl::StatusOr<Profiles> profiles = ParseProfiles(config.profiles);
  FUZZ_EXPECT(profiles.ok() || !profiles.status().message().empty());
}

}  // namespace
}  // namespace longembed

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string yaml(reinterpret_cast<const char*>(data), size);
  const auto config = longembed::ParseConfig(yaml, "/etc/longembed");
  if (config.ok()) {
    longembed::ExpectConfig(*config);
  } else {
    FUZZ_EXPECT(config.status().code() == absl::StatusCode::kInvalidArgument);
    FUZZ_EXPECT(!config.status().message().empty());
  }
  return 0;
}
