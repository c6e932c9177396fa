"""Aggregates a document's window vectors in the client, so that windows embedded once serve every aggregation.

The window vectors are un-normalized, and the result is normalized. The aggregations equal the server's own up to float32 precision."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps vectors [windows, dimensions] and the tokens of each window [windows] to vectors [k, dimensions], un-normalized."""

FORMS = "windows, mean, token_weighted_mean, norm_weighted(T), top_norm(K), max, first, groups(K)"
_ARGUMENTS = {"norm_weighted": "norm_temperature", "top_norm": "top"}
"""The field of the server's windows that holds an aggregation's argument."""


def parse(text: str) -> Aggregate:
    """Returns the aggregation named by one of FORMS.

    windows: the vector of every window. norm_weighted(T): weights softmax(norms / T). top_norm(K): the mean of the K windows of greatest norm.
    groups(K): the means of K runs of neighboring windows, whose sizes are as equal as possible. A document with fewer windows has one vector per
    window."""
    name, argument = _parts(text)
    plain = {"windows": _windows, "mean": _mean, "token_weighted_mean": _token_weighted_mean, "max": _max, "first": _first}
    if name in plain and argument is None:
        return plain[name]
    value = float(argument or 0)
    if name == "norm_weighted" and 0.001 <= value <= 1000:
        return lambda vectors, tokens: _norm_weighted(vectors, value)
    if name == "top_norm" and value >= 1 and value == int(value):
        return lambda vectors, tokens: _top_norm(vectors, int(value))
    if name == "groups" and value >= 1 and value == int(value):
        return lambda vectors, tokens: _groups(vectors, int(value))
    raise ValueError(f"aggregate is {text!r}; it must be one of {FORMS}, with T from 0.001 to 1000 and K a whole number from 1")


def of_server(text: str) -> dict[str, int | float | str]:
    """Returns the fields of the server's `windows` that aggregate as `text`, one of FORMS except "windows", does."""
    name, argument = _parts(text)
    if name == "groups":
        return {"vectors": int(float(argument or 0))}
    fields: dict[str, int | float | str] = {"aggregation": name.upper()}
    if name in _ARGUMENTS:
        value = float(argument or 0)
        fields[_ARGUMENTS[name]] = int(value) if name == "top_norm" else value
    return fields


def _parts(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?", text.replace(" ", ""))
    return (match[1], match[2]) if match else (text, None)


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Scales rows to length 1. A row of zeros is not changed."""
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
