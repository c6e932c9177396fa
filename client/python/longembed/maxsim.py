"""Scores texts that have several vectors each: windows, spans or tokens.

    documents = maxsim.MultiVectors.of(client.embed(texts, extension={"windows": {"tokens": 128}}, output="WINDOW_VECTORS"))
    queries = client.embed(questions, prompt_name="query").matrix()
    scores = maxsim.score(queries, documents, reduce="max")       # float32 [questions, texts]

MaxSim (ColBERT, arXiv 2004.12832) takes, for each vector of a query, its greatest dot product with a vector of the document. The score is the average over the
vectors of the query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longembed.results import Embedding

# The most dot products, and the most vector components, in memory at a time: 128 MiB of float32.
_NUMBERS_AT_A_TIME = 1 << 25

# Scores that differ by fewer steps of their type are equal but for the order in which their products were added.
_ROUNDING_STEPS = 8


@dataclass(eq=False)
class MultiVectors:
    """The vectors of n texts, concatenated.

    values: [N, d], float32, or int8 with `scales` float32 [N]. Text i has rows offsets[i] to offsets[i + 1], at least one. offsets: int64 [n + 1]."""

    values: np.ndarray
    offsets: np.ndarray
    scales: np.ndarray | None = None

    def __post_init__(self):
        if len(self.values) == 0 and len(self.offsets) == 1:
            return
        if self.values.ndim != 2 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"offsets from {self.offsets[0]} to {self.offsets[-1]} do not fit values of shape {self.values.shape}")
        if (np.diff(self.offsets) < 1).any():
            raise ValueError(f"text {int(np.argmin(np.diff(self.offsets)))} has no vector")
        if self.scales is None:
            _refuse_bytes(self.values)
        elif self.scales.shape != (len(self.values),):
            raise ValueError(f"scales of shape {self.scales.shape} do not fit {len(self.values)} vectors; each has one")

    @staticmethod
    def of(items: Iterable[Embedding | np.ndarray]) -> MultiVectors:
        """Collects embeddings, or arrays [k, d] (or [d] for one vector). INT8 embeddings stay int8. Other encodings become float32. Raises
        ValueError for a sparse vector, and the error of an input that failed."""
        items = list(items)
        if items and all(isinstance(item, Embedding) and item.scales is not None and item.indices is None for item in items):
            blocks, scales = [item.vectors for item in items], np.concatenate([item.scales for item in items])
        else:
            blocks, scales = [_float32(item) for item in items], None
        offsets = np.concatenate([[0], np.cumsum([len(block) for block in blocks])]).astype(np.int64)
        return MultiVectors(np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32), offsets, scales)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns the vectors of one text as float32 [k, d]. As in a list, -1 is the last text."""
        index = range(len(self))[index]
        return self._rows(int(self.offsets[index]), int(self.offsets[index + 1]))

    def to_int8(self) -> MultiVectors:
        """Converts to int8, a quarter of the bytes: component = int8 value * scale, scale = max |component| / 127."""
        if self.scales is not None or not len(self):
            return self
        scales = np.abs(self.values).max(axis=1).astype(np.float32) / 127
        steps = np.divide(self.values, scales[:, None], out=np.zeros_like(self.values), where=scales[:, None] > 0)
        return MultiVectors(np.rint(steps).astype(np.int8), self.offsets, scales)

    def mean(self) -> np.ndarray:
        """Returns the mean of all vectors, float32 [d]."""
        total = np.zeros(self.values.shape[1], np.float64)
        for first, last in _pieces(self.offsets, _NUMBERS_AT_A_TIME // self.values.shape[1]):
            total += self._rows(int(self.offsets[first]), int(self.offsets[last])).sum(axis=0, dtype=np.float64)
        return (total / len(self.values)).astype(np.float32)

    def centered(self, mean: np.ndarray) -> MultiVectors:
        """See center()."""
        return MultiVectors(center(self._rows(0, len(self.values)), mean), self.offsets)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def _rows(self, start: int, end: int) -> np.ndarray:
        rows = self.values[start:end].astype(np.float32, copy=False)
        return rows if self.scales is None else rows * self.scales[start:end, None]


def _float32(item: Embedding | np.ndarray) -> np.ndarray:
    vectors = item.float32() if isinstance(item, Embedding) else _array_float32(item)
    return vectors[None, :] if vectors.ndim == 1 else vectors


def _array_float32(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    _refuse_bytes(vectors)
    return vectors.astype(np.float32, copy=False)


def _refuse_bytes(vectors: np.ndarray) -> None:
    """Refuses the `vectors` of INT8 and BINARY embeddings: without their scales, or packed as bits, they are no components."""
    if vectors.dtype in (np.int8, np.uint8):
        lost = "scales" if vectors.dtype == np.int8 else "bits"
        raise ValueError(f"vectors of type {vectors.dtype} have lost their {lost}; give the Embedding, or its float32()")


class Reduction:
    """Reduces the dot products of one query vector with a document's vectors to one number."""

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """`products` is [q, N]. Document i has the columns from starts[i] up to starts[i + 1] or the end. Returns [q, n]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Max(Reduction):
    """Takes the greatest product."""

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(products, starts, axis=1)


@dataclass(frozen=True)
class MeanOfTop(Reduction):
    """Takes the mean of the k greatest products, or of all products if a document has fewer."""

    k: int

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"mean_of_top({self.k}): k must be at least 1")

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        columns = []
        for part in np.split(products, starts[1:], axis=1):
            k = min(self.k, part.shape[1])
            columns.append(np.partition(part, part.shape[1] - k, axis=1)[:, -k:].mean(axis=1))
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class LogSumExp(Reduction):
    """Computes tau * log(sum(exp(product / tau))). This is a soft maximum, to which vectors close to the best one contribute."""

    tau: float

    def __post_init__(self):
        if not 0 < self.tau < float("inf"):
            raise ValueError(f"tau is {self.tau}; it must be above 0")

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        greatest = np.maximum.reduceat(products, starts, axis=1)
        lengths = np.diff(np.append(starts, products.shape[1]))
        shifted = np.exp((products - np.repeat(greatest, lengths, axis=1)) / self.tau)
        return greatest + self.tau * np.log(np.add.reduceat(shifted, starts, axis=1))


@dataclass(frozen=True)
class LogMeanExp(LogSumExp):
    """Computes tau * log(mean(exp(product / tau))). Unlike log_sum_exp, it does not reward a document for having many vectors: the term tau *
    log(k) is gone."""

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return super().__call__(products, starts) - self.tau * np.log(np.diff(np.append(starts, products.shape[1])))


@dataclass(frozen=True)
class Mean(Reduction):
    """Takes the mean of all products."""

    def __call__(self, products: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.add.reduceat(products, starts, axis=1) / np.diff(np.append(starts, products.shape[1]))


def mean_of_top(k: int) -> Reduction:
    return MeanOfTop(k)


def log_sum_exp(tau: float) -> Reduction:
    return LogSumExp(tau)


def log_mean_exp(tau: float) -> Reduction:
    return LogMeanExp(tau)


def reduction(name: str | Reduction) -> Reduction:
    """Returns a reduction by its name: "max", "mean", "mean_of_top(3)", "log_sum_exp(0.01)" or "log_mean_exp(0.01)". Raises ValueError for any
    other name."""
    if isinstance(name, Reduction):
        return name
    if name in ("max", "mean"):
        return Max() if name == "max" else Mean()
    if match := re.fullmatch(r"mean_of_top\((\d+)\)", name):
        return MeanOfTop(int(match[1]))
    if match := re.fullmatch(r"log_(sum|mean)_exp\((\d*\.?\d+)\)", name):
        return (LogSumExp if match[1] == "sum" else LogMeanExp)(float(match[2]))
    raise ValueError(f'unknown reduction {name!r}; known are "max", "mean", "mean_of_top(K)", "log_sum_exp(TAU)", "log_mean_exp(TAU)"')


def score(
    queries: MultiVectors | np.ndarray, documents: MultiVectors, reduce: str | Reduction = "max", dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """Scores every query against every document: float32 [queries, documents].

    queries: [q, d] with one vector per query, or MultiVectors, whose scores are averaged over the vectors of each query. Products are dot
    products, which are cosines if the vectors are normalized. Documents are processed in pieces, so that memory stays bounded.
    dtype: the type of the products. With float32, the scores of equal documents may differ in the last bit, by their place in the matrix. With
    float64 they are equal, and scoring takes two to five times as long."""
    if not isinstance(queries, MultiVectors):
        queries = np.atleast_2d(_array_float32(queries))
        queries = MultiVectors(queries, np.arange(len(queries) + 1))
    if not len(queries) or not len(documents):
        return np.zeros((len(queries), len(documents)), np.float32)
    if queries.values.shape[1] != documents.values.shape[1]:
        raise ValueError(f"queries have {queries.values.shape[1]} dimensions and documents {documents.values.shape[1]}")
    chosen, rows = reduction(reduce), queries._rows(0, len(queries.values)).astype(dtype, copy=False)
    counts = np.diff(queries.offsets).astype(dtype)
    columns = []
    for first, last in _pieces(documents.offsets, _NUMBERS_AT_A_TIME * 4 // rows.itemsize // max(rows.shape)):
        start, end = int(documents.offsets[first]), int(documents.offsets[last])
        reduced = chosen(rows @ documents._rows(start, end).astype(dtype, copy=False).T, documents.offsets[first:last] - start)
        columns.append(np.add.reduceat(reduced, queries.offsets[:-1], axis=0) / counts[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32, copy=False)


def _pieces(offsets: np.ndarray, most_vectors: int) -> Iterable[tuple[int, int]]:
    """Yields ranges of documents. A range has at most `most_vectors` vectors, or is a single document."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + most_vectors, side="right")) - 1
        last = max(first + 1, last)
        yield first, last
        first = last


def center(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtracts the mean from the vectors and scales them back to length 1: float32 [n, d].

    The vectors of an embedding model lie in a narrow cone: what all queries share, and what all documents share, outweighs what distinguishes them
    (arXiv 1702.01417). Center documents by the mean of all document vectors, and queries by the mean of at least twenty typical queries. Raises
    ValueError for a mean that is not one vector [d]."""
    vectors, mean = np.asarray(vectors, np.float32), np.asarray(mean, np.float32)
    if vectors.ndim != 2 or mean.shape not in (vectors.shape[1:], (1, *vectors.shape[1:])):
        raise ValueError(f"a mean of shape {mean.shape} does not fit vectors of shape {vectors.shape}; give vectors.mean(axis=0)")
    centered = vectors - mean
    norms = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.divide(centered, norms, out=np.zeros_like(centered), where=norms > 0)


def standardize(scores: np.ndarray) -> np.ndarray:
    """Scales each query's scores (a row) to mean 0 and standard deviation 1. Scores that are equal, up to the rounding of their type, become zeros.
    float64. Raises ValueError for a score that is not finite, which has no place on such a scale."""
    scores = np.asarray(scores)
    rounding = _ROUNDING_STEPS * np.finfo(scores.dtype if scores.dtype.kind == "f" else np.float64).eps
    scores = scores.astype(np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores have the shape {scores.shape}; they must be [queries, documents]")
    if not np.isfinite(scores).all():
        raise ValueError(f"query {int(np.isfinite(scores).all(axis=1).argmin())} has a score that is not a finite number")
    centered = scores - scores.mean(axis=1, keepdims=True)
    deviation = scores.std(axis=1, keepdims=True)
    return np.divide(centered, deviation, out=np.zeros_like(centered), where=deviation > rounding * np.abs(scores).max(axis=1, initial=0, keepdims=True))


def fuse(scores: Iterable[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Returns the sum of the standardized scores of several systems, each [queries, documents], with optional weights. float64. Raises ValueError
    if they differ in shape, or if a score or a weight is not finite."""
    systems = [standardize(one) for one in scores]
    weights = [1.0] * len(systems) if weights is None else list(weights)
    if len(weights) != len(systems) or not systems:
        raise ValueError(f"{len(systems)} systems have {len(weights)} weights")
    if len({one.shape for one in systems}) > 1:
        raise ValueError(f"the scores of the systems have the shapes {', '.join(str(one.shape) for one in systems)}; they must be equal")
    if not np.isfinite(weights).all():
        raise ValueError(f"the weights are {weights}; they must be finite numbers")
    return sum(weight * one for weight, one in zip(weights, systems))
