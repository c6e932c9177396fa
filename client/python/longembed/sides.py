"""Base of the adapters: one vector per text, with separate options for queries and for documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable, Iterable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass

from longembed import messages
from longembed.aio import AsyncClient
from longembed.channel import TLS
from longembed.client import Client
from longembed.options import Options
from longembed.results import Embedding, refuse_two_recipes

QUERY, DOCUMENT = "QUERY", "DOCUMENT"


@dataclass(frozen=True)
class Connection:
    """Arguments that create a Client or an AsyncClient. See Client."""

    server: str | None = None
    api_key: str | None = None
    tls: TLS | None = None
    timeout: float = 300.0

    def client(self) -> Client:
        return Client(self.server, api_key=self.api_key, tls=self.tls, timeout=self.timeout)

    def async_client(self) -> AsyncClient:
        return AsyncClient(self.server, api_key=self.api_key, tls=self.tls, timeout=self.timeout)


class Sides:
    """Embeds texts as queries or as documents (`side` is QUERY or DOCUMENT), with one vector per text.

    client: a Client, which the caller closes; or HOST:PORT, or a Connection. None: the default server.
    query, document: options for queries and for documents. Options that set no prompt get the matching input type, if the model has it. prompt=""
    requests no prompt.
    async_client: used by the async methods. Without it, they create one client per event loop from the address, or run a given Client on a thread.

    Raises ValueError for options with an output other than ONE_VECTOR, and LongEmbedError for a model without it. If one of
    several texts fails, raises LongEmbedError with the number of the text."""

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
        self._recipes: dict[str, str] = {}  # Options as JSON -> recipe of the vectors so far.
        for side, options in self._given.items():
            if options.output not in (None, "ONE_VECTOR"):
                several = "several vectors a text are for longembed.Retriever"
                raise ValueError(f"{side.lower()} options: output is {options.output}; it must be ONE_VECTOR here ({several})")

    def __reduce__(self):
        """Pickles the arguments. Worker processes connect by themselves."""
        if self._connection is None:
            raise TypeError("an adapter that was given a Client cannot be pickled; give the address instead")
        return Sides, (self._connection, self._given[QUERY], self._given[DOCUMENT])

    @property
    def given_clients(self) -> tuple[Client | None, AsyncClient | None]:
        """Returns the clients that the caller gave and closes."""
        return (self._client if self._connection is None else None), self._async_client

    @property
    def client(self) -> Client:
        if self._client is None:
            assert self._connection is not None
            self._client = self._connection.client()
        return self._client

    def async_client(self) -> AsyncClient | None:
        """Returns the client of the running event loop, or None if there is only a blocking client."""
        if self._async_client is not None or self._connection is None:
            return self._async_client
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:  # Also drops the clients of closed loops.
            self._by_loop = {other: client for other, client in self._by_loop.items() if not other.is_closed()}
            self._by_loop[loop] = self._connection.async_client()
        return self._by_loop[loop]

    def options(self, side: str) -> Options:
        """Returns the options of a side, with their prompt. The first call asks the server."""
        if side not in self._resolved:
            given = self._given[side]
            self._resolved[side] = given if _names_prompt(given) else _with_input_type(given, side, self.client.model(given.model))
        return self._resolved[side]

    def embed_one(self, side: str, text: str) -> Embedding:
        """Returns the answer for one text, which must fit into a message."""
        options = self.options(side)
        return self._of_one_recipe(options, self.client.embed(_checked([text]), _one_vector(options)))[0]

    def embed(self, side: str, texts: Iterable[str], progress: bool = False) -> list[Embedding]:
        """Returns the answers in the order of the texts. Any number of texts of any length is allowed."""
        return self.embed_with(self.options(side), texts, progress)

    def embed_with(self, options: Options, texts: Iterable[str], progress: bool = False, keep_empty: bool = False) -> list[Embedding]:
        """Works like embed. keep_empty: the answer to a text without tokens has its `error`, instead of failing the call."""
        with closing(self.client.embed_stream(_numbered(texts), _one_vector(options), progress=progress)) as stream:
            answers = {answer.id: answer if keep_empty and _is_empty(answer) else _successful(answer) for answer in stream}
        return self._of_one_recipe(options, _in_order(answers))

    async def aembed_one(self, side: str, text: str) -> Embedding:
        client = self.async_client()
        if client is None:
            return await asyncio.to_thread(self.embed_one, side, text)
        options = await self._aoptions(side, client)
        return self._of_one_recipe(options, await client.embed(_checked([text]), _one_vector(options)))[0]

    async def aembed(self, side: str, texts: Iterable[str], progress: bool = False) -> list[Embedding]:
        client = self.async_client()
        if client is None:
            return await asyncio.to_thread(self.embed, side, texts, progress)
        options = await self._aoptions(side, client)
        async with aclosing(client.embed_stream(_numbered(texts), _one_vector(options), progress=progress)) as stream:
            answers = {answer.id: _successful(answer) async for answer in stream}
        return self._of_one_recipe(options, _in_order(answers))

    def _of_one_recipe(self, options: Options, answers: list[Embedding]) -> list[Embedding]:
        """Returns the answers. Refuses vectors of two recipes, also if they came from earlier calls: they go into one index."""
        recipes = [answer.recipe for answer in answers if answer.error is None]
        if recipes:
            key = json.dumps(options.to_dict(), sort_keys=True)
            refuse_two_recipes([self._recipes.setdefault(key, recipes[0]), *recipes])
        return answers

    def close(self) -> None:
        """Closes the blocking client, unless the caller owns it. The next call creates another."""
        if self._connection is not None and self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Closes the client of the running event loop."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _aoptions(self, side: str, client: AsyncClient) -> Options:
        if side not in self._resolved:
            given = self._given[side]
            self._resolved[side] = given if _names_prompt(given) else _with_input_type(given, side, await client.model(given.model))
        return self._resolved[side]


def _one_vector(options: Options) -> Options:
    """Names the output. Without one, a model that has no single vectors gives those of tokens or sparse ones, of which the adapters would take the
    first. With one, the server refuses."""
    return options.with_changes(output="ONE_VECTOR")


def _with_input_type(options: Options, side: str, model: messages.Model) -> Options:
    return options.with_changes(input_type=side) if side in model.input_types else options


def _names_prompt(options: Options) -> bool:
    return any(prompt is not None for prompt in (options.prompt_name, options.input_type, options.prompt))


def _numbered(texts: Iterable[str]) -> list[tuple[int, str]]:
    return list(enumerate(_checked(texts)))


def _checked(texts: Iterable[str]) -> list[str]:
    """Returns the texts as a list, because a generator can be read only once. Refuses one str, whose letters would be taken for texts, and a
    mapping, whose keys would be."""
    if isinstance(texts, (str, Mapping)):
        raise TypeError(f"give a list of texts, not one {type(texts).__name__}")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is of type {type(text).__name__}; it must be a str")
    return texts


def _in_order(answers: dict[Hashable, Embedding]) -> list[Embedding]:
    return [answers[number] for number in range(len(answers))]


def _is_empty(answer: Embedding) -> bool:
    return answer.error is not None and answer.error.reason == "EMPTY_INPUT"


def _successful(answer: Embedding) -> Embedding:
    """Returns the answer. If it is a failure, raises its error, with the number of the text."""
    error = answer.error
    if error is not None:
        raise error.about(f"text {answer.id}")
    return answer
