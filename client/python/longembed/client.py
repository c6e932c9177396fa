"""The blocking client.

    from longembed import Client

    with Client("127.0.0.1:50051") as client:
        vectors = client.embed(["how long is the Nile?"], prompt_name="query").matrix()   # float32 [1, d]
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable
from typing import Any

import grpc

from longembed import channel as channels
from longembed import messages, requests, results
from longembed.errors import from_rpc
from longembed.options import Options, TextLike
from longembed.stream import StreamItem, embed_stream


class Client:
    """Calls longembed.v1, with retries by gRPC's service config. Several threads may use one client.

    server: HOST:PORT, or any target that gRPC can resolve. Default: the environment variable LONGEMBED_SERVER, otherwise 127.0.0.1:50051.
    model: the model of calls that name none. None: the server's only model.
    timeout: in seconds; float("inf") is no limit. For a call, retries are included. For a stream, it is the longest time without an answer.
    max_receive_bytes: the limit for one answer. None: no limit.
    Errors of every method: LongEmbedError and its subclasses if a call fails, in the server or on the way to it. ValueError and TypeError if a
    request cannot be sent."""

    def __init__(
        self,
        server: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        tls: channels.TLS | None = None,
        timeout: float = 300.0,
        max_receive_bytes: int | None = None,
    ):
        self.server, self.default_model, self.timeout = channels.address(server), model, timeout
        self._metadata = channels.metadata(api_key)
        self._channel = channels.open_channel(grpc, self.server, tls, max_receive_bytes)
        self._stub = channels.Stub(self._channel)

    def embed(
        self, texts: Iterable[TextLike], options: Options | None = None, *, partial: bool = False, timeout: float | None = None, **changes: Any
    ) -> results.Embeddings:
        """Embeds texts in one call. Answers have the order of the texts.

        options, changes: an Options object, and single options by name that override it: embed(texts, prompt_name="query", extension={"windows":
        {}}).
        partial: a failed input has its `error` in its answer, instead of failing the call."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        response = self._call(self._stub.Embed, requests.embed(texts, chosen, partial), timeout)
        return results.embeddings(response, chosen.encoding)

    def embed_stream(
        self,
        items: Iterable[StreamItem],
        options: Options | None = None,
        *,
        in_flight: int = 256,
        skip: Iterable[Hashable] = (),
        progress: bool = False,
        timeout: float | None = None,
        **changes: Any,
    ) -> Generator[results.Embedding, None, None]:
        """Embeds any number of texts with bounded memory, across restarts of the server. Yields each answer as soon as it is ready, in any order.

        items: texts, or (id, text) pairs. A text without an id gets its number, from 0, as its id. Items are read ahead while fewer than
        `in_flight` texts are unanswered.
        skip: ids that have been answered before, with one entry per answer. For each entry, one text with that id is not sent.
        progress: show a tqdm bar on standard error (extra "progress").
        A failed text has its `error` in its answer. An error that ends the stream is raised after retries. Retries stop when `timeout` seconds
        pass without an answer."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        requests.refuse_single(items, "embed_stream")
        seconds = requests.seconds(timeout, self.timeout)
        return embed_stream(self._stub, self._metadata, items, chosen, in_flight, skip, progress, seconds)

    def explain(self, texts: Iterable[TextLike], options: Options | None = None, *, timeout: float | None = None, **changes: Any) -> messages.ExplainResponse:
        """Describes what embed would do, without running the model: tokens, truncation, sequences and cost."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        return self._call(self._stub.Explain, requests.explain(texts, chosen), timeout)

    def tokenize(
        self, texts: Iterable[str], *, model: str | None = None, add_special_tokens: bool = True, timeout: float | None = None
    ) -> list[results.Tokens]:
        """Splits texts into the model's tokens."""
        request = requests.tokenize(texts, model or self.default_model, add_special_tokens)
        return [results.tokens(text) for text in self._call(self._stub.Tokenize, request, timeout).results]

    def models(self, *, timeout: float | None = None) -> list[messages.Model]:
        """Lists the server's models."""
        return list(self._call(self._stub.ListModels, messages.ListModelsRequest(), timeout).models)

    def model(self, name: str | None = None, *, timeout: float | None = None) -> messages.Model:
        """Describes one model: prompts, trained window, methods, recommendations, limits. `name` None: the client's model, otherwise the server's
        only one."""
        return self._call(self._stub.GetModel, requests.get_model(name or self.default_model), timeout)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method, request, timeout: float | None):
        try:
            return method(request, timeout=requests.deadline(timeout, self.timeout), metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
