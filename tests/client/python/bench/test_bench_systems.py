"""Compares scores of rows with loops: query sentences, centering without the query's own document, sums, and the cost of a sum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("bm25s", reason="bm25s is not installed; run tests/run.sh")

from longembed import bm25  # noqa: E402
from longembed.bench import metrics, recipes  # noqa: E402
from longembed.bench.corpus import Corpus  # noqa: E402
from longembed.bench.store import Store, Vectors  # noqa: E402
from longembed.bench.systems import Scorer  # noqa: E402
from openai_stand_in import StandIn, vector  # noqa: E402
from small_sets import CountingEmbedder  # noqa: E402

DOCUMENTS = ("the red fox runs. it sleeps", "a blue whale sings far away", "green grass grows here, and red roses", "nothing here is blue or red")
QUERIES = ("Does the fox run? Where does it sleep?", "What is a whale?", "grass", "Red? Blue?")


@pytest.fixture
def corpus():
    ids = tuple("abcd")
    return Corpus("small", ids, DOCUMENTS, ids, QUERIES, tuple({i: 1.0} for i in range(4)))


@pytest.fixture
def scores(corpus, tmp_path):
    """Returns a function scores(row=YAML body, ...) that returns the scores of the last row, and its cost."""
    running = StandIn()

    def score(**rows):
        for body in rows.values():
            if "openai" in body:
                body["openai"] = {"url": running.url, "model": "m", **body["openai"]}
        scorer = Scorer(None, Store(tmp_path), corpus)
        return [scorer.score(row) for row in recipes.parse({"rows": rows}).rows.values()][-1]

    yield score
    running.close()


def test_a_querys_sentences_are_averaged(scores):
    found = scores(row={"openai": {}, "queries": "sentences"}).scores
    sentences = [["Does the fox run?", "Where does it sleep?"], ["What is a whale?"], ["grass"], ["Red?", "Blue?"]]
    expected = [[np.mean([np.dot(vector(one), vector(document)) for one in own]) for document in DOCUMENTS] for own in sentences]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_query_of_several_vectors_is_averaged(corpus, tmp_path):
    """A model of token vectors gives a query a vector for each token."""
    row = recipes.parse({"rows": {"a": {"document": {}, "queries": "sentences"}}}).rows["a"]
    found = Scorer(None, Store(tmp_path), corpus)._queries(row, CountingEmbedder(), normalize=True)
    assert np.diff(found.offsets).tolist() == [4 + 4, 4, 1, 1 + 1]  # Words of each query's sentences, at most 4 of each.


def test_words_of_sentences_in_windows(scores):
    found = scores(row={"bm25": {"words": 3}, "queries": "sentences"}).scores
    index = bm25.BM25(DOCUMENTS, words=3)
    np.testing.assert_allclose(found[0], index.scores(["Does the fox run?", "Where does it sleep?"]).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[2], index.scores(["grass"])[0], atol=1e-6)


def test_centering_uses_queries_of_other_documents_alone(scores):
    """Queries of even documents are centered by the mean of the queries of odd documents, and vice versa."""
    found = scores(row={"openai": {}, "center": True}).scores

    def centered(rows, mean):
        rows = np.array(rows) - mean
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    documents, queries = (np.array([vector(text) for text in texts]) for texts in (DOCUMENTS, QUERIES))
    documents = centered(documents, documents.mean(axis=0))
    for i in range(4):
        others = queries[1 - i % 2 :: 2]
        expected = documents @ centered(queries[i : i + 1], others.mean(axis=0))[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_queries_of_two_documents_are_enough_for_centering(corpus, tmp_path):
    """The documents 0 and 2 are both even, but two."""
    running = StandIn()
    two = dataclasses.replace(corpus, queries=QUERIES[:2], query_ids=("a", "b"), relevant=({0: 1.0}, {2: 1.0}))
    row = recipes.parse({"rows": {"a": {"openai": {"url": running.url, "model": "m"}, "center": True}}}).rows["a"]
    assert Scorer(None, Store(tmp_path), two).score(row).scores.shape == (2, 4)
    one = dataclasses.replace(two, relevant=({2: 1.0}, {2: 1.0}))
    with pytest.raises(recipes.RecipeError, match="center needs queries of two documents at least"):
        Scorer(None, Store(tmp_path), one).score(row)
    running.close()


def test_documents_that_are_cut_to_one_beginning_are_tied(tmp_path):
    """Their vectors are equal, bit by bit."""

    class Truncating(CountingEmbedder):
        def embed(self, texts):
            random = np.random.default_rng(0)
            shared = random.normal(size=(1, 384)).astype(np.float32)
            for number, text in enumerate(texts):
                yield number, Vectors(shared if text.startswith("document") else random.normal(size=(1, 384)).astype(np.float32), np.ones(1, np.int64), 1, 0)

    ids = tuple(map(str, range(101)))
    corpus = Corpus("cut", ids, tuple(f"document {i}" for i in ids), ids, tuple(f"query {i}" for i in ids), tuple({i: 1.0} for i in range(101)))
    row = recipes.parse({"rows": {"a": {"document": {}}}}).rows["a"]
    found = Scorer(None, Store(tmp_path), corpus)._vectors(row, Truncating(), corpus.documents, Truncating(), None).scores
    assert (found == found[:, :1]).all()
    np.testing.assert_allclose(metrics.per_query(found, corpus.relevant)["accuracy_at_1"], 1 / 101)


def test_a_sum_standardizes_each_querys_scores(scores):
    parts = {"a": {"openai": {}}, "b": {"bm25": {}}}
    alone = [scores(a={"openai": {}}).scores, scores(b={"bm25": {}}).scores]
    found = scores(**parts, both={"sum": ["a", "b"], "weights": [1, 0.5]}).scores
    standard = [(one - one.mean(axis=1, keepdims=True)) / one.std(axis=1, keepdims=True) for one in map(np.float64, alone)]
    np.testing.assert_allclose(found, standard[0] + 0.5 * standard[1], atol=1e-5)


def test_a_sum_counts_shared_vectors_once(scores):
    shared = {"a": {"openai": {}}, "b": {"openai": {}, "queries": "sentences"}}
    one, both = scores(a={"openai": {}}).cost.describe(), scores(**shared, both={"sum": ["a", "b"]}).cost.describe()
    assert both == one and one["vectors_per_document"] == 1
    other = {"a": {"openai": {}}, "b": {"openai": {"document_prompt": "find "}}}
    apart = scores(**other, both={"sum": ["a", "b"]}).cost.describe()
    assert apart["vectors_per_document"] == 2 and apart["bytes_per_document"] == 2 * one["bytes_per_document"]


def test_scores_are_made_once(corpus, tmp_path):
    running = StandIn()
    rows = recipes.parse({"rows": {"a": {"openai": {"url": running.url, "model": "m"}}}}).rows
    scorer = Scorer(None, Store(tmp_path), corpus)
    assert scorer.score(rows["a"]) is scorer.score(rows["a"])
    running.close()
