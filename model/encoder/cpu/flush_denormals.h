// Disables denormal numbers. Arithmetic on them takes a hundred times as long on some processors, and networks do not
// need such small values.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_FLUSH_DENORMALS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_FLUSH_DENORMALS_H_

#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace longembed::cpu {

// During its lifetime, the calling thread treats denormal inputs and results as zero.
class FlushDenormals {
 public:
  FlushDenormals() : before_(Get()) { Set(before_ | kFlush); }
  ~FlushDenormals() { Set(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // FTZ and DAZ of MXCSR.
  static uint64_t Get() { return _mm_getcsr(); }
  static void Set(uint64_t state) { _mm_setcsr(static_cast<unsigned>(state)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = uint64_t{1} << 24;  // FZ of FPCR.
  static uint64_t Get() {
    uint64_t state;
    asm volatile("mrs %0, fpcr" : "=r"(state));
    return state;
  }
  static void Set(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t Get() { return 0; }
  static void Set(uint64_t) {}
#endif

  const uint64_t before_;
};

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_FLUSH_DENORMALS_H_
