"""Tests reading and cutting texts."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import torch
from train_cases import prose

from model.train import batches, corpus, texts
from model.train.errors import TrainError

ENGLISH = "The history of the project is a part of this book, and it is not the shortest of them. "
GERMAN = "Die Geschichte des Projekts gehört zu diesem Buch, und sie ist nicht das kürzeste Kapitel davon. "


def long(sentence: str, mark: str) -> str:
    """Returns three paragraphs that occur nowhere else."""
    return "\n\n".join(f"{mark}{i} " + sentence * 3 for i in range(3))


def test_every_kind_is_read_gzipped_or_not_in_the_order_of_paths(tmp_path):
    (tmp_path / "b.txt").write_text(long(ENGLISH, "plain"))
    (tmp_path / "c.md.gz").write_bytes(gzip.compress(long(ENGLISH, "mark").encode()))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"id": i, "text": long(ENGLISH, f"line{i}-")}) for i in range(2)) + "\n\n")
    (tmp_path / "d.html").write_text("<p>" + long(ENGLISH, "page").replace("\n\n", "</p><p>") + "</p>")
    (tmp_path / "e.png").write_bytes(b"\x89PNG")
    (tmp_path / "changelog.txt.gz").write_bytes(gzip.compress(long(ENGLISH, "change").encode()))
    assert [text[0].split()[0] for text in texts.read([tmp_path])] == ["line0-0", "line1-0", "plain0", "mark0", "page0"]
    assert all(len(text) == 3 for text in texts.read([tmp_path]))


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x1e"])
def test_a_line_of_jsonl_ends_at_its_newline_alone(tmp_path, mark):
    """JSON allows other ends of lines within a string, except U+001E, which json.dumps escapes."""
    lines = [json.dumps({"text": long(ENGLISH + mark, f"line{i}-")}, ensure_ascii=False) for i in range(2)]
    (tmp_path / "a.jsonl").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert [text[0].split()[0] for text in texts.read([tmp_path])] == ["line0-0", "line1-0"]


def test_html_is_read_without_what_is_not_text():
    head = "<html><head><title>T</title><style>x{}</style></head><body><nav>Menu</nav>"
    page = head + "<p>One &amp; two</p><script>if (a < b) {}</script><p>three<br>four</p></body></html>"
    assert texts.plain_text(page).split() == ["One", "&", "two", "three", "four"]
    assert "two\n\n" in texts.plain_text(page)


@pytest.mark.parametrize("body", ["<body>", "", "<BODY TEXT=black>"])
def test_the_end_of_a_head_may_be_left_out(body):
    page = f"<html><head><title>T</title><meta charset=utf-8><style>x{{}}</style>\n{body}<h1>One</h1><p>two<header>three</header>"
    assert texts.plain_text(page).split() == ["One", "two"]


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    """Permissions do not stop root, so the test makes the error itself."""
    (tmp_path / "a.txt").write_text(long(ENGLISH, "x"))

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(TrainError, match="a.txt cannot be read .*Permission denied.*; remove it or leave it out"):
        texts.read([tmp_path])


def test_a_paragraph_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text(long(ENGLISH, "x"))
    (tmp_path / "b.txt").write_text(long(ENGLISH, "x"))
    (tmp_path / "c.txt").write_text(long(ENGLISH, "x") + "\n\n" + long(ENGLISH, "new"))
    assert [len(text) for text in texts.read([tmp_path])] == [3, 3]


def test_english_leaves_other_languages_out(tmp_path):
    (tmp_path / "de.txt").write_text(long(GERMAN, "x"))
    (tmp_path / "en.txt").write_text(long(ENGLISH, "y"))
    assert len(texts.read([tmp_path])) == 2
    assert [text[0].split()[0] for text in texts.read([tmp_path], english_only=True)] == ["y0"]


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("missing.txt", None, "neither a file nor a folder"),
        ("picture.png", b"x", "no known kind"),
        ("bad.jsonl", b'{"text": "x"}\n{"body": 1}\n', "line 2"),
        ("number.jsonl", b'{"text": 3}\n', "line 1"),
        ("lone.jsonl", b'{"text": "x \\ud800"}\n', r"line 1 has the lone surrogate U\+D800 in its text"),
        ("deep.jsonl", b"[" * 100_000 + b"\n", "line 1 is not a JSON object"),
        ("spoiled.txt.gz", gzip.compress(b"x" * 1000)[:10] + b"\xff" * 20, "cannot be read"),
        ("cut.txt.gz", gzip.compress(b"x" * 1000)[:20], "cannot be read"),
    ],
)
def test_unreadable_texts_are_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainError, match=says):
        texts.read([tmp_path / name])


def numbered(*lengths: int) -> corpus.Corpus:
    """Returns documents of one-token sentences, numbered 0, 1, 2, ... across all documents."""
    numbers = iter(range(10**6))
    return corpus.Corpus([[[next(numbers)] for _ in range(length)] for length in lengths])


def test_a_stretch_is_of_neighboring_sentences_and_as_long_as_asked():
    made = numbered(5, 1, 7)
    for i in range(50):
        tokens = corpus.joined(made.stretch(random.Random(i), 9))
        # Documents follow one another, and the first follows the last.
        assert tokens == [(tokens[0] + j) % 13 for j in range(9)] or tokens[0] != 0 and 0 in tokens
        assert len(tokens) == 9


def test_stretches_begin_everywhere():
    made = numbered(5, 1, 7)
    assert {made.stretch(random.Random(i), 1)[0][0] for i in range(400)} == set(range(13))


def test_too_few_texts_are_refused_with_advice():
    from tiny_checkpoints import tiny_tokenizer

    from model.export import tokenizer_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_file.strip(tiny_tokenizer().to_str()))
    paragraphs = prose(500).split("\n\n")
    with pytest.raises(TrainError, match="at least 100000; install something"):
        corpus.build([paragraphs], tokenizer, 0, 100_000, 10**6, "install something")
    assert corpus.build([paragraphs], tokenizer, 0, 1, 10**6, "").tokens > 300


def without_part(item: batches.Item) -> list[tuple[int, ...]]:
    """Returns the text without its part, for every position of the part."""
    n = len(item.part)
    return [tuple(item.text[:i] + item.text[i + n :]) for i in range(len(item.text)) if item.text[i : i + n] == item.part]


def test_siblings_differ_in_one_part_alone():
    made = numbered(4000)
    sentence = corpus.Corpus([[list(range(10 * i, 10 * i + 10)) for i in range(400)]])
    for seed in range(20):
        for tokens in (16, 100, 300):
            items = batches.siblings(sentence, random.Random(seed), tokens, families=2, each=3)
            assert [len(item.text) for item in items] == [tokens] * 6
            for family in (items[:3], items[3:]):
                shortest = min(tokens - len(item.part) for item in family)
                assert shortest >= tokens // 2
                assert set.intersection(*({rest[:shortest] for rest in without_part(item)} for item in family))
    assert len(batches.unrelated_texts(made, random.Random(1), 50, 3)) == 3


@pytest.mark.parametrize("n", [1, 2, 17, 100, 512])
def test_scattered_positions_are_pieces_in_order_within_the_table(n):
    pieces = set()
    for seed in range(200):
        rows = batches.scattered(random.Random(seed), n, 4096)
        assert len(rows) == n and rows[0] >= 0 and rows[-1] <= 4095
        steps = rows.diff()
        assert (steps >= 1).all() and torch.equal(rows, rows.floor())
        pieces.add(int((steps > 1).sum()) + 1)
    assert max(pieces) == min(batches.MOST_PIECES, max(1, n // batches.SHORTEST_PIECE))


def test_a_line_with_a_key_twice_is_refused(tmp_path):
    """json would keep the last text alone."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}) + '\n{"text": "two", "text": "three"}\n')
    with pytest.raises(TrainError, match="a.jsonl, line 2 .* has a key twice"):
        texts.read([tmp_path])
