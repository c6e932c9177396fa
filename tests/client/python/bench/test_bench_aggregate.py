"""Compares aggregations with loops in float64, and reductions with their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import maxsim  # noqa: E402
from longembed.bench import aggregate  # noqa: E402
from longembed.maxsim import reduction  # noqa: E402  # noqa: E402


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((7, 5)) * rng.uniform(0.5, 3, (7, 1))).astype(np.float32)
    return vectors, np.array([512, 512, 512, 512, 512, 512, 90])


def norm(vector):
    return math.sqrt(sum(float(x) ** 2 for x in vector))


def weighted(vectors, weights):
    return [[sum(w * float(v[d]) for v, w in zip(vectors, weights)) / sum(weights) for d in range(len(vectors[0]))]]


def slow(name, vectors, tokens):
    order = sorted(range(len(vectors)), key=lambda i: -norm(vectors[i]))
    return {
        "windows": lambda: [list(map(float, v)) for v in vectors],
        "mean": lambda: weighted(vectors, [1.0] * len(vectors)),
        "token_weighted_mean": lambda: weighted(vectors, list(map(float, tokens))),
        "max": lambda: [[max(float(v[d]) for v in vectors) for d in range(len(vectors[0]))]],
        "first": lambda: [list(map(float, vectors[0]))],
        "norm_weighted(0.5)": lambda: weighted(vectors, [math.exp(norm(v) / 0.5) for v in vectors]),
        "top_norm(3)": lambda: weighted([vectors[i] for i in order[:3]], [1.0] * 3),
        "top_norm(50)": lambda: weighted(vectors, [1.0] * len(vectors)),
        "groups(3)": lambda: [weighted(part, [1.0] * len(part))[0] for part in (vectors[:3], vectors[3:5], vectors[5:])],
        "groups(50)": lambda: [list(map(float, v)) for v in vectors],
    }[name]()


NAMES = ["windows", "mean", "token_weighted_mean", "max", "first", "norm_weighted(0.5)", "top_norm(3)", "top_norm(50)", "groups(3)", "groups(50)"]


@pytest.mark.parametrize("name", NAMES)
def test_an_aggregation_is_what_its_name_says(name, windows):
    found = aggregate.parse(name)(*windows)
    np.testing.assert_allclose(found, slow(name, *windows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_one_window_is_itself(name, windows):
    vectors, tokens = windows
    np.testing.assert_allclose(aggregate.parse(name)(vectors[:1], tokens[:1]), vectors[:1], rtol=1e-6)


def test_norm_weights_do_not_overflow():
    vectors = np.array([[1e4, 0], [0, 1.0]], np.float32)
    np.testing.assert_allclose(aggregate.parse("norm_weighted(0.01)")(vectors, np.ones(2)), [[1e4, 0]])


@pytest.mark.parametrize("text", ["median", "top_norm", "top_norm(0)", "top_norm(1.5)", "norm_weighted(0)", "mean(3)", "groups(-1)", "groups()"])
def test_unknown_aggregations_are_refused(text):
    with pytest.raises(ValueError, match="it must be one of windows, mean"):
        aggregate.parse(text)


def test_normalized_rows():
    np.testing.assert_allclose(aggregate.normalized(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


@pytest.mark.parametrize("tau", [0.01, 0.2])
def test_log_mean_exp(tau):
    rng = np.random.default_rng(2)
    query, documents = rng.standard_normal((2, 4)), [rng.standard_normal((k, 4)) for k in (1, 5, 3)]
    found = maxsim.score(query.astype(np.float32), maxsim.MultiVectors.of(documents), reduction(f"log_mean_exp({tau})"))
    for q, row in zip(query, found):
        for document, score in zip(documents, row):
            products = [sum(float(a) * float(b) for a, b in zip(q, vector)) for vector in document]
            top = max(products)
            expected = top + tau * math.log(sum(math.exp((p - top) / tau) for p in products) / len(products))
            assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("text", ["log_mean_exp(0)", "log_mean_exp()", "log_mean_exp(x)", "median"])
def test_unknown_reductions_are_refused(text):
    with pytest.raises(ValueError, match="tau is|unknown reduction"):
        reduction(text)
