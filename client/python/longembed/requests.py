"""Builds the requests that Client and AsyncClient share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from longembed import messages
from longembed.errors import InvalidArgument
from longembed.options import Input, Options, TextLike, to_input

# gRPC takes a time that its clock cannot hold for one in the past, and ends the call at once.
_LONGEST_SECONDS = 1e9


def seconds(timeout: float | None, default: float) -> float:
    """Returns the timeout of a call or stream, or the client's."""
    chosen = default if timeout is None else timeout
    if math.isnan(chosen):
        raise ValueError("timeout is nan; it must be a number of seconds")
    return chosen


def deadline(timeout: float | None, default: float) -> float | None:
    """Returns the timeout of a call as gRPC takes it. None: no limit."""
    chosen = seconds(timeout, default)
    return chosen if chosen < _LONGEST_SECONDS else None


def with_defaults(options: Options | None, changes: dict[str, Any], model: str | None) -> Options:
    """Merges the options of a call: the given ones, then the single changes, then the client's model if none is named."""
    chosen = (options or Options()).with_changes(**changes)
    return chosen if chosen.model is not None or model is None else chosen.with_changes(model=model)


def inputs(texts: Iterable[TextLike]) -> list[messages.Input]:
    """Returns one message per input. Refuses a single string, which would be read as a list of letters."""
    refuse_single(texts, "embed")
    return [_input(number, item) for number, item in enumerate(texts)]


def _input(number: int, item: TextLike) -> messages.Input:
    try:
        return to_input(item)
    except InvalidArgument as error:
        field = f"inputs[{number}]"
        raise InvalidArgument(f"{field}: {error}", error.code, error.reason, field) from None


def refuse_single(texts: object, method: str) -> None:
    """Refuses iterables that are not lists of texts."""
    if isinstance(texts, (str, bytes, Input)):
        raise TypeError(f"give a list of texts: {method}([text]), not {method}(text)")
    if isinstance(texts, Mapping):
        raise TypeError(f"{method} takes texts, not a mapping; embed_stream takes its items(): (id, text) pairs")


def embed(texts: Iterable[TextLike], options: Options, partial: bool) -> messages.EmbedRequest:
    return messages.EmbedRequest(options=options.message(), inputs=inputs(texts), partial_results=partial)


def explain(texts: Iterable[TextLike], options: Options) -> messages.ExplainRequest:
    return messages.ExplainRequest(options=options.message(), inputs=inputs(texts))


def tokenize(texts: Iterable[str], model: str | None, add_special_tokens: bool) -> messages.TokenizeRequest:
    refuse_single(texts, "tokenize")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is of type {type(text).__name__}; it must be a str")
        _input(number, text)
    return messages.TokenizeRequest(model=model or "", texts=texts, add_special_tokens=add_special_tokens)


def get_model(name: str | None) -> messages.GetModelRequest:
    return messages.GetModelRequest(model=name or "")
