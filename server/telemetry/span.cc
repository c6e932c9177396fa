#include "server/telemetry/span.h"

#include <algorithm>
#include <random>

#include "absl/strings/escaping.h"

namespace longembed {
namespace {

template <typename Id>
Id RandomId() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  Id id{};
  while (id == Id{}) {
    for (char& byte : id) byte = static_cast<char>(generator() >> 56);
  }
  return id;
}

template <typename Id>
std::string Hex(const Id& id) {
  return absl::BytesToHexString(std::string(id.data(), id.size()));
}

// Returns false if `hex` has anything but lower-case digits, or only zeros.
template <typename Id>
bool ReadId(std::string_view hex, Id& id) {
  if (hex.find_first_not_of("0123456789abcdef") != std::string_view::npos) return false;
  const std::string bytes = absl::HexStringToBytes(std::string(hex));
  std::copy(bytes.begin(), bytes.end(), id.begin());
  return id != Id{};
}

}  // namespace

TraceId NewTraceId() { return RandomId<TraceId>(); }
SpanId NewSpanId() { return RandomId<SpanId>(); }

std::string ToHex(const TraceId& id) { return Hex(id); }
std::string ToHex(const SpanId& id) { return Hex(id); }

std::optional<TraceParent> ParseTraceparent(std::string_view header) {
  constexpr size_t kVersion = 2, kTrace = 32, kSpan = 16, kFlags = 2;
  constexpr size_t kTraceAt = kVersion + 1, kSpanAt = kTraceAt + kTrace + 1, kFlagsAt = kSpanAt + kSpan + 1;
  constexpr size_t kLength = kFlagsAt + kFlags;
  if (header.size() < kLength) return std::nullopt;
  for (const size_t dash : {kTraceAt, kSpanAt, kFlagsAt}) {
    if (header[dash - 1] != '-') return std::nullopt;
  }
  std::array<char, 1> version{}, flags{};
  const auto read = [&](size_t at, size_t length, auto& id) { return ReadId(header.substr(at, length), id); };
  if (!read(0, kVersion, version) && header.substr(0, kVersion) != "00") return std::nullopt;
  // A version that is newer than this code may have more fields after another dash.
  const bool longer = header.size() > kLength;
  if (version[0] == '\xff' || (longer && (version[0] == 0 || header[kLength] != '-'))) return std::nullopt;
  TraceParent parent;
  if (!read(kTraceAt, kTrace, parent.trace_id) || !read(kSpanAt, kSpan, parent.span_id)) return std::nullopt;
  if (!read(kFlagsAt, kFlags, flags) && header.substr(kFlagsAt, kFlags) != "00") return std::nullopt;
  parent.sampled = (flags[0] & 1) != 0;
  return parent;
}

}  // namespace longembed
