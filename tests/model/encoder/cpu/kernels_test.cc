// Tests which kernels a processor supports, and their self-check.
#include "model/encoder/cpu/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <cmath>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "model/encoder/cpu/flush_denormals.h"
#include "model/encoder/cpu/packed_weights.h"
#include "tests/model/encoder/cpu/each_kernel_set.h"

namespace longembed::cpu {
namespace {

class KernelsTest : public ::testing::TestWithParam<const char*> {};

// Skipped tests show which kernels this machine cannot test.
TEST_P(KernelsTest, AreFoundByNameAndCheckThemselves) {
  const auto kernels = FindKernels(GetParam());
  if (!kernels.ok()) GTEST_SKIP() << kernels.status().message();
  EXPECT_STREQ((*kernels)->name, GetParam());
  EXPECT_TRUE(CheckKernels(**kernels).ok()) << CheckKernels(**kernels);
}

#if defined(__x86_64__)
INSTANTIATE_TEST_SUITE_P(Sets, KernelsTest,
                         ::testing::Values("avx512-amx", "avx512-bf16", "avx512-vnni", "avx512", "avx2-vnni", "avx2"));
#elif defined(__aarch64__)
INSTANTIATE_TEST_SUITE_P(Sets, KernelsTest, ::testing::Values("neon-bf16", "neon-dotprod", "neon"));
#endif

TEST(KernelsChoiceTest, TheFastestIsChosenUnlessOneIsNamedAndUnknownNamesAreRefused) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  EXPECT_EQ(*FindKernels(""), AvailableKernels().front());
  for (const Kernels* kernels : AvailableKernels()) EXPECT_EQ(*FindKernels(kernels->name), kernels);
  const std::string message(FindKernels("sse9").status().message());
  EXPECT_THAT(message, ::testing::HasSubstr("no kernels \"sse9\"; it has "));
  EXPECT_THAT(message, ::testing::HasSubstr(AvailableKernels().back()->name));
}

#if defined(__linux__)
TEST(KernelsOnEveryCoreTest, OneThreadChecksAllCores) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  static std::mutex mutex;
  static std::set<std::thread::id> threads;
  static int checks = 0;
  static decltype(Kernels::rms_norm) right = nullptr;
  Kernels kernels = *AvailableKernels().front();
  right = kernels.rms_norm;
  kernels.rms_norm = [](Rows in, Rows out, int rows, int width, const float* weight, float epsilon) {
    right(in, out, rows, width, weight, epsilon);
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
    ++checks;
  };
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  const absl::Status checked = CheckKernelsOnEveryCore(kernels, 1);
  EXPECT_TRUE(checked.ok()) << checked;
  EXPECT_EQ(threads.size(), 1u);
  EXPECT_EQ(checks, CPU_COUNT(&allowed));
}
#endif

// Makes one kernel at a time compute wrong results, as defective cores are known to do.
class BrokenKernelTest : public ::testing::Test {
 protected:
  static std::string Complaint(Kernels broken) { return std::string(CheckKernels(broken).message()); }
};

TEST_F(BrokenKernelTest, IsNamed) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  const Kernels& good = *AvailableKernels().front();
  const auto does_nothing = [](const PackedWeights&, const PackedWeights*, const Operand&, int, int, int, Activation,
                               Rows) {};
  Kernels kernels = good;
  kernels.multiply_float32 = does_nothing;
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("fp32 products"));
  kernels = good;
  kernels.multiply_bfloat16 = does_nothing;
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("bf16 products"));
  kernels = good;
  kernels.multiply_int8 = does_nothing;
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("int8 products"));
  kernels = good;
  kernels.attend = [](const AttentionShape&, const AttentionInput&, int, int, int, int, std::byte*) {};
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("attention"));
  for (const Kernels* set : AvailableKernels()) {
    if (set->attention_element != Element::kBfloat16) continue;
    kernels = *set;
    // Attention in float32 is right, and attention in bfloat16, which bf16 and int8 use, is not.
    static decltype(kernels.attend) right = nullptr;
    right = set->attend;
    kernels.attend = [](const AttentionShape& shape, const AttentionInput& input, int first_head, int last_head,
                        int first_query, int last_query, std::byte* scratch) {
      if (input.qkv.element == Element::kFloat32)
        right(shape, input, first_head, last_head, first_query, last_query, scratch);
    };
    EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("bf16 attention"));
  }
  kernels = good;
  kernels.layer_norm = [](Rows, Rows, Rows, int, int, const float*, const float*, float) {};
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("layer norm"));
  kernels = good;
  kernels.rms_norm = [](Rows, Rows, int, int, const float*, float) {};
  EXPECT_THAT(Complaint(kernels), ::testing::HasSubstr("RMS norm"));
}

TEST(FlushDenormalsTest, LastsAsLongAsTheObject) {
  volatile float tiny = 1e-40f;  // A subnormal number.
  volatile float sum = 0;
  {
    const FlushDenormals flush;
    sum = tiny + tiny;
    EXPECT_EQ(sum, 0);
  }
  sum = tiny + tiny;
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace longembed::cpu
