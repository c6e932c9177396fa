// A call without a frontend: the caller, ledger and memory that operations and the core need.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_CALL_H_
#define LONGEMBED_TESTS_TESTING_FAKE_CALL_H_

#include <memory>
#include <string>
#include <utility>

#include "server/admission/ledger.h"
#include "server/core/operation.h"

namespace longembed {

struct FakeCall {
  explicit FakeCall(std::string name = "client", int64_t max_bytes = int64_t{1} << 30)
      : caller{.name = std::move(name)}, ledger(max_bytes), memory(ledger.BeginMessage(caller.name)) {}

  CallContext context(absl::Time deadline = absl::InfiniteFuture(), bool may_wait = false) {
    return {.caller = caller, .deadline = deadline, .may_wait = may_wait, .memory = *memory, .trace = trace};
  }

  Caller caller;
  Ledger ledger;
  std::unique_ptr<Charge> memory;
  RequestTrace* trace = nullptr;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_CALL_H_
