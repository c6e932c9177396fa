#include "model/encoder/cpu/kernels.h"

#include <algorithm>
#include <vector>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/encoder/cpu/kernel_sets.h"

namespace longembed::cpu {
namespace {

#if defined(__x86_64__)

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Leaf CpuId(unsigned leaf, unsigned subleaf) {
  Leaf registers;
  __get_cpuid_count(leaf, subleaf, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx);
  return registers;
}
bool Bit(unsigned word, int bit) { return (word >> bit & 1) != 0; }

bool IsIntel() { return __builtin_cpu_is("intel"); }

// Requests permission to use AMX tiles, and returns whether it is granted. Linux (5.16 and later) saves tiles on
// context switches only for processes with this permission.
bool TilesAllowed() {
#if defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

std::vector<const Kernels*> FindAvailable() {
  __builtin_cpu_init();  // Its answers consider whether the operating system saves the vector registers.
  const Leaf features = CpuId(7, 0), more = CpuId(7, 1);
  std::vector<const Kernels*> available;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    const bool vnni = __builtin_cpu_supports("avx512vnni"), bfloat16 = vnni && Bit(more.eax, 5);
    const bool amx = bfloat16 && Bit(features.edx, 22) && Bit(features.edx, 24) && Bit(features.edx, 25);
    if (amx && TilesAllowed()) available.push_back(&kAvx512Amx);
    // On Intel's cores, bfloat16 products (VDPBF16PS) take four times as long as float32 products, so avx512-vnni is
    // preferred.
    if (vnni && IsIntel()) available.push_back(&kAvx512Vnni);
    if (bfloat16) available.push_back(&kAvx512Bfloat16);
    if (vnni && !IsIntel()) available.push_back(&kAvx512Vnni);
    available.push_back(&kAvx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (Bit(more.eax, 4)) available.push_back(&kAvx2Vnni);
    available.push_back(&kAvx2);
  }
  return available;
}

#elif defined(__aarch64__)

std::vector<const Kernels*> FindAvailable() {
  constexpr unsigned long kDotprod = 1ul << 20;   // HWCAP_ASIMDDP.
  constexpr unsigned long kBfloat16 = 1ul << 14;  // HWCAP2_BF16.
  const bool dotprod = (getauxval(AT_HWCAP) & kDotprod) != 0;
  std::vector<const Kernels*> available;
  if (dotprod && (getauxval(AT_HWCAP2) & kBfloat16) != 0) available.push_back(&kNeonBfloat16);
  if (dotprod) available.push_back(&kNeonDotprod);
  available.push_back(&kNeon);
  return available;
}

#else

std::vector<const Kernels*> FindAvailable() { return {}; }

#endif

}  // namespace

std::span<const Kernels* const> AvailableKernels() {
  static const auto* const available = new std::vector<const Kernels*>(FindAvailable());
  return *available;
}

absl::StatusOr<const Kernels*> FindKernels(const std::string& name) {
  const std::span<const Kernels* const> available = AvailableKernels();
  if (available.empty()) return absl::FailedPreconditionError("this processor has neither AVX2 nor NEON");
  if (name.empty()) return available.front();
  const auto found = std::ranges::find(available, name, &Kernels::name);
  if (found != available.end()) return *found;
  const auto name_of = [](std::string* out, const Kernels* kernels) { absl::StrAppend(out, kernels->name); };
  return absl::FailedPreconditionError(
      absl::StrCat("this processor has no kernels \"", name, "\"; it has ", absl::StrJoin(available, ", ", name_of)));
}

}  // namespace longembed::cpu
