#include "server/http/response_text.h"

#include <boost/beast/http/status.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

std::string ReasonPhrase(int status) {
  constexpr int kClientClosed = 499;  // nginx's code for a client that has gone away.
  if (status == kClientClosed) return "Client Closed Request";
  const auto phrase = boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status));
  return {phrase.data(), phrase.size()};
}

}  // namespace

std::string ResponseHeader(const ResponseHeaderFields& fields) {
  std::string text = absl::StrCat("HTTP/1.1 ", fields.status, " ", ReasonPhrase(fields.status), "\r\n");
  absl::StrAppend(&text, "Date: ", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()),
                  "\r\n");
  if (!fields.content_type.empty()) {
    absl::StrAppend(&text, "Content-Type: ", std::string(fields.content_type), "\r\n",
                    "X-Content-Type-Options: nosniff\r\n");
  }
  constexpr int kNoContent = 204;
  if (fields.status != kNoContent) absl::StrAppend(&text, "Content-Length: ", fields.content_bytes, "\r\n");
  if (!fields.keep_alive) absl::StrAppend(&text, "Connection: close\r\n");
  for (const auto& [name, value] : fields.headers) absl::StrAppend(&text, name, ": ", value, "\r\n");
  return text + "\r\n";
}

Operation::Headers ErrorHeaders(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kUnauthenticated) return {{"WWW-Authenticate", "Bearer"}};
  const std::optional<absl::Duration> delay = RetryDelay(status);
  if (!delay.has_value()) return {};
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(*delay, absl::Seconds(1)));
  return {{"Retry-After", absl::StrCat(std::max<int64_t>(seconds, 1))},
          {"retry-after-ms", absl::StrCat(absl::ToInt64Milliseconds(absl::Ceil(*delay, absl::Milliseconds(1))))}};
}

bool IsJsonType(std::string_view content_type) {
  const std::string whole(content_type.substr(0, content_type.find(';')));
  const std::string type = absl::AsciiStrToLower(absl::StripAsciiWhitespace(whole));
  return type == "application/json" || (absl::StartsWith(type, "application/") && absl::EndsWith(type, "+json"));
}

std::optional<absl::Duration> ParseSeconds(std::string_view text) {
  double seconds = 0;
  if (!absl::SimpleAtod(std::string(text), &seconds) || !(seconds > 0)) return std::nullopt;
  return absl::Seconds(seconds);
}

}  // namespace longembed
