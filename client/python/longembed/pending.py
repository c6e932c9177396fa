"""The state of one stream of texts, without threads or clocks: what has been read, what is to be sent, and what has no answer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator

from longembed import messages, results
from longembed.options import Input, Options, TextLike, to_input

StreamItem = TextLike | tuple[Hashable, TextLike]

# A longer text travels in parts: below gRPC's and most balancers' limits whatever the script.
PART_CODE_POINTS = 1 << 18


class Pending:
    """Items between the caller's iterable and their answers. A stream that breaks is followed by another, which sends what has no answer once more."""

    def __init__(self, options: Options, in_flight: int, skip: Iterable[Hashable]):
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        self.options, self.in_flight = options, in_flight
        self.closed = False  # The iterable has ended.
        self._skip = Counter(skip)
        self._unanswered: dict[int, tuple[Hashable, messages.Input]] = {}
        self._unsent: deque[int] = deque()
        self._read = 0

    def has_room(self) -> bool:
        return len(self._unanswered) < self.in_flight

    def is_done(self) -> bool:
        return self.closed and not self._unanswered

    def awaits_answer(self) -> bool:
        return bool(self._unanswered)

    def add(self, item: StreamItem) -> bool:
        """Takes one item in. False: it was answered before, and is skipped."""
        id, text = item if isinstance(item, tuple) else (self._read, item)
        number, self._read = self._read, self._read + 1
        if self._skip[id] > 0:
            self._skip[id] -= 1
            return False
        self._unanswered[number] = (id, to_input(text))
        self._unsent.append(number)
        return True

    def restart(self) -> None:
        """A new stream begins: everything without an answer is to be sent on it."""
        self._unsent = deque(self._unanswered)

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

    def answer(self, response: messages.EmbedStreamResponse) -> results.Embedding:
        """Removes the item that an answer is for, and reads the answer."""
        id, _ = self._unanswered.pop(int(response.id))
        return results.embedding(id, response.result, self.options.encoding, response.model, response.prompt, response.recipe)


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
