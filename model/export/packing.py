"""Packs batches for an exported graph."""

from typing import Callable

import torch
from torch import Tensor, nn


def table_rows(lengths: list[int], stride: int = 1) -> Tensor:
    """Returns the plain positions of a packed batch: rows of the position table, for sequences within the trained window."""
    return torch.cat([torch.arange(n, dtype=torch.float32) * stride for n in lengths])


def rotations(lengths: list[int], rotary_dim: int, rotary_base: float, rotary_factor: float = 1.0, rotary_scaling: dict | None = None) -> Tensor:
    """Returns the plain rotations of a packed batch: float32 [1, 2, T, rotary_dim / 2]. `rotary_scaling` is as in the manifest."""
    scaling = rotary_scaling or {}
    frequencies = rotary_base ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim) / rotary_factor

    def angles(n: int) -> Tensor:
        factors = scaling.get("long_factors" if n > scaling.get("long_from", n) else "factors", [1.0])
        return torch.outer(torch.arange(n, dtype=torch.float64), frequencies / torch.tensor(factors, dtype=torch.float64))

    turned = torch.cat([angles(n) for n in lengths])
    return (scaling.get("amplitude", 1.0) * torch.stack([turned.cos(), turned.sin()])).to(torch.float32).unsqueeze(0)


def positions_of(content: dict) -> Callable[[list[int]], Tensor]:
    """Returns a function that gives the plain positions of sequences with given lengths, in the form that the manifest's graph needs."""
    if content["family"] == "ROPE":
        scaled = content.get("rotary_factor", 1.0), content.get("rotary_scaling")
        return lambda lengths: rotations(lengths, content["rotary_dim"], content["rotary_base"], *scaled)
    return lambda lengths: table_rows(lengths, content.get("position_stride", 1))


def encode(graph: nn.Module, sequences: list[list[int]], pooling: str, positions: Callable[[list[int]], Tensor] = table_rows) -> Tensor:
    """Encodes one batch without extensions: [number of sequences, H], not normalized. Shows how a batch is packed."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    ends = lengths.cumsum(0)
    starts = ends - lengths
    count = len(sequences)
    return graph(
        torch.tensor([token for ids in sequences for token in ids], dtype=torch.int32),
        positions(lengths.tolist()),
        torch.ones(count),
        torch.zeros(count, dtype=torch.int32),
        torch.cat([torch.zeros(1), ends]).to(torch.int32),
        torch.stack([ends - 1 if pooling == "LAST" else starts, starts + 1 if pooling == "CLS" else ends], dim=1).to(torch.int32),
    )
