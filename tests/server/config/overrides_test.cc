#include "server/config/overrides.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kFile[] = "listen: 127.0.0.1:1\nmodels: [{path: m}]\n";

std::string ErrorOf(const Environment& environment, const std::string& yaml = kFile) {
  return std::string(ParseConfig(yaml, "/etc/le", environment).status().message());
}

TEST(OverridesTest, OutrankTheFile) {
  const auto config = ParseConfig(
      kFile, "/etc/le",
      {"LONGEMBED__LISTEN=0.0.0.0:7", "LONGEMBED__LIMITS__MAX_QUEUE_WAIT=3s", "LONGEMBED__REFLECTION=false",
       "LONGEMBED__CONNECTIONS__MAX_CLIENT_SHARE=0.5", "LONGEMBED__METRICS_LISTEN=", "LONGEMBED__LOG__FORMAT=text",
       "LONGEMBED__API_KEYS=keys.yaml", "LONGEMBED__TEI__DEFAULT_PROMPT=a=b"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "0.0.0.0:7");
  EXPECT_EQ(config->limits.max_queue_wait, absl::Seconds(3));
  EXPECT_FALSE(config->reflection);
  EXPECT_EQ(config->connections.max_client_share, 0.5);
  EXPECT_EQ(config->metrics_listen, "");
  EXPECT_EQ(config->log.format, LogFormat::kText);
  EXPECT_EQ(config->api_keys, "/etc/le/keys.yaml");
  EXPECT_EQ(config->tei.default_prompt, "a=b");
  EXPECT_EQ(config->overrides.size(), 8u);
  EXPECT_EQ(config->overrides.front(), "LONGEMBED__API_KEYS");
}

// One scheme covers all keys, including future ones.
TEST(OverridesTest, EveryKeyHasAVariable) {
  for (const auto& [key, value] : ConfigValues(ServerConfig())) {
    const std::string variable =
        absl::StrCat("LONGEMBED__", absl::AsciiStrToUpper(absl::StrReplaceAll(key, {{".", "__"}})));
    const auto found = FindOverrides({absl::StrCat(variable, "=", value)});
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(found->size(), 1u) << variable;
    EXPECT_EQ(found->front().key, key);
    ServerConfig config;
    EXPECT_TRUE(ApplyOverrides(*found, config).ok()) << variable;
    EXPECT_EQ(ConfigValues(config), ConfigValues(ServerConfig())) << variable;
  }
}

// As in the file: protobuf, which carries some of these values, takes UTF-8 alone.
TEST(OverridesTest, ValuesAreUtf8) {
  EXPECT_EQ(ErrorOf({"LONGEMBED__TRACING__SERVICE_NAME=caf\xe9"}),
            "LONGEMBED__TRACING__SERVICE_NAME: tracing.service_name is not UTF-8");
  EXPECT_EQ(ErrorOf({"LONGEMBED__TRACING__SERVICE_NAME=caf\xc3\xa9"}), "");
}

TEST(OverridesTest, WrongValuesNameVariableAndKey) {
  EXPECT_EQ(ErrorOf({"LONGEMBED__LIMITS__MAX_QUEUE_WAIT=5"}),
            "LONGEMBED__LIMITS__MAX_QUEUE_WAIT: limits.max_queue_wait must be a duration such as 500ms, 10s or 2m, not "
            "5");
  EXPECT_THAT(ErrorOf({"LONGEMBED__CHANNELZ=yes"}), HasSubstr("channelz must be true or false, not yes"));
  EXPECT_THAT(ErrorOf({"LONGEMBED__CONNECTIONS__MAX="}), HasSubstr("connections.max must be a whole number"));
  EXPECT_THAT(ErrorOf({R"(LONGEMBED__TEI__EXTENSION={"windows":{"tokens":64},"windows":{}})"}),
              AllOf(HasSubstr("LONGEMBED__TEI__EXTENSION"), HasSubstr("tei.extension.windows appears twice")));
  EXPECT_THAT(ErrorOf({R"(LONGEMBED__TEI__EXTENSION={"windows":{"tokens":64,"tokens":65}})"}),
              HasSubstr("tei.extension.windows.tokens appears twice"));
  EXPECT_EQ(ErrorOf({R"(LONGEMBED__TEI__EXTENSION={"windows":{"tokens":64},"yarn":null})"}), "");
}

TEST(OverridesTest, UnknownVariablesNameTheNearestKey) {
  EXPECT_EQ(ErrorOf({"LONGEMBED__LIMITS__MAX_QUEUE_WAITS=5s"}),
            "LONGEMBED__LIMITS__MAX_QUEUE_WAITS names no key of the config; did you mean "
            "LONGEMBED__LIMITS__MAX_QUEUE_WAIT?");
  EXPECT_THAT(ErrorOf({"LONGEMBED__NONSENSE_AT_ALL_AND_LONG=1"}), HasSubstr("names no key of the config; LONGEMBED__"));
  for (const char* variable : {"LONGEMBED__MODELS__0__PATH=a", "LONGEMBED__PROFILES__P={}", "LONGEMBED__MODELS=a"}) {
    EXPECT_THAT(ErrorOf({variable}), HasSubstr("can be set only in the config file")) << variable;
  }
}

// Such variables would have no effect, so they are reported.
TEST(OverridesTest, SingleUnderscoresAreReported) {
  EXPECT_EQ(ErrorOf({"LONGEMBED_LISTEN=0.0.0.0:7"}),
            "LONGEMBED_LISTEN is not read; listen of the config is set by LONGEMBED__LISTEN");
  EXPECT_THAT(ErrorOf({"LONGEMBED_LIMITS_MAX_QUEUE_WAIT=5s"}), HasSubstr("by LONGEMBED__LIMITS__MAX_QUEUE_WAIT"));
  EXPECT_THAT(ErrorOf({"LONGEMBED_LIMITS__MAX_QUEUE_WAIT=5s"}), HasSubstr("by LONGEMBED__LIMITS__MAX_QUEUE_WAIT"));
}

// These are variables of the client and of the tests, and those that Kubernetes creates for services named longembed
// and longembed-server.
TEST(OverridesTest, OtherVariablesAreLeftAlone) {
  const auto found = FindOverrides({"LONGEMBED_SERVER=127.0.0.1:1", "LONGEMBED_BUILD=b", "LONGEMBED_PEERS=/p",
                                    "LONGEMBED_SERVICE_HOST=10.0.0.1", "LONGEMBED_PORT=tcp://10.0.0.1:50051",
                                    "LONGEMBED_PORT_50051_TCP_ADDR=10.0.0.1", "LONGEMBED_SERVER_SERVICE_PORT=50051",
                                    "LONGEMBED_SERVER_PORT_50051_TCP_PROTO=tcp", "longembed__listen=x", "PATH=/bin",
                                    "LONGEMBED_MODELS_DIR=m", "LONGEMBED__LISTEN", ""});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, IsEmpty());
}

TEST(OverridesTest, ChecksAcrossKeysSeeTheFileAndTheEnvironment) {
  EXPECT_THAT(ErrorOf({"LONGEMBED__TLS__KEY=k"}), HasSubstr("needs both certificate and key"));
  EXPECT_EQ(ErrorOf({"LONGEMBED__TLS__KEY=k"}, "tls: {certificate: c}\nmodels: [{path: m}]\n"), "");
  EXPECT_THAT(ErrorOf({"LONGEMBED__API_KEYS=k", "LONGEMBED__CHANNELZ=true"}), HasSubstr("channelz must be false"));
  EXPECT_EQ(ErrorOf({"LONGEMBED__REFLECTION=false"}, "api_keys: k\nmodels: [{path: m}]\n"), "");
}

TEST(OverridesTest, AllProblemsAreReportedAtOnce) {
  const std::string all = ErrorOf({"LONGEMBED__CHANNELZ=maybe", "LONGEMBED__DRAIN__DELAY=soon"},
                                  "reflection: 1\nlimits: {max_queue_wait: 5, unknown: 1}\nmodels: [{name: m}]\n");
  EXPECT_THAT(all, AllOf(HasSubstr("line 1: reflection must be"), HasSubstr("line 2: limits.max_queue_wait must be"),
                         HasSubstr("line 2: limits.unknown is unknown"), HasSubstr("line 3: models[0].path is missing"),
                         HasSubstr("LONGEMBED__CHANNELZ: "), HasSubstr("LONGEMBED__DRAIN__DELAY: "),
                         Not(HasSubstr("is empty"))));
}

}  // namespace
}  // namespace longembed
