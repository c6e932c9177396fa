"""Tests the encoder with sentence-transformers' methods, against a real server and, if the library is installed, against its own functions."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import InvalidArgument, Options  # noqa: E402
from longembed.sentence_transformers import LongEmbedModel  # noqa: E402

QUESTION = "How long is the Nile?"
TEXTS = ["The Nile is about 6,650 km long.", "Cats sleep most of the day.", "Bread is made of flour and water."]
WINDOWS = Options(extension={"windows": {"tokens": 128}})


def test_three_ways_to_encode(address, expected, long_text):
    model = LongEmbedModel(address, document=WINDOWS)
    np.testing.assert_allclose(model.encode_query([QUESTION]), expected([QUESTION], "query: "), atol=1e-6)
    np.testing.assert_allclose(model.encode_document([QUESTION, long_text]), expected([QUESTION, long_text], "passage: ", windows=128), atol=1e-6)
    np.testing.assert_allclose(model.encode([QUESTION]), expected([QUESTION], ""), atol=1e-6)
    np.testing.assert_allclose(model.encode([QUESTION], prompt_name="passage"), expected([QUESTION], "passage: "), atol=1e-6)
    np.testing.assert_allclose(model.encode_query([QUESTION], prompt="ask: "), expected([QUESTION], "ask: "), atol=1e-6)
    with pytest.raises(InvalidArgument, match="512"):
        model.encode_query([long_text])


def test_shapes_and_types(address):
    model = LongEmbedModel(address, query=Options(normalize=False))
    assert model.encode(QUESTION).shape == (384,) and model.encode([QUESTION]).shape == (1, 384) and model.encode([]).shape == (0, 384)
    assert model.encode(TEXTS).dtype == np.float32
    assert [vector.shape for vector in model.encode(TEXTS, convert_to_numpy=False)] == [(384,)] * 3
    assert abs(np.linalg.norm(model.encode_query(QUESTION)) - 1) > 0.1
    assert abs(np.linalg.norm(model.encode_query(QUESTION, normalize_embeddings=True)) - 1) < 1e-5
    with pytest.raises(InvalidArgument, match="dimensions"):  # The model is not trained for fewer dimensions.
        model.encode(TEXTS, truncate_dim=64)
    forced = LongEmbedModel(address, options=Options(force_dimensions=True))
    assert forced.encode(TEXTS, truncate_dim=64).shape == (3, 64) and forced.encode([], truncate_dim=64).shape == (0, 64)
    assert LongEmbedModel(address, query=Options(dimensions=32, force_dimensions=True)).encode_query([]).shape == (0, 32)
    assert model.encode(text for text in TEXTS).shape == (3, 384)
    with pytest.raises(TypeError, match="list of texts, not one dict"):
        model.encode({"text": "keys are no texts"})
    with pytest.raises(TypeError, match="precision"):
        model.encode(TEXTS, precision="int8")
    with pytest.raises(ValueError, match="ONE_VECTOR"):
        LongEmbedModel(address, options=Options(output="WINDOW_VECTORS"))


def test_properties(address):
    model = LongEmbedModel(address)
    assert model.prompts == {"query": "query: ", "passage": "passage: "}
    assert model.max_seq_length == 512 and model.get_sentence_embedding_dimension() == 384 and model.similarity_fn_name == "cosine"


def test_similarity_is_the_library_s(address):
    util = pytest.importorskip("sentence_transformers.util", reason="sentence-transformers is not installed; run tests/run.sh")
    model = LongEmbedModel(address)
    a, b = np.random.default_rng(1).normal(size=(4, 5)), np.random.default_rng(2).normal(size=(4, 5))
    a[1] = 0
    np.testing.assert_allclose(model.similarity(a, b), util.cos_sim(a, b).numpy(), atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), util.pairwise_cos_sim(a, b).numpy(), atol=1e-6)
    np.testing.assert_allclose(model.similarity(a[0], b), util.cos_sim(a[0], b).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="equal shapes"):
        model.similarity_pairwise(a, b[:2])


def test_the_library_s_evaluator_runs_it(address, expected):
    evaluation = pytest.importorskip("sentence_transformers.evaluation", reason="sentence-transformers is not installed; run tests/run.sh")
    torch = pytest.importorskip("torch")
    model = LongEmbedModel(address)
    tensor = model.encode_document(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor) and isinstance(model.similarity(tensor, tensor), torch.Tensor)
    queries = {"nile": QUESTION, "bread": "Which day is it?"}
    evaluator = evaluation.InformationRetrievalEvaluator(
        queries, dict(enumerate(TEXTS)), {"nile": {0}, "bread": {2}}, show_progress_bar=False, write_csv=False, name="t"
    )
    evaluator.store_metrics_in_model_card_data = lambda *_: None  # The model card describes a model in this process.
    scores = expected(list(queries.values()), "query: ") @ expected(TEXTS, "passage: ").T
    ranks = [1 + int((row > row[relevant]).sum()) for row, relevant in zip(scores, (0, 2))]
    assert evaluator(model)["t_cosine_mrr@10"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
