"""Tests that encoder.pt is written one weight at a time, in the checkpoint's own precision. Compares it with the graph built with all weights in
memory, and with torch.jit.save."""

import io
import shutil
import warnings

import pytest
import tiny_checkpoints
import torch

from model.export import architectures, archive, files, folder
from model.export.deferred import Deferred
from model.export.errors import ExportError

# Checkpoints whose weights are only copied keep their precision. A sum (BERT's token type) or a factor (Gemma's) needs float32.
KEEPS_PRECISION = {"llama": True, "qwen3": True, "distilbert": True, "mpnet": True, "modernbert": True, "bert": False, "gemma3_text": False}


def plain_archive(graph: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(graph), buffer)
    return buffer.getvalue()


def records(content: bytes) -> dict[str, bytes]:
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    return {name: reader.get_record(name) for name in reader.get_all_records() if not name.endswith(".debug_pkl") and not name.startswith((".data", "extra"))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KEEPS_PRECISION)
def test_an_archive_holds_every_weight_of_the_checkpoint(kind, dtype, tmp_path):
    checkpoint = folder.read_directory(tiny_checkpoints.save(kind, tmp_path / kind))
    architecture = architectures.find(checkpoint.config)
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in checkpoint.tensors.items()}
    graph = architecture.build(checkpoint.config, tensors)
    expected = dict(graph.named_parameters())
    written = io.BytesIO()
    precision = archive.save(architecture.build(checkpoint.config, {name: Deferred.of_tensor(tensor) for name, tensor in tensors.items()}), {}, written)
    kept = dtype if KEEPS_PRECISION[kind] else torch.float32
    assert precision == {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[kept]
    loaded = torch.jit.load(io.BytesIO(written.getvalue()))
    found = dict(loaded.named_parameters())
    assert found.keys() == expected.keys() and {weight.dtype for weight in found.values()} == {kept}
    assert all(torch.equal(found[name].float(), expected[name]) for name in expected)
    for weight in graph.parameters():
        # Otherwise a slice of a tensor, such as MPNet's positions, would be written together with the whole tensor.
        weight.data = weight.data.clone()
    # The bytes equal those that torch.jit.save writes, except for how data.pkl writes a length.
    ours, theirs = records(written.getvalue()), records(plain_archive(graph.to(kept)))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == ["data.pkl"]
    assert len(written.getvalue()) < sum(map(len, theirs.values())) + 64_000


def test_tensors_of_a_file_are_read_when_they_are_written(tmp_path):
    checkpoint = folder.read_directory(tiny_checkpoints.save("mistral", tmp_path / "mistral"))
    located = files.locate_tensors(tmp_path / "mistral")
    assert located.keys() == checkpoint.tensors.keys()
    deferred = {name: Deferred.of_file(located[name], name, tensor) for name, tensor in checkpoint.tensors.items()}
    name = "layers.1.mlp.up_proj.weight"
    both = torch.cat([deferred[name], deferred[name].to(torch.float64)])
    assert both.shape == (192, 64) and both.dtype == torch.float64
    assert torch.equal(both.value(), torch.cat([checkpoint.tensors[name], checkpoint.tensors[name]]).double())
    (tmp_path / "mistral/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        both.value()


def test_narrow_numbers_stay_exact_until_an_operation_changes_them():
    halves = Deferred.of_tensor(torch.randn(6, 4).to(torch.bfloat16))
    moved = torch.cat([part.to(torch.float32) for part in halves.chunk(2)[::-1]])[1:].t()
    assert moved.narrow is torch.bfloat16 and moved.dtype is torch.float32
    assert torch.equal(moved.narrow_value().float(), moved.value())
    for changed in (moved + 1, moved * 2, moved.sum(dim=0), torch.cat([moved, Deferred.of_tensor(torch.ones(1, 5))]), halves.to(torch.float16)):
        assert changed.narrow is None
    with pytest.raises(NotImplementedError):
        moved.zero_()


def test_lengths_in_a_pickle_are_found_by_name_also_where_a_part_is_called_like_a_storage():
    """torch.jit.save writes the text "0" once, for the first part of a ModuleList and for the first storage."""
    layers = torch.nn.ModuleList(torch.nn.Linear(3, 5, bias=False) for _ in range(3))
    data = records(plain_archive(Called(layers)))["data.pkl"]
    patched = archive.with_lengths(data, {"1": 15})
    assert [argument for name, argument, _ in archive._operations(patched) if name == "LONG1"] == [15]
    assert archive.with_lengths(data, {}) == data


class Called(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    """LibTorch's writer ends the process with SIGABRT where a write fails."""
    checkpoint = folder.read_directory(tiny_checkpoints.save("bert", tmp_path / "bert"))
    graph = architectures.find(checkpoint.config).build(checkpoint.config, checkpoint.tensors)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 1000, 0))
    with pytest.raises(ExportError, match=f"{tmp_path} has 0 MiB free, and the model needs 1 MiB"):
        archive.save(graph, {}, tmp_path / "encoder.pt")
    assert not (tmp_path / "encoder.pt").exists()
