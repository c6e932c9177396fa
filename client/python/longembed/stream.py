"""EmbedStream for blocking callers.

The caller's thread takes answers; one thread reads the caller's iterable, one reads the gRPC stream, and one of gRPC's own sends. They meet in `Pending`, under
one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Iterator
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

# For the server to end a stream that has all of its answers; then it is cancelled.
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
) -> Iterator[Embedding]:
    """See Client.embed_stream. Refuses invalid options now, not at the first answer."""
    options.message()
    stream = _Stream(stub, metadata, items, Pending(options, in_flight, skip, timeout))
    return stream.run(progress_bars.bar(progress, items))


class _Stream:
    def __init__(self, stub: Stub, metadata: tuple, items: Iterable[StreamItem], pending: Pending):
        self._stub, self._metadata, self._items, self._pending = stub, metadata, items, pending
        self._changed = threading.Condition()  # Guards everything below, and _pending.
        self._ended = False  # The caller has all answers, or has stopped iterating.
        self._failure: BaseException | None = None  # Raised by the caller's iterable.
        self._call: grpc.Call | None = None
        self._receiver: threading.Thread | None = None

    def run(self, bar: Any) -> Iterator[Embedding]:
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
        """Waits for the next step. Raises DeadlineExceeded where an answer is overdue, whatever the server does."""
        with self._changed:
            while (step := self._pending.step(time.monotonic())) is Step.WAIT:
                now = time.monotonic()
                if self._pending.is_overdue(now):
                    raise retry.no_answer(self._pending.timeout)
                self._changed.wait(_bounded(self._pending.seconds_to_wait(now)))
            self._changed.notify_all()  # An answer that is taken makes room.
            return step

    def _waited(self) -> float:
        with self._changed:
            return self._pending.waited(time.monotonic())

    def _read_items(self) -> None:
        """Takes items in while there is room for them."""
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or self._pending.has_room())
                    if self._ended:
                        return
                    self._pending.add(item)
                    self._changed.notify_all()
        except BaseException as failure:  # noqa: BLE001  Raised again in the caller's thread, once what was read is answered.
            self._failure = failure
        with self._changed:
            self._pending.closed = True
            self._changed.notify_all()

    def _open(self) -> None:
        """Begins another gRPC stream, which sends everything without an answer."""
        generation = self._pending.generation
        self._call = self._stub.EmbedStream(self._requests(generation), metadata=self._metadata)
        self._receiver = threading.Thread(target=self._receive, args=(self._call, generation), name="longembed answers", daemon=True)
        self._receiver.start()

    def _receive(self, call: grpc.Call, generation: int) -> None:
        """Reads answers until the stream ends. There are never more of them than `in_flight`."""
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
        """The requests of one gRPC stream; runs on a thread of gRPC's."""
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
        """Lets the threads go; gives the server so many seconds to end the stream by itself."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._call is not None:
            self._receiver.join(seconds)
            self._call.cancel()


def _bounded(seconds: float | None) -> float | None:
    """A time that a lock can be waited for."""
    return None if seconds is None else min(seconds, threading.TIMEOUT_MAX)
