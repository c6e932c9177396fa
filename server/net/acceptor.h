// Accepts TCP connections and hands them over as soon as the client has sent something.
//
// gRPC's own acceptor stops for good when descriptors run out (CVE-2023-4785), and keeps idle connections for minutes.
// This one limits the number of connections and hands over no connection before its client's first byte. At the limit
// it closes the connection that has been idle longest to make room for a new one. No client alone can take all
// connections: the more are open, the fewer each client may have.
#ifndef LONGEMBED_SERVER_NET_ACCEPTOR_H_
#define LONGEMBED_SERVER_NET_ACCEPTOR_H_

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

struct AcceptorOptions {
  int max_connections = 1000;  // Open connections of this acceptor, including idle ones.
  // Fraction of max_connections that one client may hold while no other client holds any; in (0, 1], 1: all. With the
  // fraction s, a client is refused when it would hold more than s / (1 - s) times the free connections (a dynamic
  // threshold, as switches use it to share buffers). So some connections stay free for the next client, however many
  // clients take what they can.
  double max_client_share = 0.8;
  absl::Duration silence = absl::Seconds(5);  // A client that has sent nothing for this long is cut off.
};

// The reason for closing a connection instead of handing it over: the limit is reached, the client has its share, or it
// sent nothing.
enum class Refusal { kLimit, kClientShare, kSilent };

// Returns the refusal's name in metrics: limit, client_share or idle.
const char* ReasonOf(Refusal refusal);

// Checks that Acceptor::Listen accepts the address, without binding it. Errors: INVALID_ARGUMENT.
absl::Status CheckAddress(const std::string& address);

// Returns whether both addresses take the same port of one network interface, so that only one of them can be listened
// on. False if one cannot be resolved, or if a port is 0.
bool TakeSamePort(const std::string& address, const std::string& other);

// Handlers that the acceptor's thread calls. They must not block.
struct AcceptorHandlers {
  std::function<void(int descriptor)> accept;  // Takes over the descriptor, which is non-blocking and close-on-exec.
  std::function<void(Refusal)> refuse;         // May be null.
};

class Acceptor {
 public:
  // Binds every address that `address` (HOST:PORT, [IPv6]:PORT; port 0 picks one) resolves to. Connections wait in the
  // backlog until Start. Errors: INVALID_ARGUMENT; UNAVAILABLE with the system's message, such as that the port is in
  // use.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(const std::string& address, const AcceptorOptions& options);
  ~Acceptor();

  int port() const { return port_; }

  void Start(AcceptorHandlers handlers);

  // Closes the listening sockets and idle connections, and joins the thread. May be called twice.
  void Stop();

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  using ClientCounts = std::unordered_map<std::string, int>;
  struct Idle {
    int descriptor;
    SteadyTime since;
    std::string client;
  };

  explicit Acceptor(const AcceptorOptions& options) : options_(options) {}
  absl::Status Bind(const std::string& address);
  void Run(const std::stop_token& stop);
  void AcceptFrom(int listener);
  void OnReadable(int descriptor);
  void CloseSilentSince(SteadyTime limit);
  void CloseOldestIdle();
  void CloseIdle(std::list<Idle>::iterator idle);
  // Returns why a connection of the client that has just been accepted must be refused; nullopt if it may stay.
  std::optional<Refusal> TooMany(const std::string& client);
  std::optional<Refusal> TooManyByCount(const std::string& client) const;
  // Closes an idle connection in favor of one that would be refused. Returns whether there was one.
  bool MakeRoom(Refusal refusal, const std::string& client);
  void CountOpen();
  void CountClosed(const std::string& client);

  const AcceptorOptions options_;
  AcceptorHandlers handlers_;
  std::vector<int> listeners_;
  int port_ = 0;
  int epoll_ = -1;
  int wake_ = -1;  // An eventfd by which Stop wakes the thread.

  // Used only on the thread:
  std::list<Idle> idle_;  // Oldest first.
  std::unordered_map<int, std::list<Idle>::iterator> idle_by_descriptor_;
  int open_ = 0;  // Connections found by the last count, and accepted since.
  ClientCounts open_by_client_;
  int uncounted_ = 0;  // Connections accepted since the last count.
  SteadyTime counted_;

  std::jthread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_NET_ACCEPTOR_H_
