"""Compares Passkey and Needle with what is published about LongEmbed's: the characters of single documents, and their range for each length."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import synthetic  # noqa: E402
from longembed.bench.corpus import CorpusError  # noqa: E402

# Documents whose names, keys and lengths are published.
PUBLISHED = [(512, "Douglas Alfaro", 6699, 1786), (1024, "Denisse Wilcox", 18025, 3610)]
# The shortest and longest document of each length, from MTEB's descriptive statistics. Only name and key, which occur twice each, vary.
SPREAD = {
    256: (866, 890),
    512: (1776, 1800),
    1024: (3598, 3622),
    2048: (7233, 7257),
    4096: (14509, 14533),
    8192: (29062, 29086),
    16384: (58165, 58189),
    32768: (116371, 116395),
}


def haystack(length: int) -> str:
    """Returns the first words of the repeated sentences, by a loop."""
    words = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.".split()
    return " ".join(words[i % 19] for i in range(int(0.75 * length) - 25))


@pytest.mark.parametrize(("length", "name", "key", "characters"), PUBLISHED)
def test_a_published_document_has_its_characters(length, name, key, characters):
    text = haystack(length)
    at = synthetic.boundaries(text)[5]
    document = synthetic.insert(text, synthetic.passkey_needle(name, key), at)
    assert len(document) == characters
    assert f"\n{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}.\n" in document


@pytest.mark.parametrize("length", synthetic.LENGTHS)
def test_passkey_at_every_length(length):
    corpus = synthetic.passkey(length)
    assert (len(corpus.documents), len(corpus.queries), len(set(corpus.documents))) == (100, 50, 100)
    shortest, longest = SPREAD[length]
    assert all(shortest <= len(document) <= longest + 1 for document in corpus.documents)  # One more if the needle begins or ends the text.
    for document in corpus.documents:
        before, needle, after = document.split("\n")
        assert " ".join(filter(None, (before, after))) == haystack(length)
        assert before == "" or before.endswith(".")
        name, key = re.fullmatch(r"(.+)'s pass key is (\d{4,5})\. Remember it\. \2 is the pass key for \1\.", needle).groups()
    for query, grades, ((start, end),) in zip(corpus.queries, corpus.relevant, corpus.evidence):
        (answer,) = grades
        name = re.fullmatch(r"what is the passkey for (.+)\?", query)[1]
        assert corpus.documents[answer][start:end].startswith(f"{name}'s pass key is ")


def test_the_same_people_and_keys_serve_every_length():
    def needles(length, seed=0):
        return [document.split("\n")[1] for document in synthetic.passkey(length, seed).documents]

    assert needles(256) == needles(32768)
    assert needles(256, seed=1) != needles(256)
    assert synthetic.passkey(512).queries != synthetic.passkey(1024).queries  # The queries ask for another 50 of the 100 people.
    assert synthetic.passkey(512) == synthetic.passkey(512)


def test_no_two_people_share_a_name():
    names = [name.split() for name in synthetic.names_of_people()]
    assert len(names) == 100
    assert all(len(name) == 2 for name in names)
    assert len({first for first, _ in names}) == len({last for _, last in names}) == 100
    assert not {first for first, _ in names} & {last for _, last in names}


def test_needles_stand_at_the_ends_too():
    places = set()
    for seed in range(40):
        for document in synthetic.passkey(256, seed).documents:
            before, _, after = document.split("\n")
            places.add((before == "", after == ""))
    assert places == {(False, False), (True, False), (False, True)}


def test_needle_hides_facts_in_prose_of_the_nominal_length():
    corpus = synthetic.needle(1024)
    assert (len(corpus.documents), len(corpus.queries)) == (100, 50)
    for document in corpus.documents:
        before, fact, after = document.split("\n")
        assert len(f"{before} {after}".split()) == 768 - 18
        assert before == "" or re.search(r"[.!?][\"')]*$", before)
        assert not before.endswith(("Mr.", "Mrs."))
    for query, grades, ((start, end),) in zip(corpus.queries, corpus.relevant, corpus.evidence):
        fact = corpus.documents[next(iter(grades))][start:end]
        assert query.endswith("?") and fact.endswith(".")
        assert set(re.findall(r"\b[A-Z]\w+", query)[1:]) & set(re.findall(r"\b[A-Z]\w+", fact)), "the question names what the fact is about"
    longest = synthetic.needle(32768)
    assert longest.source["haystack_words"] >= 24576, "the bundled prose needs no repeating"


def test_a_haystack_of_ones_own(tmp_path):
    file = tmp_path / "prose.txt"
    file.write_text("One short story. It ends here.\n")
    corpus = synthetic.needle(256, text=file)
    assert corpus.documents[0].count("One short story.") > 20
    assert corpus.source["haystack"] == "prose.txt"
    file.write_text(" \n")
    with pytest.raises(CorpusError, match="prose.txt has no words"):
        synthetic.needle(256, text=Path(file))
    file.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(CorpusError, match="prose.txt is not UTF-8"):
        synthetic.needle(256, text=Path(file))


def test_a_length_without_room_is_refused():
    for length in (32, 34):
        with pytest.raises(CorpusError, match=f"length is {length}; a document needs at least 35 tokens"):
            synthetic.passkey(length)
    assert len(synthetic.passkey(35).documents) == 100
