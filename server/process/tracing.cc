#include "server/process/tracing.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "model/text/utf8.h"
#include "server/telemetry/log.h"
#include "system/watched_files.h"

namespace longembed {
namespace {

constexpr char kSpecific[] = "OTEL_EXPORTER_OTLP_TRACES_", kGeneral[] = "OTEL_EXPORTER_OTLP_";

struct Variable {
  std::string name;
  std::string value;  // Empty: not set.
};

// Finds a variable. The one for traces overrides the one for all signals.
Variable Find(const VariableReader& environment, const char* name) {
  for (const char* prefix : {kSpecific, kGeneral}) {
    Variable variable{.name = absl::StrCat(prefix, name)};
    variable.value = environment(variable.name.c_str());
    if (!variable.value.empty()) return variable;
  }
  return {};
}

std::string PercentDecoded(const std::string& text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    if (text[i] == '%' && text.size() - i > 2 && absl::SimpleHexAtoi(text.substr(i + 1, 2), &byte)) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

std::string Stripped(std::string text) {
  absl::StripAsciiWhitespace(&text);
  return text;
}

// Parses "key=value,key=value", percent-encoded. Returns false if the text does not have that form.
bool ReadPairs(const std::string& text, std::map<std::string, std::string>& pairs) {
  for (const std::string& pair : std::vector<std::string>(absl::StrSplit(text, ',', absl::SkipWhitespace()))) {
    const size_t equals = pair.find('=');
    const std::string key = Stripped(pair.substr(0, equals));
    if (equals == std::string::npos || key.empty()) return false;
    pairs[key] = PercentDecoded(Stripped(pair.substr(equals + 1)));
  }
  return true;
}

// Returns the reason for ignoring the environment: what is wrong with `variable`.
std::string Refusal(const Variable& variable, const std::string& why) { return absl::StrCat(variable.name, " ", why); }

std::string ReadEndpoint(const TracingConfig& config, const VariableReader& environment, OtlpOptions& options) {
  const Variable variable = Find(environment, "ENDPOINT");
  const bool configured = !config.endpoint.empty();
  const std::string& asked = configured ? config.endpoint : variable.value;
  if (asked.empty()) return "";
  const Variable protocol = Find(environment, "PROTOCOL");
  if (!configured && !protocol.value.empty() && protocol.value != "grpc") {
    return Refusal(protocol, absl::StrCat("is \"", protocol.value, "\"; this server exports only over grpc"));
  }
  const absl::StatusOr<OtlpEndpoint> endpoint = ParseOtlpEndpoint(asked);
  if (!endpoint.ok()) return Refusal(variable, std::string(endpoint.status().message()));
  options.address = endpoint->address;
  options.tls = endpoint->tls;
  return "";
}

std::string ReadRoots(const VariableReader& environment, OtlpOptions& options) {
  const Variable file = Find(environment, "CERTIFICATE");
  if (file.value.empty()) return "";
  absl::StatusOr<std::string> roots = ReadWholeFile(file.value);
  if (!roots.ok()) return Refusal(file, absl::StrCat("cannot be read: ", std::string(roots.status().message())));
  options.roots = *std::move(roots);
  return "";
}

// Returns whether gRPC can send the header. It aborts the process if a name or a value contains other bytes.
bool IsHeader(const std::string& name, const std::string& value) {
  const bool binary = absl::EndsWith(name, "-bin");
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string::npos &&
         (binary || std::ranges::all_of(value, &absl::ascii_isprint));
}

std::string ReadHeaders(const VariableReader& environment, OtlpOptions& options) {
  const Variable headers = Find(environment, "HEADERS");
  std::map<std::string, std::string> pairs;
  if (!ReadPairs(headers.value, pairs)) return Refusal(headers, "is not key=value,key=value");
  for (const auto& [key, value] : pairs) {
    const std::string name = absl::AsciiStrToLower(key);
    if (!IsHeader(name, value)) {  // Quotes neither, because a key may be on either side of a misplaced '='.
      return Refusal(headers,
                     "has a header that gRPC cannot send: a name may have letters, digits and -_. only, and a value "
                     "printable ASCII");
    }
    options.headers[name] = value;
  }
  return "";
}

std::string ReadTimeout(const VariableReader& environment, OtlpOptions& options) {
  const Variable timeout = Find(environment, "TIMEOUT");
  if (timeout.value.empty()) return "";
  constexpr int64_t kMost = 24 * 3600 * 1000;  // A day. Far larger numbers would overflow when added to the time.
  int64_t milliseconds = 0;
  if (!absl::SimpleAtoi(timeout.value, &milliseconds) || milliseconds < 1 || milliseconds > kMost) {
    return Refusal(timeout,
                   absl::StrCat("is \"", timeout.value, "\"; it must be a number of milliseconds from 1 to ", kMost));
  }
  options.timeout = absl::Milliseconds(milliseconds);
  return "";
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return ReplaceInvalidUtf8(name);
}

// Returns whether OTLP can hold the text. Protobuf's strings are UTF-8: a collector would refuse the whole request.
bool IsText(const std::string& text) { return !FirstInvalidUtf8Byte(text).has_value(); }

std::string ReadResource(const TracingConfig& config, const VariableReader& environment, const std::string& version,
                         OtlpOptions& options) {
  options.version = version;
  options.resource = {{"service.name", "longembed-server"},
                      {"service.version", version},
                      {"host.name", HostName()},
                      {"telemetry.sdk.language", "cpp"}};
  const Variable attributes{.name = "OTEL_RESOURCE_ATTRIBUTES", .value = environment("OTEL_RESOURCE_ATTRIBUTES")};
  if (!ReadPairs(attributes.value, options.resource)) return Refusal(attributes, "is not key=value,key=value");
  const auto is_text = [](const auto& pair) { return IsText(pair.first) && IsText(pair.second); };
  if (!std::ranges::all_of(options.resource, is_text)) return Refusal(attributes, "holds text that is not UTF-8");
  const Variable service{.name = "OTEL_SERVICE_NAME", .value = environment("OTEL_SERVICE_NAME")};
  if (!IsText(service.value)) return Refusal(service, "is not UTF-8");
  for (const std::string& name : {service.value, config.service_name}) {
    if (!name.empty()) options.resource["service.name"] = name;
  }
  return "";
}

}  // namespace

VariableReader EnvironmentReader() {
  return [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
}

TracingSettings ResolveTracing(const TracingConfig& config, const VariableReader& environment,
                               const std::string& version) {
  TracingSettings settings;
  if (config.endpoint.empty() && absl::EqualsIgnoreCase(environment("OTEL_SDK_DISABLED"), "true")) return settings;
  OtlpOptions options;
  std::string& refused = settings.refused;
  refused = ReadEndpoint(config, environment, options);
  if (options.address.empty()) return settings;
  if (refused.empty()) refused = ReadRoots(environment, options);
  if (refused.empty()) refused = ReadHeaders(environment, options);
  if (refused.empty()) refused = ReadTimeout(environment, options);
  if (refused.empty()) refused = ReadResource(config, environment, version, options);
  if (refused.empty()) settings.otlp = std::move(options);
  return settings;
}

std::unique_ptr<Tracing> Tracing::Start(const TracingConfig& config, const std::string& version, Metrics& metrics) {
  const TracingSettings settings = ResolveTracing(config, EnvironmentReader(), version);
  if (!settings.refused.empty()) {
    Log(LogLevel::kWarning, "tracing is off: invalid settings in the environment", {{"why", settings.refused}});
  }
  if (!settings.enabled()) return nullptr;
  Log(LogLevel::kInfo, "tracing",
      {{"endpoint", settings.otlp.address},
       {"tls", std::string(settings.otlp.tls ? "on" : "off")},
       {"sample_ratio", config.sample_ratio},
       {"service_name", settings.otlp.resource.at("service.name")}});
  return std::make_unique<Tracing>(settings.otlp, config.sample_ratio, metrics);
}

Tracing::Tracing(const OtlpOptions& options, double sample_ratio, Metrics& metrics)
    : sender_(options),
      exporter_({}, sender_,
                [&metrics](const char* reason, int64_t count) { metrics.CountDroppedSpans(reason, count); }),
      tracer_(sample_ratio, exporter_) {}

Tracing::~Tracing() { exporter_.Flush(absl::Seconds(1)); }

}  // namespace longembed
