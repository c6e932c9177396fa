"""Compares the sparse vectors of a written model directory with those that users of the checkpoint get for the same texts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.export import check
from model.export.directory import Directory
from model.export.errors import ExportError

MAX_DIFFERENCE = 1e-3  # For a weight, relative to the largest weight of its vector.
MAX_BATCHED_DIFFERENCE = 1e-4  # Likewise, between a vector encoded alone and batched with others.


@dataclass(frozen=True)
class Report:
    """Measurements of the check. Differences are the maximum over all weights, relative to the largest weight of the vector."""

    by: str  # The library that the checkpoint's users load it with.
    through: str  # The program that computed the directory's vectors.
    texts: int
    longest: int  # In tokens.
    terms: float  # Mean number of nonzero weights of a vector.
    min_cosine: float
    worst: str  # The text of the lowest cosine.
    max_difference: float
    max_batched_difference: float

    def __str__(self) -> str:
        return (
            f"sparse: {self.texts} texts of up to {self.longest} tokens through {self.through}, an average of {self.terms:.0f} terms: cosine to {self.by} >= "
            f"{self.min_cosine:.8f}, largest difference {self.max_difference:.1e}; alone against batched {self.max_batched_difference:.1e}"
        )


def check_sparse(directory: Directory, expectation: check.Expectation, longest: int) -> Report:
    """Raises ExportError unless `directory` gives the weights of the checkpoint's own library, in any batch. `longest` is in tokens."""
    samples, stretches, theirs = check.compared(directory, expectation, longest, output="sparse")
    pairs = [(sample, answer["vector"]) for sample, answer in zip(samples, theirs["answers"]) if answer["vector"]]
    ours = directory.sparse_vectors([sample for sample, _ in pairs]) + directory.sparse_alone(stretches)
    wanted = [vector for _, vector in pairs] + [answer["vector"] for answer in theirs["answers"][len(samples) :]]
    size = directory.content["vocabulary_size"]
    expected = [_sparse(vector, size) for vector in wanted]
    cosines = [_cosine(a, b) for a, b in zip(ours, expected)]
    worst = min(range(len(cosines)), key=lambda i: cosines[i] if cosines[i] == cosines[i] else -2.0)
    sequences = [directory.ids(sample) for sample, _ in pairs] + stretches
    some = sequences[:: max(1, len(sequences) // check.COMPARED_SEQUENCES)]
    alone, batched = directory.sparse_alone(some), check.encode_batched(directory.sparse, some)
    report = Report(
        by=theirs["by"],
        through=directory.through,
        texts=len(sequences),
        longest=max(map(len, sequences)),
        terms=sum(int((vector != 0).sum()) for vector in ours) / len(ours),
        min_cosine=cosines[worst],
        worst=pairs[worst][0].text if worst < len(pairs) else "a text of given length",
        max_difference=max(_difference(a, b) for a, b in zip(ours, expected)),
        max_batched_difference=max(_difference(a, b) for a, b in zip(batched, alone)),
    )
    _refuse_difference(report)
    return report


def _sparse(vector: dict, size: int) -> Tensor:
    dense = torch.zeros(size, dtype=torch.float64)
    dense[vector["indices"]] = torch.tensor(vector["values"], dtype=torch.float64)
    return dense


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    if not a.any() and not b.any():
        return 1.0  # A text that consists of special tokens may have no weights.
    return (a @ b / (a.norm() * b.norm())).item()


def _difference(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6)).item()


def _refuse_difference(report: Report) -> None:
    if not (report.min_cosine >= check.MIN_COSINE and report.max_difference <= MAX_DIFFERENCE):  # Also true for NaN.
        raise ExportError(
            f"the exported sparse head differs from {report.by} (cosine {report.min_cosine:.6f} for {report.worst[:60]!r}, a weight by {report.max_difference:.1e}); "
            "nothing was written. The head or its settings mean something that this exporter does not read; choose another checkpoint."
        )
    if not report.max_batched_difference <= MAX_BATCHED_DIFFERENCE:
        raise ExportError(f"a sparse vector depends on the rest of its batch ({report}); nothing was written, choose another checkpoint.")
