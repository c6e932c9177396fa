"""Attention that excludes the last tokens of a sequence as keys. It is for ColBERT's queries, which are lengthened with mask tokens that attend to the text but
that no token attends to.

neighbor_window[s] = -k means that no token of sequence s attends to its last k tokens. For batches without such a sequence, each class below equals the
attention that it wraps.
"""

from typing import Final, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.errors import ExportError
from model.export.graph import PackedAttention
from model.export.local_attention import LocalRotaryAttention, plain_rotations
from model.export.rotary_graph import RotaryAttention, for_all_heads, rotate


class UnattendedPackedAttention(PackedAttention):
    """PackedAttention with unattended tokens. Each sequence is a separate call."""

    heads: Final[int]  # Repeated, because TorchScript does not read annotations of base classes.

    def __init__(self, whole: PackedAttention):
        super().__init__(whole.heads)

    def forward(self, qkv: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        scales: List[float] = query_scale.cpu().to(torch.float32).tolist()
        windows: List[int] = neighbor_window.cpu().to(torch.int64).tolist()
        contexts: List[Tensor] = []
        for s in range(len(scales)):
            rows = qkv[offsets[s] : offsets[s + 1]]
            contexts.append(self.attend_to(rows, rows.size(0) + min(0, windows[s]), scales[s]))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend_to(self, qkv: Tensor, keys: int, scale: float) -> Tensor:
        """One sequence, qkv [n, 3H], of which the first `keys` tokens are attended to -> [n, H]."""
        rows = qkv.size(0)
        head_dim = qkv.size(1) // (3 * self.heads)
        split = qkv.view(1, rows, 3, self.heads, head_dim).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(split[0], split[1][:, :, :keys], split[2][:, :, :keys], scale=scale / float(head_dim) ** 0.5)
        return context.transpose(1, 2).reshape(rows, self.heads * head_dim)


class UnattendedRotaryAttention(nn.Module):
    """RotaryAttention with unattended tokens. Each sequence is a separate call."""

    def __init__(self, whole: RotaryAttention):
        super().__init__()
        self.whole = whole

    def forward(self, qkv: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        scales: List[float] = query_scale.cpu().to(torch.float32).tolist()
        windows: List[int] = neighbor_window.cpu().to(torch.int64).tolist()
        contexts: List[Tensor] = []
        for s in range(len(scales)):
            a, b = offsets[s], offsets[s + 1]
            if windows[s] < 0:
                contexts.append(self.attend_to(qkv[a:b], rotary[0, :, a:b], b - a + windows[s], scales[s]))
            else:
                alone = torch.tensor([0, b - a], dtype=torch.int32)
                contexts.append(self.whole(qkv[a:b], rotary[:, :, a:b], query_scale[s : s + 1], neighbor_window[s : s + 1], alone))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend_to(self, qkv: Tensor, table: Tensor, keys: int, scale: float) -> Tensor:
        """One sequence, qkv [n, (heads + 2 key_value_heads) d], of which the first `keys` tokens are attended to -> [n, heads * d]."""
        heads, shared = self.whole.heads, self.whole.key_value_heads
        head_dim = qkv.size(1) // (heads + 2 * shared)
        query, key, value = qkv.view(qkv.size(0), -1, head_dim).split([heads, shared, shared], dim=1)
        q = rotate(query, table).transpose(0, 1)
        k = for_all_heads(rotate(key, table), heads).transpose(0, 1)
        v = for_all_heads(value, heads).transpose(0, 1)
        context = F.scaled_dot_product_attention(q, k[:, :keys], v[:, :keys], scale=scale / float(head_dim) ** 0.5)
        return context.transpose(0, 1).reshape(qkv.size(0), -1)


class UnattendedLocalAttention(nn.Module):
    """LocalRotaryAttention with unattended tokens. Each sequence is a separate call. An unattended token keeps its position, and attends to the tokens within
    the window around it."""

    def __init__(self, whole: LocalRotaryAttention):
        super().__init__()
        self.whole = whole

    def forward(self, qkv: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        windows: List[int] = neighbor_window.cpu().to(torch.int64).tolist()
        contexts: List[Tensor] = []
        for s in range(len(windows)):
            a, b = offsets[s], offsets[s + 1]
            if windows[s] < 0:
                contexts.append(self.attend_to(qkv[a:b], b - a + windows[s]))
            else:
                alone = torch.tensor([0, b - a], dtype=torch.int32)
                contexts.append(self.whole(qkv[a:b], rotary[:, :, a:b], query_scale[s : s + 1], neighbor_window[s : s + 1], alone))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend_to(self, qkv: Tensor, keys: int) -> Tensor:
        """One sequence as long as a query, of which the first `keys` tokens are attended to -> [n, heads * d]."""
        heads, shared = self.whole.heads, self.whole.key_value_heads
        n = qkv.size(0)
        head_dim = qkv.size(1) // (heads + 2 * shared)
        query, key, value = qkv.view(n, -1, head_dim).split([heads, shared, shared], dim=1)
        table = plain_rotations(n, head_dim, self.whole.rotary_base, qkv.device)
        q = rotate(query, table).transpose(0, 1)
        k = for_all_heads(rotate(key, table), heads).transpose(0, 1)
        v = for_all_heads(value, heads).transpose(0, 1)
        position = torch.arange(n, device=qkv.device)
        near = (position.unsqueeze(1) - position[:keys]).abs() <= self.whole.window
        context = F.scaled_dot_product_attention(q, k[:, :keys], v[:, :keys], attn_mask=near)
        return context.transpose(0, 1).reshape(n, -1)


_BY_CLASS = {PackedAttention: UnattendedPackedAttention, RotaryAttention: UnattendedRotaryAttention, LocalRotaryAttention: UnattendedLocalAttention}


def attach(graph: nn.Module, length: int) -> None:
    """Replaces every layer's attention by one that supports unattended tokens, for queries of `length` tokens."""
    for layer in graph.layers:
        made_of = type(layer.attention)
        causal = isinstance(layer.attention, RotaryAttention) and layer.attention.causal
        if made_of not in _BY_CLASS or causal:
            kind = "causal attention" if causal else made_of.__name__
            raise ExportError(f"queries are lengthened by tokens that nothing attends to, which is not exported for {kind}; choose another checkpoint.")
        if isinstance(layer.attention, LocalRotaryAttention) and length > layer.attention.window + 1:
            raise ExportError(
                f"queries of {length} tokens are longer than the window of local layers ({layer.attention.window} to either side), beyond which a mask token sees no text; "
                "choose another checkpoint."
            )
        layer.attention = _BY_CLASS[made_of](layer.attention)
