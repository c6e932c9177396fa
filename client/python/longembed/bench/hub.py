"""Reads LongEmbed's own six sets from the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .corpus import Corpus, CorpusError, Line, build, parse

REPOSITORY = "dwzhu/LongEmbed"
REVISION = "6e346642246bfb4928c560ee08640dc84d074e8c"
# Per set: the numbers of documents, of queries, and of characters in both, as MTEB publishes them for this revision. A set with other numbers is not
# LongEmbed's.
REAL_SETS = {
    "narrativeqa": (355, 10449, 116497764),
    "qmsum": (197, 1527, 11169115),
    "summ_screen_fd": (336, 336, 10565795),
    "2wikimqa": (300, 300, 11253952),
}
SYNTHETIC_SETS = ("passkey", "needle")
SETS = (*REAL_SETS, *SYNTHETIC_SETS)

Download = Callable[[str], str]
"""Maps a file's path in the repository to its path on this machine."""


def load(name: str, download: Download | None = None) -> dict[str, Corpus]:
    """Loads one set. The synthetic sets are split by nominal length: {"256": ..., "32768": ...}. The real ones are {"": ...}."""
    if name not in SETS:
        raise CorpusError(f"LongEmbed has no set {name!r}; it has {', '.join(SETS)}")
    fetch = download or _download
    lines = {part: _rows(fetch(f"{name}/{part}.jsonl"), name, part) for part in ("corpus", "queries", "qrels")}
    if name in REAL_SETS:
        corpus = _build(name, lines, "ndcg_at_10")
        _check(corpus)
        return {"": corpus}
    lengths = sorted({line.number("context_length") for line in lines["corpus"]})
    return {f"{length:.0f}": _build(name, _of_length(lines, length), "accuracy_at_1") for length in lengths}


def _download(path: str) -> str:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise CorpusError("sets from the hub need the package huggingface_hub: pip install huggingface_hub") from error
    try:
        return hf_hub_download(REPOSITORY, path, repo_type="dataset", revision=REVISION)
    except Exception as error:  # The library raises its own errors, and those of requests and httpx.
        raise CorpusError(f"{path} of {REPOSITORY} at {REVISION[:8]} cannot be downloaded from the hub: {error}") from error


def _rows(file: str, name: str, part: str) -> list[Line]:
    with open(file, encoding="utf-8") as lines:
        return [parse(text, f"{name}/{part}.jsonl, line {number}") for number, text in enumerate(lines, start=1)]


def _of_length(lines: dict[str, list[Line]], length: float) -> dict[str, list[Line]]:
    return {part: [line for line in rows if line.number("context_length") == length] for part, rows in lines.items()}


def _build(name: str, lines: dict[str, list[Line]], metric: str) -> Corpus:
    """Builds a corpus. LongEmbed's fields are doc_id, qid and text, and its qrels have no grade."""
    docs = [Line({"id": line.text("doc_id"), "text": line.text("text")}, line.where) for line in lines["corpus"]]
    queries = [Line({"id": line.text("qid"), "text": line.text("text")}, line.where) for line in lines["queries"]]
    qrels = [Line({"query": line.text("qid"), "doc": line.text("doc_id"), "relevance": 1}, line.where) for line in lines["qrels"]]
    return build(name, docs, queries, qrels, metric, {"repository": REPOSITORY, "revision": REVISION})


def _check(corpus: Corpus) -> None:
    found = (len(corpus.documents), len(corpus.queries), sum(map(len, corpus.documents)) + sum(map(len, corpus.queries)))
    if found != REAL_SETS[corpus.name]:
        raise CorpusError(f"{corpus.name} has (documents, queries, characters) {found}, where LongEmbed's has {REAL_SETS[corpus.name]}")


def local_files(folder: Path) -> Download:
    """Reads from a copy of the repository on this machine instead of the hub."""
    return lambda path: str(folder / path)
