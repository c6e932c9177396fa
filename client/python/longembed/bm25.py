"""BM25 as Lucene computes it, using bm25s (extra "bm25"): k1 1.5, b .75, English stop words and stemmer.

On long texts the words of a query are worth more than any vector: in MTEB's table of LongEmbed, BM25 ranks above every single-vector model.
A text may also be scored by its best window of words. Such windows do for words what MaxSim does for vectors: a query's sentence finds the passage
that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np


class BM25:
    """An index of texts. Several threads may call scores().

    words: cut each text into windows of this many words, and score the text by its best window. None: score whole texts.
    language: the language of the stemmer, as PyStemmer names it ("english", "german", ...), and of the stop words, if bm25s has them."""

    def __init__(self, texts: Sequence[str], *, words: int | None = None, k1: float = 1.5, b: float = 0.75, language: str = "english"):
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            raise ImportError('BM25 needs bm25s and PyStemmer: pip install "longembed[bm25]"') from error
        if words is not None and words < 1:
            raise ValueError(f"words is {words}; a window has at least 1 word")
        try:
            stemmer = Stemmer.Stemmer(language)
        except KeyError as error:
            raise ValueError(f"language is {language!r}; PyStemmer has {', '.join(Stemmer.algorithms())}") from error
        self._bm25s = bm25s
        self._tokenizing = {"stopwords": _stopwords(bm25s, language), "stemmer": stemmer, "show_progress": False}
        windows = [_windows(text, words) for text in texts]
        self._starts = np.cumsum([0, *map(len, windows)])
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        tokens = self._tokens([window for own in windows for window in own])
        self._empty = not any(tokens)  # bm25s cannot index a corpus without words.
        if not self._empty:
            self._index.index(tokens, show_progress=False)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Returns float32 [queries, texts]. A query without any word of the index scores zero everywhere."""
        scores = np.zeros((len(queries), len(self._starts) - 1), np.float32)
        if self._empty:
            return scores
        for row, words in zip(scores, self._tokens(queries)):
            known = [word for word in words if word in self._index.vocab_dict]
            if known:
                row[:] = np.maximum.reduceat(self._index.get_scores(known), self._starts[:-1])
        return scores

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return self._bm25s.tokenize(list(texts), return_ids=False, **self._tokenizing)


def _stopwords(bm25s: ModuleType, language: str) -> str | list[str]:
    """Returns the stop words for bm25s: those of the language if it has them, otherwise none."""
    try:
        bm25s.tokenize([""], stopwords=language, show_progress=False)
    except ValueError:
        return []
    return language


def _windows(text: str, words: int | None) -> list[str]:
    """Returns the whole text, or windows of `words` words. There is at least one."""
    if words is None:
        return [text]
    found = text.split()
    return [" ".join(found[start : start + words]) for start in range(0, len(found), words)] or [text]
