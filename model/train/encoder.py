"""Runs the exporter's graphs for training, with packed batches without padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from model.export import tokenizer_file


@dataclass(frozen=True)
class Sequence:
    """Token ids, special tokens and prompt included, and their positions: float32 rows of a position table [n], or rotations [1, 2, n, R / 2].
    Attention logits are multiplied by `query_scale`."""

    tokens: list[int]
    positions: Tensor
    query_scale: float = 1.0


def plain(texts: list[list[int]]) -> list[Sequence]:
    """Returns sequences with positions from 0 in the original's position table."""
    return [Sequence(tokens, torch.arange(len(tokens), dtype=torch.float32)) for tokens in texts]


class TextWrapper:
    """Adds special tokens and prompts to texts by the checkpoint's rules."""

    def __init__(self, tokenizer: Tokenizer, prompts: dict[str, str]):
        self.tokenizer = tokenizer
        special = tokenizer_file.special_tokens(tokenizer)
        self._suffix = special["suffix"]
        by_kind = {"query": prompts.get("query", ""), "passage": prompts.get("passage", prompts.get("document", ""))}
        self._prefix = {kind: special["prefix"] + tokenizer.encode(prompt, add_special_tokens=False).ids for kind, prompt in by_kind.items()}

    def wrap(self, tokens: list[int], kind: str) -> list[int]:
        """Returns the tokens with special tokens and prompt. `kind` is "query" or "passage". If the checkpoint has no such prompt, none is added."""
        return self._prefix[kind] + tokens + self._suffix

    def room(self, longest: int, kind: str = "passage") -> int:
        """Returns the number of tokens of a text that fit into a sequence of `longest` tokens."""
        return longest - len(self.wrap([], kind))


def fast_bfloat16() -> bool:
    """Returns whether this CPU multiplies bfloat16 in hardware. On other CPUs, bfloat16 is slower than float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def log_scale(n: int, trained_window: int) -> float:
    """Returns the query scale of longembed.v1's attention_log_scaling, which makes attention over n tokens as sharp as over the trained window."""
    return max(1.0, math.log(n) / math.log(trained_window))


def encode(graph: nn.Module, sequences: list[Sequence], pooling: str, bfloat16: bool) -> Tensor:
    """Returns unit vectors, float32 [number of sequences, H]. `pooling` is MEAN or CLS."""
    lengths = torch.tensor([len(sequence.tokens) for sequence in sequences])
    ends = lengths.cumsum(0)
    starts = ends - lengths
    positions = [sequence.positions for sequence in sequences]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        vectors = graph(
            torch.tensor([token for sequence in sequences for token in sequence.tokens], dtype=torch.int32),
            torch.cat(positions, dim=0 if positions[0].dim() == 1 else 2),
            torch.tensor([sequence.query_scale for sequence in sequences]),
            torch.zeros(len(sequences), dtype=torch.int32),
            torch.cat([torch.zeros(1), ends]).to(torch.int32),
            torch.stack([starts, starts + 1 if pooling == "CLS" else ends], dim=1).to(torch.int32),
        )
    return F.normalize(vectors.float(), dim=1)
