// Makes every large allocation of a call fail, one per run. An allocation may fail after the request is read, in the
// tokenizer, during planning, settling or the creation of the job, while the batch is packed, run or copied, and while
// the answer is built. Only that call may fail, and it must leave nothing behind.
#include <gtest/gtest.h>

#include <utility>

#include "server/telemetry/log.h"
#include "tests/simulation/callers.h"
#include "tests/testing/failing_new.h"

namespace longembed {
namespace {

constexpr size_t kLarge = 2 << 10;  // Smaller allocations never fail.
int64_t counted = 0;                // Large allocations so far.
int64_t fails = 0;                  // Number of the allocation that fails, counted from 1. 0: none.
bool is_caller = false;             // True while the test itself allocates. Such allocations do not count.

}  // namespace

bool AllocationFails(size_t size) { return size >= kLarge && !is_caller && ++counted == fails; }

namespace {

Words SomeWords(size_t count) { return Words(count, 5); }

class FailpointTest : public ::testing::Test {
 protected:
  // Runs the call, next to a short one, once per failpoint, until no allocation is left that could fail.
  void FailEach(const std::function<void(SimulatedServer&)>& call) {
    SetLogLevel(LogLevel::kError);
    // The first run has no failpoint, because objects that are created once per process do not belong to the call.
    for (int64_t failpoint = 0;; ++failpoint) {
      SimulatedServer server(/*seed=*/1, {.scarce = true});
      bool begun = false;
      server.before_call = [&begun, failpoint] {
        if (std::exchange(begun, true)) return;
        counted = 0;
        fails = failpoint;
      };
      server.at_answer = [](bool begins) { is_caller = begins; };
      server.loop().After(absl::ZeroDuration(), [&] { CallBystander(server); });
      call(server);
      while (server.loop().Next()) continue;
      fails = 0;
      const bool failed = counted >= failpoint;
      server.CheckEnd();
      EXPECT_TRUE(bystander_.ok()) << "failpoint " << failpoint << ": " << bystander_;
      for (const std::string& violation : server.checker().violations()) {
        ADD_FAILURE() << "failpoint " << failpoint << ": " << violation;
      }
      if (failed && !HasFailure()) continue;
      EXPECT_GT(failpoint, 10) << "the call takes too little memory";
      return;
    }
  }

  void CallBystander(SimulatedServer& server) {
    CallUnary(server, {.client = "10.0.0.2",
                       .texts = {SomeWords(5)},
                       .then = [this](const absl::Status& status, absl::Duration) { bystander_ = status; }});
  }

  absl::Status bystander_;
};

TEST_F(FailpointTest, AUnaryCallFailsAlone) {
  FailEach([](SimulatedServer& server) {
    CallUnary(server, {.window_vectors = true, .texts = {SomeWords(1500), SomeWords(1500)}});
  });
}

TEST_F(FailpointTest, ATokenizedTextFailsAlone) {
  FailEach([](SimulatedServer& server) { CallUnary(server, {.tokenize = true, .texts = {SomeWords(1500)}}); });
}

TEST_F(FailpointTest, AMessageInPartsFailsAlone) {
  FailEach([](SimulatedServer& server) {
    CallStream(server, {.texts = {SomeWords(10), SomeWords(1500), SomeWords(10)}, .in_parts = true, .unpaced = true});
  });
}

TEST_F(FailpointTest, AStreamInOrderEndsWithItsMessage) {
  FailEach([](SimulatedServer& server) {
    CallStream(server, {.tei = true, .texts = {SomeWords(10), SomeWords(1500), SomeWords(10)}, .unpaced = true});
  });
}

}  // namespace
}  // namespace longembed
