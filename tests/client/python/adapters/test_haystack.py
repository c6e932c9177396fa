"""Tests the Haystack components with haystack-ai and a real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("haystack", reason="haystack-ai is not installed; run tests/run.sh")

from haystack import Document, Pipeline  # noqa: E402
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever  # noqa: E402
from haystack.components.writers import DocumentWriter  # noqa: E402
from haystack.document_stores.in_memory import InMemoryDocumentStore  # noqa: E402
from haystack.utils import Secret  # noqa: E402

from longembed import TLS, Client, InvalidArgument, LongEmbedError, Options  # noqa: E402
from longembed.haystack import LongEmbedDocumentEmbedder, LongEmbedTextEmbedder  # noqa: E402

QUESTION = "How long is the Nile?"
WINDOWS = Options(extension={"windows": {"tokens": 128}})


def test_text_embedder(address, expected):
    result = LongEmbedTextEmbedder(address).run(text=QUESTION)
    np.testing.assert_allclose(result["embedding"], expected([QUESTION], "query: ")[0], atol=1e-6)
    assert type(result["embedding"][0]) is float
    assert result["meta"]["model"] == "e5-small-v2" and result["meta"]["prompt"] == "query: " and result["meta"]["tokens"] > 5
    with pytest.raises(TypeError, match="DocumentEmbedder"):
        LongEmbedTextEmbedder(address).run(text=[QUESTION])


def test_document_embedder(address, expected, long_text):
    documents = [Document(content=long_text, meta={"title": "Artistic"}), Document(content="a", meta={"title": None}), Document(content="b")]
    embedder = LongEmbedDocumentEmbedder(address, document=WINDOWS, meta_fields_to_embed=["title"], embedding_separator=" | ", progress_bar=False)
    result = embedder.run(documents=documents)
    wanted = expected([f"Artistic | {long_text}", "a", "b"], "passage: ", windows=128)
    np.testing.assert_allclose([document.embedding for document in result["documents"]], wanted, atol=1e-6)
    assert [document.id for document in result["documents"]] == [document.id for document in documents]
    assert documents[0].embedding is None
    assert result["meta"]["prompt"] == "passage: " and result["meta"]["tokens"] > 1200
    with pytest.raises(InvalidArgument, match="512"):
        LongEmbedDocumentEmbedder(address, progress_bar=False).run(documents=documents)


def test_run_async(address, expected, long_text):
    async def embed():
        text = LongEmbedTextEmbedder(address, query=Options(prompt="ask: "))
        documents = LongEmbedDocumentEmbedder(address, document=WINDOWS, progress_bar=False)
        results = await asyncio.gather(text.run_async(text=QUESTION), documents.run_async(documents=[Document(content=long_text)]))
        await asyncio.gather(text.close_async(), documents.close_async())
        return results

    text, documents = asyncio.run(embed())
    np.testing.assert_allclose(text["embedding"], expected([QUESTION], "ask: ")[0], atol=1e-6)
    np.testing.assert_allclose(documents["documents"][0].embedding, expected([long_text], "passage: ", windows=128)[0], atol=1e-6)


def test_changed_attributes_are_used(address, expected):
    """They are what to_dict() writes."""
    wanted = expected(["a"], "say: ")[0]
    text, documents = LongEmbedTextEmbedder(address), LongEmbedDocumentEmbedder(address, progress_bar=False)
    text.run(text="a")
    documents.warm_up()
    text.query = documents.document = Options(prompt="say: ")
    np.testing.assert_allclose(text.run(text="a")["embedding"], wanted, atol=1e-6)
    np.testing.assert_allclose(documents.run(documents=[Document(content="a")])["documents"][0].embedding, wanted, atol=1e-6)


def test_bad_documents_are_refused(address):
    embedder = LongEmbedDocumentEmbedder(address, progress_bar=False)
    with pytest.raises(TypeError, match="meta_fields_to_embed takes a list of names"):
        LongEmbedDocumentEmbedder(address, meta_fields_to_embed="title")
    with pytest.raises(TypeError, match="list of Documents"):
        embedder.run(documents="text")
    with pytest.raises(ValueError, match="document x has no text"):
        embedder.run(documents=[Document(content="a"), Document(id="x", content=None)])
    assert embedder.run(documents=[]) == {"documents": [], "meta": {"tokens": 0}}


def make_pipelines(address, store) -> tuple[Pipeline, Pipeline]:
    key = Secret.from_env_var("LONGEMBED_TEST_KEY")
    indexing = Pipeline()
    indexing.add_component("embedder", LongEmbedDocumentEmbedder(address, document=WINDOWS, api_key=key, progress_bar=False))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    asking = Pipeline()
    asking.add_component("embedder", LongEmbedTextEmbedder(address, api_key=key))
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    asking.connect("embedder.embedding", "retriever.query_embedding")
    return indexing, asking


def test_pipelines_with_a_key_before_and_after_yaml(keyed_address, monkeypatch):
    monkeypatch.setenv("LONGEMBED_TEST_KEY", "correct-key")
    store = InMemoryDocumentStore()
    indexing, asking = make_pipelines(keyed_address, store)
    written = indexing.dumps()
    assert "correct-key" not in written and "LONGEMBED_TEST_KEY" in written
    indexing.run({"embedder": {"documents": [Document(content=text) for text in ("The Nile is about 6,650 km long.", "Cats sleep.")]}})
    found = asking.run({"embedder": {"text": QUESTION}})["retriever"]["documents"]
    assert found[0].content.startswith("The Nile")
    restored = Pipeline.loads(written, allowed_modules=["longembed"])
    embedder = restored.get_component("embedder")
    assert embedder.document == WINDOWS and embedder.to_dict() == indexing.get_component("embedder").to_dict()
    assert restored.run({"embedder": {"documents": [Document(content="b")]}})["writer"]["documents_written"] == 1
    asking.close()
    monkeypatch.setenv("LONGEMBED_TEST_KEY", "wrong-key")
    with pytest.raises(Exception, match="API key") as caught:
        make_pipelines(keyed_address, store)[1].run({"embedder": {"text": QUESTION}})
    assert isinstance(caught.value, LongEmbedError) or isinstance(caught.value.__cause__, LongEmbedError)


def test_to_dict_refuses_what_must_not_be_written_down(address):
    tls = TLS(root_certificates="ca.pem")
    assert LongEmbedTextEmbedder(address, tls=tls).to_dict()["init_parameters"]["tls"] == {"root_certificates": "ca.pem"}
    assert LongEmbedTextEmbedder.from_dict(LongEmbedTextEmbedder(address, tls=tls).to_dict()).tls == tls
    with pytest.raises(ValueError, match="PEM bytes"):
        LongEmbedTextEmbedder(address, tls=TLS(client_key=b"-----BEGIN", client_certificate="c.pem")).to_dict()
    with pytest.raises(ValueError, match="token"):
        LongEmbedTextEmbedder(address, api_key=Secret.from_token("correct-key")).to_dict()
    with Client(address) as client, pytest.raises(ValueError, match="Client cannot be serialized"):
        LongEmbedTextEmbedder(client).to_dict()
    with Client(address) as client, pytest.raises(TypeError, match="not both"):
        LongEmbedTextEmbedder(client, tls=tls)
