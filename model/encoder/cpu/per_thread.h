// Objects that are costly to make, one for each thread: what a thread uses again is in its core's caches and on its own
// node's memory, and no lock is taken for it.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_
#define LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_

#include <array>
#include <atomic>
#include <memory>
#include <utility>

namespace longembed::cpu {

// The lowest number that no other living thread has. A thread keeps it until it ends.
int ThreadNumber();

// Multiple threads can use one PerThread.
template <typename T>
class PerThread {
 public:
  // One object, for this thread alone until the lease ends.
  class Lease {
   public:
    Lease(std::atomic<T*>& slot, std::unique_ptr<T> object) : slot_(slot), object_(std::move(object)) {}
    // Another lease of this thread may have put its object there meanwhile: the newer one stays.
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

  // The object of this thread; make(), a std::unique_ptr<T>, where it has none yet.
  template <typename Make>
  Lease Take(const Make& make) {
    std::atomic<T*>& slot = slots_[static_cast<size_t>(ThreadNumber()) % slots_.size()].object;
    std::unique_ptr<T> object(slot.exchange(nullptr));
    if (object == nullptr) object = make();
    return Lease(slot, std::move(object));
  }

 private:
  static constexpr size_t kThreads = 256;  // More threads than these share slots.
  struct alignas(64) Slot {
    std::atomic<T*> object = nullptr;
  };
  std::array<Slot, kThreads> slots_;
};

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PER_THREAD_H_
