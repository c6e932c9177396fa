"""Texts as token ids: documents, from which long sequences are taken, and their sentences, which serve as questions."""

from __future__ import annotations

import hashlib
import random
import re
from array import array
from dataclasses import dataclass

from tokenizers import Tokenizer

from model.train.errors import TrainError

SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")
# Range of tokens of a sentence that may represent its text: the length of a question, not of a heading or a table.
SHORTEST_SENTENCE, LONGEST_SENTENCE = 8, 96


@dataclass(frozen=True)
class Corpus:
    """Documents, each a list of sentences, each a list of token ids without special tokens."""

    documents: list[list[list[int]]]

    @property
    def tokens(self) -> int:
        return sum(len(sentence) for document in self.documents for sentence in document)

    def stretch(self, draw: random.Random, tokens: int) -> list[list[int]]:
        """Returns consecutive whole sentences with `tokens` tokens in total, or up to one sentence more. If a document is too short, the next one
        follows.

        The first sentence is random, so that long documents are not used only at their beginnings.
        """
        number = draw.choices(range(len(self.documents)), cum_weights=self._ends)[0]
        first = draw.randrange(len(self.documents[number]))
        sentences, total = [], 0
        while total < tokens:
            for sentence in self.documents[number][first:]:
                sentences.append(sentence)
                total += len(sentence)
                if total >= tokens:
                    break
            number, first = (number + 1) % len(self.documents), 0
        return sentences

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(array("i", joined(document)).tobytes())
        return digest.hexdigest()

    def __post_init__(self) -> None:
        ends, total = [], 0
        for document in self.documents:
            total += sum(map(len, document))
            ends.append(total)
        object.__setattr__(self, "_ends", ends)


def build(texts: list[list[str]], tokenizer: Tokenizer, seed: int, least_tokens: int, most_tokens: int, advice: str) -> Corpus:
    """Builds a corpus of the texts in a random order that depends on `seed`, up to `most_tokens`. Raises TrainError with `advice` if there are fewer
    than `least_tokens`."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    documents, total = [], 0
    for paragraphs in order:
        if total >= most_tokens:
            break
        sentences = [sentence for paragraph in paragraphs for sentence in SENTENCE_END.split(paragraph)]
        document = [encoded.ids for encoded in tokenizer.encode_batch_fast(sentences, add_special_tokens=False) if encoded.ids]
        documents.append(document)
        total += sum(map(len, document))
    if total < least_tokens:
        raise TrainError(f"the texts have {total} tokens, but training needs at least {least_tokens}; {advice}.")
    return Corpus([document for document in documents if document])


def sentences_of_suitable_length(sentences: list[list[int]]) -> list[int]:
    """Returns the indices of the sentences whose length allows them to represent their text."""
    return [i for i, sentence in enumerate(sentences) if SHORTEST_SENTENCE <= len(sentence) <= LONGEST_SENTENCE]


def joined(sentences: list[list[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]
