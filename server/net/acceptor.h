// Accepts TCP connections and hands them over as soon as the client has sent something.
//
// gRPC's own acceptor stops for good when descriptors run out (CVE-2023-4785), and keeps idle connections for
// minutes. This one keeps below a cap, and gives gRPC no connection whose client has not sent its first byte; while it
// has none to spare, the one that has been idle longest is closed for a new one. No client alone can take all of
// them: the more are open, the fewer each may have.
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
  int max_connections = 1000;  // Of this acceptor's, open at a time, idle ones included.
  // Fraction of max_connections that one client may hold while no other holds any; in (0, 1], 1: all. With s, a client
  // is refused when it would hold more than s / (1 - s) times what is free (a dynamic threshold, as switches share
  // buffers): however many clients take what they can, some is free for the next.
  double max_client_share = 0.8;
  absl::Duration silence = absl::Seconds(5);  // Closes a client that has sent nothing for so long.
};

// The reason for closing a connection instead of handing it over: the limit is reached, the client has its share, or
// it sent nothing.
enum class Refusal { kLimit, kClientShare, kSilent };

// The refusal as metrics name it: limit, client_share or idle.
const char* ReasonOf(Refusal refusal);

// Checks that an address is one that Acceptor::Listen takes, without binding it. Errors: INVALID_ARGUMENT.
absl::Status CheckAddress(const std::string& address);

// Called on the acceptor's thread; must not block.
struct AcceptorHandlers {
  std::function<void(int descriptor)> accept;  // Owns the descriptor from then on: non-blocking, close-on-exec.
  std::function<void(Refusal)> refuse;         // May be null.
};

class Acceptor {
 public:
  // Binds every address that `address` (HOST:PORT, [IPv6]:PORT; port 0 picks one) resolves to. Connections wait in the
  // backlog until Start. Errors: INVALID_ARGUMENT, UNAVAILABLE (the port is taken; the system's words).
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(const std::string& address, const AcceptorOptions& options);
  ~Acceptor();

  int port() const { return port_; }

  void Start(AcceptorHandlers handlers);

  // Closes the listening sockets and idle connections; joins the thread. May be called twice.
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
  // Whether a connection of the client's that has just been accepted is one too many.
  std::optional<Refusal> TooMany(const std::string& client);
  std::optional<Refusal> TooManyByCount(const std::string& client) const;
  // Closes an idle connection to make room for one that would be refused. Returns whether there was one.
  bool MakeRoom(Refusal refusal, const std::string& client);
  void CountOpen();
  void CountClosed(const std::string& client);

  const AcceptorOptions options_;
  AcceptorHandlers handlers_;
  std::vector<int> listeners_;
  int port_ = 0;
  int epoll_ = -1;
  int wake_ = -1;  // An eventfd, for Stop.

  // Of the thread.
  std::list<Idle> idle_;  // The oldest first.
  std::unordered_map<int, std::list<Idle>::iterator> idle_by_descriptor_;
  int open_ = 0;  // Connections at the last count, and those accepted since.
  ClientCounts open_by_client_;
  int uncounted_ = 0;  // Of them, accepted since.
  SteadyTime counted_;

  std::jthread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_NET_ACCEPTOR_H_
