// Shares a scarce resource fairly among clients: start-time fair queueing (Goyal, Vin and Cheng, 1996).
#ifndef LONGEMBED_SERVER_ADMISSION_FAIR_QUEUE_H_
#define LONGEMBED_SERVER_ADMISSION_FAIR_QUEUE_H_

#include <algorithm>
#include <cassert>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace longembed {

// A queue of items that belong to clients. The items of a client follow each other in virtual time, and an item takes
// as much virtual time as it costs. The client that was served least goes first; a new or returning client starts at
// the current virtual time. So each of n clients gets an n-th of the served cost, however much the others ask for.
// Passive, and not thread-safe.
template <typename Item>
class FairQueue {
 public:
  void Push(const std::string& client, double cost, Item item) {
    assert(cost > 0);
    double& finish = finish_[client];
    const double start = std::max(now_, finish);
    finish = start + cost;
    items_.emplace(start, Entry{client, std::move(item)});
  }

  // Does the same for an item that goes before the client's other items. They keep their order.
  void PushFirst(const std::string& client, double cost, Item item) {
    assert(cost > 0);
    double& finish = finish_[client];
    finish = std::max(now_, finish) + cost;
    items_.emplace(now_, Entry{client, std::move(item)});
  }

  // Takes out the first item for which `may` returns true, with its client. Returns nullopt if there is none.
  std::optional<std::pair<std::string, Item>> Pop(
      const std::function<bool(const std::string& client, const Item& item)>& may) {
    for (auto position = items_.begin(); position != items_.end(); ++position) {
      if (!may(position->second.client, position->second.item)) continue;
      // Items that may not be served now are skipped, but virtual time advances nevertheless.
      now_ = std::max(now_, position->first);
      std::pair<std::string, Item> taken{std::move(position->second.client), std::move(position->second.item)};
      items_.erase(position);
      Forget();
      return taken;
    }
    return std::nullopt;
  }

  // Returns the sum of `amount` over the items that a new item of `client` would wait for.
  double SumBefore(const std::string& client, const std::function<double(const Item& item)>& amount) const {
    const auto found = finish_.find(client);
    const double start = found == finish_.end() ? now_ : std::max(now_, found->second);
    double sum = 0;
    for (auto position = items_.begin(); position != items_.end() && position->first <= start; ++position) {
      sum += amount(position->second.item);
    }
    return sum;
  }

  // Returns the sum of `amount` over all items: what the client with the most items would wait for.
  double Sum(const std::function<double(const Item& item)>& amount) const {
    double sum = 0;
    for (const auto& [start, entry] : items_) sum += amount(entry.item);
    return sum;
  }

  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }

 private:
  struct Entry {
    std::string client;
    Item item;
  };

  // Removes clients whose virtual time has passed, because they are treated as new ones.
  void Forget() {
    if (items_.empty()) {
      for (const auto& [client, finish] : finish_) now_ = std::max(now_, finish);
    }
    std::erase_if(finish_, [this](const auto& client) { return client.second <= now_; });
  }

  double now_ = 0;                        // Virtual time: the start of the item that was served last.
  std::map<std::string, double> finish_;  // Client -> end of its last item.
  std::multimap<double, Entry> items_;    // Start -> item; equal starts in order of arrival.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_FAIR_QUEUE_H_
