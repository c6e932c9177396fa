"""The state of one stream of texts, without threads or clocks: what has been read, what is to be sent, what has no answer, and what the caller does next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from enum import Enum

from longembed import messages, results
from longembed.errors import InvalidArgument, LongEmbedError
from longembed.options import Input, Options, TextLike, to_input

StreamItem = TextLike | tuple[Hashable, TextLike]

# A longer text travels in parts: below gRPC's and most balancers' limits whatever the script.
PART_CODE_POINTS = 1 << 18


class Step(Enum):
    """What the caller's side does next, where that is neither an answer nor an error."""

    OPEN = "open another gRPC stream"
    FINISHED = "everything is answered"
    WAIT = "wait until something changes"


class Pending:
    """Items between the caller's iterable and their answers. A stream that breaks is followed by another, which sends what has no answer once more."""

    def __init__(self, options: Options, in_flight: int, skip: Iterable[Hashable]):
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        self.options, self.in_flight = options, in_flight
        self.closed = False  # The iterable has ended.
        self.skipped = 0
        self.generation = 0  # Of the gRPC stream at hand.
        self.is_open = False
        self._broken: LongEmbedError | None = None  # What ended the stream at hand.
        self._skip = Counter(iter(skip))
        self._unanswered: dict[int, tuple[Hashable, messages.Input]] = {}
        self._unsent: deque[int] = deque()
        self._answers: deque[results.Embedding] = deque()
        self._read = 0
        self._awaited_since: float | None = None  # None while the caller does something else, or nothing is to be answered.

    def has_room(self) -> bool:
        return len(self._unanswered) + len(self._answers) < self.in_flight

    def is_done(self) -> bool:
        """Every item has its answer, which the caller may not have taken yet."""
        return self.closed and not self._unanswered

    def add(self, item: StreamItem) -> None:
        """Takes one item in. One that was answered before is skipped; a text that is not valid Unicode is answered here."""
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
        """What the caller's side does next: hand over an answer, take the error that ended the gRPC stream at hand, or a Step."""
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
        if self._unanswered and not self.is_open:
            self.is_open, self.generation, self._unsent = True, self.generation + 1, deque(self._unanswered)
            return Step.OPEN
        return Step.WAIT

    def waited(self, now: float) -> float:
        """Seconds for which the caller has waited for an answer."""
        return now - self._awaited_since if self._unanswered and self._awaited_since is not None else 0.0

    def is_waited_for(self) -> bool:
        """Whether time without an answer counts now."""
        return bool(self._unanswered) and self._awaited_since is not None

    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def next_messages(self, first: bool) -> Iterator[messages.EmbedStreamRequest]:
        """The messages of the next item to be sent; the first of a stream carries the options."""
        number = self._unsent.popleft()
        options = self.options.message() if first else None
        _, message = self._unanswered[number]
        for part, more in _parts(message):
            yield messages.EmbedStreamRequest(options=options, id=str(number), input=part, more_parts=more)
            options = None

    def answer(self, response: messages.EmbedStreamResponse) -> None:
        """Takes in the answer to an item. Raises LongEmbedError for one that was not asked for."""
        number = int(response.id) if response.id.isdigit() else -1
        if number not in self._unanswered:
            raise LongEmbedError(f"the server answered an input that it was not asked for: {response.id!r}", "INTERNAL")
        id, _ = self._unanswered.pop(number)
        read = results.embedding(id, response.result, self.options.encoding, response.model, response.prompt, response.recipe)
        self._answers.append(read)

    def broke(self, generation: int, error: LongEmbedError) -> None:
        """The gRPC stream of that generation has ended."""
        if generation == self.generation:
            self._broken = error


def _parts(message: messages.Input) -> Iterator[tuple[messages.Input, bool]]:
    """(part, whether more follow)."""
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
