"""Retrieval measures of one query, by expectation over the order of ties; position bias; intervals by paired bootstrap over documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

METRICS = ("ndcg_at_10", "accuracy_at_1", "recall_at_10")
THIRDS = ("first third", "middle third", "last third")


def ndcg(scores: np.ndarray, relevant: dict[int, float], k: int = 10) -> float:
    """Expected nDCG@k, gains linear in the grade as in trec_eval; tied documents stand in random order."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = sum(grade * _expected(scores, document, discounts) for document, grade in relevant.items())
    best = sorted(relevant.values(), reverse=True)[:k]
    return gained / float(np.dot(best, discounts[: len(best)]))


def recall(scores: np.ndarray, relevant: dict[int, float], k: int = 10) -> float:
    """Expected share of the relevant documents among the first k."""
    return sum(_expected(scores, document, np.ones(k)) for document in relevant) / len(relevant)


def accuracy(scores: np.ndarray, relevant: dict[int, float]) -> float:
    """The probability that the first document is relevant."""
    return sum(_expected(scores, document, np.ones(1)) for document in relevant)


def _expected(scores: np.ndarray, document: int, weights: np.ndarray) -> float:
    """What `weights` by rank, 0 beyond their end, give this document on average over the orders of the ties."""
    above = int((scores > scores[document]).sum())
    tied = int((scores == scores[document]).sum())
    return float(weights[above : above + tied].sum()) / tied


def per_query(scores: np.ndarray, relevant: Sequence[dict[int, float]]) -> dict[str, np.ndarray]:
    """{metric: [queries]} of scores [queries, documents]. NaN is refused: it has no rank."""
    if np.isnan(scores).any():
        raise ValueError(f"scores hold NaN, for query {int(np.isnan(scores).any(axis=1).argmax())} first")
    rows = list(zip(scores, relevant, strict=True))
    return {
        "ndcg_at_10": np.array([ndcg(row, grades) for row, grades in rows]),
        "accuracy_at_1": np.array([accuracy(row, grades) for row, grades in rows]),
        "recall_at_10": np.array([recall(row, grades) for row, grades in rows]),
    }


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        return {"value": round(self.value, 5), "low": round(self.low, 5), "high": round(self.high, 5)}


class Bootstrap:
    """Draws documents with replacement, each with all of its queries. The same draws serve every row, so that differences are paired.

    `documents[i]` is the document that query i belongs to. Queries of one document are not independent, which is why documents are drawn.
    """

    def __init__(self, documents: Sequence[int], draws: int = 2000, seed: int = 0):
        names, self.group = np.unique(np.asarray(documents), return_inverse=True)
        generator = np.random.default_rng(seed)
        self.weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # [draws, documents]

    def estimate(self, values: np.ndarray, mask: np.ndarray | None = None) -> Estimate:
        """The mean of per-query values, of the queries in `mask` only where one is given."""
        mask = np.ones(len(values), bool) if mask is None else mask
        return Estimate(float(values[mask].mean()), *_interval(self.means(values, mask)))

    def means(self, values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The mean in every draw [draws]; NaN where a draw holds no query of the mask."""
        mask = np.ones(len(values), bool) if mask is None else mask
        documents = self.weights.shape[1]
        sums = np.bincount(self.group[mask], values[mask], documents)
        counts = np.bincount(self.group[mask], minlength=documents)
        with np.errstate(invalid="ignore"):
            return (self.weights @ sums) / (self.weights @ counts)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)


def thirds(evidence: Sequence[Sequence[tuple[int, int]]], characters: Sequence[int]) -> np.ndarray:
    """Which third of its document, 0 to 2, the middle of each query's evidence stands in; -1 where a query has none.

    characters[i]: length of query i's document.
    """
    return np.array([_third(ranges, length) for ranges, length in zip(evidence, characters, strict=True)])


def _third(ranges: Sequence[tuple[int, int]], length: int) -> int:
    weight = sum(end - start for start, end in ranges)
    if not weight:
        return -1
    middle = sum((start + end) / 2 * (end - start) for start, end in ranges) / weight
    return min(2, int(3 * middle / length))


@dataclass(frozen=True)
class Bias:
    """A metric by thirds, and PSI = 1 - least / greatest of them (arXiv 2505.13950): 0 is no bias by position, 1 the most."""

    groups: dict[str, Estimate]
    queries: dict[str, int]
    psi: Estimate


def position_bias(values: np.ndarray, third: np.ndarray, bootstrap: Bootstrap) -> Bias | None:
    """None where a third has no query. PSI's interval is biased upward in small samples, as any spread of noisy means is."""
    masks = {name: third == number for number, name in enumerate(THIRDS)}
    if not all(mask.any() for mask in masks.values()):
        return None
    groups = {name: bootstrap.estimate(values, mask) for name, mask in masks.items()}
    means = [group.value for group in groups.values()]
    draws = np.stack([bootstrap.means(values, mask) for mask in masks.values()])
    return Bias(groups, {name: int(mask.sum()) for name, mask in masks.items()}, Estimate(_psi(np.array(means)), *_interval(_psi(draws))))


def _psi(means: np.ndarray) -> np.ndarray | float:
    """Of means [thirds] or [thirds, draws]. All zero: 1, as nothing is found anywhere is not freedom from bias but its worst reading."""
    greatest = means.max(axis=0)
    return 1 - np.divide(means.min(axis=0), greatest, out=np.zeros_like(greatest), where=greatest > 0)


def length_slices(characters: Sequence[int], count: int = 4) -> list[tuple[int, int]]:
    """Bounds [from, to) of document lengths that hold about equally many queries each; fewer slices where lengths repeat."""
    bounds = np.unique(np.percentile(characters, np.linspace(0, 100, count + 1)).astype(int))
    bounds[-1] += 1
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist()))
