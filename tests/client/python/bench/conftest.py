"""Fixtures of longembed-bench's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def corpus():
    """Returns 24 documents of growing length with two queries each. Evidence occurs in every third of the documents."""
    from longembed.bench.corpus import Corpus

    documents = tuple(f"document {number} " * (10 + number) for number in range(24))
    queries = [(number, letter) for number in range(24) for letter in "ab"]
    places = {number: len(documents[number]) * (number % 3) // 3 for number in range(24)}
    return Corpus(
        name="small",
        document_ids=tuple(f"d{number}" for number in range(24)),
        documents=documents,
        query_ids=tuple(f"q{number}{letter}" for number, letter in queries),
        queries=tuple(f"question {number} {letter}" for number, letter in queries),
        relevant=tuple({number: 1.0} for number, _ in queries),
        evidence=tuple(((places[number], places[number] + 5),) for number, _ in queries),
    )
