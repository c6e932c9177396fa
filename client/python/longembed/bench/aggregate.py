"""Aggregation of a document's window vectors on this side, so that one set of embedded windows serves every aggregation.

The window vectors come un-normalized; the result is normalized. MEAN, TOKEN_WEIGHTED_MEAN, MAX and FIRST equal the server's own to float32's precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From vectors [windows, dimensions] and tokens of each window [windows] to vectors [k, dimensions], un-normalized."""

FORMS = "windows, mean, token_weighted_mean, norm_weighted(T), top_norm(K), max, first, groups(K)"
SERVER_AGGREGATIONS = {"mean": "MEAN", "token_weighted_mean": "TOKEN_WEIGHTED_MEAN", "max": "MAX", "first": "FIRST"}


def parse(text: str) -> Aggregate:
    """One of FORMS.

    windows: every window's own vector. norm_weighted(T): weights softmax(norms / T). top_norm(K): the mean of the K windows of the greatest norm.
    groups(K): the means of K runs of neighboring windows, as equal as can be; a document with fewer windows gives one a window.
    """
    match = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?", text.replace(" ", ""))
    name, argument = match.groups() if match else (text, None)
    plain = {"windows": _windows, "mean": _mean, "token_weighted_mean": _token_weighted_mean, "max": _max, "first": _first}
    if name in plain and argument is None:
        return plain[name]
    value = float(argument or 0)
    if name == "norm_weighted" and value > 0:
        return lambda vectors, tokens: _norm_weighted(vectors, value)
    if name == "top_norm" and value >= 1 and value == int(value):
        return lambda vectors, tokens: _top_norm(vectors, int(value))
    if name == "groups" and value >= 1 and value == int(value):
        return lambda vectors, tokens: _groups(vectors, int(value))
    raise ValueError(f"aggregate is {text!r}; it must be one of {FORMS}, with T above 0 and K a whole number from 1")


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def _windows(vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return vectors


def _mean(vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return vectors.mean(axis=0, keepdims=True)


def _token_weighted_mean(vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.average(vectors, axis=0, weights=tokens)[None]


def _max(vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return vectors.max(axis=0, keepdims=True)


def _first(vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return vectors[:1]


def _norm_weighted(vectors: np.ndarray, temperature: float) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1) / temperature
    weights = np.exp(norms - norms.max())
    return np.average(vectors, axis=0, weights=weights)[None]


def _top_norm(vectors: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(-np.linalg.norm(vectors, axis=1), kind="stable")
    return vectors[order[:count]].mean(axis=0, keepdims=True)


def _groups(vectors: np.ndarray, count: int) -> np.ndarray:
    runs = np.array_split(vectors, min(count, len(vectors)))
    return np.stack([run.mean(axis=0) for run in runs])
