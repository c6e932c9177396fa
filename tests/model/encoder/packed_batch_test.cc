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
  second.neighbour_window = 4;
  second.spans = {{0, 1}, {1, 3}};
  const std::vector<const Sequence*> sequences{&first, &second};
  const PackedBatch batch = Pack(sequences);
  EXPECT_THAT(batch.tokens, ElementsAre(7, 7, 8, 8, 8));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 1, 2));
  EXPECT_THAT(batch.query_scale, ElementsAre(1.5f, 1.0f));
  EXPECT_THAT(batch.neighbour_window, ElementsAre(0, 4));
  EXPECT_THAT(batch.sequence_offsets, ElementsAre(0, 2, 5));
  EXPECT_THAT(batch.spans, ElementsAre(Range{0, 2}, Range{2, 3}, Range{3, 5}));
}

}  // namespace
}  // namespace longembed
