#include "server/process/start_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/process/ports.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const HostLimits kAmple{.cores = 4, .descriptors = 1 << 20};

ServerConfig OneModel() {
  ServerConfig config;
  config.models.resize(1);
  return config;
}

std::vector<std::string> ProblemsOf(const ServerConfig& config, const HostLimits& limits) {
  Problems problems;
  CheckHostLimits(config, limits, problems);
  return problems.all();
}

TEST(StartChecksTest, TheDefaultsFitAnOrdinaryMachine) { EXPECT_THAT(ProblemsOf(OneModel(), kAmple), IsEmpty()); }

TEST(StartChecksTest, DescriptorsMustCoverConnections) {
  ServerConfig config = OneModel();
  HostLimits limits = kAmple;
  limits.descriptors = 1256;
  EXPECT_THAT(ProblemsOf(config, limits), IsEmpty());
  limits.descriptors = 1255;
  EXPECT_THAT(ProblemsOf(config, limits),
              ElementsAre(AllOf(HasSubstr("connections.max is 1000"), HasSubstr("1255 descriptors"),
                                HasSubstr("lower it to 999"), HasSubstr("to 1256"))));
}

TEST(StartChecksTest, EachPortHasItsConnections) {
  ServerConfig config = OneModel();
  config.http_listen = "127.0.0.1:8080";
  HostLimits limits = kAmple;
  limits.descriptors = 2256;
  EXPECT_THAT(ProblemsOf(config, limits), IsEmpty());
  limits.descriptors = 2255;
  EXPECT_THAT(ProblemsOf(config, limits),
              ElementsAre(AllOf(HasSubstr("connections.max is 1000 on each of listen and http_listen"),
                                HasSubstr("lower it to 999"), HasSubstr("to 2256"))));
}

TEST(StartChecksTest, ThreadsMustFitTheGroupAndTheUser) {
  ServerConfig config = OneModel();
  config.compute_threads = 100;
  HostLimits limits = kAmple;
  limits.cgroup.tasks = {200, "/sys/fs/cgroup/a/pids.max"};
  limits.user_threads = 200;
  EXPECT_THAT(ProblemsOf(config, limits), IsEmpty());
  limits.cgroup.tasks->value = 101;
  EXPECT_THAT(ProblemsOf(config, limits),
              ElementsAre(AllOf(HasSubstr("compute_threads"), HasSubstr("/sys/fs/cgroup/a/pids.max allows 101"))));
  limits.user_threads = 101;
  EXPECT_THAT(ProblemsOf(config, limits), ElementsAre(HasSubstr("ulimit -u"), HasSubstr("pids.max")));
  // CPU threads are created only for models on the CPU.
  config.models[0].device = "cuda:0";
  EXPECT_THAT(ProblemsOf(config, limits), IsEmpty());
}

TEST(StartChecksTest, PendingBytesMustFitTheMemory) {
  ServerConfig config = OneModel();
  HostLimits limits = kAmple;
  limits.cgroup.memory_bytes = {int64_t{4} << 30, "/sys/fs/cgroup/memory.max"};
  EXPECT_THAT(ProblemsOf(config, limits), IsEmpty());
  limits.cgroup.memory_bytes->value = 256 << 20;
  EXPECT_THAT(ProblemsOf(config, limits), ElementsAre(AllOf(HasSubstr("limits.max_pending_bytes is 268435456"),
                                                            HasSubstr("/sys/fs/cgroup/memory.max allows 268435456"))));
}

class PortsTest : public ::testing::Test {
 protected:
  void Open(const ServerConfig& config) { ports_.Open(config, calls_, health_, problems_); }

  const RealClock clock_;
  Metrics metrics_{{}};
  Ledger ledger_{1 << 20};
  Health health_{{}};
  const HostContext calls_{.clock = clock_, .metrics = metrics_, .ledger = ledger_};
  Problems problems_;
  Ports ports_;
};

TEST_F(PortsTest, EveryInvalidOrTakenAddressIsReported) {
  const auto taken = *Acceptor::Listen("127.0.0.1:0", {});
  ServerConfig config = OneModel();
  config.listen = "nonsense";
  config.health_listen = "127.0.0.1:" + std::to_string(taken->port());
  config.metrics_listen = "unix:/x";
  Open(config);
  EXPECT_THAT(problems_.all(),
              ElementsAre(AllOf(HasSubstr("listen: "), HasSubstr("\"nonsense\" is not an address")),
                          AllOf(HasSubstr("health_listen: "), HasSubstr("in use")),
                          AllOf(HasSubstr("metrics_listen: "), HasSubstr("\"unix:/x\" is not an address"))));
}

TEST_F(PortsTest, OpensTheConfiguredPorts) {
  ServerConfig config = OneModel();
  config.listen = config.health_listen = "127.0.0.1:0";
  config.metrics_listen = "";
  Open(config);
  EXPECT_THAT(problems_.all(), IsEmpty());
  EXPECT_GT(ports_.grpc->port(), 0);
  EXPECT_GT(ports_.health->port(), 0);
}

}  // namespace
}  // namespace longembed
