#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// The sample documents the defaults, so reading it must have the same result as reading a config that is otherwise
// empty.
TEST(ConfigTest, TheSampleHoldsEveryDefault) {
  const auto sample = ReadConfig(LONGEMBED_SAMPLE_CONFIG);
  ASSERT_TRUE(sample.ok()) << sample.status();
  const auto least = ParseConfig("models: [{path: ../models/e5-small-v2}]",
                                 std::filesystem::path(LONGEMBED_SAMPLE_CONFIG).parent_path().string());
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(ConfigValues(*sample), ConfigValues(*least));
}

// Returns the lines of the sample below a key of the root, without comments. For an empty key, returns all lines of the
// root.
std::string SampleSection(const std::string& section) {
  std::ifstream file(LONGEMBED_SAMPLE_CONFIG);
  std::string lines = "\n", current;
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    if (line.empty()) continue;
    const bool of_root = line[0] != ' ';
    if (of_root) current = line.substr(0, line.find(':'));
    if (section.empty() ? of_root : !of_root && current == section) lines += line + "\n";
  }
  return lines;
}

TEST(ConfigTest, TheSampleNamesEveryKey) {
  const auto config = ReadConfig(LONGEMBED_SAMPLE_CONFIG);
  ASSERT_TRUE(config.ok()) << config.status();
  for (const auto& [path, value] : ConfigValues(*config)) {
    const size_t dot = path.find('.');
    const std::string section = dot == std::string::npos ? "" : path.substr(0, std::min(dot, path.find('[')));
    const std::string key = path.substr(dot == std::string::npos ? 0 : dot + 1);
    EXPECT_THAT(SampleSection(section), ContainsRegex("[\n -]" + key + ":")) << path;
  }
}

TEST(ConfigTest, TakesOriginsAsBrowsersSendThem) {
  for (const char* origin : {"", "*", "https://example.org", "http://localhost:3000", "http://[::1]:8080",
                             "chrome-extension://abcdefghijklmnop", "app://obsidian.md"}) {
    const auto config = ParseConfig(std::string("models: [{path: x}]\nhttp: {allowed_origin: \"") + origin + "\"}", "");
    EXPECT_TRUE(config.ok()) << config.status();
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

TEST(ConfigTest, ReadsTheExtensionOfTei) {
  const auto config = ParseConfig("models: [{path: x}]\ntei: {extension: {windows: {tokens: 64}}}", "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tei.extension, R"({"windows":{"tokens":"64"}})");
  EXPECT_EQ(ConfigValues(*config).at("tei.extension"), config->tei.extension);
  EXPECT_TRUE(config->tei.has_extension());
  const auto by_name =
      ParseConfig("models: [{path: x}]\nprofiles: {a: {windows: {}}}\ntei: {profile: a, extension: {}}", "");
  ASSERT_TRUE(by_name.ok()) << by_name.status();
  EXPECT_EQ(by_name->tei.profile, "a");
  EXPECT_FALSE(by_name->tei.has_extension());
}

TEST(ConfigTest, ReadsPathsAddressesDurationsAndLimits) {
  const auto config = ParseConfig(R"(
health_listen: 0.0.0.0:50052
channelz: true
log: {level: debug, format: text}
tls: {certificate: tls/tls.crt, key: /abs/tls.key, client_ca: ../ca.crt}
api_keys: keys.yaml
connections: {max: 7, max_streams: 8, max_age: 0s, max_idle: 1h, handshake_timeout: 250ms, keepalive: 9s}
limits: {max_response_bytes: 10, max_queue_wait: 2s, max_bulk_queue_wait: 3m, max_pending_bytes: 12345678901}
models: [{path: a}]
)",
                                  "/etc/longembed");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->health_listen, "0.0.0.0:50052");
  EXPECT_TRUE(config->channelz);
  EXPECT_EQ(config->log.level, LogLevel::kDebug);
  EXPECT_EQ(config->log.format, LogFormat::kText);
  EXPECT_TRUE(config->tls.enabled());
  EXPECT_EQ(config->tls.certificate, "/etc/longembed/tls/tls.crt");
  EXPECT_EQ(config->tls.key, "/abs/tls.key");
  EXPECT_EQ(config->tls.client_ca, "/etc/ca.crt");
  EXPECT_EQ(config->api_keys, "/etc/longembed/keys.yaml");
  EXPECT_EQ(config->connections.max, 7);
  EXPECT_EQ(config->connections.max_streams, 8);
  EXPECT_EQ(config->connections.max_age, absl::ZeroDuration());
  EXPECT_EQ(config->connections.max_idle, absl::Hours(1));
  EXPECT_EQ(config->connections.handshake_timeout, absl::Milliseconds(250));
  EXPECT_EQ(config->connections.keepalive, absl::Seconds(9));
  EXPECT_EQ(config->limits.max_response_bytes, 10);
  EXPECT_EQ(config->limits.max_queue_wait, absl::Seconds(2));
  EXPECT_EQ(config->limits.max_bulk_queue_wait, absl::Minutes(3));
  EXPECT_EQ(config->limits.max_pending_bytes, 12345678901);
}

TEST(ConfigTest, KeysNeedNoTlsWhereGrpcsOwnServicesAreOff) {
  const auto config = ParseConfig("api_keys: k.yaml\nmodels: [{path: x}]", "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->tls.enabled());
  EXPECT_TRUE(
      ParseConfig("api_keys: k.yaml\nchannelz: true\ntls: {certificate: a, key: b}\nmodels: [{path: x}]", "").ok());
}

TEST(ConfigTest, EveryLevelHasAName) {
  for (const auto& [name, level] : {std::pair{"debug", LogLevel::kDebug}, std::pair{"info", LogLevel::kInfo},
                                    std::pair{"warning", LogLevel::kWarning}, std::pair{"error", LogLevel::kError}}) {
    const auto config = ParseConfig(std::string("models: [{path: x}]\nlog: {level: ") + name + "}", "");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->log.level, level);
  }
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
                      BadConfig{"models: [{path: x}]\nlimits: 3", "limits must be a mapping"},
                      BadConfig{"models: [{path: [x]}]", "models[0].path must be a string"},
                      BadConfig{"models: [", "line"}));

INSTANTIATE_TEST_SUITE_P(
    Operations, BadConfigTest,
    ::testing::Values(
        BadConfig{"models: [{path: x}]\nlog: {level: trace}", "log.level must be one of debug, info, warning, error"},
        BadConfig{"models: [{path: x}]\nlog: {format: xml}", "log.format must be one of json, text"},
        BadConfig{"models: [{path: x}]\nlog: debug", "log must be a mapping"},
        BadConfig{"models: [{path: x}]\nchannelz: 3", "channelz must be true or false"},
        BadConfig{"models: [{path: x}]\nhealth_listen: [a]", "health_listen must be a string"},
        BadConfig{"models: [{path: x}]\napi_keys: {a: b}", "api_keys must be a string"},
        BadConfig{"models: [{path: x}]\ntls: {certificate: a}", "tls needs both certificate and key"},
        BadConfig{"models: [{path: x}]\ntls: {key: a}", "tls needs both certificate and key"},
        BadConfig{"models: [{path: x}]\ntls: {client_ca: a}", "tls client_ca needs tls.certificate and tls.key"},
        BadConfig{"models: [{path: x}]\ntls: {cert: a}", "tls.cert is unknown"},
        BadConfig{"models: [{path: x, name: 'a\xff'}]", "line 1: holds text that is not UTF-8"},
        BadConfig{"models: [{path: x}]\nprofiles: {'a\xff': {windows: {}}}", "line 2: holds text that is not UTF-8"},
        BadConfig{"models: [{path: x}]\nhttp: {allowed_origin: 'https://example.org/'}", "which is not an origin"},
        BadConfig{"models: [{path: x}]\nhttp: {allowed_origin: 'https://a.org,https://b.org'}",
                  "which is not an origin"},
        BadConfig{"models: [{path: x}]\nhttp: {allowed_origin: example.org}", "allowed_origin is \"example.org\""},
        BadConfig{"models: [{path: x}]\nhttp: {allowed_origin: 'https://Example.org'}", "which is not an origin"},
        BadConfig{"models: [{path: x}]\nhttp: {allowed_origin: \"*\\r\\nx: y\"}", "which is not an origin"},
        // gRPC answers channelz itself, without checking keys.
        BadConfig{"models: [{path: x}]\napi_keys: k\nchannelz: true", "channelz must be false with api_keys"},
        BadConfig{"models: [{path: x}]\nconnections: {max: 0}", "connections.max must be a whole number from 1"},
        BadConfig{"models: [{path: x}]\nconnections: {max_streams: 0}", "connections.max_streams must be"},
        BadConfig{"models: [{path: x}]\nconnections: {max_age: 10}", "connections.max_age must be a duration"},
        // An int cannot hold that many milliseconds.
        BadConfig{"models: [{path: x}]\nconnections: {max_age: 1000h}",
                  "connections.max_age must be 0s, or from 100ms to 480h"},
        BadConfig{"models: [{path: x}]\nconnections: {max_idle: inf}", "connections.max_idle must be 0s, or from"},
        // Every connection would be closed at once.
        BadConfig{"models: [{path: x}]\nconnections: {handshake_timeout: 0s}", "connections.handshake_timeout must be"},
        BadConfig{"models: [{path: x}]\nconnections: {keepalive: 0s}", "connections.keepalive must be"},
        BadConfig{"models: [{path: x}]\nconnections: {keepalive: 1000h}", "connections.keepalive must be"},
        BadConfig{"models: [{path: x}]\nlimits: {max_response_bytes: 0}", "limits.max_response_bytes must be"},
        BadConfig{"models: [{path: x}]\nlimits: {max_pending_bytes: 0}", "limits.max_pending_bytes must be"},
        BadConfig{"models: [{path: x}]\nlimits: {max_queue_wait: 10}", "limits.max_queue_wait must be a duration"},
        BadConfig{"models: [{path: x}]\nlimits: {max_queue_wait: -1s}", "limits.max_queue_wait must be a duration"},
        // Admission would not charge calls at all.
        BadConfig{"models: [{path: x}]\nlimits: {max_queue_wait: 0s}", "limits.max_queue_wait must be from 100ms"},
        BadConfig{"models: [{path: x}]\nlimits: {max_bulk_queue_wait: 99ms}",
                  "limits.max_bulk_queue_wait must be from 100ms"},
        BadConfig{"models: [{path: x}]\nlimits: {max_bulk_queue_wait: soon}", "limits.max_bulk_queue_wait must be"}));

INSTANTIATE_TEST_SUITE_P(
    Surprises, BadConfigTest,
    ::testing::Values(
        // In YAML 1.1 these are octal, hexadecimal, with separators, or in base 60.
        BadConfig{"models: [{path: x}]\ncompute_threads: 010", "line 2: compute_threads must be a whole number"},
        BadConfig{"models: [{path: x}]\ncompute_threads: 0x10", "compute_threads must be a whole number"},
        BadConfig{"models: [{path: x}]\ncompute_threads: 0o10", "in plain digits, not 0o10"},
        BadConfig{"models: [{path: x}]\nconnections: {max: 1_000}", "connections.max must be a whole number"},
        BadConfig{"models: [{path: x}]\nconnections: {max: +5}", "not +5"},
        BadConfig{"models: [{path: x}]\nconnections: {max: 1:30}", "not 1:30"},
        BadConfig{"models: [{path: x}]\nconnections: {max: \"5\"}", "not the text 5"},
        BadConfig{"models: [{path: x}]\nconnections: {max: .inf}", "not .inf"},
        BadConfig{"models: [{path: x}]\nreflection: yes", "reflection must be true or false, not yes"},
        BadConfig{"models: [{path: x}]\nreflection: off", "reflection must be true or false, not off"},
        BadConfig{"models: [{path: x}]\nreflection: True", "reflection must be true or false, not True"},
        // Which of the two keys wins would depend on the reader.
        BadConfig{"models: [{path: x}]\nlisten: a\nlisten: b", "line 3: listen appears twice"},
        BadConfig{"models: [{path: x}]\nlimits: {max_queue_wait: 1s, max_queue_wait: 9s}",
                  "line 2: limits.max_queue_wait appears twice"},
        BadConfig{"models: [{path: x, name: a, name: a}]", "models[0].name appears twice"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {windows: {}}, a: {windows: {}}}", "profiles.a appears twice"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {windows: {tokens: 1, tokens: 2}}}",
                  "profiles.a.windows.tokens appears twice"},
        BadConfig{"models: [{path: x}]\n---\nlisten: a", "line 3: a second document begins"},
        BadConfig{"models: [{path: x}]\nlisten:", "line 2: listen is empty"},
        BadConfig{"models: [{path: x}]\ntls:\nlisten: a", "tls is empty"}, BadConfig{"models:", "models is empty"},
        BadConfig{"models: [{path: ~}]", "models[0].path is empty"},
        BadConfig{"models: [~]", "models[0] must be a mapping"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {}}\ntei: {profile: a, extension: {windows: {}}}",
                  "tei has both profile and extension"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {}, b: {}}\ntei: {profile: c}",
                  "tei has the profile \"c\", which is not among profiles: a, b"},
        BadConfig{"models: [{path: x}]\ntei: {profile: c}", "which is not among profiles: there are none"},
        BadConfig{"models: [{path: x}]\ntei: {extension: 3}", "tei.extension must be a mapping"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {windows: {tokens: }}}", "profiles.a.windows.tokens is empty"},
        BadConfig{"models: [{path: x}]\nprofiles: {a: {windows: [1]}}", "profiles.a.windows must be a string"},
        BadConfig{"models: [&m {path: x}]", "line 1: anchors are not supported"}, BadConfig{"models: [*m]", "line 1: "},
        BadConfig{"models: [{path: x, <<: {name: y}}]", "merge keys are not supported"},
        BadConfig{"models: [{path: !!str x}]", "tags are not supported"},
        // gRPC would be given 0 ms.
        BadConfig{"models: [{path: x}]\nconnections: {max_idle: 999us}",
                  "connections.max_idle must be 0s, or from 100ms to 480h in whole milliseconds, not 999us"},
        BadConfig{"models: [{path: x}]\nconnections: {max_age: 1ns}", "connections.max_age must be 0s, or from 100ms"},
        BadConfig{"models: [{path: x}]\nconnections: {max_age: 99ms}", "connections.max_age must be"},
        BadConfig{"models: [{path: x}]\nconnections: {handshake_timeout: 1ms}", "handshake_timeout must be from 100ms"},
        BadConfig{"models: [{path: x}]\ndrain: {timeout: 1500us}", "drain.timeout must be from 0 to 480h in whole"}));

TEST(ConfigTest, ItsSizeAndDepthAreBounded) {
  EXPECT_THAT(std::string(ParseConfig(std::string(2 << 20, ' '), "").status().message()), HasSubstr("at most 1048576"));
  EXPECT_THAT(std::string(ParseConfig("models: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "").status().message()),
              HasSubstr("deeper than 16"));
}

TEST(ConfigTest, ValuesNameEveryKeyThatDiffers) {
  ServerConfig before, after;
  before.models.resize(1);
  after.models.resize(1);
  after.connections.max_age = absl::Seconds(90);
  after.models[0].precision = Precision::kInt8;
  after.profiles["p"] = "{}";
  const std::map<std::string, std::string> old_values = ConfigValues(before);
  std::map<std::string, std::string> changed;
  for (const auto& [key, value] : ConfigValues(after)) {
    if (!old_values.contains(key) || old_values.at(key) != value) changed[key] = value;
  }
  const std::map<std::string, std::string> expected{
      {"connections.max_age", "1m30s"}, {"models[0].precision", "int8"}, {"profiles.p", "{}"}};
  EXPECT_EQ(changed, expected);
}

TEST(ConfigTest, AnEmptyFileIsNoConfig) {
  const std::string path = ::testing::TempDir() + "empty_config_" + std::to_string(getpid()) + ".yaml";
  std::ofstream file(path);
  file.close();
  EXPECT_THAT(std::string(ReadConfig(path).status().message()), HasSubstr("must be a mapping"));
}

TEST(ConfigTest, AMissingFileIsNamed) {
  EXPECT_THAT(std::string(ReadConfig("/nonexistent/config.yaml").status().message()),
              HasSubstr("/nonexistent/config.yaml cannot be read: No such file"));
}

// Admitted calls must be able to finish before a drain times out.
TEST(ConfigTest, ADrainIsLongerThanBulkWorkWaits) {
  const ServerConfig config;
  EXPECT_GT(config.drain_timeout, config.limits.max_bulk_queue_wait);
}

TEST(ConfigTest, TracingNamesACollector) {
  const auto message = [](const std::string& tracing) {
    return std::string(ParseConfig("models: [{path: x}]\ntracing: " + tracing, "").status().message());
  };
  EXPECT_EQ(message("{endpoint: http://collector:4317, sample_ratio: 0.1}"), "");
  EXPECT_THAT(message("{endpoint: http://collector:4318/v1/traces}"),
              AllOf(HasSubstr("tracing"), HasSubstr("endpoint: \"http://collector:4318/v1/traces\" is not HOST:PORT")));
  EXPECT_THAT(message("{sample_ratio: 1.5}"), HasSubstr("tracing.sample_ratio"));
}

TEST(ConfigTest, ProfilesThatContainThemselvesAreRefused) {
  const auto config = ParseConfig("profiles: {a: &a {b: *a}}\nmodels: [{path: x}]", "");
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("anchors"));
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
