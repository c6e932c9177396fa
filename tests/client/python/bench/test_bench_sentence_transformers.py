"""Tests rows of sentence-transformers with a stand-in of its class: prompts, batches, and silent truncation."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench.embedders import EmbedderError, SentenceTransformersEmbedder  # noqa: E402


class SentenceTransformer:
    """One token per word. A vector holds the number of words that are kept, and the first letter."""

    def __init__(self, path, device=None):
        self.path, self.device, self.max_seq_length, self.asked = path, device, 4, []

    def __iter__(self):
        """Yields the modules, as a Sequential of PyTorch does."""
        yield SimpleNamespace(auto_model=SimpleNamespace(config=SimpleNamespace(_commit_hash=self.commit)))

    commit = "aaaa"

    def tokenizer(self, texts, truncation):
        assert truncation is False
        return {"input_ids": [text.split() for text in texts]}

    def encode(self, texts, prompt, batch_size, convert_to_numpy, show_progress_bar):
        assert prompt == "", "None would add the model's default prompt"
        self.asked.append(texts)
        assert convert_to_numpy and not show_progress_bar
        return np.array([[min(len(text.split()), self.max_seq_length), ord(text[0])] for text in texts], np.float32)


@pytest.fixture
def library(monkeypatch):
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def test_prompts_batches_and_cuts(library):
    embedder = SentenceTransformersEmbedder("some/model", prompt="p ", device="cpu", batch=2)
    found = dict(embedder.embed(["a b", "c d e f", "g"]))
    assert embedder.model().asked == [["p a b", "p c d e f"], ["p g"]]
    assert embedder.model().device == "cpu"
    np.testing.assert_array_equal(found[1].values, [[4, ord("p")]])
    assert [(found[i].tokens, found[i].truncated) for i in range(3)] == [(3, 0), (4, 1), (2, 0)]


def test_a_longer_window_changes_the_description(library):
    plain, longer = SentenceTransformersEmbedder("some/model"), SentenceTransformersEmbedder("some/model", max_seq_length=512)
    assert longer.model().max_seq_length == 512 and plain.model().max_seq_length == 4
    assert plain.describe() != longer.describe()


def test_changed_files_change_the_description(tmp_path):
    (tmp_path / "model.bin").write_text("one")
    before = SentenceTransformersEmbedder(str(tmp_path)).describe()
    (tmp_path / "model.bin").write_text("other")
    assert SentenceTransformersEmbedder(str(tmp_path)).describe() != before


def test_another_commit_of_the_hub_changes_the_description(library, monkeypatch):
    before = SentenceTransformersEmbedder("some/model").describe()
    assert before == SentenceTransformersEmbedder("some/model").describe() and before["files"] == "aaaa"
    monkeypatch.setattr(SentenceTransformer, "commit", "bbbb")
    assert SentenceTransformersEmbedder("some/model").describe() != before


def test_without_the_library_the_row_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderError, match="pip install sentence-transformers"):
        list(SentenceTransformersEmbedder("some/model").embed(["a"]))
