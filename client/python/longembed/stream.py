"""EmbedStream for blocking callers.

The caller's thread takes answers, one thread reads the caller's iterable, one reads the gRPC stream, and one of gRPC's own threads sends. They share their
state in `Pending`, under one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Hashable, Iterable, Iterator
from typing import Any

import grpc

from longembed import messages, retry
from longembed import progress as progress_bars
from longembed.channel import Stub
from longembed.errors import LongEmbedError, from_rpc
from longembed.options import Options
from longembed.pending import Pending, Step, StreamItem
from longembed.results import Embedding

__all__ = ["StreamItem", "embed_stream"]

# The time for the server to end a stream after all of its answers. Then the stream is cancelled.
SECONDS_TO_END = 5.0


def embed_stream(
    stub: Stub,
    metadata: tuple,
    items: Iterable[StreamItem],
    options: Options,
    in_flight: int,
    skip: Iterable[Hashable],
    progress: bool,
    timeout: float,
) -> Generator[Embedding, None, None]:
    """See Client.embed_stream. Raises errors for invalid options at once, not at the first answer."""
    options.message()
    stream = _Stream(stub, metadata, items, Pending(options, in_flight, skip, timeout))
    return stream.run(progress_bars.bar(progress, items))


class _Stream:
    def __init__(self, stub: Stub, metadata: tuple, items: Iterable[StreamItem], pending: Pending):
        self._stub, self._metadata, self._items, self._pending = stub, metadata, items, pending
        self._changed = threading.Condition()  # Guards everything below and _pending.
        self._ended = False  # The caller has all answers, or has stopped iterating.
        self._failure: BaseException | None = None  # Raised by the caller's iterable.
        self._call: grpc.Call | None = None
        self._receiver: threading.Thread | None = None

    def run(self, bar: Any) -> Generator[Embedding, None, None]:
        threading.Thread(target=self._read_items, name="longembed items", daemon=True).start()
        attempts, counted, seconds_to_end = retry.Attempts(self._pending.timeout), 0, 0.0
        try:
            while (step := self._next_step()) is not Step.FINISHED:
                if step is Step.OPEN:
                    self._open()
                elif isinstance(step, LongEmbedError):
                    time.sleep(attempts.delay_after(step, self._waited()))
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
            self._end(seconds_to_end)
            bar.close()

    def _next_step(self) -> Embedding | LongEmbedError | Step:
        """Waits for the next step. Raises DeadlineExceeded if an answer is overdue, whatever the server does."""
        with self._changed:
            while (step := self._pending.step(time.monotonic())) is Step.WAIT:
                now = time.monotonic()
                if self._pending.is_overdue(now):
                    raise retry.no_answer(self._pending.timeout)
                self._changed.wait(_bounded(self._pending.seconds_to_wait(now)))
            self._changed.notify_all()  # Taking an answer makes room for another item.
            return step

    def _waited(self) -> float:
        with self._changed:
            return self._pending.waited(time.monotonic())

    def _read_items(self) -> None:
        """Reads items while there is room for them."""
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or self._pending.has_room())
                    if self._ended:
                        return
                    self._pending.add(item)
                    self._changed.notify_all()
        except BaseException as failure:  # noqa: BLE001  Raised again in the caller's thread, after everything read so far is answered.
            self._failure = failure
        with self._changed:
            self._pending.closed = True
            self._changed.notify_all()

    def _open(self) -> None:
        """Opens another gRPC stream, which sends all items without an answer."""
        generation = self._pending.generation
        self._call = self._stub.EmbedStream(self._requests(generation), metadata=self._metadata)
        self._receiver = threading.Thread(target=self._receive, args=(self._call, generation), name="longembed answers", daemon=True)
        self._receiver.start()

    def _receive(self, call: grpc.Call, generation: int) -> None:
        """Reads answers until the stream ends. There are never more than `in_flight` of them."""
        error: LongEmbedError | None = None
        try:
            for response in call:
                with self._changed:
                    self._pending.answer(response, time.monotonic())
                    self._changed.notify_all()
        except grpc.RpcError as failed:
            error = from_rpc(failed)
        except LongEmbedError as failed:
            error = failed
            call.cancel()
        with self._changed:
            self._pending.ended(generation, error)
            self._changed.notify_all()

    def _requests(self, generation: int) -> Iterator[messages.EmbedStreamRequest]:
        """Yields the requests of one gRPC stream. Runs on a thread of gRPC."""
        first = True
        while True:
            with self._changed:
                while not self._is_over(generation) and not self._pending.has_unsent(now := time.monotonic()):
                    if self._pending.has_all_sent(now):
                        return
                    self._changed.wait(_bounded(self._pending.seconds_to_unsent(now)))
                if self._is_over(generation):
                    return
                requests = list(self._pending.next_messages(first))
            first = False
            yield from requests

    def _is_over(self, generation: int) -> bool:
        return self._ended or generation != self._pending.generation

    def _end(self, seconds: float) -> None:
        """Ends the threads. First gives the server `seconds` seconds to end the stream by itself."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._call is not None:
            self._receiver.join(seconds)
            self._call.cancel()


def _bounded(seconds: float | None) -> float | None:
    """Limits a time to the longest one that a lock can wait for."""
    return None if seconds is None else min(seconds, threading.TIMEOUT_MAX)
