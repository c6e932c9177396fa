// Replaces operator new in a whole test program by one that fails on request. Include it in exactly one file of the
// program; that file defines AllocationFails.
#ifndef LONGEMBED_TESTS_TESTING_FAILING_NEW_H_
#define LONGEMBED_TESTS_TESTING_FAILING_NEW_H_

#include <cstddef>
#include <cstdlib>
#include <new>

namespace longembed {

// Returns true if this allocation throws std::bad_alloc. Called on any thread. Must not allocate.
bool AllocationFails(size_t size);

inline void* AllocateUnlessItFails(size_t size) {
  void* const memory = AllocationFails(size) ? nullptr : std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace longembed

void* operator new(size_t size) { return longembed::AllocateUnlessItFails(size); }
void* operator new[](size_t size) { return longembed::AllocateUnlessItFails(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

#endif  // LONGEMBED_TESTS_TESTING_FAILING_NEW_H_
