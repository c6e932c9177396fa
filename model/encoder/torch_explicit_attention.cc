#include "model/encoder/torch_explicit_attention.h"

#include <ATen/ATen.h>
#include <ATen/TensorIndexing.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "model/encoder/torch_attention.h"

namespace longembed {
namespace {

constexpr double kUnseen = -std::numeric_limits<double>::infinity();

// Attention of one sequence of n tokens, in float32.
class SequenceAttention {
 public:
  // qkv is [n, (heads + 2 key_value_heads) d]; rotary is [1 or 3, 2, n, R / 2], or undefined.
  SequenceAttention(const at::Tensor& qkv, const AttentionHeads& shape, const at::Tensor& rotary,
                    const at::Tensor& relative_bias, double query_scale, int64_t neighbor_window, int64_t chunk)
      : causal_(shape.causal),
        tokens_(qkv.size(0)),
        neighbor_window_(neighbor_window),
        chunk_(chunk),
        position_(at::arange(tokens_, qkv.options().dtype(at::kLong))) {
    const int64_t head_dim = qkv.size(1) / (shape.heads + 2 * shape.key_value_heads);
    scale_ = query_scale / std::sqrt(static_cast<double>(head_dim));
    if (relative_bias.defined()) bias_ = relative_bias.to(at::kFloat);
    const std::vector<at::Tensor> parts =
        qkv.view({tokens_, -1, head_dim})
            .split_with_sizes({shape.heads, shape.key_value_heads, shape.key_value_heads}, 1);
    const auto for_all_heads = [&shape](const at::Tensor& kept) {
      return kept.repeat_interleave(shape.heads / shape.key_value_heads, 1).transpose(0, 1);
    };
    const int64_t versions = neighbor_window > 0 || chunk > 0 ? 3 : 1;
    for (int64_t version = 0; version < versions; ++version) {
      const auto turned = [&](const at::Tensor& heads) {
        const at::Tensor wide = heads.to(at::kFloat);
        return rotary.defined() ? Rotate(wide, rotary.select(0, version)) : wide;
      };
      queries_.push_back(turned(parts[0]).transpose(0, 1));
      keys_.push_back(for_all_heads(turned(parts[1])).transpose(1, 2));
    }
    values_ = for_all_heads(parts[2].to(at::kFloat));
  }

  // Returns the attention of the queries `rows`, [rows, heads d]. Plain attention if `calibration` is null.
  at::Tensor Contexts(Range rows, const SequenceCalibration* calibration) const {
    constexpr int64_t kTileElements = int64_t{1} << 21;  // Scores per tile; several copies exist at a time.
    const int64_t heads = values_.size(0);
    const int64_t tile = std::clamp<int64_t>(kTileElements / (tokens_ * heads), 16, 256);
    std::vector<at::Tensor> contexts;
    for (int64_t first = rows.start; first < rows.end; first += tile) {
      const at::Tensor scores = Scores(first, std::min<int64_t>(first + tile, rows.end));
      const at::Tensor weights = calibration == nullptr ? scores.softmax(2) : Calibrate(scores, *calibration);
      contexts.push_back(at::bmm(weights, values_).transpose(0, 1).flatten(1));
    }
    return at::cat(contexts);
  }

 private:
  // Returns the scaled scores of queries [first, last) as [heads, last - first, n]. A score is -inf if the query does
  // not see the key.
  at::Tensor Scores(int64_t first, int64_t last) const {
    const auto scores_of = [&](size_t query, size_t key) {
      return at::bmm(queries_[query].slice(1, first, last), keys_[key]);
    };
    const at::Tensor distance = position_.slice(0, first, last).unsqueeze(1) - position_;  // Above 0: to the left.
    at::Tensor scores = scores_of(0, 0);
    if (neighbor_window_ > 0) {
      scores = at::where(distance >= neighbor_window_, scores_of(2, 1), scores);
      scores = at::where(distance <= -neighbor_window_, scores_of(1, 2), scores);
    }
    if (chunk_ > 0) {
      const at::Tensor chunks = position_.floor_divide(chunk_);
      const at::Tensor away = chunks.slice(0, first, last).unsqueeze(1) - chunks;  // Above 0: to the left.
      scores = at::where(away == 1, scores_of(2, 0), scores);
      scores = at::where(away > 1, scores_of(1, 0), scores);
      scores = at::where(away == -1, scores_of(0, 2), scores);
      scores = at::where(away < -1, scores_of(0, 1), scores);
    }
    scores = scores * scale_;
    if (bias_.defined()) {
      const int64_t max_distance = bias_.size(1) / 2;
      scores =
          scores + bias_.index({at::indexing::Slice(), (-distance).clamp(-max_distance, max_distance) + max_distance});
    }
    return causal_ ? scores.masked_fill(distance < 0, kUnseen) : scores;
  }

  // Returns the weights of calibrated attention, [heads, rows, n]. Each basket has its own softmax: dividing the row's
  // softmax by sums over baskets would lose baskets whose weights underflow.
  at::Tensor Calibrate(const at::Tensor& scores, const SequenceCalibration& calibration) const {
    const at::Tensor plain = scores.softmax(2);
    at::Tensor in_baskets = scores, rest = plain.sum(2, /*keepdim=*/true);
    if (calibration.apart >= 0) {
      const at::Tensor apart = position_ == calibration.apart;
      in_baskets = scores.masked_fill(apart, kUnseen);
      rest = plain.masked_fill(apart, 0).sum(2, /*keepdim=*/true);
    }
    const int64_t size = calibration.basket, baskets = (tokens_ + size - 1) / size;
    in_baskets = at::constant_pad_nd(in_baskets, {0, baskets * size - tokens_}, kUnseen).unflatten(2, {baskets, size});
    const at::Tensor seen = in_baskets.amax(3, /*keepdim=*/true) > kUnseen;  // [heads, rows, baskets, 1]
    const at::Tensor own = in_baskets.softmax(3).masked_fill(seen.logical_not(), 0);
    const at::Tensor count = seen.sum(2).clamp_min(1);  // [heads, rows, 1]
    const at::Tensor even = own.flatten(2).slice(2, 0, tokens_) * (rest / count);
    const at::Tensor mixed = plain * (1 - calibration.strength) + even * calibration.strength;
    return calibration.apart >= 0 ? at::where(position_ == calibration.apart, plain, mixed) : mixed;
  }

  const bool causal_;
  const int64_t tokens_;
  const int64_t neighbor_window_;
  const int64_t chunk_;
  const at::Tensor position_;               // [n]
  double scale_ = 1;                        // Scale of the scores.
  at::Tensor bias_;                         // [heads, 2 max_distance + 1], or undefined.
  std::vector<at::Tensor> queries_, keys_;  // Per rotary table: [heads, n, d] and [heads, d, n].
  at::Tensor values_;                       // [heads, n, d]
};

int32_t ChunkOf(const PackedBatch& batch, size_t sequence) { return batch.chunk.empty() ? 0 : batch.chunk[sequence]; }

// Returns the calibration of a sequence in a layer, or null if there is none.
const SequenceCalibration* CalibrationOf(const PackedBatch& batch, size_t sequence, int layer) {
  if (batch.calibration.empty()) return nullptr;
  const SequenceCalibration& calibration = batch.calibration[sequence];
  return calibration.basket > 0 && layer >= calibration.first_layer ? &calibration : nullptr;
}

}  // namespace

bool NeedsExplicitAttention(const PackedBatch& batch) {
  return std::ranges::any_of(batch.calibration, [](const SequenceCalibration& each) { return each.basket > 0; }) ||
         std::ranges::any_of(batch.chunk, [](int32_t chunk) { return chunk > 0; });
}

void FillExplicitly(const at::Tensor& qkv, const AttentionHeads& shape, const at::Tensor& rotary,
                    const at::Tensor& relative_bias, const PackedBatch& batch, int layer, at::Tensor& context) {
  for (size_t s = 0; s < batch.query_scale.size(); ++s) {
    const SequenceCalibration* const calibration = CalibrationOf(batch, s, layer);
    const int64_t chunk = ChunkOf(batch, s);
    if (chunk == 0 && calibration == nullptr) continue;
    const int32_t first = batch.sequence_offsets[s], n = batch.sequence_offsets[s + 1] - first;
    const SequenceAttention attention(qkv.narrow(0, first, n), shape,
                                      rotary.defined() ? rotary.narrow(2, first, n) : rotary, relative_bias,
                                      batch.query_scale[s], batch.neighbor_window[s], chunk);
    const auto fill = [&](Range rows, const SequenceCalibration* own) {
      if (rows.size() == 0) return;
      context.narrow(0, first + rows.start, rows.size()).copy_(attention.Contexts(rows, own));
    };
    const Range calibrated = calibration == nullptr ? Range{} : calibration->rows;
    if (chunk > 0) {
      fill({0, calibrated.start}, nullptr);
      fill({calibrated.end, n}, nullptr);
    }
    fill(calibrated, calibration);
  }
}

}  // namespace longembed
