"""Stores embeddings on disk. Rows that share a recipe embed once, corpora that share texts embed once, and an interrupted run continues where it
stopped.

    STORE/KEY/about.json     describes how the vectors were made
    STORE/KEY/PIECE.npz      vectors of some texts, written atomically

KEY is a hash of the embedder's description. A text is identified by its own hash. Several processes may write into one store."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

# A piece is written after this many seconds. An interrupted run loses at most this much work.
SECONDS_A_PIECE = 20.0


class StoreError(ValueError):
    """A stored piece cannot be read, or vectors cannot be stored. The message names the file, or the text and its vectors."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of one text [k, dimensions] float32, the tokens that each stands for [k], the tokens of the encoded text, and the tokens that
    were cut away."""

    values: np.ndarray
    lengths: np.ndarray
    tokens: int
    truncated: int


class Embedder(Protocol):
    """Computes vectors. Equal descriptions mean equal vectors for equal texts."""

    def describe(self) -> dict: ...

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        """Yields the number and the vectors of every text, in any order. Raises the error that stops it."""


class Bar(Protocol):
    def update(self, count: int) -> object: ...


@dataclass(frozen=True)
class Embedded:
    """The vectors of all texts in their order. `seconds` is the time that embedding took when it was done, even if that was in an earlier run.
    `tokens` are those of the encoded texts. A repeated text is embedded once, and counts once in both."""

    vectors: list[Vectors]
    seconds: float
    tokens: int


class Store:
    def __init__(self, folder: Path):
        self.folder = folder

    def embed(self, embedder: Embedder, texts: Sequence[str], bar: Bar | None = None) -> Embedded:
        """Reads vectors from the store if it has them. Embeds and stores the others."""
        about = embedder.describe()
        shelf = _KeyFolder(self.folder / key_of(about), about)
        names = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {name: text for name, text in zip(names, texts) if name not in shelf.found}
        if bar:
            bar.update(sum(name not in missing for name in names))
        if missing:
            shelf.fill(embedder, missing, bar)
        kept = [shelf.found[name] for name in names]
        unique = {id(one): one for one in kept}.values()
        return Embedded([one.vectors for one in kept], sum(one.seconds for one in unique), sum(one.vectors.tokens for one in unique))


@dataclass(frozen=True)
class _Kept:
    vectors: Vectors
    seconds: float


class _KeyFolder:
    """The folder of one key."""

    def __init__(self, folder: Path, about: dict):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, _Kept] = {}
        for piece in sorted(folder.glob("*.npz")):
            self.found.update(_read(piece))
        self.dimensions = next((kept.vectors.values.shape[1] for kept in self.found.values()), None)
        if not (folder / "about.json").exists():
            write_whole(folder / "about.json", json.dumps(about, indent=1, sort_keys=True).encode())

    def fill(self, embedder: Embedder, texts: dict[str, str], bar: Bar | None) -> None:
        """Embeds the texts. Writes the finished vectors when a piece is full, at the end, and when an error stops the run."""
        names = list(texts)
        ready: dict[str, Vectors] = {}
        started = time.monotonic()
        try:
            for number, vectors in embedder.embed(list(texts.values())):
                self._check(vectors, texts[names[number]])
                ready[names[number]] = vectors
                if bar:
                    bar.update(1)
                if time.monotonic() - started > SECONDS_A_PIECE:
                    self._write(ready, time.monotonic() - started)
                    ready, started = {}, time.monotonic()
        finally:
            self._write(ready, time.monotonic() - started)

    def _check(self, vectors: Vectors, text: str) -> None:
        """Refuses vectors that must not be stored, since every later run would read them."""
        about = f"the vector of the text {excerpt(text)}"
        if not len(vectors.values) or not np.isfinite(vectors.values).all():
            raise StoreError(f"{about} has a component that is not a finite number" if len(vectors.values) else f"{about} is missing")
        self.dimensions = self.dimensions or vectors.values.shape[1]
        if vectors.values.shape[1] != self.dimensions:
            raise StoreError(
                f"{about} has {vectors.values.shape[1]} dimensions, and others in {self.folder} have {self.dimensions}: "
                f"the model there has changed; remove the folder"
            )

    def _write(self, ready: dict[str, Vectors], seconds: float) -> None:
        """Writes a piece. `seconds` is distributed over the texts by their tokens."""
        if not ready:
            return
        tokens = np.array([one.tokens for one in ready.values()], np.int64)
        arrays = {
            "names": np.array(list(ready)),
            "values": np.concatenate([one.values for one in ready.values()]),
            "lengths": np.concatenate([one.lengths for one in ready.values()]),
            "counts": np.array([len(one.values) for one in ready.values()], np.int64),
            "tokens": tokens,
            "truncated": np.array([one.truncated for one in ready.values()], np.int64),
            "seconds": seconds * tokens / max(1, tokens.sum()),
        }
        piece = self.folder / f"{uuid.uuid4().hex}.npz"
        with _scratch(piece, ".part") as scratch:
            np.savez(scratch, **arrays)
        self.found.update(_read(piece))


def _read(piece: Path) -> dict[str, _Kept]:
    try:
        with np.load(piece) as arrays:
            names, values, lengths, counts = (arrays[name] for name in ("names", "values", "lengths", "counts"))
            tokens, truncated, seconds = (arrays[name] for name in ("tokens", "truncated", "seconds"))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{piece} is damaged ({error}); remove it, and its texts are embedded again") from error
    ends = np.cumsum(counts)
    return {
        str(name): _Kept(Vectors(values[end - count : end], lengths[end - count : end], int(tokens[i]), int(truncated[i])), float(seconds[i]))
        for i, (name, count, end) in enumerate(zip(names, counts, ends))
    }


def excerpt(text: str) -> str:
    """Returns the beginning of a text, for messages."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."


def key_of(about: dict) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(path) as scratch:
        scratch.write(content)
        os.chmod(scratch.name, 0o644)


@contextmanager
def _scratch(path: Path, suffix: str = "") -> Iterator[IO[bytes]]:
    """Opens a file that becomes `path` at the end, or is removed if an error, such as a full disk, stops its writing."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=suffix, delete=False) as scratch:
        try:
            yield scratch
            scratch.flush()
            os.replace(scratch.name, path)
        except BaseException:
            os.unlink(scratch.name)
            raise
