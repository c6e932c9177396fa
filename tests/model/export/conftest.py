"""Fixtures: a tiny BERT with random weights, saved in Hugging Face's format."""

import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))
sys.path.insert(0, str(REPOSITORY / "tests/testing"))

import torch  # noqa: E402
import yaml  # noqa: E402
from tiny_checkpoints import TOKENIZER_CONFIG, tiny_tokenizer  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

from model.export.__main__ import main  # noqa: E402

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 40, "vocab_size": 300}


def refused(folder: Path, out: Path, capsys, *options: str) -> str:
    """Returns the exporter's error for a checkpoint that it refuses."""
    assert main([str(folder), "--out", str(out), *options]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and not out.exists()
    return said


def save_checkpoint(folder: Path, pooling: str | None = "mean", **config) -> Path:
    """Saves a checkpoint. Its weights are large enough for every mistake to show."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES, initializer_range=0.3, **config), add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    if pooling:
        (folder / "1_Pooling").mkdir()
        modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls", "pooling_mode_max_tokens": pooling == "max"}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **modes}))
    return folder


def manifest_of(folder) -> dict:
    return yaml.safe_load((folder / "longembed-model.yaml").read_text())


@pytest.fixture(autouse=True)
def without_the_program(monkeypatch):
    """Checks exports from Python, even if the model library is built. Only one test uses the library."""
    from model.export import directory

    monkeypatch.setattr(directory, "PROGRAM", Path("/nowhere"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Returns config and tensors without reading files."""
    from model.export import sources

    return sources.read_directory(save_checkpoint(tmp_path_factory.mktemp("session") / "tiny-bert"))
