"""Tests the store: nothing is embedded twice, an interrupted run continues, and a half-written piece is ignored."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import store  # noqa: E402
from small_sets import CountingEmbedder, vectors_of  # noqa: E402

TEXTS = [f"text number {number} has words" for number in range(10)]


def same(found, texts):
    for one, text in zip(found.vectors, texts, strict=True):
        expected = vectors_of(text)
        np.testing.assert_array_equal(one.values, expected.values)
        np.testing.assert_array_equal(one.lengths, expected.lengths)
        assert (one.tokens, one.truncated) == (expected.tokens, expected.truncated)


def test_a_second_run_embeds_nothing(tmp_path):
    first, second = CountingEmbedder(), CountingEmbedder()
    same(store.Store(tmp_path).embed(first, TEXTS), TEXTS)
    again = store.Store(tmp_path).embed(second, TEXTS)
    same(again, TEXTS)
    assert len(first.embedded) == 10 and second.embedded == []
    assert again.tokens == 50 and again.seconds > 0


def test_a_stopped_run_continues(tmp_path):
    stopped = CountingEmbedder(limit=6)
    with pytest.raises(KeyboardInterrupt):
        store.Store(tmp_path).embed(stopped, TEXTS)
    rest = CountingEmbedder()
    same(store.Store(tmp_path).embed(rest, TEXTS), TEXTS)
    assert sorted(stopped.embedded + rest.embedded) == TEXTS


def test_a_killed_run_loses_its_last_piece_only(tmp_path, monkeypatch):
    """A full piece is on disk before the next text. What was being written when the process died is not read."""
    monkeypatch.setattr(store, "SECONDS_A_PIECE", 0.0)
    embedder = CountingEmbedder(limit=4)
    with pytest.raises(KeyboardInterrupt):
        store.Store(tmp_path).embed(embedder, TEXTS)
    shelf = tmp_path / store.key_of(embedder.describe())
    assert len(list(shelf.glob("*.npz"))) == 4
    (shelf / "tmpabc.part").write_bytes(b"PK half a piece")
    rest = CountingEmbedder()
    same(store.Store(tmp_path).embed(rest, TEXTS), TEXTS)
    assert len(rest.embedded) == 6


def test_corpora_share_texts_and_repeated_texts_embed_once(tmp_path):
    kept = store.Store(tmp_path)
    kept.embed(CountingEmbedder(), TEXTS[:5])
    more = CountingEmbedder()
    same(kept.embed(more, [TEXTS[9], *TEXTS, TEXTS[0]]), [TEXTS[9], *TEXTS, TEXTS[0]])
    assert sorted(more.embedded) == TEXTS[5:]


def test_another_recipe_gets_another_folder(tmp_path):
    kept = store.Store(tmp_path)
    kept.embed(CountingEmbedder("one"), TEXTS)
    other = CountingEmbedder("other")
    kept.embed(other, TEXTS)
    assert len(other.embedded) == 10
    abouts = [json.loads(path.read_text())["name"] for path in tmp_path.glob("*/about.json")]
    assert sorted(abouts) == ["one", "other"]


def test_seconds_and_tokens_are_those_of_the_requested_texts(tmp_path):
    kept = store.Store(tmp_path)
    whole = kept.embed(CountingEmbedder(), TEXTS)
    half = kept.embed(CountingEmbedder(), TEXTS[:5])
    assert half.seconds == pytest.approx(whole.seconds / 2)
    again = kept.embed(CountingEmbedder(), [TEXTS[0], TEXTS[0]])
    assert again.seconds == pytest.approx(whole.seconds / 10)
    assert again.tokens / again.seconds == pytest.approx(whole.tokens / whole.seconds), "copies of a text do not make the model faster"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((1, 8), np.nan, np.float32), "the vector of the text 'text number 3 has words' has a component that is not a finite number"),
        (np.full((1, 8), np.inf, np.float32), "not a finite number"),
        (np.zeros((0, 8), np.float32), "is missing"),
        (np.ones((1, 9), np.float32), "has 9 dimensions, and others in .* have 8: the model there has changed; remove the folder"),
    ],
)
def test_a_bad_vector_is_not_stored(tmp_path, monkeypatch, bad, message):
    """A store would give it to every later run."""
    import small_sets

    monkeypatch.setattr(small_sets, "vectors_of", lambda text: store.Vectors(bad, np.ones(len(bad)), 1, 0) if text == TEXTS[3] else vectors_of(text))
    with pytest.raises(store.StoreError, match=message):
        store.Store(tmp_path).embed(CountingEmbedder(), TEXTS)
    monkeypatch.undo()
    same(store.Store(tmp_path).embed(CountingEmbedder(), TEXTS), TEXTS)


def test_vectors_of_other_dimensions_do_not_join_an_earlier_runs(tmp_path, monkeypatch):
    import small_sets

    store.Store(tmp_path).embed(CountingEmbedder(), TEXTS[:5])
    monkeypatch.setattr(small_sets, "vectors_of", lambda text: store.Vectors(np.ones((1, 9), np.float32), np.ones(1), 1, 0))
    with pytest.raises(store.StoreError, match="has 9 dimensions"):
        store.Store(tmp_path).embed(CountingEmbedder(), TEXTS)


@pytest.mark.parametrize("content", [b"", b"PK half a piece", "half"])
def test_a_damaged_piece_is_named(tmp_path, content):
    embedder = CountingEmbedder()
    store.Store(tmp_path).embed(embedder, TEXTS)
    (piece,) = tmp_path.glob("*/*.npz")
    whole = piece.read_bytes()
    piece.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(store.StoreError, match=f"{piece} is damaged .*; remove it"):
        store.Store(tmp_path).embed(embedder, TEXTS)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        store.Store(tmp_path).embed(CountingEmbedder(), TEXTS)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["about.json"]
    monkeypatch.setattr(store.os, "chmod", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_whole(tmp_path / "results.json", b"{}")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == []


class Bar:
    count = 0

    def update(self, count):
        self.count += count


def test_bars_reach_their_end(tmp_path):
    kept = store.Store(tmp_path)
    for texts in (TEXTS[:4], TEXTS):
        bar = Bar()
        kept.embed(CountingEmbedder(), texts, bar)
        assert bar.count == len(texts)
