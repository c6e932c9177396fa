#include "model/encoder/torch_attention.h"

#include <ATen/ATen.h>
#include <ATen/ops/_flash_attention_forward_ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace longembed {
namespace {

int64_t Longest(const PackedBatch& batch) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    longest = std::max<int64_t>(longest, batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]);
  }
  return longest;
}

at::Tensor Flash(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& offsets,
                 int64_t longest, bool causal, double scale) {
  return std::get<0>(at::_ops::_flash_attention_forward::call(query, key, value, offsets, offsets, longest, longest,
                                                              0.0, causal, false, scale, std::nullopt, std::nullopt,
                                                              std::nullopt, std::nullopt));
}

// Computes attention in one call over [sequences, heads, longest, d]. Rows beyond the end of a sequence repeat its last
// token and are masked.
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
  // Key and value heads are repeated for grouped-query attention: with a mask, LibTorch's kernels that support it
  // directly store all scores.
  const int64_t group = query.size(1) / key.size(1);
  const auto for_all_heads = [group](const at::Tensor& kept) {
    return group == 1 ? kept : kept.repeat_interleave(group, 1);
  };
  const at::Tensor context_heads = at::scaled_dot_product_attention(pad(query), pad(for_all_heads(key)),
                                                                    pad(for_all_heads(value)), mask, 0.0, false, scale);
  return context_heads.transpose(1, 2).flatten(0, 1).index_select(0, valid.flatten().nonzero().flatten());
}

// Returns whether one padded call at most doubles the batch and its mask is not too large.
bool PaddingFits(const PackedBatch& batch, int64_t longest, bool causal) {
  constexpr int64_t kMaxMask = int64_t{1} << 26;
  const auto sequences = static_cast<int64_t>(batch.query_scale.size());
  const auto tokens = static_cast<int64_t>(batch.tokens.size());
  const bool mask_fits = !causal || sequences * longest * longest <= kMaxMask;
  return sequences >= 2 && sequences * longest <= 2 * tokens && mask_fits;
}

}  // namespace

at::Tensor Rotate(const at::Tensor& heads, const at::Tensor& table) {
  const int64_t half = table.size(2);
  const at::Tensor cos = table.select(0, 0).unsqueeze(1), sin = table.select(0, 1).unsqueeze(1);
  const at::Tensor first = heads.narrow(2, 0, half).to(at::kFloat), second = heads.narrow(2, half, half).to(at::kFloat);
  const at::Tensor rest = heads.narrow(2, 2 * half, heads.size(2) - 2 * half);
  return at::cat({(first * cos - second * sin).to(heads.scalar_type()),
                  (second * cos + first * sin).to(heads.scalar_type()), rest},
                 2);
}

std::optional<at::Tensor> AttendPacked(const at::Tensor& qkv, const AttentionHeads& shape,
                                       const TorchAttentionBatch& context, bool may_write) {
  const PackedBatch& batch = context.batch;
  if (std::ranges::any_of(batch.neighbor_window, [](int32_t window) { return window > 0; })) return std::nullopt;
  const int64_t head_dim = qkv.size(1) / (shape.heads + 2 * shape.key_value_heads);
  const int64_t longest = Longest(batch);
  const bool flash = context.flash && head_dim % 8 == 0 && head_dim <= 256;
  if (!flash && !PaddingFits(batch, longest, shape.causal)) return std::nullopt;

  const bool rotates = context.rotary.defined(), fused = rotates && context.fused != nullptr;
  const at::Tensor own = fused && !may_write ? qkv.clone() : qkv;
  if (fused) {
    context.fused->Rotate(own, context.rotary.select(0, 0), context.query_scale, shape.heads,
                          shape.heads + shape.key_value_heads, head_dim);
  }
  const std::vector<at::Tensor> parts =
      own.view({own.size(0), -1, head_dim})
          .split_with_sizes({shape.heads, shape.key_value_heads, shape.key_value_heads}, 1);
  at::Tensor query = parts[0], key = parts[1];
  if (rotates && !fused) {
    query = Rotate(query, context.rotary.select(0, 0));
    key = Rotate(key, context.rotary.select(0, 0));
  }
  // If the scales differ, they multiply the queries. A common scale is passed to the kernel, so that a scale of 1
  // changes no bit.
  double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  if (!context.query_scale.defined()) {
    scale *= batch.query_scale.front();
  } else if (!fused) {
    query = (query.to(at::kFloat) * context.query_scale).to(query.scalar_type());
  }
  const at::Tensor attended = flash
                                  ? Flash(query, key, parts[2], context.sequence_offsets, longest, shape.causal, scale)
                                  : AttendPadded(query, key, parts[2], shape.causal, scale, context);
  return attended.reshape({qkv.size(0), -1});
}

bool RunsFlashAttention(c10::Device device, at::ScalarType type) {
  if (!device.is_cuda() || (type != at::kHalf && type != at::kBFloat16)) return false;
  try {
    const at::Tensor heads = at::zeros({8, 1, 32}, at::TensorOptions(device).dtype(type));
    const at::Tensor offsets = at::tensor({0, 8}, at::kInt).to(device);
    return Flash(heads, heads, heads, offsets, 8, false, 1.0).cpu().sum().item<float>() == 0;
  } catch (const std::exception&) {
    return false;  // For example, a GPU before Ampere.
  }
}

at::Tensor QueryScaleRows(const PackedBatch& batch, c10::Device device) {
  const bool equal = std::ranges::all_of(batch.query_scale, [&](float s) { return s == batch.query_scale.front(); });
  if (equal) return {};
  std::vector<float> rows;
  for (size_t s = 0; s < batch.query_scale.size(); ++s) {
    rows.insert(rows.end(), static_cast<size_t>(batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]),
                batch.query_scale[s]);
  }
  return at::tensor(rows).to(device).view({-1, 1, 1});
}

}  // namespace longembed
