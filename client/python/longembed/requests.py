"""Builds the requests that Client and AsyncClient share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from longembed import messages
from longembed.options import Input, Options, TextLike, to_input


def with_defaults(options: Options | None, changes: dict[str, Any], model: str | None) -> Options:
    """The call's options: those given, then single changes, then the client's model where none is named."""
    chosen = (options or Options()).with_changes(**changes)
    return chosen if chosen.model is not None or model is None else chosen.with_changes(model=model)


def inputs(texts: Iterable[TextLike]) -> list[messages.Input]:
    """One message an input. A single str is refused: it would be read as a list of letters."""
    if isinstance(texts, (str, Input)):
        raise TypeError("give a list of texts: embed([text]), not embed(text)")
    return [to_input(item) for item in texts]


def embed(texts: Iterable[TextLike], options: Options, partial: bool) -> messages.EmbedRequest:
    return messages.EmbedRequest(options=options.message(), inputs=inputs(texts), partial_results=partial)


def explain(texts: Iterable[TextLike], options: Options) -> messages.ExplainRequest:
    return messages.ExplainRequest(options=options.message(), inputs=inputs(texts))


def tokenize(texts: Sequence[str], model: str | None, add_special_tokens: bool) -> messages.TokenizeRequest:
    if isinstance(texts, str):
        raise TypeError("give a list of texts: tokenize([text]), not tokenize(text)")
    return messages.TokenizeRequest(model=model or "", texts=texts, add_special_tokens=add_special_tokens)


def get_model(name: str | None) -> messages.GetModelRequest:
    return messages.GetModelRequest(model=name or "")
