#include "model/encoder/torch_attention.h"

#include <ATen/ATen.h>
#include <ATen/ops/_flash_attention_forward_ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace longembed {
namespace {

// [T, heads, d] by float32 [2, T, R / 2], in float32; components from R on stay as they are.
at::Tensor Rotate(const at::Tensor& heads, const at::Tensor& table) {
  const int64_t half = table.size(2);
  const at::Tensor cos = table.select(0, 0).unsqueeze(1), sin = table.select(0, 1).unsqueeze(1);
  const at::Tensor first = heads.narrow(2, 0, half).to(at::kFloat), second = heads.narrow(2, half, half).to(at::kFloat);
  const at::Tensor rest = heads.narrow(2, 2 * half, heads.size(2) - 2 * half);
  return at::cat({(first * cos - second * sin).to(heads.scalar_type()),
                  (second * cos + first * sin).to(heads.scalar_type()), rest},
                 2);
}

int64_t Longest(const PackedBatch& batch) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    longest = std::max<int64_t>(longest, batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]);
  }
  return longest;
}

// Scales of sequences that differ go into the queries; an equal one into the kernel, where 1 changes no bit.
at::Tensor ScaleQueries(const at::Tensor& query, const PackedBatch& batch, double* kernel_scale) {
  const bool equal = std::ranges::all_of(batch.query_scale, [&](float s) { return s == batch.query_scale.front(); });
  if (equal) {
    *kernel_scale *= batch.query_scale.front();
    return query;
  }
  std::vector<float> scales;
  for (size_t s = 0; s < batch.query_scale.size(); ++s) {
    scales.insert(scales.end(), static_cast<size_t>(batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]),
                  batch.query_scale[s]);
  }
  const at::Tensor rows = at::tensor(scales).to(query.device()).view({-1, 1, 1});
  return (query.to(at::kFloat) * rows).to(query.scalar_type());
}

bool FlashTakes(const at::Tensor& query) {
  const bool narrow = query.scalar_type() == at::kHalf || query.scalar_type() == at::kBFloat16;
  return query.is_cuda() && narrow && query.size(2) % 8 == 0 && query.size(2) <= 256;
}

// One call over [sequences, heads, longest, d]; rows beyond a sequence's end repeat its last token and are masked.
at::Tensor AttendPadded(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, bool causal,
                        double scale, const TorchAttentionBatch& context) {
  const int64_t longest = Longest(context.batch);
  const at::Tensor offsets = context.sequence_offsets.to(at::kLong);
  const at::Tensor starts = offsets.slice(0, 0, -1).unsqueeze(1), lengths = offsets.diff().unsqueeze(1);
  const at::Tensor place = at::arange(longest, offsets.options()).unsqueeze(0);
  const at::Tensor valid = place < lengths;                          // [S, longest]
  const at::Tensor rows = starts + at::minimum(place, lengths - 1);  // [S, longest]
  at::Tensor mask = valid.unsqueeze(1).unsqueeze(2);                 // [S, 1, 1, longest]
  if (causal) mask = mask & (place <= place.view({-1, 1}));
  const auto pad = [&](const at::Tensor& heads) {
    return heads.index_select(0, rows.flatten()).unflatten(0, {rows.size(0), longest}).transpose(1, 2);
  };
  const at::Tensor context_heads =
      at::scaled_dot_product_attention(pad(query), pad(key), pad(value), mask, 0.0, false, scale,
                                       /*enable_gqa=*/query.size(1) != key.size(1));
  return context_heads.transpose(1, 2).flatten(0, 1).index_select(0, valid.flatten().nonzero().flatten());
}

}  // namespace

std::optional<at::Tensor> AttendPacked(const at::Tensor& qkv, const TorchAttentionShape& shape,
                                       const TorchAttentionBatch& context) {
  const PackedBatch& batch = context.batch;
  if (std::ranges::any_of(batch.neighbour_window, [](int32_t window) { return window > 0; })) return std::nullopt;
  const int64_t head_dim = qkv.size(1) / (shape.heads + 2 * shape.key_value_heads);
  const std::vector<at::Tensor> parts =
      qkv.view({qkv.size(0), -1, head_dim})
          .split_with_sizes({shape.heads, shape.key_value_heads, shape.key_value_heads}, 1);
  at::Tensor query = parts[0], key = parts[1];
  if (context.rotary.defined()) {
    query = Rotate(query, context.rotary.select(0, 0));
    key = Rotate(key, context.rotary.select(0, 0));
  }
  double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  query = ScaleQueries(query, batch, &scale);
  const int64_t longest = Longest(batch);
  if (FlashTakes(query)) {
    const at::Tensor context_heads = std::get<0>(at::_ops::_flash_attention_forward::call(
        query, key, parts[2], context.sequence_offsets, context.sequence_offsets, longest, longest, 0.0, shape.causal,
        false, scale, std::nullopt, std::nullopt, std::nullopt, std::nullopt));
    return context_heads.reshape({qkv.size(0), -1});
  }
  const auto sequences = static_cast<int64_t>(batch.query_scale.size());
  if (sequences * longest > 2 * qkv.size(0)) return std::nullopt;
  return AttendPadded(query, key, parts[2], shape.causal, scale, context).reshape({qkv.size(0), -1});
}

}  // namespace longembed
