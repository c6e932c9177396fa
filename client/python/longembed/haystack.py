"""Haystack components: a text embedder for queries, and a document embedder.

    from haystack import Document
    from longembed import Options
    from longembed.haystack import LongEmbedDocumentEmbedder, LongEmbedTextEmbedder

    embedder = LongEmbedDocumentEmbedder("127.0.0.1:50051", document=Options(extension={"windows": {}}))
    documents = embedder.run(documents=[Document(content=text)])["documents"]
    embedding = LongEmbedTextEmbedder("127.0.0.1:50051").run(text="how long is the Nile?")["embedding"]

A pipeline loaded from YAML needs allowed_modules=["longembed"]. Haystack requires this for every module that is not its own.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret
except ImportError as error:
    raise ImportError('longembed.haystack needs haystack-ai 3: pip install "longembed[haystack]"') from error

from longembed.aio import AsyncClient
from longembed.channel import TLS
from longembed.client import Client
from longembed.options import Options
from longembed.results import Embedding
from longembed.sides import DOCUMENT, QUERY, Connection, Sides


class _Embedder:
    """Base class of both components. Manages the connection, its lifetime, and its serialization."""

    def _connect(
        self,
        client: Client | str | None,
        api_key: Secret | None,
        tls: TLS | None,
        timeout: float,
        async_client: AsyncClient | None,
    ) -> None:
        if isinstance(client, Client) and (api_key is not None or tls is not None):
            raise TypeError("give a Client, or its address, api_key and tls, not both")
        self.client, self.api_key, self.tls, self.timeout, self.async_client = client, api_key, tls, timeout, async_client
        self._sides: Sides | None = None
        self._made_of: tuple = ()

    def _options(self) -> dict[str, Options | None]:
        """Returns the options of the component's side, by the name of the side."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Reads the API key. The first call opens the connection."""
        self._warm()

    async def warm_up_async(self) -> None:
        self._warm()

    def _warm(self) -> Sides:
        """Returns the sides of the attributes as they are now. to_dict() writes the same ones."""
        attributes = (self.client, self.api_key, self.tls, self.timeout, self.async_client, self._options())
        if self._sides is None or attributes != self._made_of:
            key = self.api_key.resolve_value() if self.api_key is not None else None
            client = self.client if isinstance(self.client, Client) else Connection(self.client, key, self.tls, self.timeout)
            self._sides, self._made_of = Sides(client, async_client=self.async_client, **self._options()), attributes
        return self._sides

    def close(self) -> None:
        """Closes a client that this component created. A Client that was passed in stays open."""
        if self._sides is not None:
            self._sides.close()

    async def close_async(self) -> None:
        if self._sides is not None:
            await self._sides.aclose()
            self._sides.close()

    def _connection_to_dict(self) -> dict[str, Any]:
        """Raises ValueError for a value that must not or cannot be serialized: a Client, a token, or PEM bytes."""
        if isinstance(self.client, Client) or self.async_client is not None:
            raise ValueError("a component that was given a Client cannot be serialized; give the address, api_key and tls instead")
        tls = {name: value for name, value in asdict(self.tls).items() if value is not None} if self.tls is not None else None
        if any(isinstance(value, bytes) for value in (tls or {}).values()):
            raise ValueError("tls: PEM bytes cannot be serialized; give paths of files instead")
        paths = tls and {name: str(path) for name, path in tls.items()}
        return {"client": self.client, "api_key": self.api_key, "tls": paths, "timeout": self.timeout}

    @classmethod
    def _from_dict(cls, data: dict[str, Any], side: str) -> Any:
        given = dict(data["init_parameters"])
        if given.get("tls") is not None:
            given["tls"] = TLS(**given["tls"])
        if given.get(side) is not None:
            given[side] = Options(**given[side])
        return default_from_dict(cls, {**data, "init_parameters": given})


@component
class LongEmbedTextEmbedder(_Embedder):
    """Embeds a string as a query.

    client: HOST:PORT or a Client. None: the environment variable LONGEMBED_SERVER, otherwise the default address. api_key, tls, timeout: only with
    an address.
    query: options. If they set no prompt, they get the input type QUERY, if the model has it. prompt="" requests no prompt."""

    def __init__(
        self,
        client: Client | str | None = None,
        *,
        query: Options | None = None,
        api_key: Secret | None = None,
        tls: TLS | None = None,
        timeout: float = 300.0,
        async_client: AsyncClient | None = None,
    ):
        self.query = query
        self._connect(client, api_key, tls, timeout, async_client)

    def _options(self) -> dict[str, Options | None]:
        return {"query": self.query}

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(self, query=self.query, **self._connection_to_dict())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LongEmbedTextEmbedder:
        return cls._from_dict(data, "query")

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Returns {"embedding": the vector, "meta": model, prompt, recipe and tokens}."""
        return _text_output(self._warm().embed_one(QUERY, _checked_text(text)))

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        return _text_output(await self._warm().aembed_one(QUERY, _checked_text(text)))


@component
class LongEmbedDocumentEmbedder(_Embedder):
    """Embeds documents. Returns copies of the documents, each with its embedding.

    client: HOST:PORT or a Client. None: the environment variable LONGEMBED_SERVER, otherwise the default address. api_key, tls, timeout: only with
    an address.
    document: options. If they set no prompt, they get the input type DOCUMENT, if the model has it. prompt="" requests no prompt.
    meta_fields_to_embed: metadata fields that are put before the content, each followed by embedding_separator. Fields that a document lacks are
    left out."""

    def __init__(
        self,
        client: Client | str | None = None,
        *,
        document: Options | None = None,
        api_key: Secret | None = None,
        tls: TLS | None = None,
        timeout: float = 300.0,
        async_client: AsyncClient | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        progress_bar: bool = True,
    ):
        if isinstance(meta_fields_to_embed, str):
            raise TypeError("meta_fields_to_embed takes a list of names, not one str, whose letters would be taken for names")
        self.document = document
        self.meta_fields_to_embed, self.embedding_separator, self.progress_bar = meta_fields_to_embed or [], embedding_separator, progress_bar
        self._connect(client, api_key, tls, timeout, async_client)

    def _options(self) -> dict[str, Options | None]:
        return {"document": self.document}

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(
            self,
            document=self.document,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            progress_bar=self.progress_bar,
            **self._connection_to_dict(),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LongEmbedDocumentEmbedder:
        return cls._from_dict(data, "document")

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Returns {"documents": in their order, "meta": model, prompt, recipe, and the tokens of all documents together}."""
        return _document_output(documents, self._warm().embed(DOCUMENT, self._texts(documents), self.progress_bar))

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        return _document_output(documents, await self._warm().aembed(DOCUMENT, self._texts(documents), self.progress_bar))

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError("LongEmbedDocumentEmbedder takes a list of Documents; for a string there is LongEmbedTextEmbedder")
        return [self._text(document) for document in documents]

    def _text(self, document: Document) -> str:
        values = [str(value) for field in self.meta_fields_to_embed if (value := document.meta.get(field)) is not None]
        text = self.embedding_separator.join([*values, document.content or ""])
        if not text:
            raise ValueError(f"document {document.id} has no text: neither content nor any of meta_fields_to_embed")
        return text


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError("LongEmbedTextEmbedder takes a str; for Documents there is LongEmbedDocumentEmbedder")
    return text


def _vector(answer: Embedding) -> list[float]:
    return answer.float32()[0].tolist()


def _meta(answers: list[Embedding]) -> dict[str, Any]:
    first = {"model": answers[0].model, "prompt": answers[0].prompt, "recipe": answers[0].recipe} if answers else {}
    return {**first, "tokens": sum(answer.tokens for answer in answers)}


def _text_output(answer: Embedding) -> dict[str, Any]:
    return {"embedding": _vector(answer), "meta": _meta([answer])}


def _document_output(documents: list[Document], answers: list[Embedding]) -> dict[str, Any]:
    embedded = [replace(document, embedding=_vector(answer)) for document, answer in zip(documents, answers, strict=True)]
    return {"documents": embedded, "meta": _meta(answers)}
