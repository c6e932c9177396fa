// Runs a test with each set of kernels that this processor supports.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_CPU_EACH_KERNEL_SET_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_CPU_EACH_KERNEL_SET_H_

#include <gtest/gtest.h>

#include "model/encoder/cpu/kernels.h"

namespace longembed::cpu {

// Calls body(kernels) for each set, fastest first. Stops after the first fatal failure.
template <typename Body>
void ForEachKernelSet(const Body& body) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  for (const Kernels* kernels : AvailableKernels()) {
    SCOPED_TRACE(kernels->name);
    body(*kernels);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace longembed::cpu

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_CPU_EACH_KERNEL_SET_H_
