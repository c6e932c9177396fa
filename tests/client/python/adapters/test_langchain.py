"""Tests the LangChain adapter with langchain-core and a real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("langchain_core", reason="langchain-core is not installed; run tests/run.sh")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402

from longembed import Client, InvalidArgument, Options, Retriever  # noqa: E402
from longembed.langchain import LongEmbedEmbeddings, LongEmbedRetriever  # noqa: E402

QUESTION = "How long is the Nile?"
WINDOWS = Options(extension={"windows": {"tokens": 128}})


def test_queries_and_documents_have_their_own_prompts_and_extensions(address, expected, long_text):
    embeddings = LongEmbedEmbeddings(address, document=WINDOWS)
    assert isinstance(embeddings, Embeddings)
    np.testing.assert_allclose(embeddings.embed_query(QUESTION), expected([QUESTION], "query: ")[0], atol=1e-6)
    documents = embeddings.embed_documents([QUESTION, long_text])
    np.testing.assert_allclose(documents, expected([QUESTION, long_text], "passage: ", windows=128), atol=1e-6)
    assert all(type(component) is float for component in documents[1])
    assert embeddings.embed_documents([]) == []
    with pytest.raises(InvalidArgument, match="512"):
        embeddings.embed_query(long_text)


def test_async_methods(address, expected, long_text):
    embeddings = LongEmbedEmbeddings(address, document=WINDOWS, query=Options(prompt="ask: "))

    async def embed():
        return await asyncio.gather(embeddings.aembed_query(QUESTION), embeddings.aembed_documents([long_text, QUESTION]))

    query, documents = asyncio.run(embed())
    np.testing.assert_allclose(query, expected([QUESTION], "ask: ")[0], atol=1e-6)
    np.testing.assert_allclose(documents, expected([long_text, QUESTION], "passage: ", windows=128), atol=1e-6)


def test_a_vector_store_of_langchain(address):
    texts = ["The Nile is about 6,650 km long.", "Cats sleep most of the day.", "Bread is made of flour and water."]
    store = InMemoryVectorStore.from_texts(texts, LongEmbedEmbeddings(address))
    assert store.similarity_search(QUESTION, k=1)[0].page_content == texts[0]
    found = asyncio.run(store.asimilarity_search("What do cats do?", k=1))
    assert found[0].page_content == texts[1]


@pytest.fixture(scope="module")
def documents(long_text):
    """Returns two long documents with one fact each, near the end of the first and in the middle of the second."""
    parts = long_text.split("\n\n")
    return [
        Document(id="nile", page_content="\n\n".join([*parts, "The Nile is about 6,650 km long.", parts[0]]), metadata={"topic": "rivers"}),
        Document(id="bread", page_content="\n\n".join([*parts[:8], "Bread is made of flour and water.", *parts[8:]])),
        Document(id="license", page_content=long_text),
    ]


def test_the_retriever_finds_a_fact_in_a_long_document(address, documents):
    retriever = LongEmbedRetriever.from_documents(documents, address, k=2)
    found = retriever.invoke(QUESTION)
    assert [document.id for document in found][0] == "nile" and len(found) == 2
    assert found[0].metadata["topic"] == "rivers" and found[0].metadata["score"] > found[1].metadata["score"]
    assert "score" not in documents[0].metadata
    assert [hits[0].id for hits in retriever.batch([QUESTION, "What is bread made of?"])] == ["nile", "bread"]
    assert asyncio.run(retriever.ainvoke("What is bread made of?"))[0].id == "bread"
    assert (retriever | RunnableLambda(len)).invoke(QUESTION) == 2


def test_the_retriever_scores_as_longembed_s_own_does(address, documents):
    with Client(address) as client:
        own = Retriever.windows(client, tokens=(128,), bm25=False)
        own.add({document.id: document.page_content for document in documents})
        wanted = own.search([QUESTION], k=3)[0]
        ours = LongEmbedRetriever.from_documents(documents, retriever=Retriever.windows(client, tokens=(128,), bm25=False), k=3, score_key="cosine")
        found = ours.invoke(QUESTION)
    assert [document.id for document in found] == [hit.id for hit in wanted]
    np.testing.assert_allclose([document.metadata["cosine"] for document in found], [hit.score for hit in wanted], atol=1e-6)


def test_ids_of_documents(address):
    with Client(address) as client:
        retriever = LongEmbedRetriever(retriever=Retriever.windows(client, tokens=(128,), bm25=False))
        assert retriever.add_documents([Document(page_content="one"), Document(id="x", page_content="two")]) == ["0", "x"]
        assert retriever.add_documents([Document(page_content="three")]) == ["2"]
        numbered = [Document(id="3", page_content="four"), Document(page_content="five"), Document(page_content="six"), Document(id="5", page_content="seven")]
        assert retriever.add_documents(numbered) == ["3", "4", "6", "5"]
        assert retriever.add_documents([Document(page_content="eight")]) == ["7"]
        with pytest.raises(ValueError, match="'x' is taken"):
            retriever.add_documents([Document(page_content="four"), Document(id="x", page_content="five")])
        assert len(retriever.invoke("one")) == 4 and len(retriever.retriever.ids) == 8
        with pytest.raises(TypeError, match="not both"):
            LongEmbedRetriever.from_documents([], client, retriever=retriever.retriever)
        with pytest.raises(ValueError, match="k"):
            LongEmbedRetriever(retriever=Retriever.windows(client, bm25=False), k=0)
        with pytest.raises(ValueError, match="the retriever has 8 documents already"):
            LongEmbedRetriever(retriever=retriever.retriever)
