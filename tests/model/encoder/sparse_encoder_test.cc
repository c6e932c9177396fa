#include "model/encoder/sparse_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/encoder/encode_in_halves.h"
#include "model/errors/errors.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_sparse_head.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Sequence SparseSequence(std::vector<int32_t> tokens) {
  Sequence sequence = MakeSequence(0, static_cast<int>(tokens.size()));
  sequence.tokens = std::move(tokens);
  sequence.sparse = true;
  return sequence;
}

class SparseEncoderTest : public ::testing::Test {
 protected:
  void Make(SparseSum sum = SparseSum::kMax) {
    auto encoder = std::make_unique<FakeEncoder>();
    auto head = std::make_unique<FakeSparseHead>(sum);
    fake_ = encoder.get();
    head_ = head.get();
    encoder_ = WithSparseHead(std::move(encoder), std::move(head));
  }

  absl::StatusOr<VectorBlock> Encode(const std::vector<const Sequence*>& sequences) {
    Team::Leader leader(team_);
    return EncodeInHalves(*encoder_, sequences, leader, [] { return false; });
  }

  Team team_;
  FakeEncoder* fake_ = nullptr;
  FakeSparseHead* head_ = nullptr;
  std::unique_ptr<Encoder> encoder_;
};

TEST_F(SparseEncoderTest, ABatchMayHoldSparseAndDenseSequences) {
  Make();
  const Sequence a = SparseSequence({7, 5, 7}), b = MakeSequence(3, 2), c = SparseSequence({6}), d = MakeSequence(2, 1);
  const absl::StatusOr<VectorBlock> block = Encode({&a, &b, &c, &d});
  ASSERT_TRUE(block.ok()) << block.status();
  ASSERT_EQ(block->rows, 2);
  EXPECT_THAT(block->row(0), ElementsAre(6, 2, 2, 1));
  EXPECT_THAT(block->row(1), ElementsAre(2, 1, 1, 1));
  EXPECT_THAT(block->sparse, ElementsAre(SparseVector{{5, 7}, {503, 703}}, SparseVector{{6}, {601}}));
}

TEST_F(SparseEncoderTest, WithoutSparseSequencesTheHeadDoesNotRun) {
  Make();
  const Sequence a = MakeSequence(3, 2);
  const absl::StatusOr<VectorBlock> block = Encode({&a});
  ASSERT_TRUE(block.ok());
  EXPECT_EQ(block->rows, 1);
  EXPECT_THAT(block->sparse, IsEmpty());
  EXPECT_EQ(head_->most_rows(), 0);
}

// The result does not depend on the parts that the head processes, nor on helpers.
TEST_F(SparseEncoderTest, LongSequencesGoInParts) {
  for (const SparseSum sum : {SparseSum::kMax, SparseSum::kAdd}) {
    for (const int helpers : {0, 2}) {
      Make(sum);
      const HelperThreads threads(team_, helpers);
      const Sequence a = SparseSequence(std::vector<int32_t>(300, 5)), b = SparseSequence({6}),
                     c = SparseSequence(std::vector<int32_t>(127, 7)), d = SparseSequence({8, 9, 8});
      const absl::StatusOr<VectorBlock> block = Encode({&a, &b, &c, &d});
      ASSERT_TRUE(block.ok());
      EXPECT_EQ(head_->most_rows(), 128);
      const bool add = sum == SparseSum::kAdd;
      EXPECT_THAT(block->sparse, ElementsAre(SparseVector{{5}, {add ? 300 * 800.0f : 800}}, SparseVector{{6}, {601}},
                                             SparseVector{{7}, {add ? 127 * 827.0f : 827}},
                                             SparseVector{{8, 9}, {add ? 1606.0f : 803, 903}}));
    }
  }
}

// Runs out of memory for more than one sequence at a time.
class SmallTokenEncoder final : public Encoder {
 public:
  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    if (batch.sequence_offsets.size() > 2) return EncoderOutOfMemory("a test");
    return encoder_.Encode(batch, leader, is_cancelled);
  }
  int hidden_size() const override { return encoder_.hidden_size(); }
  std::string device() const override { return encoder_.device(); }
  std::string engine() const override { return encoder_.engine(); }

 private:
  FakeEncoder encoder_;
};

TEST_F(SparseEncoderTest, HalvesThatRanOutOfMemoryAreJoined) {
  encoder_ = WithSparseHead(std::make_unique<SmallTokenEncoder>(), std::make_unique<FakeSparseHead>());
  const Sequence a = SparseSequence({7}), b = MakeSequence(3, 2), c = SparseSequence({8});
  const absl::StatusOr<VectorBlock> block = Encode({&a, &b, &c});
  ASSERT_TRUE(block.ok()) << block.status();
  EXPECT_EQ(block->rows, 1);
  EXPECT_THAT(block->sparse, ElementsAre(SparseVector{{7}, {701}}, SparseVector{{8}, {801}}));
}

TEST_F(SparseEncoderTest, ACancelledBatchEndsBeforeTheHead) {
  Make();
  fake_->IgnoreCancellation();
  const Sequence a = SparseSequence({7});
  Team::Leader leader(team_);
  const std::vector<const Sequence*> sequences{&a};
  EXPECT_TRUE(absl::IsCancelled(encoder_->Encode(Pack(sequences), leader, [] { return true; }).status()));
  EXPECT_EQ(head_->most_rows(), 0);
}

// Answers every question about an encoder with something that is not the default.
class DescribedEncoder final : public Encoder {
 public:
  absl::StatusOr<VectorBlock> Encode(const PackedBatch&, Team::Leader&, absl::FunctionRef<bool()>) override {
    return EncoderFailed("a test");
  }
  bool uses_helpers() const override { return true; }
  int hidden_size() const override { return 7; }
  std::string device() const override { return "cuda:3"; }
  Precision precision() const override { return Precision::kInt8; }
  std::string engine() const override { return "an engine"; }
  std::string kernels() const override { return "some kernels"; }
};

// GetModel, the log and the metrics describe the encoder below the head.
TEST_F(SparseEncoderTest, IsDescribedAsItsEncoderIs) {
  encoder_ = WithSparseHead(std::make_unique<DescribedEncoder>(), std::make_unique<FakeSparseHead>());
  EXPECT_TRUE(encoder_->uses_helpers());
  EXPECT_EQ(encoder_->hidden_size(), 7);
  EXPECT_EQ(encoder_->device(), "cuda:3");
  EXPECT_EQ(encoder_->precision(), Precision::kInt8);
  EXPECT_EQ(encoder_->engine(), "an engine");
  EXPECT_EQ(encoder_->kernels(), "some kernels");
}

}  // namespace
}  // namespace longembed
