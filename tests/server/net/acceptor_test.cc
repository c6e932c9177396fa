#include "server/net/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>
#include <list>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "system/mutex.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

// Timeout for events that must happen. It is longer than the delays of any slow machine.
constexpr auto kLong = std::chrono::seconds(20);

// Records the connections that the acceptor hands over and refuses.
class Recorder {
 public:
  ~Recorder() {
    for (const int descriptor : accepted_) close(descriptor);
  }

  AcceptorHandlers Handlers() {
    return {.accept = [this](int descriptor) { Note([&] { accepted_.push_back(descriptor); }); },
            .refuse = [this](Refusal refusal) { Note([&] { ++refused_[refusal]; }); }};
  }

  // Waits for `count` connections. Returns how many there are.
  size_t AwaitAccepted(size_t count) {
    return Await([this] { return accepted_.size(); }, count);
  }
  size_t AwaitRefused(Refusal refusal, size_t count) {
    return Await([this, refusal] { return refused_[refusal]; }, count);
  }
  size_t accepted() { return AwaitAccepted(0); }
  size_t refused(Refusal refusal) { return AwaitRefused(refusal, 0); }
  // Removes the oldest connection and returns it. The caller then owns it.
  int Take() {
    const MutexLock lock(mutex_);
    const int descriptor = accepted_.front();
    accepted_.erase(accepted_.begin());
    return descriptor;
  }

 private:
  template <typename Action>
  void Note(Action action) {
    {
      const MutexLock lock(mutex_);
      action();
    }
    changed_.NotifyAll();
  }
  template <typename Count>
  size_t Await(Count count, size_t least) {
    MutexLock lock(mutex_);
    changed_.WaitFor(lock, absl::FromChrono(kLong), [&] { return count() >= least; });
    return count();
  }

  Mutex mutex_;
  ConditionVariable changed_;
  std::vector<int> accepted_;
  std::map<Refusal, size_t> refused_;
};

// A client's socket.
class Client {
 public:
  // An IPv4 client connects from 127.0.0.`host`.
  explicit Client(int family = AF_INET, int host = 1)
      : family_(family), host_(host), descriptor_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval timeout{.tv_sec = 20};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }
  ~Client() { close(descriptor_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool Connect(int port) const {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 address6{.sin6_family = AF_INET6, .sin6_port = htons(static_cast<uint16_t>(port))};
    address6.sin6_addr = in6addr_loopback;
    const bool four = family_ == AF_INET;
    if (four && host_ != 1) {
      sockaddr_in own{.sin_family = AF_INET};
      own.sin_addr.s_addr = htonl((INADDR_LOOPBACK & ~0xffU) + static_cast<uint32_t>(host_));
      if (bind(descriptor_, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) return false;
    }
    return connect(descriptor_,
                   four ? reinterpret_cast<const sockaddr*>(&address) : reinterpret_cast<const sockaddr*>(&address6),
                   four ? sizeof address : sizeof address6) == 0;
  }
  void Say(const std::string& text) const {
    [[maybe_unused]] const ssize_t sent = send(descriptor_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  bool ConnectAndSend(int port) const {
    const bool connected = Connect(port);
    if (connected) Say("x");
    return connected;
  }
  // Waits until the other side closes the connection.
  bool IsClosed() const {
    char byte;
    const ssize_t received = recv(descriptor_, &byte, 1, 0);
    return received == 0 || (received < 0 && errno == ECONNRESET);
  }
  bool IsOpen() const {
    char byte;
    return recv(descriptor_, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }
  void HangUp() const { shutdown(descriptor_, SHUT_RDWR); }

 private:
  const int family_;
  const int host_;
  const int descriptor_;
};

std::unique_ptr<Acceptor> Listen(const std::string& address, const AcceptorOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Listen(address, options);
  EXPECT_TRUE(acceptor.ok()) << acceptor.status();
  return acceptor.ok() ? *std::move(acceptor) : nullptr;
}

// Returns the number of open file descriptors of this process.
size_t OpenDescriptors() {
  const std::filesystem::directory_iterator descriptors("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(descriptors), end(descriptors)));
}

bool HasIpv6() {
  const Client client(AF_INET6);
  return !client.Connect(1) && errno == ECONNREFUSED;
}

TEST(AcceptorTest, HandsOverAfterTheFirstByte) {
  Recorder recorder;
  const Client client;
  const auto acceptor = Listen("127.0.0.1:0");
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(client.Connect(acceptor->port()));
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(recorder.accepted(), 0u);
  EXPECT_TRUE(client.IsOpen());
  client.Say("hello");
  ASSERT_EQ(recorder.AwaitAccepted(1), 1u);
  const int descriptor = recorder.Take();
  EXPECT_TRUE(fcntl(descriptor, F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
  char text[8] = {};
  EXPECT_EQ(recv(descriptor, text, sizeof text, 0), 5);  // No byte was removed from the connection.
  EXPECT_STREQ(text, "hello");
  // The acceptor no longer owns the connection.
  acceptor->Stop();
  client.Say("more");
  const timeval timeout{.tv_sec = 20};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  fcntl(descriptor, F_SETFL, 0);
  EXPECT_EQ(recv(descriptor, text, sizeof text, 0), 4);
  close(descriptor);
  EXPECT_EQ(recorder.refused(Refusal::kLimit) + recorder.refused(Refusal::kSilent), 0u);
}

TEST(AcceptorTest, ConnectionsWaitUntilItStarts) {
  Recorder recorder;
  const Client client;
  const auto acceptor = Listen("127.0.0.1:0");
  ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  acceptor->Start(recorder.Handlers());
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
}

TEST(AcceptorTest, SilentConnectionsAreClosed) {
  Recorder recorder;
  const Client idle, talker;
  const auto acceptor = Listen("127.0.0.1:0", {.silence = absl::Milliseconds(300)});
  acceptor->Start(recorder.Handlers());
  const absl::Time begin = absl::Now();
  ASSERT_TRUE(idle.Connect(acceptor->port()));
  ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
  EXPECT_TRUE(idle.IsClosed());
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(290));
  EXPECT_EQ(recorder.AwaitRefused(Refusal::kSilent, 1), 1u);
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_TRUE(talker.IsOpen());  // After the first byte, gRPC handles silent connections.
  EXPECT_EQ(recorder.refused(Refusal::kSilent), 1u);
  EXPECT_EQ(recorder.refused(Refusal::kLimit), 0u);
}

TEST(AcceptorTest, AClientThatLeavesSilentlyIsNotARefusal) {
  Recorder recorder;
  const Client leaver, talker;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 1});
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(leaver.Connect(acceptor->port()));
  leaver.HangUp();
  EXPECT_TRUE(leaver.IsClosed());
  absl::SleepFor(absl::Milliseconds(200));
  ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
  EXPECT_EQ(recorder.refused(Refusal::kLimit) + recorder.refused(Refusal::kSilent), 0u);
}

TEST(AcceptorTest, AtTheLimitTheOldestSilentConnectionMakesRoom) {
  Recorder recorder;
  const Client idle[3], talker;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 3, .silence = absl::Minutes(10)});
  acceptor->Start(recorder.Handlers());
  for (const Client& client : idle) ASSERT_TRUE(client.Connect(acceptor->port()));
  ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
  EXPECT_TRUE(idle[0].IsClosed());
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
  EXPECT_EQ(recorder.AwaitRefused(Refusal::kSilent, 1), 1u);
  EXPECT_TRUE(idle[1].IsOpen());
  EXPECT_TRUE(idle[2].IsOpen());
  EXPECT_TRUE(talker.IsOpen());
  EXPECT_EQ(recorder.refused(Refusal::kLimit), 0u);
}

TEST(AcceptorTest, AtTheLimitWithoutSilentConnectionsTheNewOneIsClosed) {
  Recorder recorder;
  const Client talkers[3], refused, next;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 3});
  acceptor->Start(recorder.Handlers());
  for (const Client& client : talkers) ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  ASSERT_EQ(recorder.AwaitAccepted(3), 3u);
  ASSERT_TRUE(refused.Connect(acceptor->port()));
  EXPECT_TRUE(refused.IsClosed());
  EXPECT_EQ(recorder.AwaitRefused(Refusal::kLimit, 1), 1u);
  EXPECT_EQ(recorder.refused(Refusal::kSilent), 0u);
  for (const Client& client : talkers) EXPECT_TRUE(client.IsOpen());
  // A closed connection makes room, although the acceptor is not notified.
  close(recorder.Take());
  absl::SleepFor(absl::Milliseconds(200));
  ASSERT_TRUE(next.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(3), 3u);
  EXPECT_EQ(recorder.refused(Refusal::kLimit), 1u);
}

// Returns the number of connections that were accepted or refused. A connection whose first byte has not been read yet
// is counted as idle.
size_t Decided(Recorder& recorder) {
  return recorder.accepted() + recorder.refused(Refusal::kClientShare) + recorder.refused(Refusal::kSilent);
}

// Opens `count` connections from one address, sends a byte on each, and waits until each is accepted or refused.
void Flood(std::list<Client>& clients, int host, size_t count, int port, Recorder& recorder) {
  const size_t before = Decided(recorder);
  for (size_t i = 0; i < count; ++i) ASSERT_TRUE(clients.emplace_back(AF_INET, host).ConnectAndSend(port));
  for (int i = 0; i < 20'000 && Decided(recorder) - before < count; ++i) absl::SleepFor(absl::Milliseconds(1));
  ASSERT_EQ(Decided(recorder) - before, count);
}

TEST(AcceptorTest, OneClientAloneHoldsItsShareAndNoMore) {
  Recorder recorder;
  std::list<Client> greedy, others;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 100, .max_client_share = 0.8});
  acceptor->Start(recorder.Handlers());
  Flood(greedy, 2, 120, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 80u);
  // Other clients get in. The less is free, the fewer connections each may hold, so that some are left for the next
  // client.
  Flood(others, 3, 10, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 90u);
  Flood(others, 4, 20, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 98u);
  Flood(others, 5, 1, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 99u);
  EXPECT_EQ(recorder.refused(Refusal::kLimit), 0u);
}

TEST(AcceptorTest, AShareCountsOnlyOpenConnections) {
  Recorder recorder;
  std::list<Client> greedy;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 10, .max_client_share = 0.5});
  acceptor->Start(recorder.Handlers());
  Flood(greedy, 2, 10, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 5u);
  close(recorder.Take());
  absl::SleepFor(absl::Milliseconds(100));  // Longer than the interval between two counts.
  Flood(greedy, 2, 1, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 5u);
}

TEST(AcceptorTest, AtItsShareWithoutSilentConnectionsAClientsNewOneIsRefused) {
  Recorder recorder;
  const Client talkers[2] = {Client(AF_INET, 2), Client(AF_INET, 2)}, refused(AF_INET, 2), other(AF_INET, 3);
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 4, .max_client_share = 0.5});
  acceptor->Start(recorder.Handlers());
  for (const Client& client : talkers) ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  ASSERT_EQ(recorder.AwaitAccepted(2), 2u);
  ASSERT_TRUE(refused.Connect(acceptor->port()));
  EXPECT_TRUE(refused.IsClosed());
  EXPECT_EQ(recorder.AwaitRefused(Refusal::kClientShare, 1), 1u);
  ASSERT_TRUE(other.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(3), 3u);
}

// The acceptor is not notified of closed connections. A client that reconnects repeatedly must not be refused because
// of its earlier connections.
TEST(AcceptorTest, ConnectionsOneAfterTheOtherAreNotTooMany) {
  Recorder recorder;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 4});
  acceptor->Start({.accept = [](int descriptor) { close(descriptor); }, .refuse = recorder.Handlers().refuse});
  for (int i = 0; i < 100; ++i) {
    const Client client;
    ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
    EXPECT_TRUE(client.IsClosed());
  }
  for (const Refusal refusal : {Refusal::kLimit, Refusal::kClientShare, Refusal::kSilent}) {
    EXPECT_EQ(recorder.refused(refusal), 0u) << ReasonOf(refusal);
  }
}

TEST(AcceptorTest, AShareOfOneIsNoLimit) {
  Recorder recorder;
  std::list<Client> greedy;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 10, .max_client_share = 1});
  acceptor->Start(recorder.Handlers());
  Flood(greedy, 2, 10, acceptor->port(), recorder);
  EXPECT_EQ(recorder.accepted(), 10u);
}

// A client's idle connections make room for its own new ones. Those of other clients never do.
TEST(AcceptorTest, AtItsShareAClientsOldestSilentConnectionMakesRoom) {
  Recorder recorder;
  const Client other(AF_INET, 3), idle(AF_INET, 2);
  std::list<Client> greedy;
  const auto acceptor =
      Listen("127.0.0.1:0", {.max_connections = 10, .max_client_share = 0.5, .silence = absl::Minutes(10)});
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(other.Connect(acceptor->port()));
  ASSERT_TRUE(idle.Connect(acceptor->port()));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(greedy.emplace_back(AF_INET, 2).ConnectAndSend(acceptor->port()));
  EXPECT_TRUE(idle.IsClosed());
  EXPECT_TRUE(other.IsOpen());
  EXPECT_EQ(recorder.AwaitRefused(Refusal::kSilent, 1), 1u);
}

// Connections of another port, which may be plaintext and come from any client, must not count.
TEST(AcceptorTest, OnlyItsOwnConnectionsCount) {
  Recorder recorder, other_recorder;
  const Client others[6], talkers[2], refused, next;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 2}), other = Listen("127.0.0.1:0");
  acceptor->Start(recorder.Handlers());
  other->Start(other_recorder.Handlers());
  for (const Client& client : others) ASSERT_TRUE(client.ConnectAndSend(other->port()));
  ASSERT_EQ(other_recorder.AwaitAccepted(6), 6u);
  for (const Client& client : talkers) ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  ASSERT_EQ(recorder.AwaitAccepted(2), 2u);
  ASSERT_TRUE(refused.Connect(acceptor->port()));
  EXPECT_TRUE(refused.IsClosed());
  close(recorder.Take());
  absl::SleepFor(absl::Milliseconds(200));
  ASSERT_TRUE(next.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(2), 2u);
  EXPECT_EQ(recorder.refused(Refusal::kLimit), 1u);
}

TEST(AcceptorTest, TheHandlerForRefusalsMayBeMissing) {
  Recorder recorder;
  const Client talker, refused, idle;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 1, .silence = absl::Milliseconds(50)});
  acceptor->Start({.accept = recorder.Handlers().accept});
  ASSERT_TRUE(idle.Connect(acceptor->port()));
  EXPECT_TRUE(idle.IsClosed());
  ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
  ASSERT_EQ(recorder.AwaitAccepted(1), 1u);
  ASSERT_TRUE(refused.Connect(acceptor->port()));
  EXPECT_TRUE(refused.IsClosed());
}

TEST(AcceptorTest, Port0PicksAPort) {
  const auto one = Listen("127.0.0.1:0"), other = Listen("127.0.0.1:0");
  EXPECT_GT(one->port(), 0);
  EXPECT_GT(other->port(), 0);
  EXPECT_NE(one->port(), other->port());
}

TEST(AcceptorTest, ATakenPortIsAReadableError) {
  const auto first = Listen("127.0.0.1:0");
  const std::string address = absl::StrCat("127.0.0.1:", first->port());
  const absl::Status status = Acceptor::Listen(address, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  EXPECT_THAT(std::string(status.message()), HasSubstr("in use"));
  // The port is free again afterwards.
  first->Stop();
  EXPECT_TRUE(Acceptor::Listen(address, {}).ok());
}

// Listening in only one address family would send half of the clients to another program.
TEST(AcceptorTest, AnAddressInUseInOneFamilyIsAnError) {
  for (const char* other : {"127.0.0.1:0", "[::1]:0"}) {
    if (other[0] == '[' && !HasIpv6()) GTEST_SKIP() << "no IPv6 loopback here: tried with IPv4 only";
    const auto taken = Listen(other);
    const absl::Status status = Acceptor::Listen(absl::StrCat(":", taken->port()), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << other << ": " << status;
  }
}

TEST(AcceptorTest, AnInvalidAddressIsAReadableError) {
  for (const char* address : {"", ":", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536",
                              "127.0.0.1:-1", "127.0.0.1:99999999999", "[::1]", "1.2.3:4:five", "[::1:0", "a b:1"}) {
    const absl::Status status = Acceptor::Listen(address, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("\"", address, "\""))) << status;
  }
  // An address of another machine (RFC 5737).
  const absl::Status status = Acceptor::Listen("192.0.2.1:0", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("192.0.2.1:0"));
}

TEST(AcceptorTest, LocalhostMeansEveryLoopbackAddress) {
  Recorder recorder;
  const Client client, client6(AF_INET6);
  const bool has_ipv6 = HasIpv6();
  const auto acceptor = Listen("localhost:0");
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
  if (!has_ipv6) GTEST_SKIP() << "no IPv6 loopback here: localhost was tried over IPv4 only";
  if (!client6.ConnectAndSend(acceptor->port()))
    GTEST_SKIP() << "localhost does not name ::1 here: tried over IPv4 only";
  EXPECT_EQ(recorder.AwaitAccepted(2), 2u);
}

TEST(AcceptorTest, ListensOnIpv6) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 loopback here";
  Recorder recorder;
  const Client client(AF_INET6);
  const auto acceptor = Listen("[::1]:0");
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
}

TEST(AcceptorTest, TheWildcardAddressMeansBothFamilies) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 loopback here";
  for (const char* address : {"[::]:0", ":0"}) {
    Recorder recorder;
    const Client client, client6(AF_INET6);
    const auto acceptor = Listen(address);
    acceptor->Start(recorder.Handlers());
    EXPECT_TRUE(client.ConnectAndSend(acceptor->port())) << address;
    EXPECT_TRUE(client6.ConnectAndSend(acceptor->port())) << address;
    EXPECT_EQ(recorder.AwaitAccepted(2), 2u) << address;
  }
}

TEST(AcceptorTest, StopClosesSilentConnectionsAndThePort) {
  Recorder recorder;
  const Client idle, talker, late;
  const auto acceptor = Listen("127.0.0.1:0");
  acceptor->Start(recorder.Handlers());
  ASSERT_TRUE(idle.Connect(acceptor->port()));
  ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
  ASSERT_EQ(recorder.AwaitAccepted(1), 1u);
  acceptor->Stop();
  EXPECT_TRUE(idle.IsClosed());
  EXPECT_TRUE(talker.IsOpen());
  EXPECT_FALSE(late.Connect(acceptor->port()));
  acceptor->Stop();
}

TEST(AcceptorTest, MayBeStoppedWithoutAStart) {
  const auto acceptor = Listen("127.0.0.1:0");
  const int port = acceptor->port();
  acceptor->Stop();
  acceptor->Stop();
  EXPECT_FALSE(Client().Connect(port));
}

TEST(AcceptorTest, LeavesNoDescriptorBehind) {
  const size_t before = OpenDescriptors();
  for (int round = 0; round < 3; ++round) {
    Recorder recorder;
    const Client idle, talker;
    const auto acceptor = Listen("localhost:0");
    acceptor->Start(recorder.Handlers());
    ASSERT_TRUE(idle.Connect(acceptor->port()));
    ASSERT_TRUE(talker.ConnectAndSend(acceptor->port()));
    ASSERT_EQ(recorder.AwaitAccepted(1), 1u);
  }
  EXPECT_FALSE(Acceptor::Listen("192.0.2.1:0", {}).ok());
  EXPECT_EQ(OpenDescriptors(), before);
}

// Many clients send, stay idle and leave, around a low limit. Every connection must end, and the acceptor must keep
// working.
TEST(AcceptorTest, AcceptsManyConnectionsAtOnce) {
  Recorder recorder;
  const Client last;
  const auto acceptor = Listen("127.0.0.1:0", {.max_connections = 8, .silence = absl::Milliseconds(50)});
  const int port = acceptor->port();
  acceptor->Start({.accept = [](int descriptor) { close(descriptor); }, .refuse = recorder.Handlers().refuse});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([port, t] {
        for (int i = 0; i < 150; ++i) {
          const Client client;
          if (!client.Connect(port)) continue;
          if ((i + t) % 3 == 0) client.Say("x");
          if ((i + t) % 3 == 1) continue;
          EXPECT_TRUE(client.IsClosed());
        }
      });
    }
  }
  absl::SleepFor(absl::Milliseconds(300));
  ASSERT_TRUE(last.ConnectAndSend(port));
  EXPECT_TRUE(last.IsClosed());
  EXPECT_GT(recorder.refused(Refusal::kSilent), 0u);
}

// Takes all file descriptors that the process may have.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &limit_);
    const rlimit low{.rlim_cur = OpenDescriptors() + 16, .rlim_max = limit_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    for (int taken = 0; (taken = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) taken_.push_back(taken);
  }
  ~NoDescriptors() {
    for (const int taken : taken_) close(taken);
    setrlimit(RLIMIT_NOFILE, &limit_);
  }

 private:
  rlimit limit_{};
  std::vector<int> taken_;
};

TEST(AcceptorTest, AcceptsAgainAfterDescriptorsRanOut) {
  Recorder recorder;
  const Client client, later;
  const auto acceptor = Listen("127.0.0.1:0");
  acceptor->Start(recorder.Handlers());
  {
    const NoDescriptors none;
    ASSERT_TRUE(client.ConnectAndSend(acceptor->port()));
    absl::SleepFor(absl::Milliseconds(200));
    EXPECT_EQ(recorder.accepted(), 0u);
  }
  EXPECT_EQ(recorder.AwaitAccepted(1), 1u);
  ASSERT_TRUE(later.ConnectAndSend(acceptor->port()));
  EXPECT_EQ(recorder.AwaitAccepted(2), 2u);
}

TEST(AcceptorTest, RefusalsHaveTheNamesOfTheMetric) {
  EXPECT_STREQ(ReasonOf(Refusal::kLimit), "limit");
  EXPECT_STREQ(ReasonOf(Refusal::kClientShare), "client_share");
  EXPECT_STREQ(ReasonOf(Refusal::kSilent), "idle");
}

// Tells before the start what bind would refuse.
TEST(AddressTest, SomeTakeTheSamePort) {
  for (const auto& [address, other] :
       {std::pair{"127.0.0.1:5", "127.0.0.1:5"}, std::pair{"0.0.0.0:5", "127.0.0.1:5"}, std::pair{"127.0.0.1:5", ":5"},
        std::pair{"127.0.0.1:5", "127.0.0.1:05"}, std::pair{"[::]:5", "127.0.0.1:5"}, std::pair{"[::1]:5", "[::]:5"}}) {
    EXPECT_TRUE(TakeSamePort(address, other)) << address << " " << other;
    EXPECT_TRUE(TakeSamePort(other, address)) << address << " " << other;
  }
  for (const auto& [address, other] : {std::pair{"127.0.0.1:5", "127.0.0.1:6"}, std::pair{"127.0.0.1:5", "127.0.0.2:5"},
                                       std::pair{"127.0.0.1:0", "127.0.0.1:0"}, std::pair{"[::1]:5", "127.0.0.1:5"},
                                       std::pair{"[::1]:5", "0.0.0.0:5"}, std::pair{"127.0.0.1:5", "nonsense"}}) {
    EXPECT_FALSE(TakeSamePort(address, other)) << address << " " << other;
    EXPECT_FALSE(TakeSamePort(other, address)) << address << " " << other;
  }
}

}  // namespace
}  // namespace longembed
