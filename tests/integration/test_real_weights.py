"""Compares context extensions of every kind, over gRPC and on real weights, with the formulas in float64. test_methods.py compares every method on random
weights."""

import random
import sys

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict

from running_server import MODELS, ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import explicit_model  # noqa: E402
from explicit_model import unit  # noqa: E402

from model.export import sources  # noqa: E402
from model.export.__main__ import main  # noqa: E402

SHARED_ROPE = ROOT.parent / "shared/models/e5-small-rope"
ROPE_EXPORT = ["--name", "e5-small-rope", "--pooling", "mean", "--prompt", "query=query: ", "--prompt", "passage=passage: ", "--license", "MIT"]
SCALED = {"attention_log_scaling": True}

APE = [{"windows": {}}, {"grouped": {}}, {"recurrent": {}}, {"interpolation": {}, **SCALED}]
ROPE = [{"grouped": {}, **SCALED}, {"ntk_dynamic": {}}, {"yarn": {}, "resonance": True}, {"self_extend": {}, **SCALED}]
# Lengths are well within the decoder's trained window, so that the oracle's n * n complex numbers fit into memory. Factors are therefore given, and
# apply to every input.
DECODER = [{}, {"grouped": {"factor": 4}}, {"ntk_by_parts": {"factor": 4}}, {"self_extend": {"group": 5, "neighbor_window": 64}}]
CASES = [("e5-small-v2", "bert", 700, APE), ("e5-small-rope", "e5rope", 600, ROPE), ("SmolLM2-135M-Instruct", "llama", 160, DECODER)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Returns a function that finds a model's folder by name. The model that is in no registry is exported here."""
    exported = tmp_path_factory.mktemp("exported")

    def find(name: str):
        if name != "e5-small-rope":
            return MODELS
        if not SHARED_ROPE.exists():
            pytest.skip(f"{name}: ../shared/models/{name} is not on this machine")
        assert main([str(SHARED_ROPE), "--out", str(exported / name), *ROPE_EXPORT]) == 0
        return exported

    return find


@pytest.fixture(scope="module", params=CASES, ids=[case[0] for case in CASES])
def served(request, folder_of, tmp_path_factory, pb):
    name, kind, length, extensions = request.param
    running = start_server(tmp_path_factory.mktemp(name), [name], models_folder=folder_of(name))
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        description = stub.GetModel(pb[0].GetModelRequest(model=name))
        checkpoint = sources.find(str(SHARED_ROPE) if name == "e5-small-rope" else name).load()
        yield stub, pb[0], explicit_model.shape_of(kind, checkpoint, description.trained_window), length, extensions
    assert running.stop() == 0


def encoded(shape: explicit_model.Shape, ids: list[int], extension: dict) -> np.ndarray:
    return explicit_model.sequence_vector(shape, ids, extension, "last" if shape.kind == "llama" else "mean")


def whole(shape: explicit_model.Shape, content: list[int]) -> list[int]:
    return [*content, 2] if shape.kind == "llama" else [101, *content, 102]


def expected(shape: explicit_model.Shape, content: list[int], extension: dict) -> np.ndarray:
    if "windows" not in extension:
        return unit(encoded(shape, whole(shape, content), extension))
    room = shape.window - 2
    assert room < len(content) <= 2 * room  # There are two windows, and the second one is moved back.
    return unit(sum(encoded(shape, whole(shape, part), {}) for part in (content[:room], content[-room:])))


def test_a_method_matches_its_formulas(served):
    stub, pb, shape, length, extensions = served
    rng = random.Random(length)
    content = [rng.randrange(1000, 20000) for _ in range(length - len(whole(shape, [])))]
    for extension in extensions:
        request = pb.EmbedRequest()
        ParseDict({**extension, "when": "ALWAYS"}, request.options.extension)
        request.inputs.add().token_ids.ids.extend(content)
        vector = np.array(stub.Embed(request, timeout=120).results[0].embeddings[0].values, dtype=np.float64)
        assert vector @ expected(shape, content, extension) >= 0.99999, extension
