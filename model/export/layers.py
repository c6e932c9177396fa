"""Layers that several rotary architectures share, composed of the parts in graph.py and rotary_graph.py, and functions that make parts from a checkpoint's
tensors.

The signature of every forward() is hidden [T, H], rotary, query_scale float32 [S], neighbor_window int32 [S], sequence_offsets int32 [S + 1] -> [T, H].
"""

import torch
from torch import Tensor, nn

from model.export.errors import ExportError
from model.export.graph import LayerNorm, Linear, LinearNoBias
from model.export.weights import Weights


def linear(weights: Weights, *names: str) -> nn.Module:
    """Returns one layer for several linear layers with the same input, with their outputs side by side. It has biases if the checkpoint has them."""
    with_bias = [name for name in names if name + ".bias" in weights]
    if not with_bias:
        return LinearNoBias(torch.cat([weights[name + ".weight"] for name in names]))
    if lacking := sorted(set(names) - set(with_bias)):
        raise ExportError(f"the checkpoint has a bias {with_bias[0]}.bias but none for {lacking[0]}, which no known model has; choose another checkpoint.")
    return Linear(*(torch.cat([weights[f"{name}.{kind}"] for name in names]) for kind in ("weight", "bias")))


def layer_norm(weights: Weights, name: str, epsilon: float) -> LayerNorm:
    weight = weights[name + ".weight"]
    return LayerNorm(weight, weights[name + ".bias"] if name + ".bias" in weights else torch.zeros_like(weight), epsilon)


class PartsLayer(nn.Module):
    """A layer that consists of parts, which forward() uses by name."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class PreNormLayer(PartsLayer):
    """Norms before attention and before a gated feed-forward layer: the Llama family, ModernBERT."""

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(self.attention_norm(hidden)), rotary, query_scale, neighbor_window, sequence_offsets)
        hidden = hidden + self.attention_output(context)
        return hidden + self.output(self.activation(self.gate_and_value(self.output_norm(hidden))))


class HeadNormLayer(PartsLayer):
    """PreNormLayer with norms of query and key heads: Qwen3."""

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        qkv = self.head_norm(self.qkv(self.attention_norm(hidden)))
        hidden = hidden + self.attention_output(self.attention(qkv, rotary, query_scale, neighbor_window, sequence_offsets))
        return hidden + self.output(self.activation(self.gate_and_value(self.output_norm(hidden))))


class SandwichNormLayer(PartsLayer):
    """HeadNormLayer with norms of the attention and feed-forward outputs before they are added: Gemma 3."""

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        qkv = self.head_norm(self.qkv(self.attention_norm(hidden)))
        context = self.attention(qkv, rotary, query_scale, neighbor_window, sequence_offsets)
        hidden = hidden + self.attention_output_norm(self.attention_output(context))
        inner = self.activation(self.gate_and_value(self.feed_forward_norm(hidden)))
        return hidden + self.output_norm(self.output(inner))


class GatedPostNormLayer(PartsLayer):
    """Norms after attention and after a gated feed-forward layer, each of the sum of the layer's input and output: nomic-bert, gte."""

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(hidden), rotary, query_scale, neighbor_window, sequence_offsets)
        hidden = self.attention_norm(self.attention_output(context), hidden)
        return self.output_norm(self.output(self.activation(self.gate_and_value(hidden))), hidden)
