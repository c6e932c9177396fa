"""Batches of the position recipe: texts that differ in at least one part, and positions for their tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model.train.corpus import Corpus, joined, sentences_of_suitable_length

MOST_PIECES = 8
SHORTEST_PIECE = 16  # In tokens.
QUESTION_SENTENCES = 3  # Maximum number of sentences in a question.
LONGEST_QUESTION = 128  # In tokens.


@dataclass(frozen=True)
class Item:
    """A text, and a part of it that should find the text as a query. Both are token ids without special tokens."""

    text: list[int]
    part: list[int]


def siblings(corpus: Corpus, draw: random.Random, tokens: int, families: int, each: int) -> list[Item]:
    """Returns families of texts of `tokens` tokens. The texts of a family are equal except for one sentence from another document, which is the only
    way to distinguish them."""
    items = []
    for _ in range(families):
        around = corpus.stretch(draw, tokens)
        for _ in range(each):
            other = corpus.stretch(draw, LONGEST_QUESTION)
            part = (question(other, draw, 1) or joined(other)[:LONGEST_QUESTION])[: tokens // 2]
            before = joined(around[: draw.randint(0, len(around))])[: tokens - len(part)]
            items.append(Item((before + part + joined(around)[len(before) :])[:tokens], part))
    return items


def unrelated_texts(corpus: Corpus, draw: random.Random, tokens: int, count: int) -> list[Item]:
    """Returns unrelated texts of `tokens` tokens, each with a few of its own sentences as its part."""
    items = []
    for _ in range(count):
        sentences = corpus.stretch(draw, tokens)
        text = joined(sentences)[:tokens]
        items.append(Item(text, question(sentences[:-1], draw, QUESTION_SENTENCES) or text[:LONGEST_QUESTION]))
    return items


def question(sentences: list[list[int]], draw: random.Random, most: int) -> list[int] | None:
    """Returns one to `most` neighboring sentences, beginning with one of a suitable length (see `sentences_of_suitable_length`), or None if there is none."""
    places = sentences_of_suitable_length(sentences)
    if not places:
        return None
    first = draw.choice(places)
    return joined(sentences[first : first + draw.randint(1, most)])[:LONGEST_QUESTION]


def scattered(draw: random.Random, n: int, rows: int) -> Tensor:
    """Returns rows of the position table for n tokens. The tokens are divided into pieces with consecutive rows; the pieces are in order and spread
    over all `rows`. A single piece shifts the whole text."""
    count = min(draw.randint(1, MOST_PIECES), max(1, n // SHORTEST_PIECE))
    cuts = [0, *sorted(draw.sample(range(1, n), count - 1)), n]
    shifts = sorted(draw.randint(0, rows - n) for _ in range(count))
    return torch.cat([torch.arange(start, end, dtype=torch.float32) + shift for start, end, shift in zip(cuts, cuts[1:], shifts)])
