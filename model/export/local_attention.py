"""Attention within a local window, for the local layers of ModernBERT and Gemma 3. Compiled by torch.jit.script, like rotary_graph.py."""

from typing import Final, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.rotary_graph import for_all_heads, rotate

BLOCK = 256  # Queries of one call. Their keys are at most BLOCK + 2 * window.


class LocalRotaryAttention(nn.Module):
    """Bidirectional attention of each token to tokens at most `window` away, with rotary positions of a separate base.

    qkv is as in RotaryAttention. Positions are plain and come from sequence_offsets. A context extension is for distances that a layer was not trained on, and
    a local layer never sees one. Therefore `rotary`, `query_scale` and `neighbor_window`, which are for the global layers, are not used here. Memory and time
    grow linearly with the sequence's length.
    """

    heads: Final[int]
    key_value_heads: Final[int]
    window: Final[int]
    rotary_base: Final[float]
    block: Final[int]

    def __init__(self, heads: int, key_value_heads: int, window: int, rotary_base: float, block: int = BLOCK):
        super().__init__()
        self.heads = heads
        self.key_value_heads = key_value_heads
        self.window = window
        self.rotary_base = rotary_base
        self.block = block

    def forward(self, qkv: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        sequences = len(offsets) - 1
        longest = 0
        for s in range(sequences):
            longest = max(longest, offsets[s + 1] - offsets[s])
        head_dim = qkv.size(1) // (self.heads + 2 * self.key_value_heads)
        table = plain_rotations(longest, head_dim, self.rotary_base, qkv.device)
        contexts: List[Tensor] = []
        first = 0
        while first < sequences:
            length = offsets[first + 1] - offsets[first]
            end = first + 1
            while end < sequences and offsets[end + 1] - offsets[end] == length:
                end += 1
            contexts.append(self.attend(qkv[offsets[first] : offsets[end]].view((end - first) * length, -1, head_dim), end - first, table[:, :length]))
            first = end
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend(self, heads: Tensor, sequences: int, table: Tensor) -> Tensor:
        """[sequences * n, heads + 2 key_value_heads, d] of sequences of equal length, table [2, n, d / 2] -> [sequences * n, heads * d]."""
        rows = heads.size(0)
        n = rows // sequences
        rotated = rotate(heads[:, : self.heads + self.key_value_heads], table.repeat(1, sequences, 1))
        q = rotated[:, : self.heads].unflatten(0, [sequences, n]).transpose(1, 2)
        k = for_all_heads(rotated[:, self.heads :], self.heads).unflatten(0, [sequences, n]).transpose(1, 2)
        v = for_all_heads(heads[:, self.heads + self.key_value_heads :], self.heads).unflatten(0, [sequences, n]).transpose(1, 2)
        if n <= self.window + 1:
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, -1)
        position = torch.arange(n, device=heads.device)
        context = torch.empty_like(q)
        for start in range(0, n, self.block):
            end = min(start + self.block, n)
            left, right = max(0, start - self.window), min(n, end + self.window)
            near = (position[start:end].unsqueeze(1) - position[left:right]).abs() <= self.window
            context[:, :, start:end] = F.scaled_dot_product_attention(q[:, :, start:end], k[:, :, left:right], v[:, :, left:right], attn_mask=near)
        return context.transpose(1, 2).reshape(rows, -1)


def plain_rotations(rows: int, dim: int, base: float, device: torch.device) -> Tensor:
    """Returns cos and sin for positions 0 .. rows - 1: float32 [2, rows, dim / 2], computed in float64."""
    frequencies = torch.pow(base, torch.arange(0, dim, 2, dtype=torch.float64, device=device) / -dim)
    angles = torch.outer(torch.arange(rows, dtype=torch.float64, device=device), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).to(torch.float32)
