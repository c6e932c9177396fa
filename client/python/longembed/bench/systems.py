"""Computes the scores of a row. Embeds texts through the store, and aggregates, reduces and sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longembed import Client, bm25, maxsim
from longembed.retriever import query_pieces

from . import aggregate as aggregates
from . import recipes
from .corpus import Corpus
from .embedders import EmbedderError, OpenAIEmbedder, SentenceTransformersEmbedder, ServerEmbedder, first_tokens
from .recipes import Row
from .store import Bar, Embedded, Embedder, Store, key_of

BYTES = {"FLOAT32": 4, "FLOAT16": 2, "BFLOAT16": 2, "INT8": 1, "BINARY": 1 / 8}

Bars = Callable[[str, int], AbstractContextManager[Bar | None]]
"""Creates a progress bar from a label and the total."""


def no_bars(label: str, total: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Cost:
    """The cost of all documents of a corpus. Keys identify the embedding and the aggregation, so that a sum counts shared vectors once.

    work: {key: (tokens, seconds)}. kept: {key: (vectors, bytes)}."""

    documents: int
    truncated_documents: int = 0
    truncated_tokens: int = 0
    work: dict[str, tuple[int, float]] = field(default_factory=dict)
    kept: dict[str, tuple[int, float]] = field(default_factory=dict)

    def plus(self, other: Cost) -> Cost:
        truncated = (max(self.truncated_documents, other.truncated_documents), max(self.truncated_tokens, other.truncated_tokens))
        return Cost(self.documents, *truncated, self.work | other.work, self.kept | other.kept)

    def describe(self) -> dict[str, float | None]:
        tokens, seconds = (sum(pair[i] for pair in self.work.values()) for i in (0, 1))
        vectors, size = (sum(pair[i] for pair in self.kept.values()) for i in (0, 1))
        return {
            "vectors_per_document": round(vectors / self.documents, 2),
            "bytes_per_document": round(size / self.documents),
            "tokens_per_second": round(tokens / seconds, 1) if tokens and seconds else None,
            "seconds_per_document": round(seconds / self.documents, 5),
            "truncated_documents": self.truncated_documents,
            "truncated_tokens": self.truncated_tokens,
        }


@dataclass
class Scored:
    scores: np.ndarray
    cost: Cost


class Models:
    """The models of the server, as they were when a run first asked for them. One that the server then replaces by other files, or by another
    precision, under the same name is refused: a row would compare its vectors with those of the first."""

    def __init__(self, client: Client | None):
        self._client = client
        self._first: dict[str | None, Any] = {}

    def get(self, name: str | None) -> Any:
        """Describes a model. None: the client's."""
        if name not in self._first:
            if self._client is None:
                raise recipes.RecipeError("a row with document needs a running server: --server HOST:PORT")
            self._first[name] = self._client.model(name)
        return self._first[name]

    def refuse_another(self, name: str | None) -> None:
        first, now = self.get(name), self._client.model(name)
        for field_name in ("name", "precision", "file_sha256"):
            if getattr(first, field_name) != getattr(now, field_name):
                raise EmbedderError(f"the server has replaced the model {first.name!r} (another {field_name}) during the run; run the same command again")


class Scorer:
    """Scores the rows of one corpus. The scores of a row are computed once, and sums use them."""

    def __init__(
        self, client: Client | None, store: Store, corpus: Corpus, bars: Bars = no_bars, query_model: str | None = None, models: Models | None = None
    ):
        self.client, self.store, self.corpus, self.bars, self.query_model = client, store, corpus, bars, query_model
        self.models = models or Models(client)
        self.done: dict[str, Scored] = {}
        self._cut: dict[tuple[int, str, str | None], list[str]] = {}

    def score(self, row: Row) -> Scored:
        """Returns [queries, documents]. For a sum, the rows that it names must have been scored before."""
        kinds = {"document": self._document, "bm25": self._bm25, "sum": self._sum, "openai": self._openai, "sentence_transformers": self._sentence_transformers}
        if row.name not in self.done:
            self.done[row.name] = kinds[row.kind](row)
        return self.done[row.name]

    def _document(self, row: Row) -> Scored:
        names = (recipes.model_of(row), recipes.query_model_of(row, self.query_model))
        model, asking = map(self.models.get, names)
        options = recipes.document_options(row, model)
        embedder = ServerEmbedder(self.client, options)
        texts: Sequence[str] = self.corpus.documents
        if "first" in row.body:
            texts = self._first(row, embedder.describe()["prompt"])
        width = model.dimensions if options.dimensions is None else options.dimensions
        size = width * BYTES[options.encoding] + (4 if options.encoding == "INT8" else 0)
        combine = aggregates.parse(str(row.body.get("aggregate", "windows"))) if recipes.keeps_windows(row) else None
        queries = ServerEmbedder(self.client, recipes.query_options(row, asking, self.query_model))
        scored = self._vectors(row, embedder, texts, queries, combine, size)
        for name in names:
            self.models.refuse_another(name)
        return scored

    def _openai(self, row: Row) -> Scored:
        given = dict(row.body["openai"])
        prompts = [given.pop(f"{side}_prompt", "") for side in ("document", "query")]
        documents, queries = (OpenAIEmbedder(prompt=prompt, **given) for prompt in prompts)
        return self._vectors(row, documents, self.corpus.documents, queries, aggregates.parse("windows"))

    def _sentence_transformers(self, row: Row) -> Scored:
        given = dict(row.body["sentence_transformers"])
        prompts = [given.pop(f"{side}_prompt", "") for side in ("document", "query")]
        documents = SentenceTransformersEmbedder(prompt=prompts[0], **given)
        queries = SentenceTransformersEmbedder(prompt=prompts[1], **given)
        return self._vectors(row, documents, self.corpus.documents, queries, aggregates.parse("windows"))

    def _bm25(self, row: Row) -> Scored:
        started = time.monotonic()
        index = bm25.BM25(self.corpus.documents, **row.body["bm25"])
        cost = Cost(len(self.corpus.documents), work={row.name: (0, time.monotonic() - started)})
        pieces, offsets = query_pieces(self.corpus.queries, row.body.get("queries") == "sentences")
        return Scored(np.add.reduceat(index.scores(pieces), offsets[:-1], axis=0) / np.diff(offsets)[:, None], cost)

    def _sum(self, row: Row) -> Scored:
        parts = [self.done[name] for name in row.parts]
        cost = parts[0].cost
        for part in parts[1:]:
            cost = cost.plus(part.cost)
        return Scored(maxsim.fuse([part.scores for part in parts], row.body.get("weights")), cost)

    def _vectors(
        self, row: Row, documents: Embedder, texts: Sequence[str], queries: Embedder, combine: aggregates.Aggregate | None, size: float = 0.0
    ) -> Scored:
        """Embeds and scores. `combine` aggregates and normalizes the vectors of each text; None leaves them unchanged. `size` is the bytes per
        vector; 0 means float32."""
        found = self._embed(f"{row.name}: documents", documents, texts)
        kept = [one.values if combine is None else aggregates.normalized(combine(one.values, one.lengths)) for one in found.vectors]
        scores = self._scores(row, self._queries(row, queries, combine is not None), maxsim.MultiVectors.of(kept))
        vectors = sum(map(len, kept))
        key = key_of({"embedder": documents.describe(), "first": row.body.get("first")})
        cost = Cost(
            len(texts),
            sum(len(original) != len(text) or one.truncated > 0 for original, text, one in zip(self.corpus.documents, texts, found.vectors)),
            sum(one.truncated for one in found.vectors),
            {key: (found.tokens, found.seconds)},
            {f"{key} {row.body.get('aggregate')}": (vectors, vectors * (size or kept[0].shape[1] * 4))},
        )
        return Scored(scores, cost)

    def _scores(self, row: Row, queries: maxsim.MultiVectors, documents: maxsim.MultiVectors) -> np.ndarray:
        """Scores all queries. Equal documents, such as texts that are cut to one beginning, are tied exactly, as metrics expect. With `center`,
        queries are centered by the mean of the queries of other documents: the documents are split into two halves, and each half uses the queries
        of the other."""
        reduce = maxsim.reduction(str(row.body.get("reduce", "max")))
        if not row.body.get("center"):
            return maxsim.score(queries, documents, reduce, np.float64)
        fold = np.unique(self.corpus.answers(), return_inverse=True)[1] % 2  # Every second document that answers a query.
        if len(set(fold)) < 2:
            raise recipes.RecipeError("center needs queries of two documents at least")
        documents = documents.centered(documents.mean())
        scores = np.zeros((len(queries), len(documents)), np.float32)
        for one in (0, 1):
            own, others = (maxsim.MultiVectors.of([queries[i] for i in np.flatnonzero(fold == side)]) for side in (one, 1 - one))
            scores[fold == one] = maxsim.score(own.centered(others.mean()), documents, reduce, np.float64)
        return scores

    def _queries(self, row: Row, embedder: Embedder, normalize: bool) -> maxsim.MultiVectors:
        pieces, offsets = query_pieces(self.corpus.queries, row.body.get("queries") == "sentences")
        found = self._embed(f"{row.name}: queries", embedder, pieces)
        values = np.concatenate([one.values for one in found.vectors])
        ends = np.cumsum([0, *(len(one.values) for one in found.vectors)])  # A piece may have several vectors, such as those of its tokens.
        return maxsim.MultiVectors(aggregates.normalized(values) if normalize else values, ends[offsets])

    def _embed(self, label: str, embedder: Embedder, texts: Sequence[str]) -> Embedded:
        with self.bars(label, len(texts)) as bar:
            return self.store.embed(embedder, texts, bar)

    def _first(self, row: Row, prompt: str) -> list[str]:
        key = (row.body["first"], prompt, recipes.model_of(row))
        if key not in self._cut:
            self._cut[key] = first_tokens(self.client, self.corpus.documents, *key)
        return self._cut[key]
