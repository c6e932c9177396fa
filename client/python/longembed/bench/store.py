"""Embeddings on disk, so that rows which share a recipe embed once, corpora which share texts embed once, and a run that was stopped continues.

    STORE/KEY/about.json     what the vectors were made with
    STORE/KEY/PIECE.npz      some texts' vectors, written whole or not at all

KEY is a hash of the embedder's description; a text is known by its own hash. Several processes may write into one store.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

# A piece is written after so many seconds, which is the most work that a stopped run loses.
SECONDS_A_PIECE = 20.0


@dataclass(frozen=True)
class Vectors:
    """One text's vectors [k, dimensions] float32, how many tokens each stands for [k], and the tokens of the text as encoded and cut away."""

    values: np.ndarray
    lengths: np.ndarray
    tokens: int
    truncated: int


class Embedder(Protocol):
    """Makes vectors. Equal descriptions mean equal vectors of equal texts."""

    def describe(self) -> dict: ...

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        """Yields every text's number and vectors, in any order. Raises what stops it."""


class Bar(Protocol):
    def update(self, count: int) -> object: ...


@dataclass(frozen=True)
class Embedded:
    """All texts' vectors in their order. `seconds` is what embedding took when it was done, whenever that was; tokens are the texts' as encoded."""

    vectors: list[Vectors]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.vectors)


class Store:
    def __init__(self, folder: Path):
        self.folder = folder

    def embed(self, embedder: Embedder, texts: Sequence[str], bar: Bar | None = None) -> Embedded:
        """From the store as far as it goes; the rest is embedded and kept."""
        about = embedder.describe()
        shelf = _Shelf(self.folder / key_of(about), about)
        names = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {name: text for name, text in zip(names, texts) if name not in shelf.found}
        if bar:
            bar.update(sum(name not in missing for name in names))
        if missing:
            shelf.fill(embedder, missing, bar)
        kept = [shelf.found[name] for name in names]
        unique = {id(one): one for one in kept}
        return Embedded([one.vectors for one in kept], sum(one.seconds for one in unique.values()))


@dataclass(frozen=True)
class _Kept:
    vectors: Vectors
    seconds: float


class _Shelf:
    """The folder of one key."""

    def __init__(self, folder: Path, about: dict):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, _Kept] = {}
        for piece in sorted(folder.glob("*.npz")):
            self.found.update(_read(piece))
        if not (folder / "about.json").exists():
            write_whole(folder / "about.json", json.dumps(about, indent=1, sort_keys=True).encode())

    def fill(self, embedder: Embedder, texts: dict[str, str], bar: Bar | None) -> None:
        """Writes what there is when a piece is full, at the end, and when anything stops it."""
        names = list(texts)
        ready: dict[str, Vectors] = {}
        started = time.monotonic()
        try:
            for number, vectors in embedder.embed(list(texts.values())):
                ready[names[number]] = vectors
                if bar:
                    bar.update(1)
                if time.monotonic() - started > SECONDS_A_PIECE:
                    self._write(ready, time.monotonic() - started)
                    ready, started = {}, time.monotonic()
        finally:
            self._write(ready, time.monotonic() - started)

    def _write(self, ready: dict[str, Vectors], seconds: float) -> None:
        """Seconds are shared out by tokens."""
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
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as scratch:
            np.savez(scratch, **arrays)
        os.replace(scratch.name, piece)
        self.found.update(_read(piece))


def _read(piece: Path) -> dict[str, _Kept]:
    with np.load(piece) as arrays:
        names, values, lengths, counts = (arrays[name] for name in ("names", "values", "lengths", "counts"))
        tokens, truncated, seconds = (arrays[name] for name in ("tokens", "truncated", "seconds"))
    ends = np.cumsum(counts)
    return {
        str(name): _Kept(Vectors(values[end - count : end], lengths[end - count : end], int(tokens[i]), int(truncated[i])), float(seconds[i]))
        for i, (name, count, end) in enumerate(zip(names, counts, ends))
    }


def key_of(about: dict) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def write_whole(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as scratch:
        scratch.write(content)
    os.chmod(scratch.name, 0o644)
    os.replace(scratch.name, path)
