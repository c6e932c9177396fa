"""Compares metrics with slow definitions: ties by trying every order, and the bootstrap by drawing and averaging queries in loops."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import metrics  # noqa: E402


def orders(scores):
    """Yields every ranking that sorts by score, with ties in each possible order, all equally likely."""
    groups = [[i for i, score in enumerate(scores) if score == value] for value in sorted(set(scores), reverse=True)]
    for chosen in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [document for group in chosen for document in group]


def slow_ndcg(order, grades, k):
    gained = sum(grades.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(order[:k]))
    best = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:k]))
    return gained / best


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(40))
def test_ties_are_scored_by_expectation(seed):
    draw = random.Random(seed)
    count = draw.randint(2, 6)
    scores = [draw.choice([0.0, 0.5, 1.0]) for _ in range(count)]
    grades = {document: float(draw.randint(1, 3)) for document in draw.sample(range(count), draw.randint(1, min(3, count)))}
    for k in (1, 2, 10):
        found = metrics.ndcg(np.array(scores), grades, k)
        assert found == pytest.approx(mean(slow_ndcg(order, grades, k) for order in orders(scores)), abs=1e-12)
        assert metrics.recall(np.array(scores), grades, k) == pytest.approx(
            mean(len(grades.keys() & set(order[:k])) / len(grades) for order in orders(scores)), abs=1e-12
        )
    assert metrics.accuracy(np.array(scores), grades) == pytest.approx(mean(order[0] in grades for order in orders(scores)), abs=1e-12)


def test_known_values():
    scores = np.arange(20.0)[::-1]
    assert metrics.ndcg(scores, {0: 1.0}) == 1.0
    assert metrics.ndcg(scores, {9: 1.0}) == pytest.approx(1 / math.log2(11))
    assert metrics.ndcg(scores, {10: 1.0}) == 0.0
    assert metrics.ndcg(np.zeros(20), {3: 1.0}) == pytest.approx(sum(1 / math.log2(rank + 2) for rank in range(10)) / 20)


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match="NaN, for query 1"):
        metrics.per_query(np.array([[1.0, 2.0], [np.nan, 0.0]]), [{0: 1.0}, {0: 1.0}])


def test_a_draw_takes_a_document_with_all_of_its_queries():
    documents = [7, 7, 7, 2, 9, 9]
    values = np.array([1.0, 0.0, 0.5, 1.0, 0.25, 0.0])
    mask = np.array([True, True, False, True, True, True])
    bootstrap = metrics.Bootstrap(documents, draws=50, seed=3)
    names = sorted(set(documents))
    for draw, found in zip(bootstrap.weights, bootstrap.means(values, mask)):
        drawn = [name for name, times in zip(names, draw) for _ in range(times)]
        assert len(drawn) == 3
        taken = [values[i] for name in drawn for i, document in enumerate(documents) if document == name and mask[i]]
        assert found == pytest.approx(mean(taken)) if taken else math.isnan(found)


def test_intervals_hold_what_they_should():
    """95 % of the intervals of samples of documents must contain the population's mean. Queries of a document are alike, so intervals from drawing
    queries would contain it far less often."""
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        levels = generator.normal(0.5, 0.2, size=60)
        documents = np.repeat(np.arange(60), 5)
        values = levels[documents] + generator.normal(0, 0.02, size=300)
        estimate = metrics.Bootstrap(documents, draws=400, seed=trial).estimate(values)
        held += estimate.low <= 0.5 <= estimate.high
    assert 180 <= held <= 198


def test_differences_are_paired():
    """The interval of a constant gain must have no width, however much the values vary."""
    generator = np.random.default_rng(1)
    documents = generator.integers(0, 30, size=200)
    values = generator.random(200)
    bootstrap = metrics.Bootstrap(documents)
    difference = bootstrap.estimate((values + 0.25) - values)
    assert (difference.low, difference.high) == (pytest.approx(0.25), pytest.approx(0.25))
    alone = bootstrap.estimate(values)
    assert alone.high - alone.low > 0.03


def test_the_seed_determines_the_draws():
    values, documents = np.random.default_rng(0).random(50), list(range(50))
    same = [metrics.Bootstrap(documents, seed=seed).estimate(values) for seed in (4, 4, 5)]
    assert same[0] == same[1] != same[2]


def test_thirds_go_by_the_middle_of_the_evidence():
    evidence = [((0, 10),), ((40, 60),), ((90, 100),), (), ((0, 10), (80, 100)), ((0, 2), (98, 100))]
    assert metrics.thirds(evidence, [100] * 6).tolist() == [0, 1, 2, -1, 1, 1]
    assert metrics.thirds([((0, 100), (90, 100))], [100]).tolist() == [1]


def test_position_bias():
    third = np.array([0, 0, 1, 1, 2, 2, -1])
    values = np.array([1.0, 0.8, 0.6, 0.6, 0.2, 0.4, 0.0])
    bias = metrics.position_bias(values, third, metrics.Bootstrap(range(7)))
    assert [round(group.value, 6) for group in bias.groups.values()] == [0.9, 0.6, 0.3]
    assert bias.psi.value == pytest.approx(1 - 0.3 / 0.9)
    assert bias.psi.low <= bias.psi.value <= bias.psi.high
    assert bias.queries == {"first third": 2, "middle third": 2, "last third": 2}
    assert metrics.position_bias(values[:4], third[:4], metrics.Bootstrap(range(4))) is None


def test_psi_where_nothing_is_found_is_the_worst():
    assert metrics.position_bias(np.zeros(3), np.array([0, 1, 2]), metrics.Bootstrap(range(3))).psi.value == 1.0
    assert metrics.position_bias(np.ones(3), np.array([0, 1, 2]), metrics.Bootstrap(range(3))).psi.value == 0.0


def test_psi_leaves_out_draws_without_a_third():
    """A third has queries of one document alone, so that a third of the draws have none of them. They say nothing about the method."""
    bias = metrics.position_bias(np.ones(6), np.array([0, 1, 2, 0, 1, 2]), metrics.Bootstrap([0, 1, 2, 0, 1, 2]))
    assert (bias.psi.value, bias.psi.low, bias.psi.high) == (0.0, 0.0, 0.0)


def test_length_slices_cover_every_length_once():
    lengths = [100, 200, 300, 400, 500, 600, 700, 800]
    slices = metrics.length_slices(lengths)
    assert len(slices) == 4
    assert [sum(low <= length < high for low, high in slices) for length in lengths] == [1] * 8
    assert [sum(low <= length < high for length in lengths) for low, high in slices] == [2, 2, 2, 2]
    assert metrics.length_slices([5, 5, 5]) == [] or sum(high - low for low, high in metrics.length_slices([5, 5, 5])) >= 1
