"""Embedding options, which are one immutable set per call or stream, and inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any

import numpy as np
from google.protobuf import json_format

from longembed import messages
from longembed.errors import InvalidArgument


@dataclass(frozen=True)
class Input:
    """One input: a text, or token ids of the model's own tokenizer.

    ranges: for output SPAN_VECTORS with spans {"ranges": {}}. Half-open [start, end), in Unicode code points of the text or in tokens of
    `token_ids`.
    complete: the token ids already include special tokens and prompt."""

    text: str | None = None
    token_ids: Sequence[int] | None = None
    ranges: Sequence[tuple[int, int]] = ()
    complete: bool = False

    def message(self) -> messages.Input:
        if (self.text is None) == (self.token_ids is None):
            raise ValueError("an Input has either text or token_ids")
        if self.complete and self.text is not None:
            raise ValueError("complete is for an Input of token_ids; a text gets its special tokens and prompt from the server")
        ranges = [messages.Range(start=start, end=end) for start, end in self.ranges]
        if self.text is None:
            ids = [_checked_id(id) for id in self.token_ids]
            return messages.Input(token_ids=messages.TokenIds(ids=ids, complete=self.complete), ranges=ranges)
        try:
            return messages.Input(text=self.text, ranges=ranges)
        except ValueError:  # Implementations of protobuf raise several kinds of it for a text that is not valid Unicode.
            _refuse_surrogates(self.text)
            raise


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"a text has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}", "INVALID_ARGUMENT") from None


def _checked_id(id: int) -> int:
    if not 0 <= id < 1 << 32:
        raise ValueError(f"a token id is {id}; it must be between 0 and {(1 << 32) - 1}")
    return int(id)


_BYTES = (bytes, bytearray, memoryview)  # Sequences of numbers, which are not token ids.

TextLike = str | Sequence[int] | np.ndarray | Input


def to_input(item: TextLike) -> messages.Input:
    """Converts a text, a list or array of token ids, or an Input to a message. Raises TypeError for anything else, and InvalidArgument for a text
    that is not valid Unicode."""
    if isinstance(item, Input):
        return item.message()
    if isinstance(item, str):
        return Input(text=item).message()
    if isinstance(item, (Sequence, np.ndarray)) and not isinstance(item, _BYTES) and all(isinstance(token, Integral) for token in item):
        return Input(token_ids=item).message()
    raise TypeError(f"an input is a str, a list of token ids, or a longembed.Input, not {type(item).__name__}: {item!r:.80}")


@dataclass(frozen=True)
class Options:
    """The fields of longembed.v1.EmbedOptions. Fields that are left out have the server's defaults.

    extension: how to encode a text beyond the trained window, as a dict or a JSON string of longembed.v1.Extension: {"windows": {"tokens": 128}}.
    spans: for output SPAN_VECTORS, as a dict or a JSON string of longembed.v1.SpanOptions: {"sentences": {}}.
    prompt_name, input_type, prompt: at most one of the three. input_type is "QUERY" or "DOCUMENT".
    output: "ONE_VECTOR", "WINDOW_VECTORS", "SPAN_VECTORS", "SPARSE" or "TOKEN_VECTORS". None: the first of Model.outputs, which is ONE_VECTOR for
    most models.
    truncate: "NONE", "END" or "START".
    priority: "INTERACTIVE" or "BULK".
    encoding: "FLOAT32", "FLOAT16", "BFLOAT16", "INT8" or "BINARY".
    max_terms: with SPARSE, keep this many of the largest weights.
    max_tokens: the most tokens of a text, prompt included. A longer text is handled as `truncate` says, before the extension applies.
    token_pooling: with TOKEN_VECTORS, keep about one vector per this many tokens of a document. A query keeps all of its vectors."""

    model: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    prompt: str | None = None
    extension: dict[str, Any] | str | None = field(default=None, hash=False)
    output: str | None = None
    spans: dict[str, Any] | str | None = field(default=None, hash=False)
    truncate: str = "NONE"
    dimensions: int | None = None
    force_dimensions: bool = False
    normalize: bool | None = None
    encoding: str = "FLOAT32"
    priority: str = "INTERACTIVE"
    max_terms: int | None = None
    max_tokens: int | None = None
    token_pooling: int | None = None

    def with_changes(self, **changes: Any) -> Options:
        """Returns a copy with some values changed. Raises TypeError for an option that does not exist."""
        unknown = set(changes) - {option.name for option in fields(self)}
        if unknown:
            raise TypeError(f"unknown option {sorted(unknown)[0]}; known are {', '.join(option.name for option in fields(self))}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults. Options(**d) restores them."""
        return {option.name: value for option in fields(self) if (value := getattr(self, option.name)) != option.default}

    def message(self) -> messages.EmbedOptions:
        """Converts to a message. Raises ValueError for a value that the proto does not have. The error names the field."""
        chosen = [name for name in ("prompt_name", "input_type", "prompt") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other: give one")
        body = self.to_dict() | {name: _mapping(name, value) for name in ("extension", "spans") if (value := getattr(self, name)) is not None}
        for name, value in body.items():
            enum = messages.EmbedOptions.DESCRIPTOR.fields_by_name[name].enum_type
            if enum is not None and value not in enum.values_by_name:
                raise ValueError(f"options.{name} is {value!r}; it must be one of {', '.join(enum.values_by_name)}")
        try:
            return json_format.ParseDict(body, messages.EmbedOptions())
        except json_format.ParseError as error:
            raise ValueError(f"options: {error}") from None


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Returns the value of options.NAME, which is a dict, or a JSON string of one."""
    try:
        found = json.loads(value, object_pairs_hook=_without_duplicates) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"options.{name}: not JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"options.{name} is {value!r:.80}; it must be a dict, or a JSON string of one")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the keys {', '.join(key for key, _ in pairs)} are not distinct")
    return found
