"""Tests the command line: whole runs on a tiny checkpoint, resuming, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer
from train_cases import prose, tiny
from transformers import AutoTokenizer

from model.export import checkpoints, sources
from model.export.__main__ import main as export
from model.export.directory import Directory, Sample
from model.export.errors import ExportError
from model.train import checkpoint, recipes
from model.train.__main__ import main
from model.train.errors import TrainError


@pytest.fixture
def texts(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(recipes, "LEAST_TOKENS", 5_000)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    folder = tmp_path / "texts"
    folder.mkdir()
    for seed in range(5):
        (folder / f"{seed}.txt").write_text(prose(3000, seed))
    return folder


@pytest.mark.parametrize("recipe", ["positions", "rotary"])
def test_a_run_writes_a_checkpoint_and_the_next_run_resumes_from_its_state(recipe, texts, tmp_path, capfd):
    command = [recipe, str(tiny(tmp_path / "tiny")), "--out", str(tmp_path / "out"), "--texts", str(texts)]
    assert main([*command, "--steps", "1"]) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == {"positions": "bert", "rotary": "e5rope"}[recipe]
    first = safetensors.torch.load_file(tmp_path / "out/model.safetensors")
    assert main([*command, "--steps", "2"]) == 0
    assert "going on after step 1" in capfd.readouterr().err
    second = safetensors.torch.load_file(tmp_path / "out/model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_folder_in_place_of_a_file_is_one_sentence(texts, tmp_path, capfd):
    folder = tiny(tmp_path / "tiny")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert main(["positions", str(folder), "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]) == 1
    assert "config.json" in capfd.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1_Pooling").write_text("")
    assert main(["positions", str(tiny(tmp_path / "whole")), "--out", str(tmp_path / "other"), "--texts", str(texts), "--steps", "1"]) == 1
    assert "1_Pooling cannot be made" in capfd.readouterr().err


def test_a_state_of_other_settings_is_refused(texts, tmp_path, capfd):
    command = ["positions", str(tiny(tmp_path / "tiny")), "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]
    assert main(command) == 0
    assert main([*command, "--seed", "1"]) == 1
    assert "instead of" in capfd.readouterr().err


def test_a_state_of_another_commit_of_the_hub_is_refused(texts, tmp_path, monkeypatch, capfd):
    folder = tiny(tmp_path / "tiny")

    class Hub(sources.HubSource):
        def load(self):
            self.label = f"{self.identity}@{commits.pop(0)}"
            return sources.read_directory(folder)

    monkeypatch.setattr(sources, "HubSource", Hub)
    command = ["positions", "owner/tiny", "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]
    commits = ["aaaa", "aaaa", "bbbb"]
    assert main(command) == main(command) == 0
    assert main(command) == 1
    assert "checkpoint = 'hub:owner/tiny@aaaa' instead of 'hub:owner/tiny@bbbb'" in capfd.readouterr().err


def test_the_result_lower_cases_as_the_checkpoint_does(texts, tmp_path):
    """sentence-transformers lower-cases by a setting beside the tokenizer, which would keep letters apart."""
    folder = tiny(tmp_path / "tiny")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "normalizer": None}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert checkpoint.load(str(folder)).tokenizer.encode("ABC").ids == checkpoint.load(str(folder)).tokenizer.encode("abc").ids
    assert main(["positions", str(folder), "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]) == 0
    written = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert written.encode("ABC").ids == written.encode("abc").ids


NAMES = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.mark.parametrize(
    "normalizer, config",
    [
        ({"lowercase": False}, {"do_lower_case": False}), ({"lowercase": False}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ({"lowercase": False}, {"do_lower_case": True}), ({"lowercase": True}, {"do_lower_case": False}), (None, {"do_lower_case": False}),
    ],
)  # fmt: skip
def test_the_result_has_the_tokenizer_of_all_the_checkpoint_s_files(normalizer, config, texts, tmp_path):
    """The oracle is transformers on the checkpoint's folder. None: tokenizer.json has no post-processor."""
    folder = tiny(tmp_path / "tiny")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] |= normalizer or {}
    (folder / "tokenizer.json").write_text(json.dumps({**content, **({} if normalizer else {"post_processor": None})}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **NAMES, **config}))
    assert main(["positions", str(folder), "--out", str(tmp_path / "tuned"), "--texts", str(texts), "--steps", "1", "--stride", "4"]) == 0
    assert export([str(tmp_path / "tuned"), "--out", str(tmp_path / "model"), "--position-stride", "4"]) == 0
    users, model = AutoTokenizer.from_pretrained(folder), Directory(tmp_path / "model")
    tuned = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    for text in ("The Quick brown FOX", "\u00c9 \u00e9", "\u4e2d\u6587 b"):
        ids = users(text)["input_ids"]
        assert checkpoint.load(str(folder)).tokenizer.encode(text).ids == tuned(text)["input_ids"] == model.ids(Sample(text)) == ids, text
    assert tuned.pad_token == "[PAD]"


@pytest.mark.parametrize(
    "change, says",
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "the checkpoint is quantized"), ({"auto_map": {"AutoModel": "modeling.Mine"}}, "own modeling code"),
        ({"architectures": ["MyBert"]}, "written by MyBert"), ({"num_hidden_layers": 2}, "num_hidden_layers = 2"), ({"num_attention_heads": 5}, "does not divide"),
    ],
)  # fmt: skip
def test_checkpoints_that_the_exporter_refuses_are_not_trained(change, says, tmp_path):
    folder = tiny(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ExportError, match=says):
        checkpoint.load(str(folder))


def test_the_result_keeps_the_similarity_and_the_dimensions(texts, tmp_path):
    folder = tiny(tmp_path / "tiny")
    settings = {"prompts": {"query": "q: "}, "default_prompt_name": None, "similarity_fn_name": "dot", "matryoshka_dimensions": [16, 32]}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert main(["positions", str(folder), "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]) == 0
    assert json.loads((tmp_path / "out/config_sentence_transformers.json").read_text()) == settings


def test_the_result_has_the_prompts_that_the_exporter_takes(texts, tmp_path, monkeypatch):
    """Those of the table of known checkpoints are for folders without prompts of their own."""
    known = checkpoints.Known("owner/tiny", trained_window=32, pooling="MEAN", license="MIT", prompts={"query": "theirs: "})
    monkeypatch.setattr(checkpoints, "find", lambda name: known)
    folder = tiny(tmp_path / "tiny")
    settings = {"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert main(["positions", str(folder), "--out", str(tmp_path / "out"), "--texts", str(texts), "--steps", "1"]) == 0
    assert json.loads((tmp_path / "out/config_sentence_transformers.json").read_text()) == settings


@pytest.mark.parametrize(
    "modules, says",
    [(["Transformer", "Pooling", "Dense"], "Dense modules after pooling"), (["Transformer", "SpladePooling"], "the pooling SPLADE")],
)
def test_modules_that_training_would_lose_are_refused(modules, says, tmp_path):
    folder = tiny(tmp_path / "tiny")
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    entries = [{"type": f"sentence_transformers.models.{kind}", "path": paths.get(kind, kind)} for kind in modules]
    (folder / "modules.json").write_text(json.dumps(entries))
    for kind in set(modules) - paths.keys():
        (folder / kind).mkdir()
        (folder / kind / "config.json").write_text("{}")
    if "Dense" in modules:
        safetensors.torch.save_file({"linear.weight": torch.eye(64)}, folder / "Dense/model.safetensors")
    with pytest.raises(TrainError, match=says):
        checkpoint.load(str(folder))


def test_an_expanded_table_is_not_expanded_again(texts, tmp_path, capfd):
    command = ["--texts", str(texts), "--steps", "1"]
    assert main(["positions", str(tiny(tmp_path / "tiny")), "--out", str(tmp_path / "out"), *command]) == 0
    assert main(["positions", str(tmp_path / "out"), "--out", str(tmp_path / "again"), *command]) == 1
    assert "expanded position table already" in capfd.readouterr().err


@pytest.mark.parametrize(
    "kind, flags, says",
    [
        ("e5rope", [], "rotary positions"),
        ("bert", ["--stride", "1"], "--stride 1 adds no rows"),
        ("bert", ["--minutes", "0"], "--minutes 0.0 is not above 0"),
        ("bert", ["--steps", "-1"], "--steps -1 is not above 0"),
        ("bert", ["--learning-rate", "nan"], "--learning-rate nan is not above 0"),
    ],
)
def test_untrainable_checkpoints_have_a_readable_error(kind, flags, says, texts, tmp_path, capfd):
    assert main(["positions", str(tiny(tmp_path / "tiny", kind)), "--out", str(tmp_path / "out"), "--texts", str(texts), *flags]) == 1
    assert says in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_itself_is_not_overwritten(texts, tmp_path, capfd):
    folder = tiny(tmp_path / "tiny")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert main(["rotary", str(folder), "--out", f"{folder}/../tiny", "--texts", str(texts), "--steps", "1"]) == 1
    assert "is the checkpoint itself, which would be overwritten" in capfd.readouterr().err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_folder_that_cannot_be_created_is_refused_before_the_first_step(texts, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert main(["rotary", str(tiny(tmp_path / "tiny")), "--out", str(tmp_path / "file/out"), "--texts", str(texts), "--steps", "1"]) == 1
    error = capfd.readouterr().err
    assert "training cannot be created (Not a directory); choose another --out" in error and "step 1" not in error


def test_too_few_texts_are_refused_with_what_to_do(texts, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(recipes, "LEAST_TOKENS", 10**6)
    command = ["positions", str(tiny(tmp_path / "tiny")), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert main([*command, "--texts", str(texts)]) == 1
    assert "at least 1000000; add texts with --texts" in capfd.readouterr().err
    monkeypatch.setattr(recipes, "DEBIAN_TEXTS", texts)
    assert main(command) == 1
    assert "install packages with prose, such as debian-policy" in capfd.readouterr().err


def test_an_unknown_checkpoint_is_refused(tmp_path, capfd):
    assert main(["positions", "no-such-model", "--out", str(tmp_path / "out"), "--steps", "1"]) == 1
    assert "neither a directory nor a known checkpoint" in capfd.readouterr().err
