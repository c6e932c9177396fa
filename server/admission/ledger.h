// Accounts for the memory that calls hold. Every call, every message of a call and every health watch has a Charge,
// which records the bytes that it holds, by kind. The sum of all charges has one limit.
//
//   Ledger ledger(256 << 20);
//   absl::StatusOr<std::unique_ptr<Charge>> charge = ledger.BeginCall("client", /*max_calls=*/0);
//   absl::Status status = (*charge)->Hold(Memory::kRequests, bytes);   // Before or right after the allocation.
//   (*charge)->Correct(Memory::kRequests, 0);                          // The memory has been freed.
//
// A client may hold its fair share of the bytes (fair_share.h). A charge that holds all of the ledger's bytes, apart
// from the fixed costs of calls, may exceed the limit, and one that so holds all of its client's bytes may exceed the
// share, because other limits bound a single message.
//
// A health check must be answered even if there is no room. Its charges are exempt: they count, but may exceed the
// limit, by kExemptBytes for all of them together and by a fair share of that for each client. Beyond this they are
// refused like others, because a client may leave any number of small answers unread.
#ifndef LONGEMBED_SERVER_ADMISSION_LEDGER_H_
#define LONGEMBED_SERVER_ADMISSION_LEDGER_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "system/mutex.h"

namespace longembed {

// Kinds of memory.
enum class Memory {
  kCalls,      // The fixed cost of a call in gRPC and the server.
  kRequests,   // Requests: first their bytes, then their messages.
  kTokenizer,  // The tokenizer, while it tokenizes.
  kPlans,      // Sequences: tokens, positions, rotary tables.
  kAnswers,    // Vectors, messages of answers, and their bytes until the client has taken them.
};
inline constexpr int kMemoryKinds = 5;
const char* MemoryName(Memory kind);

class Ledger;

// The bytes of one call, or of one of its messages. Releases them when destroyed. Thread-safe.
class Charge {
 public:
  ~Charge();
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

  // Sets how many bytes are held as `kind`. Errors: RESOURCE_EXHAUSTED with a retry delay (errors.h) if an increase
  // does not fit; the charge then stays as it was.
  absl::Status Hold(Memory kind, int64_t bytes);
  // Adds to the bytes held as `kind`. Errors: those of Hold.
  absl::Status HoldMore(Memory kind, int64_t bytes);
  // Sets the bytes held as `kind` without a check, because they have been allocated or freed already.
  void Correct(Memory kind, int64_t bytes);

  // Returns another charge of the same client, for memory that outlives this charge. It holds nothing yet.
  std::unique_ptr<Charge> ForSameClient() const;

 private:
  friend class Ledger;
  Charge(Ledger& ledger, std::string client, int64_t own_calls, bool exempt)
      : ledger_(ledger), client_(std::move(client)), own_calls_(own_calls), exempt_(exempt) {}

  Ledger& ledger_;
  const std::string client_;
  const int64_t own_calls_;  // 1 for a call, 0 for a message.
  const bool exempt_;
  std::array<int64_t, kMemoryKinds> held_{};  // Guarded by the ledger's lock.
};

// The bytes that all calls hold. Multiple threads can use one Ledger without external synchronization.
class Ledger {
 public:
  // Fixed cost of a call in bytes, measured with idle streams. Includes the call's share of its connection.
  static constexpr int64_t kCallBytes = 24 << 10;
  // Bytes that exempt charges may hold beyond the limit: those of a few hundred health checks.
  static constexpr int64_t kExemptBytes = 16 << 20;

  explicit Ledger(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Begins a call. `max_calls` limits the client's concurrent calls; 0 = no limit. Errors: RESOURCE_EXHAUSTED
  // (errors.h).
  absl::StatusOr<std::unique_ptr<Charge>> BeginCall(const std::string& client, int64_t max_calls, bool exempt = false);
  // Opens the charge of one message, apart from that of its call (BeginCall), which counts the call. It holds nothing
  // yet.
  std::unique_ptr<Charge> BeginMessage(const std::string& client, bool exempt = false);

  // Returns whether the client would find room for a message of ordinary size.
  bool HasRoom(const std::string& client) const;

  std::map<std::string, int64_t> held() const;  // MemoryName -> bytes.
  int64_t bytes() const;                        // Bytes of all kinds together.

 private:
  friend class Charge;
  struct Client {
    int64_t calls = 0;
    int64_t bytes = 0;
    int64_t exempt_bytes = 0;  // The part of `bytes` that exempt charges hold.
    int64_t charges = 0;
  };

  // Checks that the client finds room for `more` bytes. `charge` is the charge that grows; null: one that begins.
  absl::Status CheckRoom(const std::string& client, bool exempt, const Charge* charge, int64_t more) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns whether an exempt charge of the client may hold `more` bytes although there may be no room.
  bool FitsExemption(const std::string& client, int64_t more) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Add(Charge& charge, Memory kind, int64_t more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Grow(Charge& charge, Memory kind, int64_t more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Charge> Open(const std::string& client, int64_t own_calls, bool exempt)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  mutable Mutex mutex_;
  std::array<int64_t, kMemoryKinds> held_ ABSL_GUARDED_BY(mutex_){};
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t exempt_bytes_ ABSL_GUARDED_BY(mutex_) = 0;               // The part of bytes_ that exempt charges hold.
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);  // Clients with charges.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_LEDGER_H_
