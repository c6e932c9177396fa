"""Batches of the position recipe: long texts with something of their own in them, and positions to read them at."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model.train.corpus import Corpus, joined, telling

MOST_PIECES = 8
SHORTEST_PIECE = 16  # Tokens.
QUESTION_SENTENCES = 3  # The most that a text is asked for by.
LONGEST_QUESTION = 128  # Tokens.


@dataclass(frozen=True)
class Item:
    """A text and a part of it that it should be found by. Token ids without special tokens."""

    text: list[int]
    part: list[int]


def siblings(corpus: Corpus, draw: random.Random, tokens: int, families: int, each: int) -> list[Item]:
    """Texts of `tokens` tokens. Those of a family are the same but for one sentence of another document, by which alone they can be told apart."""
    items = []
    for _ in range(families):
        around = corpus.stretch(draw, tokens)
        for _ in range(each):
            other = corpus.stretch(draw, LONGEST_QUESTION)
            part = (question(other, draw, 1) or joined(other)[:LONGEST_QUESTION])[: tokens // 2]
            before = joined(around[: draw.randint(0, len(around))])[: tokens - len(part)]
            items.append(Item((before + part + joined(around)[len(before) :])[:tokens], part))
    return items


def strangers(corpus: Corpus, draw: random.Random, tokens: int, count: int) -> list[Item]:
    """Texts of `tokens` tokens with nothing in common, each with a few of its own sentences."""
    items = []
    for _ in range(count):
        sentences = corpus.stretch(draw, tokens)
        text = joined(sentences)[:tokens]
        items.append(Item(text, question(sentences[:-1], draw, QUESTION_SENTENCES) or text[:LONGEST_QUESTION]))
    return items


def question(sentences: list[list[int]], draw: random.Random, most: int) -> list[int] | None:
    """One to `most` neighboring sentences that say something, or None where there are none."""
    places = telling(sentences)
    if not places:
        return None
    first = draw.choice(places)
    return joined(sentences[first : first + draw.randint(1, most)])[:LONGEST_QUESTION]


def scattered(draw: random.Random, n: int, rows: int) -> Tensor:
    """Rows for n tokens: cut into pieces, each of neighboring rows, in order and spread over all `rows`. One piece is a text shifted as a whole."""
    count = min(draw.randint(1, MOST_PIECES), max(1, n // SHORTEST_PIECE))
    cuts = [0, *sorted(draw.sample(range(1, n), count - 1)), n]
    shifts = sorted(draw.randint(0, rows - n) for _ in range(count))
    return torch.cat([torch.arange(start, end, dtype=torch.float32) + shift for start, end, shift in zip(cuts, cuts[1:], shifts)])
