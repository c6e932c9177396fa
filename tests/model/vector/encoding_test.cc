#include "model/vector/encoding.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace longembed {
namespace {

// Converts binary16 to a double in a slow and simple way (IEEE 754-2008, 3.4).
double Float16Value(uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

double Bfloat16Value(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Checks that `bits` is at least as close to x as both neighbors, and even if a neighbor is equally close.
template <typename Value>
void ExpectNearest(float x, uint16_t bits, Value value) {
  const double distance = std::abs(value(bits) - x);
  for (const int step : {-1, 1}) {
    const auto neighbor = static_cast<uint16_t>(bits + step);
    if ((neighbor ^ bits) & 0x8000) continue;
    const double other = value(neighbor);
    if (!std::isfinite(other)) continue;
    ASSERT_LE(distance, std::abs(other - x)) << x;
    if (distance == std::abs(other - x)) {
      ASSERT_EQ(bits & 1, 0) << x;
    }
  }
}

TEST(EncodingTest, EveryFloat16ConvertsToItself) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const double value = Float16Value(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(Float16Bits(static_cast<float>(value)), bits);
  }
}

TEST(EncodingTest, HalvesRoundToNearestEven) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponent(-27, 15), sign(-1, 1);
  for (int i = 0; i < 200000; ++i) {
    const float x = std::copysign(std::exp2(exponent(random)), sign(random));
    ExpectNearest(x, Float16Bits(x), Float16Value);
    ExpectNearest(x, Bfloat16Bits(x), Bfloat16Value);
  }
  // These values are exactly between two representable ones.
  EXPECT_EQ(Float16Value(Float16Bits(2049.0f)), 2048);
  EXPECT_EQ(Float16Value(Float16Bits(2051.0f)), 2052);
  EXPECT_EQ(Bfloat16Value(Bfloat16Bits(257.0f)), 256);
  EXPECT_EQ(Bfloat16Value(Bfloat16Bits(259.0f)), 260);
}

TEST(EncodingTest, HalvesBeyondRange) {
  EXPECT_EQ(Float16Bits(65519.0f), 0x7bff);
  EXPECT_EQ(Float16Bits(65520.0f), 0x7c00);
  EXPECT_EQ(Float16Bits(-1e30f), 0xfc00);
  EXPECT_TRUE(std::isnan(Float16Value(Float16Bits(NAN))));
  EXPECT_TRUE(std::isnan(Bfloat16Value(Bfloat16Bits(NAN))));
}

TEST(EncodingTest, HalvesAreLittleEndian) {
  EXPECT_EQ(PackFloat16(std::vector<float>{1.0f}), std::string("\x00\x3c", 2));
  EXPECT_EQ(PackBfloat16(std::vector<float>{1.0f}), std::string("\x80\x3f", 2));
}

TEST(EncodingTest, Int8IsWithinHalfAStep) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> vector(384);
  for (float& x : vector) x = normal(random);
  const Int8Vector packed = PackInt8(vector);
  float largest = 0;
  for (size_t i = 0; i < vector.size(); ++i) {
    const float restored = static_cast<int8_t>(packed.bytes[i]) * packed.scale;
    EXPECT_LE(std::abs(restored - vector[i]), packed.scale * 0.5001f);
    largest = std::max(largest, std::abs(vector[i]));
  }
  EXPECT_FLOAT_EQ(packed.scale, largest / 127);
  EXPECT_EQ(PackInt8(std::vector<float>{0, 0}).bytes, std::string(2, '\0'));
}

TEST(EncodingTest, BinaryAsNumpyPackbits) {
  // The expected bytes are those of numpy.packbits([1,0,0,1,0,0,0,0, 1]) == [0x90, 0x80].
  EXPECT_EQ(PackBinary(std::vector<float>{1, -1, 0, 0.5f, -2, -3, 0, 0, 4}), "\x90\x80");
}

TEST(EncodingTest, RoundsToInfinityFromItsLimitsOn) {
  for (const float sign : {1.0f, -1.0f}) {
    EXPECT_EQ(Float16Bits(sign * kBeyondFloat16) & 0x7fff, 0x7c00);
    EXPECT_EQ(Float16Bits(sign * std::nextafter(kBeyondFloat16, 0.0f)) & 0x7fff, 0x7bff);
    EXPECT_EQ(Bfloat16Bits(sign * kBeyondBfloat16) & 0x7fff, 0x7f80);
    EXPECT_EQ(Bfloat16Bits(sign * std::nextafter(kBeyondBfloat16, 0.0f)) & 0x7fff, 0x7f7f);
  }
}

}  // namespace
}  // namespace longembed
