"""The blocking client.

    from longembed import Client

    with Client("127.0.0.1:50051") as client:
        vectors = client.embed(["how long is the Nile?"], prompt_name="query").matrix()   # float32 [1, d]
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import grpc

from longembed import channel as channels
from longembed import messages, requests, results
from longembed.errors import from_rpc
from longembed.options import Options, TextLike
from longembed.stream import StreamItem, embed_stream


class Client:
    """Calls of longembed.v1 with retries by gRPC's service config. Several threads may use one client.

    server: HOST:PORT or any target that gRPC resolves; default the environment's LONGEMBED_SERVER, else 127.0.0.1:50051.
    model: for calls that name none; None: the server's only one.
    timeout: seconds for a call, retries included; of a stream, the longest time without an answer.
    max_receive_bytes: of one answer; None: as much as the server sends.
    Errors of every method: LongEmbedError and its kinds for what the server, or the way to it, refuses; ValueError and TypeError for what cannot be sent.
    """

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
        """Embeds texts in one call, answers in their order.

        options, changes: an Options object, and single options by name over it: embed(texts, prompt_name="query", extension={"windows": {}}).
        partial: an input that fails has its `error` in its answer instead of failing the call.
        """
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
    ) -> Iterator[results.Embedding]:
        """Embeds any number of texts with bounded memory, through servers that come and go; yields each answer as it is ready, in any order.

        items: texts, or (id, text) pairs; without an id a text is known by its number, from 0. Read as far ahead as `in_flight` texts without an answer.
        skip: ids that have been answered before, one for each answer: as many texts with that id are not sent.
        progress: a tqdm bar on standard error (extra "progress").
        A text that fails has its `error` in its answer. The error that ends the stream is raised, after the retries that `timeout` seconds without an answer allow.
        """
        chosen = requests.with_defaults(options, changes, self.default_model)
        requests.refuse_single(items, "embed_stream")
        seconds = self.timeout if timeout is None else timeout
        return embed_stream(self._stub, self._metadata, items, chosen, in_flight, skip, progress, seconds)

    def explain(self, texts: Iterable[TextLike], options: Options | None = None, *, timeout: float | None = None, **changes: Any) -> messages.ExplainResponse:
        """Says what embed would do, without running the model: tokens, what would be cut, sequences, cost."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        return self._call(self._stub.Explain, requests.explain(texts, chosen), timeout)

    def tokenize(
        self, texts: Sequence[str], *, model: str | None = None, add_special_tokens: bool = True, timeout: float | None = None
    ) -> list[results.Tokens]:
        """Splits texts into the model's tokens."""
        request = requests.tokenize(texts, model or self.default_model, add_special_tokens)
        return [results.tokens(text) for text in self._call(self._stub.Tokenize, request, timeout).results]

    def models(self, *, timeout: float | None = None) -> list[messages.Model]:
        """The models that the server has."""
        return list(self._call(self._stub.ListModels, messages.ListModelsRequest(), timeout).models)

    def model(self, name: str | None = None, *, timeout: float | None = None) -> messages.Model:
        """One model: prompts, trained window, methods, recommendations, limits. None: the client's, else the server's only one."""
        return self._call(self._stub.GetModel, requests.get_model(name or self.default_model), timeout)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method, request, timeout: float | None):
        try:
            return method(request, timeout=self.timeout if timeout is None else timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
