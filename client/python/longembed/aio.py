"""The asyncio client. It has the methods of Client, as coroutines.

    async with AsyncClient("127.0.0.1:50051") as client:
        vectors = (await client.embed(["how long is the Nile?"], prompt_name="query")).matrix()
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Hashable, Iterable
from typing import Any

import grpc

from longembed import channel as channels
from longembed import messages, requests, results, retry
from longembed import progress as progress_bars
from longembed.errors import LongEmbedError, Unavailable, from_rpc
from longembed.options import Options, TextLike
from longembed.pending import Pending, Step, StreamItem
from longembed.stream import SECONDS_TO_END


class AsyncClient:
    """Works like Client, within one event loop: that of the first call, which opens the connection. Once that loop is closed, another one may use
    the client."""

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
        if tls is not None:
            tls.credentials()  # Raises for files that are not there.
        self._open_channel = functools.partial(channels.open_channel, grpc.aio, self.server, tls, max_receive_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def embed(
        self, texts: Iterable[TextLike], options: Options | None = None, *, partial: bool = False, timeout: float | None = None, **changes: Any
    ) -> results.Embeddings:
        """See Client.embed."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        response = await self._call(self._connected().Embed, requests.embed(texts, chosen, partial), timeout)
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
    ) -> AsyncGenerator[results.Embedding, None]:
        """See Client.embed_stream. A plain iterable is read on the event loop, so it should not block."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        chosen.message()
        requests.refuse_single(items, "embed_stream")
        bar = progress_bars.bar(progress, items)
        stream = _Stream(self._connected(), self._metadata, items, Pending(chosen, in_flight, skip, requests.seconds(timeout, self.timeout)))
        async with contextlib.aclosing(stream.run(bar)) as answers:
            async for answer in answers:
                yield answer

    async def explain(
        self, texts: Iterable[TextLike], options: Options | None = None, *, timeout: float | None = None, **changes: Any
    ) -> messages.ExplainResponse:
        """See Client.explain."""
        chosen = requests.with_defaults(options, changes, self.default_model)
        return await self._call(self._connected().Explain, requests.explain(texts, chosen), timeout)

    async def tokenize(
        self, texts: Iterable[str], *, model: str | None = None, add_special_tokens: bool = True, timeout: float | None = None
    ) -> list[results.Tokens]:
        """See Client.tokenize."""
        request = requests.tokenize(texts, model or self.default_model, add_special_tokens)
        return [results.tokens(text) for text in (await self._call(self._connected().Tokenize, request, timeout)).results]

    async def models(self, *, timeout: float | None = None) -> list[messages.Model]:
        """See Client.models."""
        return list((await self._call(self._connected().ListModels, messages.ListModelsRequest(), timeout)).models)

    async def model(self, name: str | None = None, *, timeout: float | None = None) -> messages.Model:
        """See Client.model."""
        return await self._call(self._connected().GetModel, requests.get_model(name or self.default_model), timeout)

    async def close(self) -> None:
        self._closed = True
        if self._loop is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connected(self) -> channels.Stub:
        """Returns the stub in the running event loop. A channel of grpc.aio belongs to the loop in which it was opened; in another one, a stream would
        wait for answers that never come."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ValueError("Cannot invoke RPC: the client is closed")
        if self._loop is None or (self._loop is not loop and self._loop.is_closed()):
            self._channel, self._loop = self._open_channel(), loop
            self._stub = channels.Stub(self._channel)
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop, which made its first call; create one in each loop")
        return self._stub

    async def _call(self, method, request, timeout: float | None):
        try:
            return await method(request, timeout=requests.deadline(timeout, self.timeout), metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        except grpc.aio.UsageError as error:
            raise _not_sent(error) from None


def _not_sent(error: grpc.aio.UsageError) -> ValueError:
    """Returns the error of a call on a closed client, as the blocking client raises it."""
    return ValueError(f"Cannot invoke RPC: {error}")


async def _iterate(items: Iterable[StreamItem] | AsyncIterable[StreamItem]) -> AsyncIterator[StreamItem]:
    """Makes an async iterator. If `items` is a plain iterable, control returns to the event loop after every item."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
            await asyncio.sleep(0)


class _Stream:
    """Runs one stream. One task reads the caller's items, one sends, and one receives. They share their state with the caller in `Pending`, and
    change it only between awaits."""

    def __init__(self, stub: channels.Stub, metadata: tuple, items, pending: Pending):
        self._stub, self._metadata, self._items, self._pending = stub, metadata, items, pending
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None  # Raised by the caller's iterable.
        self._ended = False  # The caller has all answers, or has stopped iterating.
        self._reader: asyncio.Task | None = None
        self._call: Any = None
        self._tasks: list[asyncio.Task] = []  # Tasks of the current gRPC stream.
        # If a call ends during a write, grpc.aio reports INTERNAL and loses the server's own error. The next attempt therefore sends only its first
        # item, and writes nothing more until that item is answered.
        self._cautious = False

    async def run(self, bar: Any) -> AsyncGenerator[results.Embedding, None]:
        self._reader = asyncio.create_task(self._read_items())
        attempts, counted, seconds_to_end = retry.Attempts(self._pending.timeout), 0, 0.0
        try:
            while (step := await self._next_step()) is not Step.FINISHED:
                if step is Step.OPEN:
                    await self._open()
                elif isinstance(step, LongEmbedError):
                    self._cautious = step.code == "INTERNAL"
                    await asyncio.sleep(attempts.delay_after(step, self._pending.waited(time.monotonic())))
                else:
                    attempts.succeeded()
                    bar.update(1 + self._pending.skipped - counted)
                    counted = self._pending.skipped
                    yield step
            bar.update(self._pending.skipped - counted)
            seconds_to_end = SECONDS_TO_END
            if self._failure is not None:
                raise self._failure
        finally:
            await self._end(seconds_to_end)
            bar.close()

    async def _next_step(self) -> results.Embedding | LongEmbedError | Step:
        """Waits for the next step. Raises DeadlineExceeded if an answer is overdue, whatever the server does."""
        async with self._changed:
            while (step := self._pending.step(time.monotonic())) is Step.WAIT:
                now = time.monotonic()
                if self._pending.is_overdue(now):
                    raise retry.no_answer(self._pending.timeout)
                await self._wait_for_change(self._pending.seconds_to_wait(now))
            self._changed.notify_all()  # Taking an answer makes room for another item.
            return step

    async def _wait_for_change(self, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            pass  # The caller checks the deadline again.

    async def _read_items(self) -> None:
        try:
            async for item in _iterate(self._items):
                async with self._changed:
                    await self._changed.wait_for(self._pending.has_room)
                    self._pending.add(item)
                    self._changed.notify_all()
        except BaseException as failure:  # noqa: BLE001  Raised again to the caller, after everything read so far is answered.
            if self._ended:
                raise
            self._failure = failure
        async with self._changed:
            self._pending.closed = True
            self._changed.notify_all()

    async def _open(self) -> None:
        """Opens another gRPC stream, which sends all items without an answer."""
        await _cancel(self._tasks)
        try:
            self._call = self._stub.EmbedStream(metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise _not_sent(error) from None
        self._tasks = [asyncio.create_task(self._send(self._call)), asyncio.create_task(self._receive(self._call, self._pending.generation))]

    async def _receive(self, call, generation: int) -> None:
        """Reads answers until the stream ends. There are never more than `in_flight` of them."""
        error: LongEmbedError | None = None
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                async with self._changed:
                    self._pending.answer(response, time.monotonic())
                    self._cautious = False
                    self._changed.notify_all()
        except grpc.RpcError as failed:
            error = from_rpc(failed)
        except LongEmbedError as failed:
            error = failed
            call.cancel()
        except asyncio.CancelledError:  # By _cancel, which needs no error any more, or because the client is closed, as the next stream will tell.
            error = Unavailable("the call was cancelled", "UNAVAILABLE")
        async with self._changed:
            self._pending.ended(generation, error)
            self._changed.notify_all()

    async def _send(self, call) -> None:
        first = True
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: first or not self._cautious)
                while not (has_unsent := self._pending.has_unsent(now := time.monotonic())) and not self._pending.has_all_sent(now):
                    await self._wait_for_change(self._pending.seconds_to_unsent(now))
                if not has_unsent:
                    break
                own = list(self._pending.next_messages(first))
            first = False
            for request in own:
                await call.write(request)
        await call.done_writing()

    async def _end(self, seconds: float) -> None:
        """Ends the tasks. First gives the server `seconds` seconds to end the stream by itself."""
        self._ended = True
        if self._tasks and seconds:
            await asyncio.wait(self._tasks, timeout=seconds)
        if self._call is not None:
            self._call.cancel()
        await _cancel([*self._tasks, self._reader])


async def _cancel(tasks: list[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
