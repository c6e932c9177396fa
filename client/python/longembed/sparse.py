"""Scores texts by their sparse vectors.

    documents = [answer.sparse for answer in client.embed(texts, output="SPARSE", extension={"windows": {}})]
    queries = [answer.sparse for answer in client.embed(questions, output="SPARSE")]
    scores = sparse.score(queries, documents)       # float32 [questions, texts]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longembed.results import SparseVector


def score(queries: Sequence[SparseVector], documents: Sequence[SparseVector]) -> np.ndarray:
    """Returns the dot product of each query with each document: float32 [queries, documents]. For many documents, use an index of posting lists
    instead."""
    scores = np.zeros((len(queries), len(documents)), np.float32)
    if not len(queries) or not len(documents):
        return scores
    indices = np.concatenate([document.indices for document in documents])
    values = np.concatenate([document.values for document in documents]).astype(np.float64)
    document = np.repeat(np.arange(len(documents)), [len(document.indices) for document in documents])
    size = 1 + max(int(indices.max(initial=0)), *(int(query.indices.max(initial=0)) for query in queries))
    for number, query in enumerate(queries):
        weights = np.zeros(size)
        weights[query.indices] = query.values
        scores[number] = np.bincount(document, weights[indices] * values, minlength=len(documents))
    return scores
