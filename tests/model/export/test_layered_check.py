"""Tests the check of checkpoints that do not fit into memory: one layer at a time, compared with transformers' whole model."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import tiny_checkpoints
import torch
from conftest import REPOSITORY
from transformers import AutoModel

from model.export import decoder, layered_check, layered_reference
from model.export.__main__ import main

PROGRAM = REPOSITORY / os.environ.get("LONGEMBED_BUILD", "build/release") / "longembed-embed-texts"


@pytest.fixture(scope="module")
def mistral(tmp_path_factory) -> Path:
    return tiny_checkpoints.save("mistral", tmp_path_factory.mktemp("checkpoints") / "mistral")


@pytest.mark.parametrize("kind", ["mistral", "qwen3", "bert", "modernbert", "gemma3_text"])
@torch.inference_mode()
def test_layers_loaded_one_at_a_time_give_the_whole_models_hidden_states(kind, tmp_path):
    folder = tiny_checkpoints.save(kind, tmp_path / kind)
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = layered_reference.load(str(folder))
    sequences = [[5, 6, 7, 9, 20, 44], [8, 8, 9], [100]]
    for ids, hidden in zip(sequences, layered_reference.hidden_states(model, sequences)):
        torch.testing.assert_close(hidden, whole(input_ids=torch.tensor([ids])).last_hidden_state[0], atol=1e-5, rtol=1e-5)
    layers = [layer for module in model.modules() if isinstance(module, torch.nn.ModuleList) for layer in module]
    assert layers and all(parameter.is_meta for layer in layers for parameter in layer.parameters())


def test_a_tensor_that_no_file_holds_is_named(mistral, tmp_path):
    folder = tiny_checkpoints.save("mistral", tmp_path / "mistral")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="no file holds layers.1.mlp.up_proj.weight"):
        layered_reference.load(str(folder))


def export(checkpoint: Path, out: Path, *more: str) -> int:
    if not PROGRAM.is_file():
        pytest.skip(f"{PROGRAM.name} has not been built; run tests/run.sh")
    return main([str(checkpoint), "--out", str(out), "--embed-texts", str(PROGRAM), *more])


def test_the_check_says_that_it_went_by_layers(mistral, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(layered_check, "available_memory", lambda: 1_000_000)
    assert export(mistral, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "checking layer by layer: the whole check takes" in said
    assert "2 texts, one layer at a time, through the model library: cosine to transformers, MistralModel layer by layer >= " in said
    assert export(mistral, tmp_path / "whole", "--check", "whole") == 0
    assert "one layer at a time" not in capsys.readouterr().err


def test_a_wrong_weight_in_one_layer_is_found(mistral, tmp_path, capsys, monkeypatch):
    honest = decoder.build

    def slightly_off(config, tensors):
        graph = honest(config, tensors)
        graph.layers[1].output_norm.weight = torch.nn.Parameter(graph.layers[1].output_norm.weight * torch.linspace(0.8, 1.2, 64), requires_grad=False)
        return graph

    monkeypatch.setattr(decoder, "build", slightly_off)
    assert export(mistral, tmp_path / "out", "--check", "layers") == 1
    assert "differs from transformers, MistralModel layer by layer" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_limit_of_the_checkpoint_is_compared_too(tmp_path):
    folder = tiny_checkpoints.save("mistral", tmp_path / "mistral")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 8}))
    assert export(folder, tmp_path / "out", "--check", "layers", "--trained-window", "20") == 0
    assert export(folder, tmp_path / "other", "--check", "layers") == 0
    assert "trained_window: 8\n" in (tmp_path / "other/longembed-model.yaml").read_text()


def test_without_the_model_library_it_says_what_to_do(mistral, tmp_path, capsys):
    assert main([str(mistral), "--out", str(tmp_path / "out"), "--check", "layers"]) == 1
    assert "build the target longembed-embed-texts, or give --check whole" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), (["-h"], 0), ([], 2), (["--nonsense"], 2), (["--streamed"], 2), (["a", "b"], 2)])
def test_the_program_shows_its_usage(arguments, status):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM.name} is not built; run tests/run.sh")
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    said, silent = (done.stdout, done.stderr) if status == 0 else (done.stderr, done.stdout)
    assert done.returncode == status and said.startswith("usage: longembed-embed-texts [--streamed] DIRECTORY") and silent == ""
