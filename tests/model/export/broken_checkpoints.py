"""Modifies the files of a tiny checkpoint, for tests of how the exporter handles them."""

import json
import shutil
from pathlib import Path

import safetensors.torch
import tiny_checkpoints

SENTENCE = "sentence_transformers.models."
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 133466304\n"


def save(kind: str, folder: Path, pooling: str = "mean") -> Path:
    """Saves a checkpoint of tiny_checkpoints with sentence-transformers' files."""
    tiny_checkpoints.save(kind, folder)
    modules(folder, ("", SENTENCE + "Transformer"), ("1_Pooling", SENTENCE + "Pooling"))
    (folder / "1_Pooling").mkdir()
    mode = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[pooling]
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": 64, f"pooling_mode_{mode}": True})
    return folder


def copy(original: Path, folder: Path) -> Path:
    return Path(shutil.copytree(original, folder))


def write(file: Path, content) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def edit(file: Path, *gone: str, **change) -> None:
    """Sets keys of a JSON file, and removes the keys in `gone`."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write(file, {key: value for key, value in {**content, **change}.items() if key not in gone})


def modules(folder: Path, *entries: tuple[str, str]) -> None:
    write(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(entries)])


def tensors(folder: Path) -> dict:
    return safetensors.torch.load_file(folder / "model.safetensors")


def save_tensors(folder: Path, content: dict, name: str = "model.safetensors") -> None:
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in content.items()}, folder / name, metadata={"format": "pt"})
