// Assertions of fuzz targets. A failed assertion aborts the process, which libFuzzer reports as a finding.
#ifndef LONGEMBED_TESTS_FUZZ_EXPECT_H_
#define LONGEMBED_TESTS_FUZZ_EXPECT_H_

#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"

// Unlike assert(), it is active in every build type.
#define FUZZ_EXPECT(claim)                                                                 \
  do {                                                                                     \
    if (!(claim)) {                                                                        \
      std::fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #claim); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)

namespace longembed {

// Checks that a client can act on an error: the code is INVALID_ARGUMENT, there is a reason, and the message fits into
// a gRPC trailer.
void ExpectRefusal(const absl::Status& status);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_FUZZ_EXPECT_H_
