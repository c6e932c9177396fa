"""Tests the LlamaIndex adapter with llama-index-core and a real server."""

from __future__ import annotations

import asyncio
import json
import pickle

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("llama_index.core", reason="llama-index-core is not installed; run tests/run.sh")

from llama_index.core import VectorStoreIndex  # noqa: E402
from llama_index.core.base.embeddings.base import BaseEmbedding  # noqa: E402
from llama_index.core.ingestion import IngestionPipeline  # noqa: E402
from llama_index.core.schema import TextNode  # noqa: E402

from longembed import Client, InvalidArgument, LongEmbedError, Options  # noqa: E402
from longembed.llama_index import LongEmbedEmbedding  # noqa: E402

QUESTION = "How long is the Nile?"
WINDOWS = Options(extension={"windows": {"tokens": 128}})


def test_queries_and_texts_have_their_own_prompts_and_extensions(address, expected, long_text):
    embedding = LongEmbedEmbedding(server=address, document=WINDOWS)
    assert isinstance(embedding, BaseEmbedding)
    np.testing.assert_allclose(embedding.get_query_embedding(QUESTION), expected([QUESTION], "query: ")[0], atol=1e-6)
    np.testing.assert_allclose(embedding.get_text_embedding(long_text), expected([long_text], "passage: ", windows=128)[0], atol=1e-6)
    assert all(type(component) is float for component in embedding.get_text_embedding("a"))
    with pytest.raises(InvalidArgument, match="512"):
        embedding.get_query_embedding(long_text)


def test_batches_blocking_and_async(address, expected, long_text):
    embedding = LongEmbedEmbedding(server=address, document=WINDOWS, query=Options(prompt="ask: "), embed_batch_size=3)
    texts = [f"{number} is a number" for number in range(7)] + [long_text]
    wanted = expected(texts, "passage: ", windows=128)
    np.testing.assert_allclose(embedding.get_text_embedding_batch(texts), wanted, atol=1e-6)

    async def embed():
        return (
            await embedding.aget_text_embedding_batch(texts),
            await embedding.aget_text_embedding(texts[0]),
            await embedding.aget_query_embedding(QUESTION),
        )

    batch, one, query = asyncio.run(embed())
    np.testing.assert_allclose(batch, wanted, atol=1e-6)
    np.testing.assert_allclose(one, wanted[0], atol=1e-6)
    np.testing.assert_allclose(query, expected([QUESTION], "ask: ")[0], atol=1e-6)


def test_the_model_of_a_client_is_a_part_of_the_embedding(address):
    """LlamaIndex's cache of an ingestion identifies vectors by to_dict(), and a loaded embedding has its model from there."""
    with Client(address, model="e5-small-v2") as client, Client(address) as other:
        assert LongEmbedEmbedding(client).to_dict()["model_name"] == "e5-small-v2"
        assert LongEmbedEmbedding(client).to_dict() != LongEmbedEmbedding(other).to_dict()
        assert LongEmbedEmbedding(client, model_name="named").model_name == "named"


def test_an_index_of_llama_index(address):
    nodes = [TextNode(text=text) for text in ("The Nile is about 6,650 km long.", "Cats sleep most of the day.", "Bread is flour and water.")]
    index = VectorStoreIndex(nodes, embed_model=LongEmbedEmbedding(server=address))
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == nodes[0].text
    (embedded, *_) = IngestionPipeline(transformations=[LongEmbedEmbedding(server=address)]).run(nodes=[TextNode(text="a")])
    assert len(embedded.embedding) == 384


def test_serialization_keeps_the_options_and_leaves_the_key_out(keyed_address, address, expected):
    embedding = LongEmbedEmbedding(server=keyed_address, api_key="correct-key", document=WINDOWS, embed_batch_size=5)
    written = embedding.to_json()
    assert "correct-key" not in written and json.loads(written)["class_name"] == "LongEmbedEmbedding"
    assert "correct-key" not in repr(embedding)
    with pytest.raises(LongEmbedError) as caught:
        LongEmbedEmbedding.from_json(written).get_text_embedding("a")
    assert caught.value.code == "UNAUTHENTICATED"
    for restored in (LongEmbedEmbedding.from_json(written, api_key="correct-key"), pickle.loads(pickle.dumps(embedding))):
        assert restored.document == WINDOWS and restored.embed_batch_size == 5
        np.testing.assert_allclose(restored.get_text_embedding("a"), expected(["a"], "passage: ")[0], atol=1e-6)


def test_changed_fields_are_used(address, expected):
    """They are in to_dict(), by which LlamaIndex's cache of an ingestion identifies vectors."""
    embedding = LongEmbedEmbedding(server=address)
    wanted = expected(["a"], "say: ")[0]
    copy = embedding.model_copy(update={"document": Options(prompt="say: ")})
    embedding.document = Options(prompt="say: ")
    for changed in (copy, embedding):
        np.testing.assert_allclose(changed.get_text_embedding("a"), wanted, atol=1e-6)
        np.testing.assert_allclose(asyncio.run(changed.aget_text_embedding("a")), wanted, atol=1e-6)
        changed.query = Options(prompt="say: ")
        np.testing.assert_allclose(changed.get_query_embedding("a"), wanted, atol=1e-6)
    embedding.model_name = "no-such-model"
    with pytest.raises(LongEmbedError, match="no-such-model"):
        embedding.get_text_embedding("a")
    with Client(address) as client:
        embedding = LongEmbedEmbedding(client)
        embedding.document = Options(prompt="say: ")
        np.testing.assert_allclose(embedding.get_text_embedding("a"), wanted, atol=1e-6)
        embedding.server = "127.0.0.1:1"
        with pytest.raises(ValueError, match="those of the Client that was given"):
            embedding.get_text_embedding("a")


def test_a_client_and_a_model_name(address, expected):
    with Client(address) as client:
        embedding = LongEmbedEmbedding(client, model_name="e5-small-v2")
        np.testing.assert_allclose(embedding.get_text_embedding("a"), expected(["a"], "passage: ")[0], atol=1e-6)
        assert embedding.to_dict()["server"] == address
        with pytest.raises(LongEmbedError, match="no-such-model"):
            LongEmbedEmbedding(client, model_name="no-such-model").get_text_embedding("a")
        with pytest.raises(TypeError, match="not both"):
            LongEmbedEmbedding(client, server=address)
    with pytest.raises(ValueError, match="sever"):
        LongEmbedEmbedding(sever=address)
