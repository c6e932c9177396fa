#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace longembed {
namespace {

using ::testing::HasSubstr;

// The sample documents the defaults, so reading it must give what an otherwise empty config gives.
TEST(ConfigTest, TheSampleHoldsEveryDefault) {
  const auto sample = ReadConfig(LONGEMBED_SAMPLE_CONFIG);
  ASSERT_TRUE(sample.ok()) << sample.status();
  const auto least = ParseConfig("models: [{path: ../models/e5-small-v2}]", "deploy");
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(sample->listen, least->listen);
  EXPECT_EQ(sample->metrics_listen, least->metrics_listen);
  EXPECT_EQ(sample->reflection, least->reflection);
  EXPECT_EQ(sample->compute_threads, least->compute_threads);
  EXPECT_EQ(sample->cuda_streams, least->cuda_streams);
  EXPECT_EQ(sample->tokenization_threads, least->tokenization_threads);
  EXPECT_EQ(sample->drain_delay, least->drain_delay);
  EXPECT_EQ(sample->drain_timeout, least->drain_timeout);
  EXPECT_EQ(sample->limits.max_request_bytes, least->limits.max_request_bytes);
  EXPECT_EQ(sample->limits.max_inputs_per_call, least->limits.max_inputs_per_call);
  EXPECT_EQ(sample->limits.max_tokens_per_input, least->limits.max_tokens_per_input);
  EXPECT_EQ(sample->limits.max_run_tokens_per_call, least->limits.max_run_tokens_per_call);
  EXPECT_EQ(sample->limits.max_vectors_per_call, least->limits.max_vectors_per_call);
  EXPECT_EQ(sample->limits.max_tokens_per_sequence, least->limits.max_tokens_per_sequence);
  EXPECT_EQ(sample->limits.max_prompt_bytes, least->limits.max_prompt_bytes);
  EXPECT_EQ(sample->tei.model, least->tei.model);
  EXPECT_EQ(sample->tei.default_prompt, least->tei.default_prompt);
  EXPECT_EQ(sample->profiles, least->profiles);
  const ModelConfig &documented = sample->models[0], &standard = least->models[0];
  EXPECT_THAT(documented.path, HasSubstr("models/e5-small-v2"));
  EXPECT_EQ(documented.name, standard.name);
  EXPECT_EQ(documented.device, standard.device);
  EXPECT_EQ(documented.precision, standard.precision);
  EXPECT_EQ(documented.engine, standard.engine);
  EXPECT_EQ(documented.max_batch_tokens, standard.max_batch_tokens);
  EXPECT_EQ(documented.max_batch_sequences, standard.max_batch_sequences);
  EXPECT_EQ(documented.max_queued_tokens, standard.max_queued_tokens);
}

// Every key that an error message lists as known stands in the sample.
TEST(ConfigTest, TheSampleNamesEveryKey) {
  std::ifstream file(LONGEMBED_SAMPLE_CONFIG);
  std::stringstream sample;
  sample << file.rdbuf();
  for (const char* yaml : {"models: [{path: x}]\nwrong: 1", "models: [{path: x}]\ndrain: {wrong: 1}",
                           "models: [{path: x}]\nlimits: {wrong: 1}", "models: [{path: x}]\ntei: {wrong: 1}",
                           "models: [{path: x, wrong: 1}]"}) {
    const std::string message(ParseConfig(yaml, "").status().message());
    const std::string marker = "known here: ";
    ASSERT_THAT(message, HasSubstr(marker));
    std::istringstream keys(message.substr(message.find(marker) + marker.size()));
    for (std::string key; std::getline(keys >> std::ws, key, ',');) {
      EXPECT_THAT(sample.str(), HasSubstr(key + ":"));
    }
  }
}

TEST(ConfigTest, ReadsValues) {
  const auto config = ParseConfig(R"(
listen: "[::1]:0"
metrics_listen: ""
reflection: false
drain: {delay: 5s, timeout: 1m30s}
limits: {max_inputs_per_call: 7}
models:
  - {path: a, name: first, device: "cuda:1", precision: bf16, engine: torchscript}
  - {path: /abs/b}
)",
                                  "/etc/longembed");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "[::1]:0");
  EXPECT_EQ(config->metrics_listen, "");
  EXPECT_FALSE(config->reflection);
  EXPECT_EQ(config->drain_delay, absl::Seconds(5));
  EXPECT_EQ(config->drain_timeout, absl::Seconds(90));
  EXPECT_EQ(config->limits.max_inputs_per_call, 7);
  EXPECT_EQ(config->models[0].path, "/etc/longembed/a");
  EXPECT_EQ(config->models[0].device, "cuda:1");
  EXPECT_EQ(config->models[0].precision, Precision::kBfloat16);
  EXPECT_EQ(config->models[0].engine, Engine::kTorchScript);
  EXPECT_EQ(config->models[1].path, "/abs/b");
}

struct BadConfig {
  const char* yaml;
  const char* said;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithTheKeyInTheMessage) {
  const auto config = ParseConfig(GetParam().yaml, "");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    ::testing::Values(BadConfig{"", "mapping"}, BadConfig{"a", "mapping"}, BadConfig{"listen: x", "models"},
                      BadConfig{"models: []", "models"}, BadConfig{"models: [{name: x}]", "models[0].path"},
                      BadConfig{"models: [{path: x}, {path: y, paht: z}]", "models[1].paht is unknown"},
                      BadConfig{"models: [{path: x}]\nlisten_on: y", "line 2"},
                      BadConfig{"models: [{path: x, max_batch_sequences: 0}]",
                                "models[0].max_batch_sequences must be a whole number from 1"},
                      BadConfig{"models: [{path: x, precision: fp8}]",
                                "models[0].precision must be one of fp32, bf16, fp16, int8"},
                      BadConfig{"models: [{path: x, max_batch_tokens: 1e9}]", "models[0].max_batch_tokens"},
                      BadConfig{"models: [{path: x}]\nreflection: perhaps", "reflection must be true or false"},
                      BadConfig{"models: [{path: x}]\ndrain: {timeout: 30}", "drain.timeout must be a duration"},
                      BadConfig{"models: [{path: x}]\ndrain: {timeout: -3s}", "drain.timeout"},
                      BadConfig{"models: [{path: x}]\nlimits: 3", "limits."},
                      BadConfig{"models: [{path: [x]}]", "models[0].path must be a string"},
                      BadConfig{"models: [", "line"}));

TEST(ConfigTest, AMissingFileIsNamed) {
  EXPECT_THAT(std::string(ReadConfig("/nonexistent/config.yaml").status().message()),
              HasSubstr("/nonexistent/config.yaml"));
}

TEST(ConfigTest, ProfilesBecomeJson) {
  const auto config = ParseConfig("models: [{path: x}]\nprofiles: {a: {windows: {tokens: 64}, resonance: true}}", "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->profiles.at("a"), R"({"windows":{"tokens":"64"},"resonance":"true"})");
  EXPECT_THAT(std::string(ParseConfig("models: [{path: x}]\nprofiles: {a: 3}", "").status().message()),
              HasSubstr("profiles.a"));
}

}  // namespace
}  // namespace longembed
