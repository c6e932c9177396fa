"""The state of one stream of texts, without threads or clocks: items that were read, items to send, items without an answer, and the caller's next
step."""

from __future__ import annotations

import heapq
import re
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from enum import Enum

from longembed import messages, results, retry
from longembed.errors import InvalidArgument, LongEmbedError, Unavailable, from_status
from longembed.options import Input, Options, TextLike, to_input

StreamItem = TextLike | tuple[Hashable, TextLike]

# Longer texts are sent in parts. In every script, a part of this many characters stays below the message limits of gRPC and most load balancers.
PART_CODE_POINTS = 1 << 18


class Step(Enum):
    """The next step of the caller, if it is neither an answer nor an error."""

    OPEN = "open another gRPC stream"
    FINISHED = "everything is answered"
    WAIT = "wait until something changes"


class Pending:
    """Tracks items between the caller's iterable and their answers.

    When a stream breaks, another one is opened and sends every item without an answer again. An item that the server refuses for lack of room is
    sent again after the delay that the server names."""

    def __init__(self, options: Options, in_flight: int, skip: Iterable[Hashable], timeout: float):
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        if isinstance(skip, (str, bytes)):
            raise TypeError(f"skip takes a list of ids, not one {type(skip).__name__}, whose letters would be taken for ids")
        self.options, self.in_flight, self.timeout = options, in_flight, timeout
        self._message = options.message()  # Once: an extension may be a dict of the caller's, which changes.
        self.closed = False  # The iterable has ended.
        self.skipped = 0
        self.generation = 0  # Number of the current gRPC stream.
        self.is_open = False
        self._broken: LongEmbedError | None = None  # The error that ended the current stream.
        self._skip = Counter(iter(skip))
        self._unanswered: dict[int, tuple[Hashable, messages.Input]] = {}
        self._unsent: deque[int] = deque()
        self._refused: list[tuple[float, int]] = []  # A heap of (time to send it again, item).
        self._refusals: Counter[int] = Counter()
        self._answers: deque[results.Embedding] = deque()
        self._read = 0
        self._awaited_since: float | None = None  # None if the caller is not waiting, or nothing has to be answered.

    def has_room(self) -> bool:
        return len(self._unanswered) + len(self._answers) < self.in_flight

    def is_done(self) -> bool:
        """Returns true if every item has its answer. The caller may not have taken all answers yet."""
        return self.closed and not self._unanswered

    def add(self, item: StreamItem) -> None:
        """Adds one item. An item that was answered before is skipped. A text that is not valid Unicode gets its answer, an error, here."""
        if isinstance(item, tuple) and len(item) != 2:
            raise TypeError(f"an item is a text or a pair (id, text), not a tuple of {len(item)}: {item!r:.80}")
        id, text = item if isinstance(item, tuple) else (self._read, item)
        number, self._read = self._read, self._read + 1
        if self._skip[id] > 0:
            self._skip[id] -= 1
            self.skipped += 1
            return
        try:
            self._unanswered[number] = (id, to_input(text))
            self._unsent.append(number)
        except InvalidArgument as error:
            self._answers.append(results.failed(id, error))

    def step(self, now: float) -> results.Embedding | LongEmbedError | Step:
        """Returns the caller's next step: an answer to hand over, the error that ended the current gRPC stream, or a Step."""
        if self._answers:
            self._awaited_since = None
            return self._answers.popleft()
        if self.is_done():
            return Step.FINISHED
        if self._broken is not None:
            error, self._broken, self.is_open = self._broken, None, False
            return error
        if self._unanswered and self._awaited_since is None:
            self._awaited_since = now
        if not self.is_open and self._has_sendable(now):
            self.is_open, self.generation = True, self.generation + 1
            waiting = {number for _, number in self._refused}
            self._unsent = deque(number for number in self._unanswered if number not in waiting)
            return Step.OPEN
        return Step.WAIT

    def waited(self, now: float) -> float:
        """Returns how long the caller has waited for an answer, in seconds."""
        return now - self._awaited_since if self._unanswered and self._awaited_since is not None else 0.0

    def seconds_to_wait(self, now: float) -> float | None:
        """Returns the seconds until step() may change without an event, because an answer is overdue or a refused item is due. None: never."""
        times = [self._refused[0][0]] if self._refused and not self.is_open else []
        if self._unanswered and self._awaited_since is not None:
            times.append(self._awaited_since + self.timeout)
        return max(0.0, min(times) - now) if times else None

    def is_overdue(self, now: float) -> bool:
        return self.waited(now) >= self.timeout

    def has_unsent(self, now: float) -> bool:
        """Returns true if the current stream has something to send now."""
        while self._refused and self._refused[0][0] <= now:
            self._unsent.append(heapq.heappop(self._refused)[1])
        return bool(self._unsent)

    def has_all_sent(self, now: float) -> bool:
        """Returns true if the current stream may be half-closed."""
        return self.closed and not self.has_unsent(now) and not self._refused

    def seconds_to_unsent(self, now: float) -> float | None:
        """Returns the seconds until a refused item is due. None if there is no such item."""
        return max(0.0, self._refused[0][0] - now) if self._refused else None

    def next_messages(self, first: bool) -> Iterator[messages.EmbedStreamRequest]:
        """Yields the messages of the next item to send. The first message of a stream carries the options."""
        number = self._unsent.popleft()
        options = self._message if first else None
        _, message = self._unanswered[number]
        for part, more in _parts(message):
            yield messages.EmbedStreamRequest(options=options, id=str(number), input=part, more_parts=more)
            options = None

    def answer(self, response: messages.EmbedStreamResponse, now: float) -> None:
        """Takes the answer to an item. Raises LongEmbedError for an answer that was not asked for, or that cannot be read. The item then has no
        answer."""
        number = int(response.id) if re.fullmatch("[0-9]{1,18}", response.id) else -1
        if number not in self._unanswered:
            raise LongEmbedError(f"the server answered an input that it was not asked for: {response.id!r}", "INTERNAL")
        if self._takes_refusal(number, response.result, now):
            return
        id, _ = self._unanswered[number]
        read = results.embedding(id, response.result, self.options.encoding, response.model, response.prompt, response.recipe)
        del self._unanswered[number], self._refusals[number]
        self._answers.append(read)

    def ended(self, generation: int, error: LongEmbedError | None) -> None:
        """Called when the gRPC stream of that generation has failed with `error` or has ended normally. Refused items may still wait when a stream
        ends; all other items must have their answers."""
        if generation != self.generation:
            return
        if error is None and len(self._refused) == len(self._unanswered):
            self.is_open = False
        else:
            self._broken = error or Unavailable("the server ended the stream before it answered every input", "UNAVAILABLE")

    def _has_sendable(self, now: float) -> bool:
        return self.has_unsent(now) or len(self._refused) < len(self._unanswered)

    def _takes_refusal(self, number: int, result: messages.EmbedResult, now: float) -> bool:
        """Returns true if the answer is a refusal after which the item is sent again."""
        if not result.HasField("error"):
            return False
        error = from_status(result.error)
        self._refusals[number] += 1
        if error.code != "RESOURCE_EXHAUSTED" or error.retry_delay is None or error.retry_delay > self.timeout or self._refusals[number] >= retry.MAX_ATTEMPTS:
            return False
        heapq.heappush(self._refused, (now + error.retry_delay, number))
        if self._awaited_since is not None:
            self._awaited_since = now
        return True


def _parts(message: messages.Input) -> Iterator[tuple[messages.Input, bool]]:
    """Yields pairs (part, whether more parts follow)."""
    if not message.HasField("text") or len(message.text) <= PART_CODE_POINTS:
        yield message, False
        return
    text = message.text
    for start in range(0, len(text), PART_CODE_POINTS):
        part = Input(text=text[start : start + PART_CODE_POINTS]).message()
        more = start + PART_CODE_POINTS < len(text)
        if not more:
            part.ranges.extend(message.ranges)
        yield part, more
