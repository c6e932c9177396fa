// Accounts for the memory that calls hold. Every call, every message of a stream and every health watch has a Charge,
// which records the bytes that it holds, by kind; their sum has one limit.
//
//   Ledger ledger(256 << 20);
//   absl::StatusOr<std::unique_ptr<Charge>> charge = ledger.BeginCall("client", /*max_calls=*/0);
//   absl::Status status = (*charge)->Hold(Memory::kRequests, bytes);   // Before, or right after, it is allocated.
//   (*charge)->Correct(Memory::kRequests, 0);                          // It has been freed.
//
// A client may hold its fair share of the bytes (fair_share.h). A client that holds all that is held may go beyond both
// bounds: one call is bounded by the limits of a call.
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
  kCalls,     // Fixed cost of a call in gRPC and the server.
  kRequests,  // Requests: their bytes, then their messages.
  kPlans,     // Sequences: tokens, positions, rotary tables.
  kAnswers,   // Vectors, answers' messages, and their bytes until the client has taken them.
};
inline constexpr int kMemoryKinds = 4;
const char* MemoryName(Memory kind);

class Ledger;

// The bytes of one call, or of one message of a stream. Releases them when destroyed. Any thread.
class Charge {
 public:
  ~Charge();
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

  // Sets how much is held as `kind`, in bytes. Errors: RESOURCE_EXHAUSTED with a retry delay (errors.h) when there is
  // no room for more; what is held stays what it was.
  absl::Status Hold(Memory kind, int64_t bytes);
  // Adds to it. Errors: as Hold's.
  absl::Status HoldMore(Memory kind, int64_t bytes);
  // Sets it without a check: the bytes are allocated already, or freed.
  void Correct(Memory kind, int64_t bytes);

  // Another charge of the same client, for what outlives this one. Holds nothing yet.
  std::unique_ptr<Charge> Sibling() const;

 private:
  friend class Ledger;
  Charge(Ledger& ledger, std::string client, int64_t own_calls)
      : ledger_(ledger), client_(std::move(client)), own_calls_(own_calls) {}

  Ledger& ledger_;
  const std::string client_;
  const int64_t own_calls_;                   // 1 for a call, 0 for a message.
  std::array<int64_t, kMemoryKinds> held_{};  // Guarded by the ledger's lock.
};

// Multiple threads can use one Ledger without external synchronization.
class Ledger {
 public:
  // Fixed cost of a call, in bytes; measured with idle streams, the share of their connections included.
  static constexpr int64_t kCallBytes = 24 << 10;

  explicit Ledger(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // A call. Errors: RESOURCE_EXHAUSTED (errors.h). `max_calls`: of this client at a time; 0 = no limit of its own.
  absl::StatusOr<std::unique_ptr<Charge>> BeginCall(const std::string& client, int64_t max_calls);
  // A message of a stream, which is a call already. Holds nothing yet.
  std::unique_ptr<Charge> BeginMessage(const std::string& client);

  // Whether the client would find room for a message of ordinary size.
  bool HasRoom(const std::string& client) const;

  std::map<std::string, int64_t> held() const;  // By MemoryName.
  int64_t bytes() const;                        // All kinds together.

 private:
  friend class Charge;
  struct Client {
    int64_t calls = 0;
    int64_t bytes = 0;
    int64_t charges = 0;
  };

  // All under the lock.
  absl::Status CheckRoom(const std::string& client, int64_t own, int64_t more) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Add(Charge& charge, Memory kind, int64_t more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Grow(Charge& charge, Memory kind, int64_t more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Charge> Open(const std::string& client, int64_t own_calls) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  mutable Mutex mutex_;
  std::array<int64_t, kMemoryKinds> held_ ABSL_GUARDED_BY(mutex_){};
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);  // Those with charges.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_LEDGER_H_
