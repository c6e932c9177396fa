#include "model/encoder/encode_in_halves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "model/errors/errors.h"
#include "tests/testing/fake_encoder.h"

namespace longembed {
namespace {

// A FakeEncoder that runs out of memory beyond `most` tokens.
class SmallEncoder final : public Encoder {
 public:
  explicit SmallEncoder(size_t most) : most_(most) {}
  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    tried.push_back(static_cast<int>(batch.tokens.size()));
    if (batch.tokens.size() > most_) return EncoderOutOfMemory("too small");
    return inner_.Encode(batch, leader, is_cancelled);
  }
  int hidden_size() const override { return FakeEncoder::kWidth; }
  std::string device() const override { return "fake"; }
  std::string engine() const override { return "fake"; }

  std::vector<int> tried;

 private:
  const size_t most_;
  FakeEncoder inner_;
};

class EncodeInHalvesTest : public ::testing::Test {
 protected:
  absl::StatusOr<VectorBlock> Encode(
      SmallEncoder& encoder, const std::vector<Sequence>& sequences,
      absl::FunctionRef<bool()> is_cancelled = [] { return false; }) {
    std::vector<const Sequence*> all;
    for (const Sequence& sequence : sequences) all.push_back(&sequence);
    return EncodeInHalves(encoder, all, leader_, is_cancelled);
  }

  Team team_;
  Team::Leader leader_{team_};
};

TEST_F(EncodeInHalvesTest, SmallerBatchesGiveTheSameVectorsInOrder) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < 7; ++i) sequences.push_back(MakeSequence(i + 1, 10 + i));
  sequences[2].spans = {{0, 3}, {3, 12}};
  SmallEncoder large(1000), small(30);
  const auto expected = Encode(large, sequences), actual = Encode(small, sequences);
  ASSERT_TRUE(actual.ok()) << actual.status();
  EXPECT_EQ(large.tried.size(), 1u);
  EXPECT_GT(small.tried.size(), 4u);
  EXPECT_EQ(actual->rows, 8);
  EXPECT_EQ(actual->rows, expected->rows);
  EXPECT_EQ(actual->values, expected->values);
}

TEST_F(EncodeInHalvesTest, ASequenceThatDoesNotFitAloneFails) {
  SmallEncoder small(30);
  const auto result = Encode(small, {MakeSequence(1, 10), MakeSequence(2, 31), MakeSequence(3, 5)});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EncodeInHalvesTest, EncodesNoHalfOfACancelledBatch) {
  SmallEncoder small(30);
  const auto is_cancelled = [&small] { return !small.tried.empty(); };
  const auto result = Encode(small, {MakeSequence(1, 20), MakeSequence(2, 20)}, is_cancelled);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(small.tried, std::vector<int>{40});
}

}  // namespace
}  // namespace longembed
