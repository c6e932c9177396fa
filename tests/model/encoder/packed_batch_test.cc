#include "model/encoder/packed_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_encoder.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;

TEST(PackedBatchTest, ConcatenatesAndMovesSpans) {
  Sequence first = MakeSequence(7, 2);
  first.query_scale = 1.5f;
  Sequence second = MakeSequence(8, 3);
  second.neighbor_window = 4;
  second.spans = {{0, 1}, {1, 3}};
  second.chunk = 5;
  second.calibration = {.basket = 2, .strength = 0.5f, .first_layer = 1, .apart = 0, .rows = {0, 1}};
  const std::vector<const Sequence*> sequences{&first, &second};
  const PackedBatch batch = Pack(sequences);
  EXPECT_THAT(batch.tokens, ElementsAre(7, 7, 8, 8, 8));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 1, 2));
  EXPECT_THAT(batch.query_scale, ElementsAre(1.5f, 1.0f));
  EXPECT_THAT(batch.neighbor_window, ElementsAre(0, 4));
  EXPECT_THAT(batch.sequence_offsets, ElementsAre(0, 2, 5));
  EXPECT_THAT(batch.chunk, ElementsAre(0, 5));
  ASSERT_EQ(batch.calibration.size(), 2);
  EXPECT_EQ(batch.calibration[0].basket, 0);
  EXPECT_EQ(batch.calibration[1].basket, 2);
  EXPECT_EQ(batch.calibration[1].rows, (Range{0, 1}));
  EXPECT_THAT(batch.spans, ElementsAre(Range{0, 2}, Range{2, 3}, Range{3, 5}));
}

Sequence Rotated(int32_t n, float value, int32_t neighbor_window) {
  const auto table = [](int64_t rows, float cos, float sin) {
    const auto size = static_cast<size_t>(2 * rows);
    return std::make_shared<const RotaryTable>(
        RotaryTable{.width = 2, .cos = std::vector<float>(size, cos), .sin = std::vector<float>(size, sin)});
  };
  Sequence sequence{.tokens = std::vector<int32_t>(static_cast<size_t>(n), 7)};
  sequence.rotary = table(n + 3, value, -value);  // The table has more rows than tokens. Extra rows are ignored.
  sequence.neighbor_window = neighbor_window;
  if (neighbor_window > 0) {
    sequence.rotary_grouped = table(n, 10 * value, -10 * value);
    sequence.rotary_shifted = table(n, 100 * value, -100 * value);
  }
  sequence.spans = {{0, n}};
  return sequence;
}

TEST(PackedBatchTest, RotationsLieByTableThenCosAndSinThenToken) {
  const Sequence first = Rotated(2, 1, 0), second = Rotated(1, 2, 0), extended = Rotated(1, 3, 5);
  const PackedBatch plain = Pack(std::vector<const Sequence*>{&first, &second});
  EXPECT_EQ(plain.rotary_tables, 1);
  EXPECT_EQ(plain.rotary_width, 2);
  EXPECT_THAT(plain.rotary, ElementsAre(1, 1, 1, 1, 2, 2, -1, -1, -1, -1, -2, -2));
  const PackedBatch mixed = Pack(std::vector<const Sequence*>{&second, &extended});
  EXPECT_EQ(mixed.rotary_tables, 3);
  EXPECT_THAT(mixed.rotary, ElementsAre(2, 2, 3, 3, -2, -2, -3, -3,    // Plain.
                                        0, 0, 30, 30, 0, 0, -30, -30,  // Grouped.
                                        0, 0, 300, 300, 0, 0, -300, -300));
}

}  // namespace
}  // namespace longembed
