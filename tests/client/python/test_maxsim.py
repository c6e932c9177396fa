"""Compares scores of several vectors with loops in float64."""

import itertools
import math

import numpy as np
import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import Embedding, maxsim  # noqa: E402


def by_hand(queries, documents, reduce):
    """Computes the definition: for each query, the mean over its vectors of the reduced products with a document's vectors."""
    scores = np.zeros((len(queries), len(documents)))
    for (i, query), (j, document) in itertools.product(enumerate(queries), enumerate(documents)):
        numbers = []
        for vector in query:
            products = sorted((sum(float(a) * float(b) for a, b in zip(vector, other)) for other in document), reverse=True)
            numbers.append(reduce(products))
        scores[i, j] = sum(numbers) / len(numbers)
    return scores


REDUCTIONS = {
    "max": lambda products: products[0],
    "mean": lambda products: sum(products) / len(products),
    "mean_of_top(1)": lambda products: products[0],
    "mean_of_top(3)": lambda products: sum(products[:3]) / len(products[:3]),
    "log_mean_exp(0.05)": lambda products: 0.05 * math.log(sum(math.exp(product / 0.05) for product in products) / len(products)),
    "log_sum_exp(0.05)": lambda products: 0.05 * math.log(sum(math.exp(product / 0.05) for product in products)),
}


def unit(random, count, dimensions=7):
    vectors = random.normal(size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[1, 2, 3])
def texts(request):
    random = np.random.default_rng(request.param)
    return [unit(random, random.integers(1, 5)) for _ in range(6)], [unit(random, random.integers(1, 9)) for _ in range(11)]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_scores_are_those_of_the_definition(texts, name):
    queries, documents = texts
    scores = maxsim.score(maxsim.MultiVectors.of(queries), maxsim.MultiVectors.of(documents), name)
    assert scores.shape == (6, 11) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_hand(queries, documents, REDUCTIONS[name]), atol=2e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_documents_taken_in_pieces_give_the_same(texts, name, monkeypatch):
    queries, documents = (maxsim.MultiVectors.of(side) for side in texts)
    whole = maxsim.score(queries, documents, name)
    monkeypatch.setattr(maxsim, "_NUMBERS_AT_A_TIME", 10)
    np.testing.assert_allclose(maxsim.score(queries, documents, name), whole, atol=1e-6)


def test_queries_of_one_vector_may_be_a_matrix_or_a_vector(texts):
    queries, documents = texts
    stacked, documents = np.concatenate(queries), maxsim.MultiVectors.of(documents)
    expected = maxsim.score(maxsim.MultiVectors.of(list(stacked)), documents)
    np.testing.assert_array_equal(maxsim.score(stacked, documents), expected)
    np.testing.assert_allclose(maxsim.score(stacked[0], documents), expected[:1], atol=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_int8_scores_are_those_of_the_widened_vectors(texts, name):
    queries, documents = maxsim.MultiVectors.of(texts[0]), maxsim.MultiVectors.of(texts[1])
    small = documents.to_int8()
    assert small.values.dtype == np.int8 and small.nbytes < documents.nbytes / 2
    widened = [[[float(v) * float(s) for v in vector] for vector, s in zip(small.values[a:b], small.scales[a:b])] for a, b in itertools.pairwise(small.offsets)]
    np.testing.assert_allclose(maxsim.score(queries, small, name), by_hand(texts[0], widened, REDUCTIONS[name]), atol=2e-6)
    np.testing.assert_allclose(maxsim.score(queries, small, name), maxsim.score(queries, documents, name), atol=0.03)


def embedding(vectors, scales=None):
    return longembed.Embedding(
        id=0, vectors=vectors, scales=scales, dimensions=vectors.shape[1], ranges=np.zeros((len(vectors), 2), np.int64), tokens=1,
        truncated_tokens=0, sequences=[], model="", prompt="", recipe="",
    )  # fmt: skip


def test_int8_embeddings_stay_int8_unless_others_are_among_them():
    narrow = [embedding(np.array([[1, -2]], np.int8), np.array([0.5], np.float32)), embedding(np.array([[3, 4], [5, 6]], np.int8), np.array([1, 2], np.float32))]
    kept = maxsim.MultiVectors.of(narrow)
    assert kept.values.dtype == np.int8 and kept.scales.tolist() == [0.5, 1, 2] and kept.offsets.tolist() == [0, 1, 3]
    assert [kept[i].tolist() for i in (0, 1)] == [[[0.5, -1]], [[3, 4], [10, 12]]]
    mixed = maxsim.MultiVectors.of([*narrow, embedding(np.array([[7.0, 8.0]], np.float32)), np.array([9.0, 10.0])])
    assert mixed.values.dtype == np.float32 and mixed.scales is None
    assert mixed.values.tolist() == [[0.5, -1], [3, 4], [10, 12], [7, 8], [9, 10]]


@pytest.mark.parametrize(("type_", "lost"), [(np.int8, "scales"), (np.uint8, "bits")])
def test_bytes_of_embeddings_are_no_components(type_, lost):
    """`vectors` of an INT8 or BINARY embedding, as a file of arrays may hold them alone."""
    values, documents = np.ones((2, 4), type_), maxsim.MultiVectors.of([np.ones((2, 4))])
    takers = (
        lambda: maxsim.MultiVectors.of([values]),
        lambda: maxsim.MultiVectors(values, np.array([0, 2])),
        lambda: maxsim.score(values, documents),
    )
    for take in takers:
        with pytest.raises(ValueError, match=f"have lost their {lost}; give the Embedding, or its float32"):
            take()
    assert maxsim.score(np.ones((1, 4), int), documents).tolist() == [[4]]


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_every_vector_has_one_scale(shape):
    """numpy would repeat the only scale."""
    with pytest.raises(ValueError, match="do not fit 2 vectors"):
        maxsim.MultiVectors(np.ones((2, 4), np.int8), np.array([0, 2]), np.ones(shape, np.float32))


def test_int8_of_a_vector_of_zeros_is_zeros():
    small = maxsim.MultiVectors.of([np.zeros((1, 3)), np.array([[1.0, -2.0, 0.0]])]).to_int8()
    assert small.values.tolist() == [[0, 0, 0], [64, -127, 0]] and np.isfinite(small[0]).all()


def test_a_soft_maximum_neither_overflows_nor_underflows():
    documents = maxsim.MultiVectors.of([np.array([[1000.0], [999.0]]), np.array([[-1000.0]])])
    np.testing.assert_allclose(maxsim.score(np.array([[1.0]]), documents, "log_sum_exp(0.001)"), [[1000.0, -1000.0]])


def test_standardized_scores_and_their_sum():
    first, second = np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]), np.array([[0.0, 10.0, 2.0], [1.0, 0.0, 0.0]])
    mean, deviation = 3.0, math.sqrt((4 + 1 + 9) / 3)
    np.testing.assert_allclose(maxsim.standardize(first), [[(v - mean) / deviation for v in first[0]], [0, 0, 0]])
    np.testing.assert_allclose(maxsim.fuse([first, second], [2, 0.5]), 2 * maxsim.standardize(first) + 0.5 * maxsim.standardize(second))
    np.testing.assert_allclose(maxsim.fuse([first, second]), maxsim.standardize(first) + maxsim.standardize(second))


@pytest.mark.parametrize("name", ["max", "mean", "mean_of_top(2)", "log_mean_exp(0.01)"])
@pytest.mark.parametrize("vectors", [1, 5])
def test_equal_documents_have_equal_scores_in_float64(name, vectors, monkeypatch):
    """BLAS adds the products of the last columns of a matrix in another order than those of the first."""
    monkeypatch.setattr(maxsim, "_NUMBERS_AT_A_TIME", 1 << 17)  # Several pieces.
    random = np.random.default_rng(0)
    document = random.normal(size=(vectors, 384)).astype(np.float32)
    documents = maxsim.MultiVectors.of([document] * 301)
    queries = random.normal(size=(50, 384)).astype(np.float32)
    found = maxsim.score(queries, documents, name, np.float64)
    assert found.dtype == np.float32 and (found == found[:, :1]).all()
    np.testing.assert_allclose(found, maxsim.score(queries, documents, name), atol=1e-4)
    assert (maxsim.standardize(found) == 0).all()


def test_rounding_is_no_difference_between_scores():
    """Scores of equal documents may differ in their last bit. Their size may be any."""
    rounded = np.full((1, 100), 0.8, np.float32)
    rounded[0, 3] = np.nextafter(rounded[0, 3], np.float32(1))
    assert (maxsim.standardize(rounded) == 0).all()
    assert (maxsim.standardize(np.full((1, 7), 1e6 + 0.1)) == 0).all()  # The mean of seven equal numbers may be another number.
    for size in (1e-15, 1.0, 1e15):
        np.testing.assert_allclose(maxsim.standardize([[size, 2 * size, 3 * size]]), [[-math.sqrt(1.5), 0, math.sqrt(1.5)]])


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3,), ()])
def test_scores_of_other_queries_or_documents_are_not_added(shape):
    """numpy would repeat the only query, or the only document."""
    with pytest.raises(ValueError, match="shape"):
        maxsim.fuse([np.eye(2, 3), np.zeros(shape)])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused(score):
    """A document that is masked by -inf would make all scores of its query zero, and the system would be left out without a word."""
    scores = np.array([[1.0, 2.0, 3.0], [score, 2.0, 3.0]])
    with pytest.raises(ValueError, match="query 1 has a score that is not a finite number"):
        maxsim.fuse([np.eye(2, 3), scores])
    with pytest.raises(ValueError, match="weights are .*finite"):
        maxsim.fuse([np.eye(2, 3)], [score])


def test_systems_may_be_an_array_or_a_generator():
    systems = np.arange(12.0).reshape(2, 2, 3) ** 2
    expected = maxsim.fuse(list(systems))
    np.testing.assert_array_equal(maxsim.fuse(systems), expected)
    np.testing.assert_array_equal(maxsim.fuse(one for one in systems), expected)


def test_centered_vectors_are_unit_differences_to_the_mean(texts):
    documents = maxsim.MultiVectors.of(texts[1])
    rows = np.concatenate(texts[1]).astype(np.float64)
    mean = rows.sum(axis=0) / len(rows)
    expected = [(row - mean) / math.sqrt(sum((row - mean) ** 2)) for row in rows]
    np.testing.assert_allclose(documents.mean(), mean, atol=1e-6)
    np.testing.assert_allclose(documents.centered(documents.mean()).values, expected, atol=1e-5)
    np.testing.assert_allclose(documents.to_int8().centered(documents.mean()).values, expected, atol=0.05)
    np.testing.assert_array_equal(maxsim.center(np.array([[1.0, 2.0]]), np.array([1.0, 2.0])), [[0, 0]])


@pytest.mark.parametrize("mean", [0.5, np.ones(1), np.ones((2, 3)), np.ones((2, 1)), np.ones(4)])
def test_a_mean_that_is_no_vector_is_refused(mean):
    """numpy subtracts a number from every component, and from each vector another one."""
    with pytest.raises(ValueError, match=r"does not fit vectors of shape \(2, 3\); give vectors.mean\(axis=0\)"):
        maxsim.center(np.eye(2, 3), mean)
    with pytest.raises(ValueError, match="does not fit"):
        maxsim.MultiVectors.of([np.eye(2, 3)]).centered(mean)
    np.testing.assert_array_equal(maxsim.center(np.eye(2, 3), np.zeros((1, 3))), np.eye(2, 3))


def test_the_mean_of_many_vectors_is_exact_and_takes_int8_in_pieces():
    values = np.full((200_000, 8), 0.05, np.float32)
    many = maxsim.MultiVectors(values, np.arange(0, 200_001, 4))
    np.testing.assert_allclose(many.mean(), 0.05, rtol=1e-6)
    np.testing.assert_allclose(many.to_int8().mean(), 0.05, rtol=1e-6)


def test_memory_is_bounded_for_int8_documents(monkeypatch):
    monkeypatch.setattr(maxsim, "_NUMBERS_AT_A_TIME", 1000)
    documents = maxsim.MultiVectors(np.ones((5000, 10), np.int8), np.arange(5001), np.ones(5000, np.float32))
    widened = []
    rows = maxsim.MultiVectors._rows
    monkeypatch.setattr(maxsim.MultiVectors, "_rows", lambda self, start, end: widened.append((end - start) * 10) or rows(self, start, end))
    maxsim.score(np.ones((1, 10)), documents)
    documents.mean()
    assert max(widened) <= 1000


def test_empty_queries_and_documents_have_empty_scores():
    documents = maxsim.MultiVectors.of([np.ones((2, 3))])
    assert maxsim.score(np.zeros((0, 3)), documents).shape == (0, 1)
    assert maxsim.score(np.ones((2, 3)), maxsim.MultiVectors.of([])).shape == (2, 0)
    assert len(maxsim.MultiVectors.of([]).to_int8()) == 0


def test_shapes_that_do_not_match_are_named():
    documents = maxsim.MultiVectors.of([np.ones((2, 3))])
    with pytest.raises(ValueError, match="queries have 4 dimensions and documents 3"):
        maxsim.score(np.ones((1, 4)), documents)
    with pytest.raises(ValueError, match="text 1 has no vector"):
        maxsim.MultiVectors.of([np.ones((2, 3)), np.ones((0, 3))])
    with pytest.raises(ValueError, match="offsets from 0 to 5"):
        maxsim.MultiVectors(np.ones((2, 3)), np.array([0, 5]))
    for wrong in ("best", "mean_of_top(0)", "log_sum_exp(0)", "mean_of_top(-1)"):
        with pytest.raises(ValueError, match="k must be|tau is|unknown reduction"):
            maxsim.reduction(wrong)
    with pytest.raises(ValueError, match="2 systems have 1 weights"):
        maxsim.fuse([np.ones((1, 1))] * 2, [1])


@pytest.mark.parametrize("scales", [None, np.ones(1, np.float32)], ids=["FLOAT32", "INT8"])
def test_sparse_vectors_are_refused_whatever_their_encoding(scales):
    """Two sparse vectors with as many weights would have one shape, but their components are not those of the same words."""
    values = np.array([[3, 2]], np.float32 if scales is None else np.int8)
    items = [
        Embedding(id, values, scales, 30522, np.zeros((1, 2), np.int64), 3, 0, [], "m", "", "r", indices=np.array([id, 100]))
        for id in range(2)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="input 0 has a sparse vector"):
        maxsim.MultiVectors.of(items)


def test_texts_are_counted_from_the_end_as_in_a_list():
    blocks = [np.full((k, 2), k, np.float32) for k in (1, 2, 3)]
    documents = maxsim.MultiVectors.of(blocks)
    for number in (-1, -2, -3):
        np.testing.assert_array_equal(documents[number], blocks[number])
    assert [len(block) for block in documents] == [1, 2, 3]
    for number in (3, -4):
        with pytest.raises(IndexError):
            documents[number]
