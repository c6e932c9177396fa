"""The parts that the graphs of all architectures share. Everything here is compiled by torch.jit.script.

Each part is a module that keeps its name in the saved file, so that a loader can call the parts one by one, or replace a part by a kernel for its device.
Letters in shapes: T tokens of a packed batch, S sequences, P spans, H hidden size.
"""

from typing import Final, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def frozen(tensor: Tensor) -> nn.Parameter:
    """Returns a weight that is never trained. It is float32 in a graph that runs, and has the checkpoint's own precision in a graph that archive.py writes."""
    return nn.Parameter(tensor.detach().to(torch.float32).contiguous(), requires_grad=False)


class Linear(nn.Module):
    """[T, in] -> [T, out]."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight = frozen(weight)
        self.bias = frozen(bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight, self.bias)


class LinearNoBias(nn.Module):
    """[T, in] -> [T, out]."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = frozen(weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight)


class LinearGelu(nn.Module):
    """[T, in] -> [T, out], through the exact (erf) GELU."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight = frozen(weight)
        self.bias = frozen(bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(F.linear(hidden, self.weight, self.bias))


class ResidualNorm(nn.Module):
    """LayerNorm(update + residual): [T, H], [T, H] -> [T, H]."""

    epsilon: Final[float]

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float):
        super().__init__()
        self.weight = frozen(weight)
        self.bias = frozen(bias)
        self.epsilon = epsilon

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        return F.layer_norm(update + residual, self.weight.shape, self.weight, self.bias, self.epsilon)


class LayerNorm(nn.Module):
    """[T, H] -> [T, H]. For a norm without a bias, `bias` is zeros."""

    epsilon: Final[float]

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float):
        super().__init__()
        self.weight = frozen(weight)
        self.bias = frozen(bias)
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


class PackedAttention(nn.Module):
    """Bidirectional attention within each sequence of a packed batch.

    qkv [T, 3H] holds query, key and value side by side, each split into heads. Logits of sequence s are multiplied by query_scale[s] in addition to the usual
    1/sqrt(head_dim). This is part of the kernel's scale, so a scale of 1 changes no bit. Neighboring sequences of equal length and scale share one call. No
    buffer grows with the square of a sequence's length, because the flash kernels accept the views below.
    """

    heads: Final[int]

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def forward(self, qkv: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        offsets: List[int] = sequence_offsets.cpu().to(torch.int64).tolist()
        scales: List[float] = query_scale.cpu().to(torch.float32).tolist()
        contexts: List[Tensor] = []
        first = 0
        while first < len(scales):
            length = offsets[first + 1] - offsets[first]
            end = first + 1
            while end < len(scales) and offsets[end + 1] - offsets[end] == length and scales[end] == scales[first]:
                end += 1
            contexts.append(self.attend(qkv[offsets[first] : offsets[end]], end - first, scales[first]))
            first = end
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def attend(self, qkv: Tensor, sequences: int, scale: float) -> Tensor:
        """qkv [sequences * n, 3H] of sequences of equal length -> [sequences * n, H]."""
        rows = qkv.size(0)
        head_dim = qkv.size(1) // (3 * self.heads)
        split = qkv.view(sequences, rows // sequences, 3, self.heads, head_dim).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(split[0], split[1], split[2], scale=scale / float(head_dim) ** 0.5)
        return context.transpose(1, 2).reshape(rows, self.heads * head_dim)


class SpanMean(nn.Module):
    """Averages token vectors over spans: hidden [T, H], spans int32 [P, 2] -> [P, H].

    A span is [start, end) in tokens of the packed batch, and never empty. Each span is summed on its own: a difference of running sums would lose precision and
    depend on other tokens. For mean pooling, the span is the whole sequence; for CLS pooling, its first token.
    """

    def forward(self, hidden: Tensor, spans: Tensor) -> Tensor:
        starts = spans[:, 0]
        if bool((spans[:, 1] - starts == 1).all()):  # For token vectors, of which there may be thousands.
            return hidden.index_select(0, starts.to(hidden.device))
        bounds: List[int] = spans.cpu().to(torch.int64).flatten().tolist()
        means: List[Tensor] = []
        for i in range(len(bounds) // 2):
            means.append(hidden[bounds[2 * i] : bounds[2 * i + 1]].mean(dim=0))
        return torch.stack(means)
