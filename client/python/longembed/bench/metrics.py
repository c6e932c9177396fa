"""Retrieval metrics of one query, averaged over all orders of tied documents; position bias; and confidence intervals by paired bootstrap over
documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

METRICS = ("ndcg_at_10", "accuracy_at_1", "recall_at_10")
THIRDS = ("first third", "middle third", "last third")


def ndcg(scores: np.ndarray, relevant: dict[int, float], k: int = 10) -> float:
    """Returns the expected nDCG@k. Gains are linear in the grade, as in trec_eval. Tied documents are in random order."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = sum(grade * _expected(scores, document, discounts) for document, grade in relevant.items())
    best = sorted(relevant.values(), reverse=True)[:k]
    return gained / float(np.dot(best, discounts[: len(best)]))


def recall(scores: np.ndarray, relevant: dict[int, float], k: int = 10) -> float:
    """Returns the expected share of the relevant documents among the first k."""
    return sum(_expected(scores, document, np.ones(k)) for document in relevant) / len(relevant)


def accuracy(scores: np.ndarray, relevant: dict[int, float]) -> float:
    """Returns the probability that the first document is relevant."""
    return sum(_expected(scores, document, np.ones(1)) for document in relevant)


def _expected(scores: np.ndarray, document: int, weights: np.ndarray) -> float:
    """Returns the weight by rank that this document gets on average over the orders of the ties. Ranks beyond the end of `weights` have weight 0."""
    above = int((scores > scores[document]).sum())
    tied = int((scores == scores[document]).sum())
    return float(weights[above : above + tied].sum()) / tied


def per_query(scores: np.ndarray, relevant: Sequence[dict[int, float]]) -> dict[str, np.ndarray]:
    """Returns {metric: [queries]} for scores [queries, documents]. Refuses NaN, which has no rank."""
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
    """A mean over queries, with its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        return {"value": round(self.value, 5), "low": round(self.low, 5), "high": round(self.high, 5)}


class Bootstrap:
    """Draws documents with replacement, each with all of its queries. Every row uses the same draws, so that differences are paired.

    `documents[i]` is the document of query i. Documents are drawn because queries of one document are not independent."""

    def __init__(self, documents: Sequence[int], draws: int = 2000, seed: int = 0):
        names, self.group = np.unique(np.asarray(documents), return_inverse=True)
        generator = np.random.default_rng(seed)
        self.weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # [draws, documents]

    def estimate(self, values: np.ndarray, mask: np.ndarray | None = None) -> Estimate:
        """Returns the mean of the per-query values, over the queries in `mask` if one is given."""
        mask = np.ones(len(values), bool) if mask is None else mask
        return Estimate(float(values[mask].mean()), *_interval(self.means(values, mask)))

    def means(self, values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Returns the mean of every draw [draws]. NaN if a draw has no query of the mask."""
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
    """Returns, for each query, which third of its document (0 to 2) holds the middle of its evidence. -1 if a query has no evidence.

    characters[i]: the length of query i's document."""
    return np.array([_third(ranges, length) for ranges, length in zip(evidence, characters, strict=True)])


def _third(ranges: Sequence[tuple[int, int]], length: int) -> int:
    weight = sum(end - start for start, end in ranges)
    if not weight:
        return -1
    middle = sum((start + end) / 2 * (end - start) for start, end in ranges) / weight
    return min(2, int(3 * middle / length))


@dataclass(frozen=True)
class Bias:
    """A metric by thirds of the document, and PSI = 1 - least / greatest of the three (arXiv 2505.13950). 0 means no position bias, and 1 means
    the most."""

    groups: dict[str, Estimate]
    queries: dict[str, int]
    psi: Estimate


def position_bias(values: np.ndarray, third: np.ndarray, bootstrap: Bootstrap) -> Bias | None:
    """Returns None if a third has no query. In small samples the interval of PSI is biased upward, as is any spread of noisy means."""
    masks = {name: third == number for number, name in enumerate(THIRDS)}
    if not all(mask.any() for mask in masks.values()):
        return None
    groups = {name: bootstrap.estimate(values, mask) for name, mask in masks.items()}
    means = [group.value for group in groups.values()]
    draws = np.stack([bootstrap.means(values, mask) for mask in masks.values()])
    return Bias(groups, {name: int(mask.sum()) for name, mask in masks.items()}, Estimate(_psi(np.array(means)), *_interval(_psi(draws))))


def _psi(means: np.ndarray) -> np.ndarray | float:
    """Computes PSI from means [thirds] or [thirds, draws]. If all are zero the result is 1: finding nothing anywhere must not count as free of
    bias. A draw without any query of a third has no PSI, and remains NaN."""
    greatest = means.max(axis=0)
    return 1 - np.divide(means.min(axis=0), greatest, out=np.zeros_like(greatest), where=greatest != 0)


def length_slices(characters: Sequence[int], count: int = 4) -> list[tuple[int, int]]:
    """Returns bounds [from, to) of document lengths that hold about equal numbers of queries. There are fewer slices if lengths repeat."""
    bounds = np.unique(np.percentile(characters, np.linspace(0, 100, count + 1)).astype(int))
    bounds[-1] += 1
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist()))
