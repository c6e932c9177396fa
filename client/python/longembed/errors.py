"""Errors of calls. They have the server's message, with its code, reason, field and retry delay."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from longembed import messages

_DETAILS_KEY = "grpc-status-details-bin"
_DETAIL_TYPES = (messages.BadRequest, messages.ErrorInfo, messages.RetryInfo)


class LongEmbedError(Exception):
    """A call failed, or one input of it.

    code: the name of the gRPC status code, such as "INVALID_ARGUMENT".
    reason: the server's stable reason, such as "INPUT_TOO_LONG". None if the server gave none.
    field: the path of the invalid field of the request, such as "inputs[3].text". None if the error is not about a field.
    retry_delay: the time in seconds after which to try again. None if the server gave none."""

    def __init__(self, message: str, code: str, reason: str | None = None, field: str | None = None, retry_delay: float | None = None):
        super().__init__(message)
        self.code, self.reason, self.field, self.retry_delay = code, reason, field, retry_delay

    def about(self, what: str) -> LongEmbedError:
        """Returns the same error with `what` in front of its message."""
        return _restore(f"{what}: {self}", self.code, self.reason, self.field, self.retry_delay)

    def __reduce__(self):
        return _restore, (str(self), self.code, self.reason, self.field, self.retry_delay)


class InvalidArgument(LongEmbedError):
    """The request is invalid. `field` and the message say what is wrong, and name the limit."""


class NotFound(LongEmbedError):
    """The model does not exist."""


class Unauthenticated(LongEmbedError):
    """The API key is missing or unknown."""


class Overloaded(LongEmbedError):
    """RESOURCE_EXHAUSTED: the server has no room now. Try again after `retry_delay`, if there is one."""


class Unavailable(LongEmbedError):
    """The server cannot be reached, or is shutting down."""


class DeadlineExceeded(LongEmbedError):
    """The call's timeout passed."""


_BY_CODE = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "UNAUTHENTICATED": Unauthenticated,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _restore(message: str, code: str, reason: str | None, field: str | None, retry_delay: float | None) -> LongEmbedError:
    return _BY_CODE.get(code, LongEmbedError)(message, code, reason, field, retry_delay)


def from_status(status: messages.Status) -> LongEmbedError:
    """Converts a google.rpc.Status to an error. Details that cannot be read are left out; the code and the message do not depend on them."""
    reason = field = retry_delay = None
    for detail in status.details:
        for kind in _DETAIL_TYPES:
            if not detail.Is(kind.DESCRIPTOR) or (message := _read(kind, detail.value)) is None:
                continue
            if kind is messages.ErrorInfo:
                reason = message.reason or None
            elif kind is messages.RetryInfo:
                retry_delay = message.retry_delay.seconds + message.retry_delay.nanos / 1e9
            elif message.field_violations:
                field = message.field_violations[0].field
    code = _CODE_NAMES.get(status.code, f"CODE_{status.code}")
    return _restore(status.message, code, reason, field, retry_delay)


def from_rpc(error: grpc.RpcError) -> LongEmbedError:
    """Converts the error of a failed call, with the details from its trailers."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and (status := _read(messages.Status, value)) is not None:
            return from_status(status)
    return _restore(error.details() or error.code().name, error.code().name, None, None, None)


def _read(kind: Any, content: bytes) -> Any:
    """Returns the message, or None for bytes that are none, as a proxy may leave them."""
    try:
        return kind.FromString(content)
    except DecodeError:
        return None
