"""Tests the splitting of queries into sentences."""

import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.sentences import split  # noqa: E402


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("No mark at the end", ["No mark at the end"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Dr. Smith met Mr. J. Doe. They spoke.", ["Dr. Smith met Mr. J. Doe.", "They spoke."]),
        ("It costs 3.50 euros. Cheap, e.g. for lunch.", ["It costs 3.50 euros.", "Cheap, e.g. for lunch."]),
        ("A title\n\nA paragraph of it.", ["A title", "A paragraph of it."]),
        ("See Smith et al.\n\nWhat is the Nile?", ["See Smith et al.", "What is the Nile?"]),
        ("Vitamin A\n\nwhere is it found", ["Vitamin A", "where is it found"]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
        ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
        ("  spaces  ", ["spaces"]),
        ("Done. ... !", ["Done."]),
        ("...", ["..."]),
    ],
)
def test_sentences(text, sentences):
    assert split(text) == sentences


def test_no_character_but_blanks_and_bare_marks_is_lost():
    text = "First one. Second (in brackets.) Third: 1.2.3! Fourth\n\nFifth e.g. this. Etc. and so on."
    assert "".join("".join(split(text)).split()) == "".join(text.split())
