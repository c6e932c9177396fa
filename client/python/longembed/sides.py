"""Base of the adapters: one vector a text, queries and documents each under options of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass

from longembed import messages
from longembed.aio import AsyncClient
from longembed.channel import TLS
from longembed.client import Client
from longembed.options import Options
from longembed.results import Embedding

QUERY, DOCUMENT = "QUERY", "DOCUMENT"


@dataclass(frozen=True)
class Connection:
    """Arguments of both kinds of clients: see Client."""

    server: str | None = None
    api_key: str | None = None
    tls: TLS | None = None
    timeout: float = 300.0

    def client(self) -> Client:
        return Client(self.server, api_key=self.api_key, tls=self.tls, timeout=self.timeout)

    def async_client(self) -> AsyncClient:
        return AsyncClient(self.server, api_key=self.api_key, tls=self.tls, timeout=self.timeout)


class Sides:
    """Embeds texts as queries or as documents (`side` is QUERY or DOCUMENT), one vector each.

    client: a Client, which stays the caller's to close; or HOST:PORT, or a Connection; None: the default server.
    query, document: options of each side. One that names no prompt gets the side's input type where the model has it; prompt="" asks for none.
    async_client: for the async methods. Without it they make one for each event loop from the address; a Client that was given they run on a thread.

    Raises ValueError for options with an output other than ONE_VECTOR. A text that fails raises LongEmbedError with the text's number.
    """

    def __init__(
        self,
        client: Client | Connection | str | None = None,
        query: Options | None = None,
        document: Options | None = None,
        async_client: AsyncClient | None = None,
    ):
        self._connection = None if isinstance(client, Client) else client if isinstance(client, Connection) else Connection(client)
        self._client = client if isinstance(client, Client) else None
        self._async_client = async_client
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        self._given = {QUERY: query or Options(), DOCUMENT: document or Options()}
        self._resolved: dict[str, Options] = {}
        for side, options in self._given.items():
            if options.output not in (None, "ONE_VECTOR"):
                several = "several vectors a text are for longembed.Retriever"
                raise ValueError(f"{side.lower()} options: output is {options.output}; it must be ONE_VECTOR here ({several})")

    def __reduce__(self):
        """For worker processes, which connect by themselves."""
        if self._connection is None:
            raise TypeError("what was given a Client cannot be pickled; give the address instead")
        return Sides, (self._connection, self._given[QUERY], self._given[DOCUMENT])

    @property
    def client(self) -> Client:
        if self._client is None:
            assert self._connection is not None
            self._client = self._connection.client()
        return self._client

    def async_client(self) -> AsyncClient | None:
        """The one of the running event loop; None where only a blocking client is at hand."""
        if self._async_client is not None or self._connection is None:
            return self._async_client
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:  # Drops clients of closed loops.
            self._by_loop = {other: client for other, client in self._by_loop.items() if not other.is_closed()}
            self._by_loop[loop] = self._connection.async_client()
        return self._by_loop[loop]

    def options(self, side: str) -> Options:
        """The side's options with their prompt; asks the server on first use."""
        if side not in self._resolved:
            given = self._given[side]
            self._resolved[side] = given if _names_prompt(given) else _with_input_type(given, side, self.client.model(given.model))
        return self._resolved[side]

    def embed_one(self, side: str, text: str) -> Embedding:
        """The answer for one text, which fits a message."""
        return self.client.embed(_checked([text]), self.options(side))[0]

    def embed(self, side: str, texts: Sequence[str], progress: bool = False) -> list[Embedding]:
        """The answers in the texts' order; any number of texts of any length."""
        return self.embed_with(self.options(side), texts, progress)

    def embed_with(self, options: Options, texts: Sequence[str], progress: bool = False) -> list[Embedding]:
        with closing(self.client.embed_stream(_numbered(texts), options, progress=progress)) as stream:
            answers = {answer.id: _successful(answer) for answer in stream}
        return [answers[number] for number in range(len(texts))]

    async def aembed_one(self, side: str, text: str) -> Embedding:
        client = self.async_client()
        if client is None:
            return await asyncio.to_thread(self.embed_one, side, text)
        return (await client.embed(_checked([text]), await self._aoptions(side, client)))[0]

    async def aembed(self, side: str, texts: Sequence[str], progress: bool = False) -> list[Embedding]:
        client = self.async_client()
        if client is None:
            return await asyncio.to_thread(self.embed, side, texts, progress)
        async with aclosing(client.embed_stream(_numbered(texts), await self._aoptions(side, client), progress=progress)) as stream:
            answers = {answer.id: _successful(answer) async for answer in stream}
        return [answers[number] for number in range(len(texts))]

    def close(self) -> None:
        """Closes the blocking client, if it is not the caller's; the next call makes another."""
        if self._connection is not None and self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Closes the running event loop's client."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _aoptions(self, side: str, client: AsyncClient) -> Options:
        if side not in self._resolved:
            given = self._given[side]
            self._resolved[side] = given if _names_prompt(given) else _with_input_type(given, side, await client.model(given.model))
        return self._resolved[side]


def _with_input_type(options: Options, side: str, model: messages.Model) -> Options:
    return options.with_changes(input_type=side) if side in model.input_types else options


def _names_prompt(options: Options) -> bool:
    return any(prompt is not None for prompt in (options.prompt_name, options.input_type, options.prompt))


def _numbered(texts: Sequence[str]) -> list[tuple[int, str]]:
    return list(enumerate(_checked(texts)))


def _checked(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise TypeError("give a list of texts, not one str")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is of type {type(text).__name__}; it must be a str")
    return texts


def _successful(answer: Embedding) -> Embedding:
    """The answer, unless it tells a failure: then its error is raised, naming the text's number."""
    error = answer.error
    if error is not None:
        raise error.about(f"text {answer.id}")
    return answer
