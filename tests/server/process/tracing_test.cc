#include "server/process/tracing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

using Variables = std::map<std::string, std::string>;

TracingSettings Resolve(const TracingConfig& config, const Variables& variables) {
  const auto environment = [&variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  };
  return ResolveTracing(config, environment, "1.2.3");
}

TEST(TracingSettingsTest, IsOffByDefault) {
  EXPECT_FALSE(Resolve({}, {}).enabled());
  EXPECT_FALSE(Resolve({}, {{"OTEL_SERVICE_NAME", "s"}, {"OTEL_EXPORTER_OTLP_TIMEOUT", "x"}}).enabled());
  EXPECT_EQ(Resolve({}, {{"OTEL_EXPORTER_OTLP_TIMEOUT", "x"}}).refused, "");
}

TEST(TracingSettingsTest, TheConfigOutranksTheEnvironment) {
  const Variables variables{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1"},
                            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:2"},
                            {"OTEL_SERVICE_NAME", "named"},
                            {"OTEL_RESOURCE_ATTRIBUTES", "service.name=other, k8s.pod.name=a%2Cb"}};
  const OtlpOptions from_environment = Resolve({}, variables).otlp;
  EXPECT_EQ(from_environment.address, "traces:2");
  EXPECT_TRUE(from_environment.tls);
  EXPECT_THAT(from_environment.resource,
              AllOf(Contains(Pair("service.name", "named")), Contains(Pair("k8s.pod.name", "a,b")),
                    Contains(Pair("service.version", "1.2.3"))));
  const OtlpOptions from_config = Resolve({.endpoint = "mine:3", .service_name = "me"}, variables).otlp;
  EXPECT_EQ(from_config.address, "mine:3");
  EXPECT_FALSE(from_config.tls);
  EXPECT_THAT(from_config.resource, Contains(Pair("service.name", "me")));
  EXPECT_THAT(Resolve({.endpoint = "mine:3"}, {}).otlp.resource, Contains(Pair("service.name", "longembed-server")));
}

TEST(TracingSettingsTest, TheEnvironmentCanDisableItsOwnEndpoint) {
  const Variables off{{"OTEL_SDK_DISABLED", "TRUE"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "c:1"}};
  EXPECT_FALSE(Resolve({}, off).enabled());
  EXPECT_TRUE(Resolve({.endpoint = "mine:3"}, off).enabled());
}

TEST(TracingSettingsTest, ReadsHeadersAndTimeout) {
  const OtlpOptions options = Resolve({.endpoint = "c"}, {{"OTEL_EXPORTER_OTLP_HEADERS", "API-Key=s%3Decret,b=c"},
                                                          {"OTEL_EXPORTER_OTLP_TIMEOUT", "1500"}})
                                  .otlp;
  EXPECT_EQ(options.address, "c:4317");
  EXPECT_THAT(options.headers, ElementsAre(Pair("api-key", "s=ecret"), Pair("b", "c")));
  EXPECT_EQ(options.timeout, absl::Milliseconds(1500));
}

TEST(TracingSettingsTest, SaysWhyItRefusesTheEnvironment) {
  const auto refused = [](Variables variables) {
    variables.emplace("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    const TracingSettings settings = Resolve({}, variables);
    EXPECT_FALSE(settings.enabled());
    return settings.refused;
  };
  EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}}),
              HasSubstr("OTEL_EXPORTER_OTLP_PROTOCOL is \"http/protobuf\""));
  EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/v1/traces"}}),
              HasSubstr("OTEL_EXPORTER_OTLP_ENDPOINT \"http://c:4318/v1/traces\" is not HOST:PORT"));
  EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_HEADERS", "no-value"}}), HasSubstr("OTEL_EXPORTER_OTLP_HEADERS is not"));
  EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"}}), HasSubstr("OTEL_EXPORTER_OTLP_TIMEOUT is \"10s\""));
  for (const char* too_long : {"86400001", "9223372036854775807"}) {  // Added to the time, the latter overflows.
    EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_TIMEOUT", too_long}}), HasSubstr("milliseconds from 1 to 86400000"));
  }
  EXPECT_THAT(refused({{"OTEL_RESOURCE_ATTRIBUTES", "x"}}), HasSubstr("OTEL_RESOURCE_ATTRIBUTES is not"));
  EXPECT_THAT(refused({{"OTEL_RESOURCE_ATTRIBUTES", "team=%ff"}}),
              HasSubstr("OTEL_RESOURCE_ATTRIBUTES holds text that is not UTF-8"));
  EXPECT_THAT(refused({{"OTEL_SERVICE_NAME", "\xff"}}), HasSubstr("OTEL_SERVICE_NAME is not UTF-8"));
  EXPECT_THAT(refused({{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"}}),
              HasSubstr("OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read"));
}

// gRPC aborts the process if it is given a header that it cannot send.
TEST(TracingSettingsTest, RefusesHeadersThatGrpcCannotSend) {
  for (const char* bad :
       {"api-key=s3cret%0A", "api-key=s3cret\xc3\xa9", "api key=s3cret", ":path=s3cret", "a%=s3cret"}) {
    const TracingSettings settings = Resolve({.endpoint = "c"}, {{"OTEL_EXPORTER_OTLP_HEADERS", bad}});
    EXPECT_FALSE(settings.enabled()) << bad;
    EXPECT_THAT(settings.refused, AllOf(HasSubstr("OTEL_EXPORTER_OTLP_HEADERS has a header that gRPC cannot send"),
                                        Not(HasSubstr("s3cret"))));
  }
  EXPECT_TRUE(Resolve({.endpoint = "c"}, {{"OTEL_EXPORTER_OTLP_HEADERS", "a-bin=%00%ff,b_c.d=~ !"}}).enabled());
}

TEST(OtlpEndpointTest, ErrorsDoNotQuoteSecrets) {
  const auto error = [](const char* endpoint) { return std::string(ParseOtlpEndpoint(endpoint).status().message()); };
  EXPECT_THAT(error("http://me:s3cret@c:4317"), HasSubstr("\"http://...@c:4317\" is not HOST:PORT"));
  EXPECT_THAT(error("me:s3cret@c:4317"), HasSubstr("\"...@c:4317\" is not"));
  EXPECT_THAT(error("https://c:4317?key=s3cret"), HasSubstr("\"https://c:4317?...\" is not"));
  EXPECT_THAT(error("c:1/path"), HasSubstr("\"c:1/path\" is not"));
  // The slashes of a query are not those of a scheme, and a password may have any character.
  EXPECT_THAT(error("c?url=http://s3cret"), HasSubstr("\"c?...\" is not"));
  EXPECT_THAT(error("me:s3cret@c//v1"), HasSubstr("\"...@c//v1\" is not"));
  for (const char* other :
       {"https://c:4317?key=s3cret@x", "http://me:s3cret?@c", "me:s3cret://@c", "http://a@s3cret@c"}) {
    EXPECT_THAT(error(other), AllOf(HasSubstr("is not HOST:PORT"), Not(HasSubstr("s3cret")))) << other;
  }
}

TEST(OtlpEndpointTest, ReadsAddresses) {
  EXPECT_EQ(ParseOtlpEndpoint("http://collector:4317/")->address, "collector:4317");
  EXPECT_EQ(ParseOtlpEndpoint("[::1]:5")->address, "[::1]:5");
  EXPECT_EQ(ParseOtlpEndpoint("https://[::1]")->address, "[::1]:4317");
  EXPECT_TRUE(ParseOtlpEndpoint("https://a")->tls);
  for (const char* bad : {"http://", ":4317", "a:", "a:0", "a:70000", "a:x", "::1", "[::1:5", "a:1/path", "ftp://a:1",
                          "user@a:1", "a b:1"}) {
    EXPECT_FALSE(ParseOtlpEndpoint(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace longembed
