"""A retriever over long texts. It combines several kinds of window vectors and BM25.

    retriever = Retriever.windows(client)
    retriever.add({"gpl": text_of_gpl, "apache": text_of_apache})
    for hit in retriever.search(["who may sell copies?"], k=3)[0]:
        print(hit.id, hit.score)

Everything is kept in memory, which suits corpora of up to several hundred thousand windows. For larger corpora, put window vectors into a vector store with MaxSim.
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
from longembed.results import refuse_two_recipes
from longembed.sentences import split


@dataclass(frozen=True)
class Hit:
    """One found document. Scores are comparable only among the hits of one query."""

    id: Hashable
    score: float


class System(Protocol):
    """A system that scores queries against documents."""

    def prepare(self, client: Client, documents: Sequence[tuple[Hashable, str]]) -> list[Any]:
        """Returns one index item per (id, text) pair. Raises LongEmbedError, which names the document, if a document cannot be embedded."""

    def extend(self, prepared: list[Any]) -> None:
        """Adds the items that prepare() returned, after the documents that are already there."""

    def scores(self, client: Client, queries: Sequence[str]) -> np.ndarray:
        """Returns [queries, documents]. Higher is better."""

    def calibrate(self, client: Client, queries: Sequence[str]) -> None:
        """Learns what typical queries have in common. Needs no relevance judgments."""


def document_options(described: messages.Model, /, **changes: Any) -> Options:
    """Returns options for documents. They use the model's DOCUMENT prompt, if it has one."""
    return Options(input_type="DOCUMENT" if "DOCUMENT" in described.input_types else None).with_changes(**changes)


def query_options(described: messages.Model, /, **changes: Any) -> Options:
    """Returns options for queries. They use the model's QUERY prompt, if it has one. A query longer than the window is cut into windows, which
    loses the least."""
    return Options(input_type="QUERY" if "QUERY" in described.input_types else None, extension={"windows": {}}).with_changes(**changes)


@dataclass
class Vectors:
    """Scores queries by the vectors of documents. A document has one or several vectors under one set of options.

    reduce: see maxsim.reduction. query_sentences: embed each sentence of a query separately, and average their scores.
    After calibrate(), the vectors of queries and documents are centered (maxsim.center)."""

    document: Options
    query: Options
    reduce: str | maxsim.Reduction = "max"
    query_sentences: bool = False
    documents: list[np.ndarray] = field(default_factory=list, repr=False)
    query_mean: np.ndarray | None = field(default=None, repr=False)
    index: maxsim.MultiVectors | None = field(default=None, repr=False)
    recipes: set[str] = field(default_factory=set, repr=False)
    query_recipe: str | None = field(default=None, repr=False)

    def prepare(self, client: Client, documents: Sequence[tuple[Hashable, str]]) -> list[np.ndarray]:
        found: dict[Hashable, np.ndarray] = {}
        recipes = set(self.recipes) if self.documents else set()
        query_recipe = self._query_recipe_now(client)
        with closing(client.embed_stream(documents, self.document)) as answers:
            for answer in answers:
                if answer.error is not None:
                    raise answer.error.about(f"document {answer.id!r}")
                found[answer.id] = answer.float32()
                recipes.add(answer.recipe)
        refuse_two_recipes(recipes)
        self.recipes, self.query_recipe = recipes, query_recipe
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
        if not self.documents:
            self.query_mean = None
            self.query_recipe = self._query_recipe_now(client)
        self.query_mean = self._embed_queries(client, queries).mean()
        self.index = None

    def _embed_queries(self, client: Client, queries: Sequence[str]) -> maxsim.MultiVectors:
        pieces, offsets = query_pieces(queries, self.query_sentences)
        return maxsim.MultiVectors(embed_all(client, pieces, self.query, self.query_recipe), offsets)

    def _query_recipe_now(self, client: Client) -> str:
        """Returns the recipe of queries. It differs from that of documents, whose options differ, but changes with the same model. Raises
        LongEmbedError if it changed since documents or typical queries were embedded."""
        recipe = client.explain(["a"], self.query).recipe
        if self.query_recipe is not None and (self.documents or self.query_mean is not None):
            refuse_two_recipes([self.query_recipe, recipe])
        return recipe


@dataclass
class BM25:
    """Scores queries by the words that they share with documents: see longembed.bm25. Needs the extra "bm25".

    words: score a document by its best window of this many words. query_sentences: average the scores of a query's sentences."""

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
        pass  # The weights of words depend on the documents only.


def query_pieces(queries: Sequence[str], by_sentence: bool) -> tuple[list[str], np.ndarray]:
    """Returns the scored pieces of each query, which are the query itself or its sentences, as (pieces, offsets). Query i has the pieces
    offsets[i] to offsets[i + 1]."""
    pieces = [split(query) if by_sentence else [query] for query in queries]
    return [piece for own in pieces for piece in own], np.cumsum([0, *map(len, pieces)])


def embed_all(client: Client, texts: Sequence[str], options: Options, recipe: str | None = None) -> np.ndarray:
    """Returns one vector per text of any encoding, float32 [n, d], over a stream. Raises the first error of a text, ValueError if a text has
    several vectors, and LongEmbedError if their recipe is not the given one."""
    rows: list[np.ndarray | None] = [None] * len(texts)
    recipes = set() if recipe is None else {recipe}
    with closing(client.embed_stream(texts, options)) as answers:
        for answer in answers:
            if answer.error is not None:
                raise answer.error.about(f"text {answer.id}")
            answer.vector  # noqa: B018  Raises if there is not exactly one vector.
            rows[answer.id] = answer.float32()[0]
            recipes.add(answer.recipe)
    refuse_two_recipes(recipes)
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _pair(item: tuple[Hashable, str]) -> tuple[Hashable, str]:
    """Returns a document as a tuple. A text alone is refused: one of two letters would be read as a pair."""
    if isinstance(item, str) or len(item) != 2:
        raise TypeError(f"a document is a pair (id, text), not {item!r:.80}")
    id, text = item
    if not isinstance(text, str):
        raise TypeError(f"the text of document {id!r} is of type {type(text).__name__}; it must be a str")
    return id, text


def _listed(queries: Iterable[str]) -> list[str]:
    """Returns the queries as a list, because every system reads them."""
    if isinstance(queries, str):
        raise TypeError("give a list of queries: search([query]), not search(query)")
    queries = list(queries)
    for number, query in enumerate(queries):
        if not isinstance(query, str):
            raise TypeError(f"query {number} is of type {type(query).__name__}; it must be a str")
    return queries


class Retriever:
    """Keeps documents in memory and scores them by one or several systems. With several systems, the score is the sum of their standardized scores
    (maxsim.fuse). The systems hold the documents, so that they belong to one retriever.

    Not thread-safe while documents are added."""

    def __init__(self, client: Client, systems: Sequence[System], weights: Sequence[float] | None = None):
        if not systems:
            raise ValueError("a retriever needs at least one system")
        if weights is not None and len(weights) != len(systems):
            raise ValueError(f"{len(systems)} systems have {len(weights)} weights")
        self._client, self._systems, self._weights = client, list(systems), weights
        self.ids: list[Hashable] = []

    @staticmethod
    def windows(client: Client, tokens: Sequence[int] = (64, 256), *, bm25: bool = True, model: str | None = None) -> Retriever:
        """Returns the best combination measured on long real texts. The sentences of a query are scored against the smallest windows, the whole
        query by a soft maximum against the other windows, and BM25 scores whole texts and windows of 200 words. calibrate() adds one more point
        of nDCG@10 on QMSum, or seven without BM25. Sizes beyond the model's trained window are reduced to it."""
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
        """Embeds and indexes documents, given as {id: text} or (id, text) pairs. Raises LongEmbedError if a text cannot be embedded; then no
        document is added."""
        pairs = [_pair(item) for item in (documents.items() if isinstance(documents, Mapping) else documents)]
        known = set(self.ids)
        for id, _ in pairs:
            if id in known:
                raise ValueError(f"document {id!r} has been added already")
            known.add(id)
        prepared = [system.prepare(self._client, pairs) for system in self._systems]
        for system, own in zip(self._systems, prepared):
            system.extend(own)
        self.ids += [id for id, _ in pairs]

    def calibrate(self, queries: Iterable[str]) -> None:
        """Learns from at least twenty typical queries, without relevance judgments. Vectors are then centered, which improved results with every
        model on QMSum, and changed them little on SQuALITY and MuSiQue. Later queries need not be among these. Raises ValueError for fewer than two
        queries: the mean of a single one leaves nothing of it."""
        queries = _listed(queries)
        if len(set(queries)) < 2:
            raise ValueError(f"calibrate takes at least two different typical queries, better twenty; it got {len(set(queries))}")
        for system in self._systems:
            system.calibrate(self._client, queries)

    def scores(self, queries: Iterable[str]) -> np.ndarray:
        """Returns [queries, documents in the order of `ids`]. Higher is better. Raises ValueError if a system has other documents, as one that is
        shared with another retriever."""
        queries = _listed(queries)
        shape = (len(queries), len(self.ids))
        if 0 in shape:
            return np.zeros(shape)
        found = [np.asarray(system.scores(self._client, queries)) for system in self._systems]
        for system, scores in zip(self._systems, found):
            if scores.shape != shape:
                other = f"{type(system).__name__} gives scores of shape {scores.shape} for {shape[0]} queries and {shape[1]} documents"
                raise ValueError(f"{other}; each Retriever needs systems of its own")
        return found[0] if len(found) == 1 and self._weights is None else maxsim.fuse(found, self._weights)

    def search(self, queries: Iterable[str], k: int = 10) -> list[list[Hit]]:
        """Returns the k best documents of each query, best first."""
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        scores = self.scores(queries)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[Hit(self.ids[i], float(row[i])) for i in best] for row, best in zip(scores, order)]
