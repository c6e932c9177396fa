// Accepts TCP connections and hands them over as soon as the client has said something.
//
// gRPC's own acceptor stops for good when descriptors run out (CVE-2023-4785), and keeps silent connections for
// minutes. This one keeps below a cap, and gives gRPC no connection whose client has not sent its first byte; while it
// has none to spare, the one that has been silent longest is closed for a new one.
#ifndef LONGEMBED_SERVER_NET_ACCEPTOR_H_
#define LONGEMBED_SERVER_NET_ACCEPTOR_H_

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace longembed {

struct AcceptorOptions {
  int max_connections = 1000;                 // Of this acceptor's, open at a time, silent ones included.
  absl::Duration silence = absl::Seconds(5);  // After which a client that has said nothing is closed.
};

// Why a connection was closed instead of being handed over.
enum class Refusal { kLimit, kSilent };

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

  // Closes the listening sockets and silent connections; joins the thread. May be called twice.
  void Stop();

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  struct Silent {
    int descriptor;
    SteadyTime since;
  };

  explicit Acceptor(const AcceptorOptions& options) : options_(options) {}
  absl::Status Bind(const std::string& address);
  void Run(const std::stop_token& stop);
  void AcceptFrom(int listener);
  void Hear(int descriptor);
  void CloseSilentSince(SteadyTime limit);
  void CloseOldestSilent();
  void CloseSilent(std::list<Silent>::iterator silent);
  bool Full();

  const AcceptorOptions options_;
  AcceptorHandlers handlers_;
  std::vector<int> listeners_;
  int port_ = 0;
  int epoll_ = -1;
  int wake_ = -1;  // An eventfd, for Stop.

  // Of the thread.
  std::list<Silent> silent_;  // The oldest first.
  std::unordered_map<int, std::list<Silent>::iterator> silent_by_descriptor_;
  int open_ = 0;  // Connections at the last count, and those accepted since.
  int uncounted_ = 0;
  SteadyTime counted_;

  std::jthread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_NET_ACCEPTOR_H_
