"""Compares an exported graph, as loaded back from its file's bytes, with transformers on real texts."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from model.export.errors import ExportError

TEXTS = Path(__file__).with_name("texts.txt")
LENGTHS = (16, 33, 64, 96, 128, 200, 256, 300, 384, 450, 500, 511, 512)  # Of long samples, in tokens.
COMPANY = 8  # Sequences in a random batch.
MIN_COSINE = 0.99999
MAX_COMPANY_DIFFERENCE = 1e-5  # A component, of unit vectors.


@dataclass(frozen=True)
class Report:
    """What the check measured. Differences are the largest of any component of unit vectors."""

    texts: int
    longest: int
    min_cosine: float
    max_difference: float
    max_company_difference: float

    def __str__(self) -> str:
        return (
            f"{self.texts} texts of up to {self.longest} tokens: cosine to transformers >= {self.min_cosine:.8f}, largest difference "
            f"{self.max_difference:.1e}; alone against in company {self.max_company_difference:.1e}"
        )


def check(graph: nn.Module, reference: nn.Module, tokenizer: Tokenizer, content: dict, longest: int) -> Report:
    """Raises ExportError unless `graph` gives what `reference` gives, whatever else is in the batch. `content` is the manifest's, `longest` is in tokens."""
    samples = _samples(tokenizer, content["special_tokens"], longest)
    pooling, positions, stride = content["pooling"], positions_of(content), content.get("position_stride", 1)
    with torch.inference_mode():
        expected = F.normalize(torch.stack([_reference_vector(reference, ids, pooling, stride) for ids in samples]))
        alone = F.normalize(torch.cat([encode(graph, [ids], pooling, positions) for ids in samples]))
        company = F.normalize(_encode_in_company(graph, samples, pooling, positions))
    report = Report(
        texts=len(samples),
        longest=max(map(len, samples)),
        min_cosine=(alone.double() * expected.double()).sum(dim=1).min().item(),
        max_difference=(alone - expected).abs().max().item(),
        max_company_difference=(alone - company).abs().max().item(),
    )
    _refuse_difference(report)
    return report


def table_rows(lengths: list[int], stride: int = 1) -> Tensor:
    """Plain positions of a packed batch: rows of the position table, for sequences within the trained window."""
    return torch.cat([torch.arange(n, dtype=torch.float32) * stride for n in lengths])


def rotations(lengths: list[int], rotary_dim: int, rotary_base: float) -> Tensor:
    """Plain rotations of a packed batch: float32 [1, 2, T, rotary_dim / 2]."""
    frequencies = rotary_base ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)
    angles = torch.outer(torch.cat([torch.arange(n, dtype=torch.float64) for n in lengths]), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).to(torch.float32).unsqueeze(0)


def positions_of(content: dict) -> Callable[[list[int]], Tensor]:
    """What a manifest's graph takes as the plain positions of sequences with these lengths."""
    if content["family"] == "ROPE":
        return lambda lengths: rotations(lengths, content["rotary_dim"], content["rotary_base"])
    return lambda lengths: table_rows(lengths, content.get("position_stride", 1))


def encode(graph: nn.Module, sequences: list[list[int]], pooling: str, positions: Callable[[list[int]], Tensor] = table_rows) -> Tensor:
    """One plain batch through the graph: [number of sequences, H], un-normalised. Shows how a batch is packed."""
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


def _samples(tokenizer: Tokenizer, special_tokens: dict, longest: int) -> list[list[int]]:
    """Token ids with special tokens: every line of the text file, and stretches of the file with exact lengths."""
    prefix, suffix = special_tokens["prefix"], special_tokens["suffix"]
    lines = [line for line in TEXTS.read_text(encoding="utf-8").splitlines() if line]
    contents = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
    stream = [token for ids in contents for token in ids]
    room = longest - len(prefix) - len(suffix)
    stretches = []
    for i, length in enumerate(size for size in LENGTHS if size <= longest):
        start = i * 251 % max(1, len(stream) - length)
        stretches.append(stream[start : start + length - len(prefix) - len(suffix)])
    return [prefix + ids[:room] + suffix for ids in contents + stretches if ids]


def _reference_vector(reference: nn.Module, ids: list[int], pooling: str, stride: int) -> Tensor:
    tuned = {"position_ids": torch.arange(len(ids)).unsqueeze(0) * stride} if stride > 1 else {}
    hidden = reference(input_ids=torch.tensor([ids]), **tuned).last_hidden_state[0]
    return {"CLS": hidden[0], "LAST": hidden[-1], "MEAN": hidden.mean(dim=0)}[pooling]


def _encode_in_company(graph: nn.Module, samples: list[list[int]], pooling: str, positions: Callable[[list[int]], Tensor]) -> Tensor:
    """Every sample in a random batch with others; rows in the order of `samples`."""
    rows: dict[int, Tensor] = {}
    for batch in _random_batches(list(map(len, samples))):
        rows.update(zip(batch, encode(graph, [samples[i] for i in batch], pooling, positions)))
    return torch.stack([rows[i] for i in range(len(samples))])


def _random_batches(lengths: list[int]) -> Iterator[list[int]]:
    """Indices, each once. Every other batch is sorted by length, so that sequences of equal length meet and go through attention as one call."""
    order = list(range(len(lengths)))
    random.Random(1).shuffle(order)
    for number, start in enumerate(range(0, len(order), COMPANY)):
        batch = order[start : start + COMPANY]
        yield sorted(batch, key=lengths.__getitem__) if number % 2 else batch


def _refuse_difference(report: Report) -> None:
    if not report.min_cosine >= MIN_COSINE:  # Also true of NaN.
        raise ExportError(f"the exported graph differs from transformers ({report}); nothing was written, please report this checkpoint.")
    if not report.max_company_difference <= MAX_COMPANY_DIFFERENCE:
        raise ExportError(f"a vector depends on the rest of its batch ({report}); nothing was written, please report this checkpoint.")
