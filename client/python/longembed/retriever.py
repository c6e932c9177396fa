"""A retriever over long texts: several kinds of window vectors and BM25, behind one call.

    retriever = Retriever.windows(client)
    retriever.add({"gpl": text_of_gpl, "apache": text_of_apache})
    for hit in retriever.search(["who may sell copies?"], k=3)[0]:
        print(hit.id, hit.score)

Everything is kept in memory: for corpora of up to some hundred thousand windows. For more, put window vectors into a vector store with MaxSim.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from longembed import bm25, maxsim, messages
from longembed.client import Client
from longembed.options import Options
from longembed.sentences import split


@dataclass(frozen=True)
class Hit:
    """One document of a result; scores are comparable within one query's hits."""

    id: Hashable
    score: float


class System(Protocol):
    """Something that scores queries against documents."""

    def prepare(self, client: Client, documents: Sequence[tuple[Hashable, str]]) -> list[Any]:
        """The index items of (id, text) pairs, one each. Raises LongEmbedError, which names the document, where one cannot be embedded."""

    def extend(self, prepared: list[Any]) -> None:
        """Takes in what prepare() gave, after the documents that it has."""

    def scores(self, client: Client, queries: Sequence[str]) -> np.ndarray:
        """[queries, documents], higher is better."""

    def calibrate(self, client: Client, queries: Sequence[str]) -> None:
        """Learns from typical queries, without judgments, what they have in common."""


def document_options(described: messages.Model, /, **changes: Any) -> Options:
    """Options for documents: the model's DOCUMENT prompt where it has one."""
    return Options(input_type="DOCUMENT" if "DOCUMENT" in described.input_types else None).with_changes(**changes)


def query_options(described: messages.Model, /, **changes: Any) -> Options:
    """Options for queries: the model's QUERY prompt where it has one. A query beyond the window is cut into windows, as nothing else loses less."""
    return Options(input_type="QUERY" if "QUERY" in described.input_types else None, extension={"windows": {}}).with_changes(**changes)


@dataclass
class Vectors:
    """Vectors of documents under one set of options, one or several a document, against the vectors of queries.

    reduce: see maxsim.reduction. query_sentences: each sentence of a query is embedded by itself, and their scores are averaged.
    After calibrate(), both sides are centered (maxsim.center).
    """

    document: Options
    query: Options
    reduce: str | maxsim.Reduction = "max"
    query_sentences: bool = False
    documents: list[np.ndarray] = field(default_factory=list, repr=False)
    query_mean: np.ndarray | None = field(default=None, repr=False)
    index: maxsim.MultiVectors | None = field(default=None, repr=False)

    def prepare(self, client: Client, documents: Sequence[tuple[Hashable, str]]) -> list[np.ndarray]:
        found: dict[Hashable, np.ndarray] = {}
        with closing(client.embed_stream(documents, self.document)) as answers:
            for answer in answers:
                if answer.error is not None:
                    raise answer.error.about(f"document {answer.id!r}")
                found[answer.id] = answer.float32()
        return [found[id] for id, _ in documents]

    def extend(self, prepared: list[np.ndarray]) -> None:
        self.documents += prepared
        self.index = None

    def scores(self, client: Client, queries: Sequence[str]) -> np.ndarray:
        asked = self._embed_queries(client, queries)
        if self.index is None:
            documents = maxsim.MultiVectors.of(self.documents)
            self.index = documents if self.query_mean is None else documents.centered(documents.mean())
        if self.query_mean is not None:
            asked = asked.centered(self.query_mean)
        return maxsim.score(asked, self.index, self.reduce)

    def calibrate(self, client: Client, queries: Sequence[str]) -> None:
        self.query_mean = self._embed_queries(client, queries).mean()
        self.index = None

    def _embed_queries(self, client: Client, queries: Sequence[str]) -> maxsim.MultiVectors:
        pieces, offsets = query_pieces(queries, self.query_sentences)
        return maxsim.MultiVectors(embed_all(client, pieces, self.query), offsets)


@dataclass
class BM25:
    """The words of queries in documents: see longembed.bm25. Needs the extra "bm25".

    words: score a document by its best window of so many words. query_sentences: the scores of a query's sentences are averaged.
    """

    words: int | None = None
    query_sentences: bool = False
    language: str = "english"
    texts: list[str] = field(default_factory=list, repr=False)
    index: bm25.BM25 | None = field(default=None, repr=False)

    def prepare(self, client: Client, documents: Sequence[tuple[Hashable, str]]) -> list[str]:
        return [text for _, text in documents]

    def extend(self, prepared: list[str]) -> None:
        self.texts += prepared
        self.index = None

    def scores(self, client: Client, queries: Sequence[str]) -> np.ndarray:
        if self.index is None:
            self.index = bm25.BM25(self.texts, words=self.words, language=self.language)
        pieces, offsets = query_pieces(queries, self.query_sentences)
        return np.add.reduceat(self.index.scores(pieces), offsets[:-1], axis=0) / np.diff(offsets)[:, None]

    def calibrate(self, client: Client, queries: Sequence[str]) -> None:
        pass  # Words are weighted by the documents alone.


def query_pieces(queries: Sequence[str], by_sentence: bool) -> tuple[list[str], np.ndarray]:
    """The scored pieces of each query: itself, or its sentences. (pieces, offsets): query i has pieces offsets[i] to offsets[i + 1]."""
    pieces = [split(query) if by_sentence else [query] for query in queries]
    return [piece for own in pieces for piece in own], np.cumsum([0, *map(len, pieces)])


def embed_all(client: Client, texts: Sequence[str], options: Options) -> np.ndarray:
    """One vector a text, float32 [n, d], over a stream. Raises the first failed text's error."""
    rows: list[np.ndarray | None] = [None] * len(texts)
    with closing(client.embed_stream(texts, options)) as answers:
        for answer in answers:
            if answer.error is not None:
                raise answer.error.about(f"text {answer.id}")
            rows[answer.id] = answer.vector if answer.scales is None else answer.float32()[0]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


class Retriever:
    """Documents in memory, scored by one or several systems; with several, by the sum of their standardized scores (maxsim.fuse).

    Not thread-safe while documents are added.
    """

    def __init__(self, client: Client, systems: Sequence[System], weights: Sequence[float] | None = None):
        if not systems:
            raise ValueError("a retriever needs at least one system")
        if weights is not None and len(weights) != len(systems):
            raise ValueError(f"{len(systems)} systems have {len(weights)} weights")
        self._client, self._systems, self._weights = client, list(systems), weights
        self.ids: list[Hashable] = []

    @staticmethod
    def windows(client: Client, tokens: Sequence[int] = (64, 256), *, bm25: bool = True, model: str | None = None) -> Retriever:
        """The best system measured on long real text: the query's sentences against the smallest windows, the whole query softly against the others, and BM25
        over whole texts and over windows of 200 words. calibrate() adds a point more; without BM25, seven. Sizes beyond the model's trained window become that window."""
        described = client.model(model)
        sizes = sorted({min(size, described.trained_window) for size in tokens})
        if not sizes:
            raise ValueError("tokens must name one window size at least")
        systems: list[System] = []
        for size in sizes:
            document = document_options(described, model=described.name, extension={"windows": {"tokens": size}}, output="WINDOW_VECTORS")
            query = query_options(described, model=described.name)
            smallest = size == sizes[0]
            systems.append(Vectors(document, query, "max" if smallest else maxsim.log_mean_exp(0.01), query_sentences=smallest))
        return Retriever(client, [*systems, BM25(), BM25(words=200, query_sentences=True)] if bm25 else systems)

    def add(self, documents: Mapping[Any, str] | Iterable[tuple[Hashable, str]]) -> None:
        """Embeds and indexes documents: {id: text}, or (id, text) pairs. Raises LongEmbedError for a text that cannot be embedded; none is then added."""
        pairs = list(documents.items() if isinstance(documents, Mapping) else documents)
        known = set(self.ids)
        for id, _ in pairs:
            if id in known:
                raise ValueError(f"document {id!r} is there already")
            known.add(id)
        prepared = [system.prepare(self._client, pairs) for system in self._systems]
        for system, own in zip(self._systems, prepared):
            system.extend(own)
        self.ids += [id for id, _ in pairs]

    def calibrate(self, queries: Sequence[str]) -> None:
        """Shows the retriever some twenty typical queries or more, without judgments. Vectors are then centered, which finds more on every set that was
        measured; queries that come later need not be among them."""
        if not queries or isinstance(queries, str):
            raise ValueError("calibrate takes a list of typical queries; it is empty or one str")
        for system in self._systems:
            system.calibrate(self._client, queries)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """[queries, documents in the order of `ids`], higher is better."""
        if isinstance(queries, str):
            raise TypeError("give a list of queries: search([query]), not search(query)")
        found = [system.scores(self._client, queries) for system in self._systems]
        return found[0] if len(found) == 1 and self._weights is None else maxsim.fuse(found, self._weights)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The k best documents of each query, best first."""
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if not self.ids:
            return [[] for _ in queries]
        scores = self.scores(queries)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[Hit(self.ids[i], float(row[i])) for i in best] for row, best in zip(scores, order)]
