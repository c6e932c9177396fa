"""Results as numpy arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from longembed import messages
from longembed.errors import LongEmbedError, from_status


@dataclass(frozen=True)
class Timing:
    """Seconds that the server spent on a call. See longembed.v1.Timing."""

    tokenization: float
    queue: float
    inference: float
    total: float


class SparseVector(NamedTuple):
    """Weights of a few entries of a vocabulary; all other weights are 0. indices: int64 [k], ascending. values: float32 [k]."""

    indices: np.ndarray
    values: np.ndarray


@dataclass(eq=False)
class Embedding:
    """The vectors of one input, and how they were made.

    vectors: [k, d]. k is 1, except for window, span and token vectors. The type is float32 for FLOAT32 and BFLOAT16 (widened), float16 for
    FLOAT16, int8 with `scales` for INT8, and uint8 [k, ceil(d / 8)] for BINARY, with the first component in the highest bit.
    scales: float32 [k], where component = int8 value * scale. None except for INT8.
    ranges: int64 [k, 2], half-open: the content tokens that each vector stands for. [0, 2] for one vector.
    indices: with output SPARSE, int64 [n]: the numbers of the components that the one row of `vectors` holds, out of `dimensions`. None for other
    outputs. See .sparse.
    tokens: tokens of the encoded input, special tokens and prompt included. truncated_tokens: content tokens that were cut away.
    truncated_tokens_estimated: more than 64 KiB were cut away without being tokenized, so that truncated_tokens is an estimate from their bytes.
    sequences: the sequences that the model ran over, one longembed.v1.Sequence per window. Each has tokens, content and method.
    recipe: vectors with equal recipes are comparable.
    error: the error of this input, if the call has partial=True or is a stream. The shape of the vectors is then [0, 0]."""

    id: Hashable
    vectors: np.ndarray
    scales: np.ndarray | None
    dimensions: int
    ranges: np.ndarray
    tokens: int
    truncated_tokens: int
    sequences: list[messages.Sequence]
    model: str
    prompt: str
    recipe: str
    error: LongEmbedError | None = None
    indices: np.ndarray | None = None
    truncated_tokens_estimated: bool = False

    @property
    def sparse(self) -> SparseVector:
        """Returns the sparse vector. Raises ValueError if the vectors are not sparse, and the input's own error if it failed."""
        if self.error is not None:
            raise self.error
        if self.indices is None:
            raise ValueError(f"input {self.id!r} has no sparse vector; embed it with output SPARSE")
        return SparseVector(self.indices, self._decoded()[0])

    @property
    def vector(self) -> np.ndarray:
        """Returns the only vector, [d]. Raises ValueError if there are several, and the input's own error if it failed."""
        if self.error is not None:
            raise self.error
        self._refuse_sparse()
        if len(self.vectors) != 1:
            raise ValueError(f"input {self.id!r} has {len(self.vectors)} vectors; read .vectors")
        return self.vectors[0]

    def float32(self) -> np.ndarray:
        """Returns the vectors of any encoding as float32 [k, d]. Bits become +1 and -1. Raises ValueError for a sparse vector."""
        if self.error is not None:
            raise self.error
        self._refuse_sparse()
        return self._decoded()

    def _refuse_sparse(self) -> None:
        if self.indices is not None:
            raise ValueError(f"input {self.id!r} has a sparse vector; read .sparse")

    def _decoded(self) -> np.ndarray:
        if self.scales is not None:
            return self.vectors.astype(np.float32) * self.scales[:, None]
        if self.vectors.dtype == np.uint8:
            return np.unpackbits(self.vectors, axis=1, count=self.dimensions).astype(np.float32) * 2 - 1
        return self.vectors.astype(np.float32, copy=False)


@dataclass(eq=False)
class Embeddings(Sequence[Embedding]):
    """The answers of one call, in the order of its inputs."""

    items: list[Embedding]
    model: str
    prompt: str
    recipe: str
    timing: Timing

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Embedding: ...

    @overload
    def __getitem__(self, index: slice) -> list[Embedding]: ...

    def __getitem__(self, index):
        return self.items[index]

    def __iter__(self) -> Iterator[Embedding]:
        return iter(self.items)

    def matrix(self) -> np.ndarray:
        """Returns one vector per input: float32 [n, d]. Raises the same errors as Embedding.vector."""
        if not self.items:
            return np.zeros((0, 0), np.float32)
        for item in self.items:
            item.vector  # noqa: B018  Raises if there is not exactly one vector.
        return np.concatenate([item.float32() for item in self.items])


@dataclass(frozen=True)
class Tokens:
    """One tokenized text. ids: int64 [n]. ranges: int64 [n, 2], in Unicode code points. special: bool [n], true for tokens that the tokenizer
    added."""

    ids: np.ndarray
    texts: list[str]
    ranges: np.ndarray
    special: np.ndarray


def refuse_two_recipes(recipes: Iterable[str]) -> None:
    """Raises LongEmbedError if vectors that are used together have several recipes. Within a stream, a server may restart with another model."""
    distinct = sorted(set(recipes))
    if len(distinct) > 1:
        changed = f"the server's model or its settings changed, from recipe {distinct[0]} to {distinct[1]} or back"
        raise LongEmbedError(f"{changed}; embed all texts again", "ABORTED")


def failed(id: Hashable, error: LongEmbedError, model: str = "", prompt: str = "", recipe: str = "") -> Embedding:
    """Returns the answer of a failed input. It has no vectors."""
    return Embedding(id, np.zeros((0, 0), np.float32), None, 0, np.zeros((0, 2), np.int64), 0, 0, [], model, prompt, recipe, error)


def embedding(id: Hashable, result: messages.EmbedResult, encoding: str, model: str, prompt: str, recipe: str) -> Embedding:
    """Converts one EmbedResult, whose vectors are in `encoding`."""
    if result.HasField("error"):
        return failed(id, from_status(result.error), model, prompt, recipe)
    if not result.embeddings:
        raise LongEmbedError("the server answered an input without a vector", "INTERNAL")
    try:
        vectors, scales = _vectors(result.embeddings, encoding)
        _refuse_other_size(vectors, result.embeddings[0], encoding)
    except ValueError as error:
        raise LongEmbedError(f"the server answered an input with vectors that are not {encoding}: {error}", "INTERNAL") from error
    ranges = np.array([(e.range.start, e.range.end) for e in result.embeddings if e.HasField("range")], np.int64).reshape(-1, 2)
    sequences = list(result.sequences)
    first = result.embeddings[0]
    indices = np.array(first.indices.ids, np.int64) if first.HasField("indices") else None
    counts = (result.tokens, result.truncated_tokens)
    estimated = result.truncated_tokens_estimated
    return Embedding(
        id, vectors, scales, first.dimensions, ranges, *counts, sequences, model, prompt, recipe, indices=indices, truncated_tokens_estimated=estimated
    )


def embeddings(response: messages.EmbedResponse, encoding: str) -> Embeddings:
    shared = (response.model, response.prompt, response.recipe)
    items = [embedding(number, result, encoding, *shared) for number, result in enumerate(response.results)]
    durations = (getattr(response.timing, name) for name in ("tokenization", "queue", "inference", "total"))
    return Embeddings(items, *shared, Timing(*(duration.seconds + duration.nanos / 1e9 for duration in durations)))


def tokens(text: messages.TokenizedText) -> Tokens:
    return Tokens(
        ids=np.array([token.id for token in text.tokens], np.int64),
        texts=[token.text for token in text.tokens],
        ranges=np.array([(token.range.start, token.range.end) for token in text.tokens], np.int64).reshape(-1, 2),
        special=np.array([token.special for token in text.tokens], bool),
    )


def _refuse_other_size(vectors: np.ndarray, first: messages.Embedding, encoding: str) -> None:
    """Raises ValueError for vectors of another size than the answer says. Those of another encoding are empty, for example."""
    components = len(first.indices.ids) if first.HasField("indices") else first.dimensions
    if vectors.shape[1] != (-(-components // 8) if encoding == "BINARY" else components):
        raise ValueError(f"they do not have {components} components")


def _vectors(found: Sequence[messages.Embedding], encoding: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the vectors of one input in their encoding, and the scales of INT8."""
    if encoding == "FLOAT32":
        return np.array([e.values for e in found], np.float32), None
    packed = bytearray().join(e.packed for e in found)  # The bytearray makes the array writable, like the arrays of the other encodings.
    if encoding == "FLOAT16":
        return np.frombuffer(packed, "<f2").reshape(len(found), -1), None
    if encoding == "BFLOAT16":  # A bfloat16 is the upper half of a float32. numpy has no such type.
        return (np.frombuffer(packed, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(len(found), -1), None
    if encoding == "INT8":
        return np.frombuffer(packed, np.int8).reshape(len(found), -1), np.array([e.scale for e in found], np.float32)
    if encoding == "BINARY":
        return np.frombuffer(packed, np.uint8).reshape(len(found), -1), None
    raise ValueError(f"encoding is {encoding!r}, which has no numpy form")
