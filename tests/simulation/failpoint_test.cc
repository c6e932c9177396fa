// Failpoints: every large allocation of a call fails, one after the other. So it fails once after the request was read,
// in the tokenizer, while it is planned, settled and made a job, while its batch is packed, run and copied, and while
// its answer is made. The call fails or not, alone, and leaves nothing behind.
#include <gtest/gtest.h>

#include <utility>

#include "server/telemetry/log.h"
#include "tests/simulation/callers.h"
#include "tests/testing/failing_new.h"

namespace longembed {
namespace {

constexpr size_t kLarge = 2 << 10;  // Smaller allocations are not looked after.
int64_t counted = 0;                // Large ones.
int64_t fails = 0;                  // The one that fails, counted from 1; 0: none.
bool is_caller = false;             // Allocations of the test itself do not count.

}  // namespace

bool AllocationFails(size_t size) { return size >= kLarge && !is_caller && ++counted == fails; }

namespace {

Words SomeWords(size_t count) { return Words(count, 5); }

class FailpointTest : public ::testing::Test {
 protected:
  // Runs a call, beside a short one, until no allocation is left that can fail.
  void FailEach(const std::function<void(SimulatedServer&)>& call) {
    SetLogLevel(LogLevel::kError);
    // The first run has none: what is made once in a process is not the call's.
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
