#include "server/core/cores.h"

#include <gtest/gtest.h>

namespace longembed {
namespace {

TEST(CoresTest, AQuotaIsRoundedUp) {
  EXPECT_EQ(CoresOfQuota("200000 100000\n"), 2);
  EXPECT_EQ(CoresOfQuota("150000 100000"), 2);
  EXPECT_EQ(CoresOfQuota("50000 100000"), 1);
}

TEST(CoresTest, NoQuotaIsZero) {
  for (const char* text : {"max 100000\n", "", "1", "a b", "-1 100000", "100000 0"})
    EXPECT_EQ(CoresOfQuota(text), 0) << text;
}

TEST(CoresTest, ThereIsAtLeastOne) { EXPECT_GE(AvailableCores(), 1); }

}  // namespace
}  // namespace longembed
