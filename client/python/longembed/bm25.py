"""BM25 as Lucene computes it, over bm25s (extra "bm25"): k1 1.5, b .75, English stop words and stemmer.

On long texts the words of a query are worth more than any vector: MTEB's table of LongEmbed has BM25 above every single-vector model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class BM25:
    """An index of texts. Not thread-safe while it is filled.

    language: of the stemmer ("english", "german", ..., as PyStemmer names them) and, where bm25s has them, of the stop words.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75, language: str = "english"):
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            raise ImportError('BM25 needs bm25s and PyStemmer: pip install "longembed[bm25]"') from error
        self._bm25s = bm25s
        self._tokenizing = {"stopwords": language, "stemmer": Stemmer.Stemmer(language), "show_progress": False}
        self._count = len(texts)
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        tokens = self._tokens(texts)
        self._empty = not any(tokens)  # bm25s indexes no corpus without words.
        if not self._empty:
            self._index.index(tokens, show_progress=False)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float32 [queries, texts]; zeros for a query without a word of the index."""
        scores = np.zeros((len(queries), self._count), np.float32)
        if self._empty:
            return scores
        for row, words in zip(scores, self._tokens(queries)):
            known = [word for word in words if word in self._index.vocab_dict]
            if known:
                row[:] = self._index.get_scores(known)
        return scores

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return self._bm25s.tokenize(list(texts), return_ids=False, **self._tokenizing)
