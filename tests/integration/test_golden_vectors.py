"""Checks the vectors that a release guarantees: tests/golden/vectors.json, for two tiny models whose weights are determined by a seed (VERSIONING.md).

        LONGEMBED_WRITE_GOLDEN=1 build/venv/bin/python -m pytest tests/integration/test_golden_vectors.py     regenerates the file
"""

import json
import os
import sys

import grpc
import numpy as np
import pytest
import safetensors.torch
import torch
from google.protobuf.json_format import ParseDict

from running_server import ROOT, start_server
from test_families import write_model

sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_checkpoints  # noqa: E402

from model.export import sources  # noqa: E402

GOLDEN = ROOT / "tests/golden/vectors.json"
TOLERANCE = 1e-5  # Tolerance per component, for vectors of length 1.
TEXTS = ("The Nile is 6,650 km long.", "a", "One text of more tokens than the 32 that the models are trained for, so that an extension has work to do.")
MODELS = {"bert": "mean", "nomic_bert": "mean"}
REQUESTS = {
    "truncated": {"truncate": "END"},
    "windows": {"extension": {"windows": {"tokens": 20, "overlap": 4}}},
    "windows apart": {"extension": {"windows": {}}, "output": "WINDOW_VECTORS"},
    "interpolation": {"extension": {"interpolation": {}, "attention_log_scaling": True}},
    "yarn": {"extension": {"yarn": {}}},
    "self_extend": {"extension": {"self_extend": {}}},
}
ROTARY = {"yarn", "self_extend"}


def seeded_checkpoint(kind: str, folder):
    """Makes a tiny checkpoint whose weights come from NumPy's frozen generator. torch's generator may change between versions."""
    tiny_checkpoints.save(kind, folder)
    draw = np.random.RandomState(20).standard_normal
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name in sorted(tensors):
        mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        tensors[name] = torch.from_numpy((mean + 0.2 * draw(tuple(tensors[name].shape))).astype(np.float32))
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sources.read_directory(folder)


@pytest.fixture(scope="module")
def stub(tmp_path_factory, pb):
    folder, checkpoints = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("checkpoints")
    for kind, pooling in MODELS.items():
        write_model(folder / kind, seeded_checkpoint(kind, checkpoints / kind), pooling)
    running = start_server(tmp_path_factory.mktemp("golden"), list(MODELS), models_folder=folder)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield pb[1].EmbeddingServiceStub(channel)
    assert running.stop() == 0


def vectors(stub, pb, model: str) -> dict[str, list]:
    """Returns, by the name of the request, the vectors of each text."""
    found = {}
    for name, options in REQUESTS.items():
        if name in ROTARY and model != "nomic_bert":
            continue
        request = ParseDict({"options": {"model": model, **options}, "inputs": [{"text": text} for text in TEXTS]}, pb[0].EmbedRequest())
        found[name] = [[list(vector.values) for vector in result.embeddings] for result in stub.Embed(request).results]
    return found


@pytest.mark.parametrize("model", MODELS)
def test_vectors_are_those_of_the_release(stub, pb, model):
    now = vectors(stub, pb, model)
    if os.environ.get("LONGEMBED_WRITE_GOLDEN"):
        golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        rounded = {name: [[[round(x, 7) for x in vector] for vector in text] for text in texts] for name, texts in now.items()}
        GOLDEN.write_text(json.dumps(golden | {model: rounded}, indent=0, separators=(",", ":")).replace("\n", "").replace("]],", "]],\n") + "\n")
    before = json.loads(GOLDEN.read_text())[model]
    assert before.keys() == now.keys()
    for name, texts in before.items():
        for text, was, is_now in zip(TEXTS, texts, now[name], strict=True):
            assert np.shape(was) == np.shape(is_now), (name, text)
            largest = float(np.abs(np.subtract(was, is_now)).max())
            assert largest <= TOLERANCE, f"{name}, {text!r}: a component moved by {largest:.1e}; VERSIONING.md says what that means for a release"
