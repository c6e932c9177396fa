"""Decides when a broken stream is opened again. gRPC itself retries unary calls."""

from __future__ import annotations

import random

from longembed.errors import DeadlineExceeded, LongEmbedError

MAX_ATTEMPTS = 6  # Attempts in a row: to open a stream before its first answer, and to send one input that the server refuses for lack of room.
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0  # In seconds, as in retry_service_config.json.
# gRPC's messages for a connection that ended in the middle of a stream, and the codes that it reports them under.
_BROKEN_CODES = ("UNKNOWN", "INTERNAL", "CANCELLED")
_BROKEN_TRANSPORT = ("Stream removed", "RST_STREAM", "GOAWAY", "Socket closed", "Internal error from Core")


class Attempts:
    """Counts the attempts of one stream. Before the first answer there are six in a row. Afterwards, attempts continue until `timeout` seconds
    pass without an answer."""

    def __init__(self, timeout: float):
        self._timeout = timeout
        self._failures = 0
        self._any_answer = False

    def succeeded(self) -> None:
        self._failures, self._any_answer = 0, True

    def delay_after(self, error: LongEmbedError, waited: float) -> float:
        """Returns the seconds until the next attempt, given that the last answer came `waited` seconds ago. Raises `error` if another attempt is
        useless or would come too late."""
        self._failures += 1
        delay = _delay(error, self._failures)
        out_of_attempts = not self._any_answer and self._failures >= MAX_ATTEMPTS
        if delay is None or out_of_attempts or waited + delay > self._timeout:
            raise error
        return delay


def no_answer(timeout: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the server gave no answer for {timeout:g} seconds", "DEADLINE_EXCEEDED")


def _delay(error: LongEmbedError, failures: int) -> float | None:
    if error.code == "RESOURCE_EXHAUSTED":
        return error.retry_delay  # Without a retry delay, the error is about a limit, not about overload.
    broken = error.code in _BROKEN_CODES and any(words in str(error) for words in _BROKEN_TRANSPORT)
    if error.code != "UNAVAILABLE" and not broken:
        return None
    doublings = min(failures - 1, 10)  # More would exceed the longest delay, and at last the range of a float.
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2**doublings) * random.uniform(0.8, 1.2)
