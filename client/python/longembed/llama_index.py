"""LlamaIndex: embeddings with one vector per text.

    from llama_index.core import VectorStoreIndex
    from longembed import Options
    from longembed.llama_index import LongEmbedEmbedding

    embedding = LongEmbedEmbedding(server="127.0.0.1:50051", document=Options(extension={"windows": {}}))
    index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
"""

from __future__ import annotations

from typing import Any

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, SecretStr
except ImportError as error:
    raise ImportError('longembed.llama_index needs llama-index-core: pip install "longembed[llama-index]"') from error

from longembed.aio import AsyncClient
from longembed.channel import TLS
from longembed.client import Client
from longembed.options import Options
from longembed.sides import DOCUMENT, QUERY, Connection, Sides


class LongEmbedEmbedding(BaseEmbedding):
    """Embeds texts with one vector per text. Texts (documents) and queries have separate options.

    client: a Client. Or pass `server`, `api_key`, `tls` and `timeout` to create one. The server and the options are serialized, but never the key.
    query, document: options for queries and for documents. Options that set no prompt get the matching input type, if the model has it. prompt=""
    requests no prompt.
    model_name: the model, if the server has several. options.model takes precedence.
    A field may be changed later, also by model_copy(update=...). `server` and `timeout` of a Client that was passed in stay as they are.
    LlamaIndex splits documents into nodes before it embeds them. For vectors of whole texts, give it one node per document.
    LlamaIndex's own embeddings_cache identifies a vector by its text alone, so a query equal to a cached text gets the vector of that text."""

    model_config = ConfigDict(extra="forbid")

    model_name: str = Field(default="", description="The server's name of the model; empty: its only one.")
    server: str | None = Field(default=None, description="HOST:PORT; None: LONGEMBED_SERVER, else the default address.")
    query: Options = Field(default_factory=Options, description="Options of queries.")
    document: Options = Field(default_factory=Options, description="Options of texts.")
    timeout: float = Field(default=300.0, gt=0, description="Seconds for a call.")
    api_key: SecretStr | None = Field(default=None, exclude=True)
    tls: TLS | None = Field(default=None, exclude=True)
    _sides: Sides = PrivateAttr()
    _made_of: tuple = PrivateAttr()

    def __init__(self, client: Client | None = None, *, async_client: AsyncClient | None = None, **fields: Any):
        super().__init__(**fields)
        if client is not None:
            if {"server", "api_key", "tls", "timeout"} & set(fields):
                raise TypeError("give client, or server, api_key, tls and timeout, not both")
            self.server, self.timeout = client.server, client.timeout
            self.model_name = self.model_name or client.default_model or ""  # LlamaIndex's caches and files know the model by this name.
        self._connect(client, async_client)

    def _connect(self, client: Client | None, async_client: AsyncClient | None) -> None:
        if client is not None and (self.server, self.timeout) != (client.server, client.timeout):
            raise ValueError("server and timeout are those of the Client that was given; they cannot be changed")
        key = self.api_key.get_secret_value() if self.api_key else None
        connection = Connection(self.server, key, self.tls, self.timeout)
        self._sides = Sides(client or connection, self._of_model(self.query), self._of_model(self.document), async_client)
        self._made_of = self._fields()

    def _fields(self) -> tuple:
        return self.server, self.model_name, self.query, self.document, self.timeout, self.api_key, self.tls

    def _current(self) -> Sides:
        """Returns the sides of the fields as they are now. LlamaIndex's cache of an ingestion identifies vectors by the fields."""
        if self._fields() != self._made_of:
            self._connect(*self._sides.given_clients)
        return self._sides

    @classmethod
    def class_name(cls) -> str:
        return "LongEmbedEmbedding"

    def _of_model(self, options: Options) -> Options:
        return options if options.model or not self.model_name else options.with_changes(model=self.model_name)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._current().embed_one(QUERY, query).float32()[0].tolist()

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return [answer.float32()[0].tolist() for answer in self._current().embed(DOCUMENT, texts)]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._current().aembed_one(QUERY, query)).float32()[0].tolist()

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return [answer.float32()[0].tolist() for answer in await self._current().aembed(DOCUMENT, texts)]
