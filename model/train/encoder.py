"""Runs the exporter's own graphs for training: packed, so that no token is padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from model.export import text_side


@dataclass(frozen=True)
class Sequence:
    """Token ids, special tokens and prompt included, and their positions: float32 rows of a position table [n], or rotations [1, 2, n, R / 2].
    Attention logits are multiplied by `query_scale`."""

    tokens: list[int]
    positions: Tensor
    query_scale: float = 1.0


def plain(texts: list[list[int]]) -> list[Sequence]:
    """Read from position 0 on in a table of the trained window, as the original reads them."""
    return [Sequence(tokens, torch.arange(len(tokens), dtype=torch.float32)) for tokens in texts]


class TextSide:
    """Makes a sequence of a text's token ids, by the checkpoint's own rules."""

    def __init__(self, tokenizer: Tokenizer, prompts: dict[str, str]):
        self.tokenizer = tokenizer
        special = text_side.special_tokens(tokenizer)
        self._suffix = special["suffix"]
        by_kind = {"query": prompts.get("query", ""), "passage": prompts.get("passage", prompts.get("document", ""))}
        self._prefix = {kind: special["prefix"] + tokenizer.encode(prompt, add_special_tokens=False).ids for kind, prompt in by_kind.items()}

    def wrap(self, tokens: list[int], kind: str) -> list[int]:
        """With special tokens and prompt. `kind` is "query" or "passage"; a checkpoint without such a prompt has none put on."""
        return self._prefix[kind] + tokens + self._suffix

    def room(self, longest: int, kind: str = "passage") -> int:
        """The tokens of a text that go into a sequence of `longest`."""
        return longest - len(self.wrap([], kind))


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware. Elsewhere it is slower than float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def log_scale(n: int, trained_window: int) -> float:
    """longembed.v1's attention_log_scaling: attention over n tokens as sharp as over the trained window."""
    return max(1.0, math.log(n) / math.log(trained_window))


def encode(graph: nn.Module, sequences: list[Sequence], pooling: str, bfloat16: bool) -> Tensor:
    """Unit vectors, float32 [number of sequences, H]. `pooling` is MEAN or CLS."""
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
