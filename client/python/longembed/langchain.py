"""LangChain: embeddings with one vector per text, and a retriever over window vectors.

    from langchain_core.vectorstores import InMemoryVectorStore
    from longembed import Options
    from longembed.langchain import LongEmbedEmbeddings

    embeddings = LongEmbedEmbeddings("127.0.0.1:50051", document=Options(extension={"windows": {}}))
    store = InMemoryVectorStore.from_texts(texts, embeddings)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise ImportError('longembed.langchain needs langchain-core: pip install "longembed[langchain]"') from error

from pydantic import Field, PrivateAttr, field_validator

from longembed.aio import AsyncClient
from longembed.client import Client
from longembed.options import Options
from longembed.retriever import Retriever
from longembed.sides import DOCUMENT, QUERY, Sides


class LongEmbedEmbeddings(Embeddings):
    """Embeds texts with one vector per text. Documents and queries have separate options.

    client: a Client or HOST:PORT. None: the environment variable LONGEMBED_SERVER, otherwise the default address.
    query, document: options for queries and for documents. Options that set no prompt get the matching input type, if the model has it. prompt=""
    requests no prompt.
    async_client: used by the async methods if `client` is a Client. Without it, they run `client` on a thread.
    progress: show a tqdm bar while documents are embedded (extra "progress")."""

    def __init__(
        self,
        client: Client | str | None = None,
        *,
        query: Options | None = None,
        document: Options | None = None,
        async_client: AsyncClient | None = None,
        progress: bool = False,
    ):
        self._sides = Sides(client, query, document, async_client)
        self._progress = progress

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [answer.float32()[0].tolist() for answer in self._sides.embed(DOCUMENT, texts, self._progress)]

    def embed_query(self, text: str) -> list[float]:
        return self._sides.embed_one(QUERY, text).float32()[0].tolist()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [answer.float32()[0].tolist() for answer in await self._sides.aembed(DOCUMENT, texts, self._progress)]

    async def aembed_query(self, text: str) -> list[float]:
        return (await self._sides.aembed_one(QUERY, text)).float32()[0].tolist()


class LongEmbedRetriever(BaseRetriever):
    """Finds whole documents by their window vectors, as longembed.Retriever does.

    retriever: the systems that score documents, without documents yet. For long documents use Retriever.windows(client).
    k: the number of documents per query. Their metadata holds the score as `score_key`. With several systems the score is a sum of z-scores, so
    only its order matters."""

    retriever: Retriever
    k: int = Field(default=4, ge=1)
    score_key: str = "score"
    _documents: dict[str, Document] = PrivateAttr(default_factory=dict)

    @field_validator("retriever")
    @classmethod
    def _refuse_documents(cls, retriever: Retriever) -> Retriever:
        """Refuses a retriever whose documents would be found without being known here."""
        if retriever.ids:
            raise ValueError(f"the retriever has {len(retriever.ids)} documents already; give an empty one, and the documents to add_documents")
        return retriever

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], client: Client | str | None = None, *, retriever: Retriever | None = None, **fields: Any
    ) -> LongEmbedRetriever:
        """Embeds the documents and keeps their vectors in memory.

        client: used for Retriever.windows(client), which is the default if no `retriever` is given.
        fields: k, score_key, and the fields of every LangChain retriever."""
        if retriever is not None and client is not None:
            raise TypeError("give client or retriever, not both: a retriever has its own client")
        found = cls(retriever=retriever or Retriever.windows(client if isinstance(client, Client) else Client(client)), **fields)
        found.add_documents(documents)
        return found

    def add_documents(self, documents: Iterable[Document]) -> list[str]:
        """Returns the ids of the documents. A document without an id gets its number, or the next one that is no other document's id. Raises
        ValueError if an id is already taken."""
        documents = list(documents)
        named = self._documents.keys() | {document.id for document in documents}
        added: dict[str, Document] = {}
        for document in documents:
            numbers = map(str, itertools.count(len(self._documents) + len(added)))
            id = document.id or next(number for number in numbers if number not in named and number not in added)
            if id in added or id in self._documents:
                raise ValueError(f"document id {id!r} is taken; ids must be unique")
            added[id] = document
        self.retriever.add((id, document.page_content) for id, document in added.items())
        self._documents.update(added)
        return list(added)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        (hits,) = self.retriever.search([query], k=self.k)
        return [self._with_score(str(hit.id), hit.score) for hit in hits]

    def _with_score(self, id: str, score: float) -> Document:
        document = self._documents[id]
        return document.model_copy(update={"id": id, "metadata": {**document.metadata, self.score_key: float(score)}})
