#include "server/admission/ledger.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "server/admission/fair_share.h"
#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(200);

int64_t BeyondFixedCosts(const std::array<int64_t, kMemoryKinds>& held) {
  const int64_t all = std::accumulate(held.begin(), held.end(), int64_t{0});
  return all - held[static_cast<int>(Memory::kCalls)];
}

}  // namespace

const char* MemoryName(Memory kind) {
  switch (kind) {
    case Memory::kCalls:
      return "calls";
    case Memory::kRequests:
      return "requests";
    case Memory::kTokenizer:
      return "tokenizer";
    case Memory::kPlans:
      return "plans";
    case Memory::kAnswers:
      return "answers";
  }
  return "";
}

Charge::~Charge() {
  const MutexLock lock(ledger_.mutex_);
  for (int kind = 0; kind < kMemoryKinds; ++kind) ledger_.Add(*this, Memory(kind), -held_[kind]);
  const auto client = ledger_.clients_.find(client_);
  client->second.calls -= own_calls_;
  if (--client->second.charges > 0) return;
  assert(client->second.calls == 0 && client->second.bytes == 0);
  ledger_.clients_.erase(client);
}

absl::Status Charge::Hold(Memory kind, int64_t bytes) {
  const MutexLock lock(ledger_.mutex_);
  return ledger_.Grow(*this, kind, bytes - held_[static_cast<int>(kind)]);
}

absl::Status Charge::HoldMore(Memory kind, int64_t bytes) {
  const MutexLock lock(ledger_.mutex_);
  return ledger_.Grow(*this, kind, bytes);
}

void Charge::Correct(Memory kind, int64_t bytes) {
  const MutexLock lock(ledger_.mutex_);
  ledger_.Add(*this, kind, bytes - held_[static_cast<int>(kind)]);
}

std::unique_ptr<Charge> Charge::ForSameClient() const { return ledger_.BeginMessage(client_); }

absl::Status Ledger::CheckRoom(const std::string& client, bool exempt, const Charge* charge, int64_t more) const {
  if (exempt && FitsExemption(client, more)) return absl::OkStatus();
  const int64_t own = charge == nullptr ? 0 : BeyondFixedCosts(charge->held_);
  // Fixed costs leave a message alone. A call that begins adds to them, so they count for it.
  const auto alone = [&](int64_t bytes, int64_t fixed) {
    return charge == nullptr ? bytes == 0 : bytes - fixed == own;
  };
  const int64_t fixed = held_[static_cast<int>(Memory::kCalls)];
  if (!alone(bytes_, fixed) && bytes_ + more > max_bytes_) return TooManyPendingBytes(bytes_, max_bytes_, kRetry);
  const auto found = clients_.find(client);
  const Client of_client = found == clients_.end() ? Client{} : found->second;
  if (!alone(of_client.bytes, of_client.calls * kCallBytes) &&
      ExceedsFairShare(of_client.bytes + more, std::max<int64_t>(0, max_bytes_ - bytes_ - more))) {
    return TooManyPendingBytesOfClient(of_client.bytes, max_bytes_, kRetry);
  }
  return absl::OkStatus();
}

bool Ledger::FitsExemption(const std::string& client, int64_t more) const {
  const auto found = clients_.find(client);
  const int64_t of_client = found == clients_.end() ? 0 : found->second.exempt_bytes;
  const int64_t free = kExemptBytes - exempt_bytes_ - more;
  return free >= 0 && !ExceedsFairShare(of_client + more, free);
}

absl::Status Ledger::Grow(Charge& charge, Memory kind, int64_t more) {
  if (more > 0) RETURN_IF_ERROR(CheckRoom(charge.client_, charge.exempt_, &charge, more));
  Add(charge, kind, more);
  return absl::OkStatus();
}

void Ledger::Add(Charge& charge, Memory kind, int64_t more) {
  const int index = static_cast<int>(kind);
  charge.held_[index] += more;
  held_[index] += more;
  bytes_ += more;
  Client& client = clients_[charge.client_];
  client.bytes += more;
  if (charge.exempt_) {
    exempt_bytes_ += more;
    client.exempt_bytes += more;
  }
  assert(charge.held_[index] >= 0 && client.bytes >= charge.held_[index] && held_[index] >= charge.held_[index]);
  assert(bytes_ == std::accumulate(held_.begin(), held_.end(), int64_t{0}));
}

std::unique_ptr<Charge> Ledger::Open(const std::string& client, int64_t own_calls, bool exempt) {
  std::unique_ptr<Charge> charge(new Charge(*this, client, own_calls, exempt));
  Client& own = clients_[client];
  own.calls += own_calls;
  ++own.charges;
  return charge;
}

absl::StatusOr<std::unique_ptr<Charge>> Ledger::BeginCall(const std::string& client, int64_t max_calls, bool exempt) {
  const MutexLock lock(mutex_);
  RETURN_IF_ERROR(CheckRoom(client, exempt, nullptr, kCallBytes));
  const auto found = clients_.find(client);
  const int64_t calls = found == clients_.end() ? 0 : found->second.calls;
  if (max_calls > 0 && calls >= max_calls) return TooManyConcurrentCalls(calls, max_calls, kRetry);
  std::unique_ptr<Charge> charge = Open(client, /*own_calls=*/1, exempt);
  Add(*charge, Memory::kCalls, kCallBytes);
  return charge;
}

std::unique_ptr<Charge> Ledger::BeginMessage(const std::string& client, bool exempt) {
  const MutexLock lock(mutex_);
  return Open(client, /*own_calls=*/0, exempt);
}

bool Ledger::HasRoom(const std::string& client) const {
  const MutexLock lock(mutex_);
  return CheckRoom(client, /*exempt=*/false, nullptr, max_bytes_ / 16).ok();
}

std::map<std::string, int64_t> Ledger::held() const {
  const MutexLock lock(mutex_);
  std::map<std::string, int64_t> by_name;
  for (int kind = 0; kind < kMemoryKinds; ++kind) by_name[MemoryName(Memory(kind))] = held_[kind];
  return by_name;
}

int64_t Ledger::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

}  // namespace longembed
