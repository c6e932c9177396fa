// Checks start-time fair queueing from outside, given which client's work begins and which client's work waits.
#ifndef LONGEMBED_TESTS_SIMULATION_TURNS_H_
#define LONGEMBED_TESTS_SIMULATION_TURNS_H_

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace longembed {

// Checks the bound of start-time fair queueing: while two clients have work waiting, the work that they get differs by
// at most the sum of the largest items of both (Goyal, Vin and Cheng, 1996, theorem 1).
class Turns {
 public:
  void Arrive(const std::string& client, double cost) {
    Client& own = clients_[client];
    ++own.waiting;
    own.largest = std::max(own.largest, cost);
  }

  // Records that an item of the client begins. Returns true if the bound holds.
  bool Serve(const std::string& client, double cost) {
    bool fair = true;
    for (auto& [other, state] : clients_) {
      if (other == client || state.waiting == 0) continue;
      Pair& pair = pairs_[std::minmax(client, other)];
      pair.ahead += client < other ? cost : -cost;
      fair &= pair.ahead - pair.least <= state.largest + clients_[client].largest + kRounding;
      fair &= pair.most - pair.ahead <= state.largest + clients_[client].largest + kRounding;
      pair.least = std::min(pair.least, pair.ahead);
      pair.most = std::max(pair.most, pair.ahead);
    }
    if (--clients_[client].waiting == 0) Forget(client);
    return fair;
  }

 private:
  static constexpr double kRounding = 1e-6;
  struct Client {
    int waiting = 0;
    double largest = 0;
  };
  // How much more the first of two clients has got than the second, since both have had work waiting.
  struct Pair {
    double ahead = 0, least = 0, most = 0;
  };

  void Forget(const std::string& client) {
    std::erase_if(pairs_, [&](const auto& pair) { return pair.first.first == client || pair.first.second == client; });
  }

  std::map<std::string, Client> clients_;
  std::map<std::pair<std::string, std::string>, Pair> pairs_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_TURNS_H_
