// Uninitialized memory that is aligned to cache lines, or to huge pages if large.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ALIGNED_BUFFER_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ALIGNED_BUFFER_H_

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <memory>
#include <new>

namespace longembed::cpu {

// A buffer of aligned memory. Movable. Allocation throws std::bad_alloc.
class AlignedBuffer {
 public:
  static constexpr size_t kCacheLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size)
      : data_(static_cast<std::byte*>(::operator new(size, AlignmentOf(size))), Free{AlignmentOf(size)}), size_(size) {
#if defined(__linux__)
    // Rows of a batch are kilobytes apart, so with small pages each row would need its own TLB entry. Failure is
    // harmless.
    if (size >= kHugePage) madvise(data_.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  }

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

  // Grows the buffer to at least `size` bytes. Growing discards the contents.
  void Reserve(size_t size) {
    if (size <= size_) return;
    data_.reset();  // Freed first, so that old and new memory do not exist at the same time.
    size_ = 0;
    *this = AlignedBuffer(size);
  }

 private:
  static constexpr std::align_val_t AlignmentOf(size_t size) {
    return std::align_val_t{size >= kHugePage ? kHugePage : kCacheLine};
  }

  struct Free {
    std::align_val_t alignment;
    void operator()(std::byte* data) const { ::operator delete(data, alignment); }
  };

  std::unique_ptr<std::byte, Free> data_{nullptr, Free{AlignmentOf(0)}};
  size_t size_ = 0;
};

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ALIGNED_BUFFER_H_
