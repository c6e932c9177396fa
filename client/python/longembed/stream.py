"""EmbedStream for blocking callers.

Three threads take part: the caller's reads answers, one reads the caller's iterable, and gRPC's own sends. They meet in `Pending`, under one lock.
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
from longembed.errors import DeadlineExceeded, LongEmbedError, Unavailable, from_rpc
from longembed.options import Options
from longembed.pending import Pending, StreamItem
from longembed.results import Embedding

__all__ = ["StreamItem", "embed_stream"]


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
    """See Client.embed_stream. Options that are no options are refused now, not at the first answer."""
    options.message()
    stream = _Stream(stub, metadata, items, Pending(options, in_flight, skip), timeout)
    return stream.run(progress_bars.bar(progress, items))


class _Stream:
    def __init__(self, stub: Stub, metadata: tuple, items: Iterable[StreamItem], pending: Pending, timeout: float):
        self._stub, self._metadata, self._items, self._pending, self._timeout = stub, metadata, items, pending, timeout
        self._changed = threading.Condition()  # Guards everything below, and _pending.
        self._generation = 0  # Of the gRPC stream at hand; a sender of an earlier one ends.
        self._ended = False  # The caller has all answers, or wants no more.
        self._failure: BaseException | None = None  # What the caller's iterable raised.
        self._skipped = 0
        self._awaited_since: float | None = None  # Since when the caller waits for an answer; None while it does something else.

    def run(self, bar: Any) -> Iterator[Embedding]:
        threading.Thread(target=self._read_items, name="longembed items", daemon=True).start()
        attempts = retry.Attempts(self._timeout)
        try:
            while self._wait_for_work():
                error: LongEmbedError = Unavailable("the server ended the stream before it answered every input", "UNAVAILABLE")
                try:
                    for answer in self._answers():
                        attempts.succeeded()
                        bar.update(1 + self._take_skipped())
                        yield answer
                except LongEmbedError as failed:
                    error = failed
                if self._is_done():
                    break
                time.sleep(attempts.delay_after(error))
            bar.update(self._take_skipped())
            if self._failure is not None:
                raise self._failure
        finally:
            self._end()
            bar.close()

    def _read_items(self) -> None:
        """Takes items in while there is room for them."""
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or self._pending.has_room())
                    if self._ended:
                        return
                    self._add(item)
        except BaseException as failure:  # noqa: BLE001  Raised again in the caller's thread, once what was read is answered.
            self._failure = failure
        with self._changed:
            self._pending.closed = True
            self._changed.notify_all()

    def _add(self, item: StreamItem) -> None:
        """With the lock. An answer is awaited from the first item on."""
        if self._awaited_since is not None and not self._pending.awaits_answer():
            self._awaited_since = time.monotonic()
        if not self._pending.add(item):
            self._skipped += 1
        self._changed.notify_all()

    def _wait_for_work(self) -> bool:
        """Waits until there is something to send. False: there never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending.awaits_answer() or self._pending.closed)
            self._pending.restart()
            self._generation += 1
            return not self._pending.is_done()

    def _answers(self) -> Iterator[Embedding]:
        """The answers of one gRPC stream. Raises what ended it too early."""
        call = self._stub.EmbedStream(self._requests(self._generation), metadata=self._metadata)
        watch = threading.Thread(target=self._watch, args=(call, self._generation), name="longembed timeout", daemon=True)
        watch.start()
        try:
            while (response := self._next_response(call)) is not None:
                with self._changed:
                    answer = self._pending.answer(response)
                    self._changed.notify_all()
                yield answer
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        finally:
            call.cancel()

    def _next_response(self, call: grpc.Call) -> messages.EmbedStreamResponse | None:
        """The next answer, or None at the stream's end."""
        with self._changed:
            self._awaited_since = time.monotonic()
        try:
            return next(call, None)
        except grpc.RpcError:
            if call.code() is grpc.StatusCode.CANCELLED and self._overdue() <= 0:
                raise DeadlineExceeded(f"the server gave no answer for {self._timeout:g} seconds", "DEADLINE_EXCEEDED") from None
            raise
        finally:
            with self._changed:
                self._awaited_since = None

    def _overdue(self) -> float:
        """Seconds until the next answer is overdue."""
        if self._awaited_since is None or not self._pending.awaits_answer():
            return self._timeout
        return self._awaited_since + self._timeout - time.monotonic()

    def _watch(self, call: grpc.Call, generation: int) -> None:
        """Cancels a call whose answer is overdue, whatever the server does."""
        with self._changed:
            while not self._ended and generation == self._generation and call.is_active():
                left = self._overdue()
                if left <= 0:
                    call.cancel()
                    return
                self._changed.wait(left)

    def _requests(self, generation: int) -> Iterator[messages.EmbedStreamRequest]:
        """What one gRPC stream sends; runs on a thread of gRPC's."""
        first = True
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or generation != self._generation or self._pending.has_unsent() or self._pending.closed)
                if self._ended or generation != self._generation or not self._pending.has_unsent():
                    return
                requests = list(self._pending.next_messages(first))
            first = False
            yield from requests

    def _take_skipped(self) -> int:
        with self._changed:
            count, self._skipped = self._skipped, 0
            return count

    def _is_done(self) -> bool:
        with self._changed:
            return self._pending.is_done()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
