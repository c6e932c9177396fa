"""The parts of graphs with rotary positions, which have signature rope-v1. Compiled by torch.jit.script, like graph.py; letters in shapes are the same.

`rotary` is float32 [1 or 3, 2, T, R / 2]: tables of cos and sin for every token, where R components of a head are rotated. The first table is the token's plain
rotation. If there are three, the second and third are SelfExtend's, for positions i // g and i // g + w - w // g. Only sequences with a neighbor window w > 0
use them.
"""

from typing import Final, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.graph import SpanMean, frozen


class WordEmbeddings(nn.Module):
    """tokens int32 [T] -> [T, H]."""

    def __init__(self, word: Tensor):
        super().__init__()
        self.word = frozen(word)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.word)


class NormedWordEmbeddings(nn.Module):
    """tokens int32 [T] -> [T, H], through LayerNorm."""

    epsilon: Final[float]

    def __init__(self, word: Tensor, weight: Tensor, bias: Tensor, epsilon: float):
        super().__init__()
        self.word = frozen(word)
        self.weight = frozen(weight)
        self.bias = frozen(bias)
        self.epsilon = epsilon

    def forward(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(F.embedding(tokens, self.word), self.weight.shape, self.weight, self.bias, self.epsilon)


class RmsNorm(nn.Module):
    """[T, H] -> [T, H], with statistics in float32."""

    epsilon: Final[float]

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight = frozen(weight)
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.to(torch.float32)
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.epsilon)).to(hidden.dtype)


class SwiGlu(nn.Module):
    """gate and value side by side [T, 2F] -> silu(gate) * value [T, F]."""

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=1)
        return F.silu(gate) * value


class GeGlu(nn.Module):
    """gate and value side by side [T, 2F] -> gelu(gate) * value [T, F], with the exact (erf) GELU."""

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=1)
        return F.gelu(gate) * value


class GeGluTanh(nn.Module):
    """gate and value side by side [T, 2F] -> gelu(gate) * value [T, F], with the GELU approximated by tanh."""

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=1)
        return F.gelu(gate, approximate="tanh") * value


class HeadNorm(nn.Module):
    """RMS norms of query and key heads, which Qwen3 and Gemma 3 have before the rotation: qkv [T, (heads + 2 key_value_heads) d] -> the same shape.

    All query heads share the weight `query` [d], and all key heads share `key` [d]. Values are not changed. Statistics are float32.
    """

    heads: Final[int]
    key_value_heads: Final[int]
    epsilon: Final[float]

    def __init__(self, heads: int, key_value_heads: int, query: Tensor, key: Tensor, epsilon: float):
        super().__init__()
        self.heads = heads
        self.key_value_heads = key_value_heads
        self.query = frozen(query)
        self.key = frozen(key)
        self.epsilon = epsilon

    def forward(self, qkv: Tensor) -> Tensor:
        split = qkv.view(qkv.size(0), -1, self.query.size(0)).split([self.heads, self.key_value_heads, self.key_value_heads], dim=1)
        return torch.cat([self.norm(split[0], self.query), self.norm(split[1], self.key), split[2]], dim=1).flatten(1)

    def norm(self, heads: Tensor, weight: Tensor) -> Tensor:
        wide = heads.to(torch.float32)
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.epsilon)).to(heads.dtype)


class NormedSpanMean(nn.Module):
    """The norm after the last layer (RmsNorm or LayerNorm), then the mean over spans: hidden [T, H], spans int32 [P, 2] -> [P, H]."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.mean = SpanMean()

    def forward(self, hidden: Tensor, spans: Tensor) -> Tensor:
        return self.mean(self.norm(hidden), spans)


class RotaryAttention(nn.Module):
    """Attention with rotary positions within each sequence of a packed batch, with SelfExtend for sequences that have a neighbor window.

    qkv [T, (heads + 2 key_value_heads) d] holds query, key and value side by side, each split into heads. Component j of a head is rotated with component j +
    R/2 (as in NeoX and Llama; in RoFormer, pairs are neighbors). Logits of sequence s are multiplied by query_scale[s] in addition to 1/sqrt(d). Neighboring
    plain sequences of equal length and scale share one call. No buffer grows with the square of a sequence's length: SelfExtend processes tiles of queries,
    each with one softmax over its regions.
    """

    heads: Final[int]
    key_value_heads: Final[int]
    causal: Final[bool]
    tile_elements: Final[int]

    def __init__(self, heads: int, key_value_heads: int, causal: bool, tile_elements: int = 1 << 22):
        super().__init__()
        self.heads = heads
        self.key_value_heads = key_value_heads
        self.causal = causal
        self.tile_elements = tile_elements  # Scores per tile: 16 MiB in float32 and a few copies, or more if 16 rows have more.

    def forward(self, qkv: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        scales: List[float] = query_scale.cpu().to(torch.float32).tolist()
        windows: List[int] = neighbor_window.cpu().to(torch.int64).tolist()
        head_dim = qkv.size(1) // (self.heads + 2 * self.key_value_heads)
        query, key, value = qkv.view(qkv.size(0), -1, head_dim).split([self.heads, self.key_value_heads, self.key_value_heads], dim=1)
        contexts: List[Tensor] = []
        first = 0
        while first < len(scales):
            length = offsets[first + 1] - offsets[first]
            end = first + 1
            while windows[first] == 0 and end < len(scales) and windows[end] == 0 and offsets[end + 1] - offsets[end] == length and scales[end] == scales[first]:
                end += 1
            a, b = offsets[first], offsets[end]
            q, k, v, tables = query[a:b], key[a:b], value[a:b], rotary[:, :, a:b]
            scale = scales[first] / float(head_dim) ** 0.5
            if windows[first] == 0:
                contexts.append(self.attend(rotate(q, tables[0]), rotate(k, tables[0]), v, end - first, scale))
            else:
                contexts.append(self.attend_extended(q, k, v, tables, windows[first], scale))
            first = end
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, sequences: int, scale: float) -> Tensor:
        """[sequences * n, heads, d] of sequences of equal length -> [sequences * n, heads * d]."""
        rows = query.size(0)
        q = query.unflatten(0, [sequences, rows // sequences]).transpose(1, 2)
        k = for_all_heads(key, self.heads).unflatten(0, [sequences, rows // sequences]).transpose(1, 2)
        v = for_all_heads(value, self.heads).unflatten(0, [sequences, rows // sequences]).transpose(1, 2)
        context = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)
        return context.transpose(1, 2).reshape(rows, -1)

    def attend_extended(self, query: Tensor, key: Tensor, value: Tensor, tables: Tensor, window: int, scale: float) -> Tensor:
        """One sequence [n, heads, d] -> [n, heads * d]. If a key is fewer than `window` tokens away from the query, both have plain rotations. For a key
        farther to the left, the query is shifted and the key grouped. For a key farther to the right, the query is grouped and the key shifted."""
        q, q_grouped, q_shifted = rotate(query, tables[0]), rotate(query, tables[1]), rotate(query, tables[2])
        k, k_grouped, k_shifted = rotate(key, tables[0]), rotate(key, tables[1]), rotate(key, tables[2])
        q, q_grouped, q_shifted = q.transpose(0, 1), q_grouped.transpose(0, 1), q_shifted.transpose(0, 1)
        k = for_all_heads(k, self.heads).transpose(0, 1)
        k_grouped = for_all_heads(k_grouped, self.heads).transpose(0, 1)
        k_shifted = for_all_heads(k_shifted, self.heads).transpose(0, 1)
        v = for_all_heads(value, self.heads).transpose(0, 1)
        n = query.size(0)
        position = torch.arange(n, device=query.device)
        tile = max(16, min(256, self.tile_elements // (n * self.heads)))
        # Allocated once: results of tiles that are kept would lie between the tiles' large temporary buffers and fragment the heap.
        contexts = torch.empty_like(q)
        for start in range(0, n, tile):
            end = min(start + tile, n)
            i = position[start:end].unsqueeze(1)
            near, near_end = max(0, start - window + 1), end if self.causal else min(n, end + window - 1)
            distance = i - position[near:near_end]
            far = distance >= window
            far = far | (distance < 0) if self.causal else far | (distance <= -window)
            scores = [scores_of(q[:, start:end], k[:, near:near_end], far)]
            regions = [(near, near_end)]
            left = max(0, end - window)
            if left > 0:
                scores.append(scores_of(q_shifted[:, start:end], k_grouped[:, :left], i - position[:left] < window))
                regions.append((0, left))
            right = start + window
            if right < n and not self.causal:
                scores.append(scores_of(q_grouped[:, start:end], k_shifted[:, right:], position[right:] - i < window))
                regions.append((right, n))
            weights = torch.softmax(torch.cat(scores, dim=2).to(torch.float32).mul_(scale), dim=2).to(v.dtype)
            context = torch.zeros_like(q[:, start:end])
            column = 0
            for first, last in regions:
                context = torch.baddbmm(context, weights[:, :, column : column + last - first], v[:, first:last])
                column += last - first
            contexts[:, start:end] = context
        return contexts.transpose(0, 1).reshape(n, -1)


def for_all_heads(kept: Tensor, heads: int) -> Tensor:
    """Grouped-query attention: [rows, key_value_heads, d] -> [rows, heads, d], each repeated for the queries that share it."""
    return kept if heads == kept.size(1) else kept.repeat_interleave(heads // kept.size(1), dim=1)


def scores_of(query: Tensor, key: Tensor, masked: Tensor) -> Tensor:
    """[heads, a, d], [heads, b, d], bool [a, b] -> [heads, a, b]."""
    return torch.bmm(query, key.transpose(1, 2)).masked_fill_(masked, float("-inf"))


def rotate(heads: Tensor, table: Tensor) -> Tensor:
    """Rotates heads [n, heads, d] by table, float32 [2, n, R / 2]. Computes in float32. Components from R on are not rotated."""
    half = table.size(2)
    cos, sin = table[0].unsqueeze(1), table[1].unsqueeze(1)
    first, second = heads[:, :, :half].to(torch.float32), heads[:, :, half : 2 * half].to(torch.float32)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=2).to(heads.dtype)
    return rotated if 2 * half == heads.size(2) else torch.cat([rotated, heads[:, :, 2 * half :]], dim=2)


class RotaryEncoder(nn.Module):
    """A whole graph of signature rope-v1. Instead of forward, a loader may call embeddings, each layer and pooling separately."""

    def __init__(self, embeddings: nn.Module, layers: List[nn.Module], pooling: nn.Module):
        super().__init__()
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)
        self.pooling = pooling

    def forward(
        self, tokens: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor, spans: Tensor
    ) -> Tensor:
        hidden = self.embeddings(tokens)
        for layer in self.layers:
            hidden = layer(hidden, rotary, query_scale, neighbor_window, sequence_offsets)
        return self.pooling(hidden, spans)
