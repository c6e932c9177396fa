"""Small sets in the format of ../shared/longdata, and an embedder that needs no server and counts its work."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from longembed.bench.store import Vectors


def write_lines(path: Path, lines: Sequence[dict]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_set(folder: Path, part: str = "dev", first: int = 0, documents: int = 3, suffix: str = ".gz") -> Path:
    """Writes documents d0, d1, ... with two queries each. The evidence is in a third that depends on the document."""
    folder.mkdir(exist_ok=True)
    numbers = range(first, first + documents)
    texts = {number: f"document {number} says word{number} " * 30 for number in numbers}
    starts = {number: len(text) * (number % 3) // 3 for number, text in texts.items()}
    queries = [{"id": f"q{n}{letter}", "text": f"what says word{n} {letter}?", "evidence": [[starts[n], starts[n] + 9]]} for n in numbers for letter in "ab"]
    write_lines(folder / f"{part}.docs.jsonl{suffix}", [{"id": f"d{number}", "text": text} for number, text in texts.items()])
    write_lines(folder / f"{part}.queries.jsonl{suffix}", queries)
    write_lines(folder / f"{part}.qrels.jsonl{suffix}", [{"query": query["id"], "doc": f"d{query['id'][1:-1]}", "relevance": 1} for query in queries])
    return folder


class CountingEmbedder:
    """Returns vectors made from the text's hash, one per word but at most 4. Stops like a killed process after `limit` texts."""

    def __init__(self, name: str = "counting", limit: int | None = None):
        self.name, self.limit = name, limit
        self.embedded: list[str] = []

    def describe(self) -> dict:
        return {"kind": "counting", "name": self.name}

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        for number in reversed(range(len(texts))):  # Not in order, like the answers of a server.
            if self.limit is not None and len(self.embedded) >= self.limit:
                raise KeyboardInterrupt
            self.embedded.append(texts[number])
            yield number, vectors_of(texts[number])


def vectors_of(text: str) -> Vectors:
    words = text.split()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
    count = min(4, len(words))
    return Vectors(rng.standard_normal((count, 8)).astype(np.float32), np.arange(1, count + 1), len(words), 0)
