"""When a stream that broke is opened again. Single calls are retried by gRPC itself."""

from __future__ import annotations

import random

from longembed.errors import DeadlineExceeded, LongEmbedError

MAX_ATTEMPTS = 6  # In a row: of a stream before its first answer, and of one input that the server refuses because it has no room.
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0  # Seconds; those of retry_service_config.json.
# gRPC's own words for a connection that ended in the middle of a stream, which it reports under these codes.
_BROKEN_CODES = ("UNKNOWN", "INTERNAL", "CANCELLED")
_BROKEN_TRANSPORT = ("Stream removed", "RST_STREAM", "GOAWAY", "Socket closed", "Internal error from Core")


class Attempts:
    """The attempts of one stream: six in a row before its first answer; afterwards as many as `timeout` seconds without an answer allow."""

    def __init__(self, timeout: float):
        self._timeout = timeout
        self._failures = 0
        self._any_answer = False

    def succeeded(self) -> None:
        self._failures, self._any_answer = 0, True

    def delay_after(self, error: LongEmbedError, waited: float) -> float:
        """Seconds until the next attempt, `waited` seconds after the last answer. Raises `error` where another attempt is useless or comes too late."""
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
        return error.retry_delay  # Without a hint it is a limit, not overload.
    broken = error.code in _BROKEN_CODES and any(words in str(error) for words in _BROKEN_TRANSPORT)
    if error.code != "UNAVAILABLE" and not broken:
        return None
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (failures - 1)) * random.uniform(0.8, 1.2)
