// Objects that are costly to make, one per thread. A thread that reuses its object finds it in its core's caches and on
// its own NUMA node, without taking a lock.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_
#define LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_

#include <array>
#include <atomic>
#include <memory>
#include <utility>

namespace longembed::cpu {

// Returns the calling thread's number: the lowest one that was free when the thread first called. A thread keeps its
// number until it ends.
int ThreadNumber();

// A set of objects, one per thread. Multiple threads can use one PerThread.
template <typename T>
class PerThread {
 public:
  // Exclusive use of an object until the lease is destroyed.
  class Lease {
   public:
    Lease(std::atomic<T*>& slot, std::unique_ptr<T> object) : slot_(slot), object_(std::move(object)) {}
    // Returns the object to the slot. If another lease has put an object there in the meantime, that one is deleted.
    ~Lease() { delete slot_.exchange(object_.release()); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    T& operator*() const { return *object_; }
    T* operator->() const { return object_.get(); }

   private:
    std::atomic<T*>& slot_;
    std::unique_ptr<T> object_;
  };

  PerThread() = default;
  PerThread(const PerThread&) = delete;
  PerThread& operator=(const PerThread&) = delete;
  ~PerThread() {
    for (Slot& slot : slots_) delete slot.object.load();
  }

  // Takes this thread's object. If it has none, calls make(), which returns a std::unique_ptr<T>.
  template <typename Make>
  Lease Take(const Make& make) {
    std::atomic<T*>& slot = slots_[static_cast<size_t>(ThreadNumber()) % slots_.size()].object;
    std::unique_ptr<T> object(slot.exchange(nullptr));
    if (object == nullptr) object = make();
    return Lease(slot, std::move(object));
  }

 private:
  static constexpr size_t kThreads = 256;  // Further threads share slots.
  struct alignas(64) Slot {
    std::atomic<T*> object = nullptr;
  };
  std::array<Slot, kThreads> slots_;
};

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_
