"""Errors of calls: the server's sentence, with its code, reason, field, and retry delay."""

from __future__ import annotations

import grpc

from longembed import messages

_DETAILS_KEY = "grpc-status-details-bin"
_DETAIL_TYPES = (messages.BadRequest, messages.ErrorInfo, messages.RetryInfo)


class LongEmbedError(Exception):
    """A call, or one input of it, failed.

    code: the gRPC status code by name, such as "INVALID_ARGUMENT".
    reason: the server's stable reason, such as "INPUT_TOO_LONG"; None where it gave none.
    field: path of the request's field at fault, such as "inputs[3].text"; None where it is about no field.
    retry_delay: seconds after which to try again; None where the server gave no hint.
    """

    def __init__(self, message: str, code: str, reason: str | None = None, field: str | None = None, retry_delay: float | None = None):
        super().__init__(message)
        self.code, self.reason, self.field, self.retry_delay = code, reason, field, retry_delay

    def about(self, what: str) -> LongEmbedError:
        """The same error with its subject before its sentence."""
        return _restore(f"{what}: {self}", self.code, self.reason, self.field, self.retry_delay)

    def __reduce__(self):
        return _restore, (str(self), self.code, self.reason, self.field, self.retry_delay)


class InvalidArgument(LongEmbedError):
    """The request is wrong: `field` and the sentence say what, and the limit."""


class NotFound(LongEmbedError):
    """No such model."""


class Unauthenticated(LongEmbedError):
    """The API key is missing or unknown."""


class Overloaded(LongEmbedError):
    """RESOURCE_EXHAUSTED: the server has no room now; try again after `retry_delay`."""


class Unavailable(LongEmbedError):
    """The server cannot be reached, or shuts down."""


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
    """The error that a google.rpc.Status tells."""
    reason = field = retry_delay = None
    for detail in status.details:
        for kind in _DETAIL_TYPES:
            if not detail.Is(kind.DESCRIPTOR):
                continue
            message = kind.FromString(detail.value)
            if kind is messages.ErrorInfo:
                reason = message.reason or None
            elif kind is messages.RetryInfo:
                retry_delay = message.retry_delay.seconds + message.retry_delay.nanos / 1e9
            elif message.field_violations:
                field = message.field_violations[0].field
    code = _CODE_NAMES.get(status.code, f"CODE_{status.code}")
    return _restore(status.message, code, reason, field, retry_delay)


def from_rpc(error: grpc.RpcError) -> LongEmbedError:
    """The error of a failed call, with the details that its trailers carry."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return from_status(messages.Status.FromString(value))
    return _restore(error.details() or error.code().name, error.code().name, None, None, None)
