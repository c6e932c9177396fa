"""Passkey and Needle as LongEmbed constructs them (arXiv 2404.12096): one sentence hidden in a haystack, at eight nominal lengths.

Every length uses the same 100 people, keys and facts, and no two people share a first or a last name. All documents of a length have the same
haystack. Queries ask for 50 of the 100. LongEmbed's seeds are not published. To reproduce its numbers, read its own data (`hub.py`)."""

from __future__ import annotations

import math
import random
import re
from importlib import resources
from pathlib import Path

from .corpus import Corpus, CorpusError

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ASKED = 50
WORDS_PER_TOKEN = 0.75
# The number of words that the haystack is shortened by, to make room for the needle. With these numbers, documents have exactly the published sizes
# in characters.
PASSKEY_WORDS, NEEDLE_WORDS = 25, 18
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
BOUNDARY = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bEsq\.)[\"')]* ")


def passkey(length: int, seed: int = 0) -> Corpus:
    """Returns documents of `floor(0.75 length) - 25` words, each with the key of one person added. Queries ask for the keys of 50 people."""
    words = FILLER.split()
    haystack = repeat(words, _words(length) - PASSKEY_WORDS)
    names = names_of_people()
    needles = [passkey_needle(name, key) for name, key in zip(names, keys(seed))]
    questions = [f"what is the passkey for {name}?" for name in names]
    return _corpus("passkey", length, seed, haystack, needles, questions, {"haystack": "LongEmbed's five sentences"})


def needle(length: int, seed: int = 0, text: Path | None = None) -> Corpus:
    """Returns the same with made-up facts in prose. The prose is that of the file `text`, repeated if it is too short, or the first chapters of
    Persuasion (Jane Austen, 1818)."""
    try:
        prose = (Path(text) if text else resources.files(__package__) / "data/persuasion.txt").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"the haystack {text} is not UTF-8: {error}") from error
    words = prose.split()
    if not words:
        raise CorpusError(f"the haystack {text} has no words")
    facts = [line.split("\t") for line in _data("needles.tsv")]
    haystack = repeat(words, _words(length) - NEEDLE_WORDS)
    source = {"haystack": Path(text).name if text else "Persuasion, Jane Austen, 1818 (public domain)", "haystack_words": len(words)}
    return _corpus("needle", length, seed, haystack, [fact for fact, _ in facts], [question for _, question in facts], source)


def passkey_needle(name: str, key: int) -> str:
    return f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}."


def names_of_people() -> list[str]:
    """Returns 100 names. No two share a first or a last name."""
    return _data("names.txt")


def keys(seed: int) -> list[int]:
    """Returns distinct numbers of 4 or 5 digits."""
    draw = random.Random(f"{seed} keys")
    return draw.sample(range(1000, 100000), 100)


def repeat(words: list[str], count: int) -> str:
    return " ".join((words * (count // len(words) + 1))[:count])


def insert(haystack: str, needle: str, at: int) -> str:
    """Inserts the needle on its own line at a sentence boundary. A newline replaces the blank after the previous sentence."""
    return f"{haystack[:at].rstrip(' ')}\n{needle}\n{haystack[at:]}"


def boundaries(haystack: str) -> list[int]:
    """Returns the positions at which a sentence may begin: the beginning, the end of each sentence, and the end of the haystack if a sentence ends
    there."""
    within = [match.end() for match in BOUNDARY.finditer(haystack + " ")]
    return [0, *(min(place, len(haystack)) for place in within)]


def _words(length: int) -> int:
    words = int(length * WORDS_PER_TOKEN)
    if words <= PASSKEY_WORDS:
        raise CorpusError(f"length is {length}; a document needs at least {math.ceil((PASSKEY_WORDS + 1) / WORDS_PER_TOKEN)} tokens")
    return words


def _corpus(name: str, length: int, seed: int, haystack: str, needles: list[str], questions: list[str], source: dict) -> Corpus:
    places = boundaries(haystack)
    documents, evidence = [], []
    for number, hidden in enumerate(needles):
        text = insert(haystack, hidden, random.Random(f"{seed} {name} {length} {number}").choice(places))
        documents.append(text)
        evidence.append(((text.index(hidden), text.index(hidden) + len(hidden)),))
    asked = sorted(random.Random(f"{seed} {name} asked {length}").sample(range(len(needles)), ASKED))
    return Corpus(
        name=name,
        document_ids=tuple(f"d{number}" for number in range(len(documents))),
        documents=tuple(documents),
        query_ids=tuple(f"q{number}" for number in asked),
        queries=tuple(questions[number] for number in asked),
        relevant=tuple({number: 1.0} for number in asked),
        evidence=tuple(evidence[number] for number in asked),
        metric="accuracy_at_1",
        source={"length": length, "seed": seed, **source},
    )


def _data(file: str) -> list[str]:
    return (resources.files(__package__) / "data" / file).read_text(encoding="utf-8").splitlines()
