"""The asyncio client: the methods of Client, awaited.

    async with AsyncClient("127.0.0.1:50051") as client:
        vectors = (await client.embed(["how long is the Nile?"], prompt_name="query")).matrix()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Sequence
from typing import Any

import grpc

from longembed import channel as channels
from longembed import messages, requests, results, retry
from longembed import progress as progress_bars
from longembed.errors import DeadlineExceeded, LongEmbedError, Unavailable, from_rpc
from longembed.options import Options, TextLike
from longembed.pending import Pending, StreamItem


class AsyncClient:
    """As Client; for one event loop. Make it inside the loop that uses it."""

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
        options = channels.channel_options(max_receive_bytes)
        self._channel = (
            grpc.aio.secure_channel(self.server, tls.credentials(), options) if tls else grpc.aio.insecure_channel(self.server, options)
        )
        self._stub = channels.Stub(self._channel)

    async def embed(
        self, texts: Iterable[TextLike], options: Options | None = None, *, partial: bool = False, timeout: float | None = None, **changes: Any
    ) -> results.Embeddings:
        """See Client.embed."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        response = await self._call(self._stub.Embed, requests.embed(texts, chosen, partial), timeout)
        return results.embeddings(response, chosen.encoding)

    async def embed_stream(
        self,
        items: Iterable[StreamItem] | AsyncIterable[StreamItem],
        options: Options | None = None,
        *,
        in_flight: int = 256,
        skip: Iterable[Hashable] = (),
        progress: bool = False,
        timeout: float | None = None,
        **changes: Any,
    ) -> AsyncIterator[results.Embedding]:
        """See Client.embed_stream. A plain iterable is read on the event loop: it should not block."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        chosen.message()
        bar = progress_bars.bar(progress, items)
        stream = _Stream(self._stub, self._metadata, items, Pending(chosen, in_flight, skip), self.timeout if timeout is None else timeout)
        try:
            async for answer in stream.run():
                bar.update(1)
                yield answer
        finally:
            await stream.end()
            bar.close()

    async def explain(
        self, texts: Iterable[TextLike], options: Options | None = None, *, timeout: float | None = None, **changes: Any
    ) -> messages.ExplainResponse:
        """See Client.explain."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        return await self._call(self._stub.Explain, requests.explain(texts, chosen), timeout)

    async def tokenize(
        self, texts: Sequence[str], *, model: str | None = None, add_special_tokens: bool = True, timeout: float | None = None
    ) -> list[results.Tokens]:
        """See Client.tokenize."""
        request = requests.tokenize(texts, model or self.default_model, add_special_tokens)
        return [results.tokens(text) for text in (await self._call(self._stub.Tokenize, request, timeout)).results]

    async def models(self, *, timeout: float | None = None) -> list[messages.Model]:
        """See Client.models."""
        return list((await self._call(self._stub.ListModels, messages.ListModelsRequest(), timeout)).models)

    async def model(self, name: str | None = None, *, timeout: float | None = None) -> messages.Model:
        """See Client.model."""
        return await self._call(self._stub.GetModel, requests.get_model(name or self.default_model), timeout)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method, request, timeout: float | None):
        try:
            return await method(request, timeout=self.timeout if timeout is None else timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error) from None


async def _iterate(items: Iterable[StreamItem] | AsyncIterable[StreamItem]) -> AsyncIterator[StreamItem]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class _Stream:
    """One task reads the caller's items, one sends; they and the caller meet in `Pending`, between awaits."""

    def __init__(self, stub: channels.Stub, metadata: tuple, items, pending: Pending, timeout: float):
        self._stub, self._metadata, self._items, self._pending, self._timeout = stub, metadata, items, pending, timeout
        self._changed = asyncio.Condition()
        self._failure: Exception | None = None  # What the caller's iterable raised.
        self._reader: asyncio.Task | None = None
        # grpc.aio reports the end of a call during a write as INTERNAL, and loses what the server said. The next attempt therefore writes nothing after its
        # first item until that is answered.
        self._cautious = False

    async def run(self) -> AsyncIterator[results.Embedding]:
        self._reader = asyncio.create_task(self._read_items())
        attempts = retry.Attempts(self._timeout)
        while await self._wait_for_work():
            error: LongEmbedError = Unavailable("the server ended the stream before it answered every input", "UNAVAILABLE")
            try:
                async for answer in self._answers():
                    attempts.succeeded()
                    yield answer
            except LongEmbedError as failed:
                error = failed
            self._cautious = error.code == "INTERNAL"
            if self._pending.is_done():
                break
            await asyncio.sleep(attempts.delay_after(error))
        if self._failure is not None:
            raise self._failure

    async def end(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read_items(self) -> None:
        try:
            async for item in _iterate(self._items):
                async with self._changed:
                    await self._changed.wait_for(self._pending.has_room)
                    self._pending.add(item)
                    self._changed.notify_all()
        except Exception as failure:  # noqa: BLE001  Raised again to the caller, once what was read is answered.
            self._failure = failure
        async with self._changed:
            self._pending.closed = True
            self._changed.notify_all()

    async def _wait_for_work(self) -> bool:
        async with self._changed:
            await self._changed.wait_for(lambda: self._pending.awaits_answer() or self._pending.closed)
            self._pending.restart()
            return not self._pending.is_done()

    async def _answers(self) -> AsyncIterator[results.Embedding]:
        call = self._stub.EmbedStream(metadata=self._metadata)
        sender = asyncio.create_task(self._send(call))
        try:
            while (response := await self._next_response(call)) is not None:
                async with self._changed:
                    answer = self._pending.answer(response)
                    self._cautious = False
                    self._changed.notify_all()
                yield answer
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        finally:
            call.cancel()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _next_response(self, call) -> messages.EmbedStreamResponse | None:
        """The next answer, or None at the stream's end. Time without anything to be answered does not count."""
        reading = asyncio.ensure_future(call.read())
        try:
            while True:
                awaited = self._pending.awaits_answer()
                done, _ = await asyncio.wait([reading], timeout=self._timeout)
                if done:
                    response = reading.result()
                    return None if response is grpc.aio.EOF else response
                if awaited:
                    raise DeadlineExceeded(f"the server gave no answer for {self._timeout:g} seconds", "DEADLINE_EXCEEDED")
        finally:
            reading.cancel()

    async def _send(self, call) -> None:
        first = True
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: first or not self._cautious)
                await self._changed.wait_for(lambda: self._pending.has_unsent() or self._pending.closed)
                if not self._pending.has_unsent():
                    break
                requests_ = list(self._pending.next_messages(first))
            first = False
            for request in requests_:
                await call.write(request)
        await call.done_writing()
