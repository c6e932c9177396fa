"""Reads retrieval sets from folders of JSON lines: documents, queries, and relevance judgments."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILES = ("docs", "queries", "qrels")  # The kinds of files that each part of a set has.


class CorpusError(ValueError):
    """A set cannot be read. The message names file, line and field."""


@dataclass(frozen=True)
class Corpus:
    """One retrieval task. `relevant[i]` maps document numbers to grades above 0 for query i, and is never empty.

    `evidence[i]` holds half-open ranges of code points in the first relevant document of query i. It is empty if the set does not contain
    evidence."""

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    relevant: tuple[dict[int, float], ...]
    evidence: tuple[tuple[tuple[int, int], ...], ...] = ()
    metric: str = "ndcg_at_10"
    source: dict = field(default_factory=dict)

    def answers(self) -> list[int]:
        """Returns, for each query, its first relevant document."""
        return [next(iter(grades)) for grades in self.relevant]

    def subset(self, documents: Iterable[int]) -> Corpus:
        """Returns these documents, with the queries whose relevant documents are all among them."""
        kept = {old: new for new, old in enumerate(documents)}
        queries = [i for i, grades in enumerate(self.relevant) if all(d in kept for d in grades)]
        return Corpus(
            name=self.name,
            document_ids=tuple(self.document_ids[d] for d in kept),
            documents=tuple(self.documents[d] for d in kept),
            query_ids=tuple(self.query_ids[i] for i in queries),
            queries=tuple(self.queries[i] for i in queries),
            relevant=tuple({kept[d]: grade for d, grade in self.relevant[i].items()} for i in queries),
            evidence=tuple(self.evidence[i] for i in queries) if self.evidence else (),
            metric=self.metric,
            source=self.source,
        )

    def sha256(self) -> str:
        """Returns the hash of texts, ids and relevance, which identifies in results what they were measured on."""
        digest = hashlib.sha256()
        for part in (self.document_ids, self.documents, self.query_ids, self.queries, [sorted(grades.items()) for grades in self.relevant]):
            digest.update(json.dumps(part, ensure_ascii=False).encode())
        return digest.hexdigest()

    def describe(self) -> dict:
        characters = [len(text) for text in self.documents]
        return {
            "name": self.name,
            "sha256": self.sha256(),
            "documents": len(self.documents),
            "queries": len(self.queries),
            "characters": sum(characters),
            "shortest": min(characters),
            "longest": max(characters),
            "metric": self.metric,
            **self.source,
        }


def read_folder(folder: Path | str, parts: Sequence[str] = (), name: str | None = None) -> Corpus:
    """Reads PART.docs.jsonl, PART.queries.jsonl and PART.qrels.jsonl (or .jsonl.gz) as one set, of all parts or of the given ones."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder of {', '.join(f'PART.{kind}.jsonl[.gz]' for kind in FILES)}")
    found = _parts(folder)
    missing = [part for part in parts if part not in found]
    if not found or missing:
        raise CorpusError(f"{folder} has no {', '.join(missing) or 'PART'}.docs.jsonl or .docs.jsonl.gz; it has the parts: {', '.join(found) or 'none'}")
    chosen = list(parts) or found
    lines = {kind: [line for part in chosen for line in read_lines(_file(folder, part, kind))] for kind in FILES}
    return build(name or folder.resolve().name, lines["docs"], lines["queries"], lines["qrels"], source={"parts": chosen})


def build(name: str, docs: Iterable[Line], queries: Iterable[Line], qrels: Iterable[Line], metric: str = "ndcg_at_10", source: dict | None = None) -> Corpus:
    """Builds a set from parsed lines: {"id", "text"}, {"id", "text", "evidence"?}, {"query", "doc", "relevance"}."""
    documents = _texts(docs)
    asked = list(queries)
    texts = _texts(asked)
    evidence = {line.text("id"): line.ranges("evidence") for line in asked}
    numbers = {doc: number for number, doc in enumerate(documents)}
    grades = _grades(qrels, texts, numbers)
    for query, relevant in grades.items():
        if not relevant:
            raise CorpusError(f'{name}: the query "{query}" has no relevant document in the qrels')
    lengths = [len(text) for text in documents.values()]
    for line in asked:
        _check_evidence(line, evidence[line.text("id")], lengths[next(iter(grades[line.text("id")]))])
    if not documents or not grades:
        raise CorpusError(f"{name}: a set needs documents and queries; it has {len(documents)} and {len(grades)}")
    return Corpus(
        name=name,
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        query_ids=tuple(texts),
        queries=tuple(texts.values()),
        relevant=tuple(grades[query] for query in texts),
        evidence=tuple(evidence[query] for query in texts) if any(evidence.values()) else (),
        metric=metric,
        source=source or {},
    )


def _grades(qrels: Iterable[Line], queries: dict[str, str], numbers: dict[str, int]) -> dict[str, dict[int, float]]:
    """Returns {query: {document number: grade above 0}}. A judgment may occur again, but not with another grade."""
    judged: dict[str, dict[int, float]] = {query: {} for query in queries}
    for line in qrels:
        query, doc, relevance = line.text("query"), line.text("doc"), line.grade()
        if query not in judged:
            raise line.error(f'"query" names "{query}", which no line of the queries has as its id')
        if doc not in numbers:
            raise line.error(f'"doc" names "{doc}", which no line of the documents has as its id')
        before = judged[query].setdefault(numbers[doc], relevance)
        if before != relevance:
            raise line.error(f'"relevance" of document "{doc}" for query "{query}" is {relevance:g}, and {before:g} in an earlier line')
    return {query: {doc: grade for doc, grade in grades.items() if grade > 0} for query, grades in judged.items()}


def _check_evidence(line: Line, ranges: Sequence[tuple[int, int]], characters: int) -> None:
    for start, end in ranges:
        if end > characters:
            raise line.error(f'"evidence" has [{start}, {end}]; the first relevant document has {characters} code points')


@dataclass(frozen=True)
class Line:
    """One object of a JSON-lines file, and its position for error messages."""

    values: dict
    where: str

    def error(self, what: str) -> CorpusError:
        return CorpusError(f"{self.where}: {what}")

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f'"{key}" must be a string that is not empty; it is {json.dumps(value)}')
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(f'"{key}" has the lone surrogate U+{ord(value[error.start]):04X} at character {error.start}') from None
        return value

    def grade(self) -> float:
        """Returns the relevance of a judgment. It is 1 if the line has only a query and a document."""
        others = sorted(set(self.values) - {"query", "doc"})
        if "relevance" not in others and others:
            raise self.error(f'"relevance" is missing; the line has {", ".join(json.dumps(key) for key in others)} instead')
        return self.number("relevance") if others else 1.0

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if type(value) not in (int, float) or not abs(value) <= 1e9:  # Also not NaN.
            raise self.error(f'"{key}" must be a number from -1e9 to 1e9; it is {json.dumps(value)[:80]}')
        return float(value)

    def ranges(self, key: str) -> tuple[tuple[int, int], ...]:
        ranges = self.values.get(key) or []
        if not isinstance(ranges, list) or not all(_is_range(pair) for pair in ranges):
            raise self.error(f'"{key}" must be a list of pairs [start, end] with 0 <= start < end; it is {json.dumps(ranges)[:80]}')
        return tuple((start, end) for start, end in ranges)


def _is_range(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair) and 0 <= pair[0] < pair[1]


def _texts(lines: Iterable[Line]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line in lines:
        key = line.text("id")
        if key in texts:
            raise line.error(f'the id "{key}" occurs twice')
        texts[key] = line.text("text")
    return texts


def _parts(folder: Path) -> list[str]:
    names = [path.name for path in sorted(folder.iterdir())]
    return sorted({name[: name.index(".docs.jsonl")] for name in names if name.endswith((".docs.jsonl", ".docs.jsonl.gz"))})


def _file(folder: Path, part: str, kind: str) -> Path:
    candidates = [folder / f"{part}.{kind}.jsonl{suffix}" for suffix in ("", ".gz")]
    found = [path for path in candidates if path.exists()]
    if len(found) != 1:
        raise CorpusError(f"{folder} must have exactly one of {candidates[0].name} and {candidates[1].name}; it has {len(found)}")
    return found[0]


def read_lines(path: Path) -> Iterator[Line]:
    """Reads a file of JSON lines, gzipped if its name ends in .gz. Raises CorpusError with the number of a broken line."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as file:
        try:
            for number, text in enumerate(file, start=1):
                yield parse(text, f"{path.name}, line {number}")
        except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CorpusError(f"{path.name} cannot be read: {error}") from error


def parse(text: str, where: str) -> Line:
    try:
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:  # Also a number with thousands of digits.
        raise CorpusError(f"{where}: {error}" if isinstance(error, RepeatedKeyError) else f"{where}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CorpusError(f"{where}: a line must be a JSON object; it is {type(values).__name__}")
    return Line(values, where)


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice. Python's json would keep the last value."""


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    values: dict = {}
    for key, value in pairs:
        if key in values:
            raise RepeatedKeyError(f"the key {json.dumps(key)} occurs twice")
        values[key] = value
    return values
