"""More architectures through the RPC against transformers' own classes: plain, and with one extension that transformers can be told of, too."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import torch
from google.protobuf.json_format import ParseDict

from running_server import ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_checkpoints  # noqa: E402
from explicit_model import unit  # noqa: E402

from model.export import architectures, export, heads, manifest, sources, text_side  # noqa: E402

LO = tiny_checkpoints.WINDOW
POOLING = {
    "roberta": "mean", "distilbert": "cls", "mpnet": "mean", "qwen3": "last", "bidirectional-qwen2": "mean", "modernbert": "cls", "gte": "cls", "new": "mean",
    "gemma3_text": "mean",
}  # fmt: skip
FIRST_ROW = {"roberta": 2, "distilbert": 0, "mpnet": 2}  # Of the position table, in transformers.
BASE = 777_777.0
DENSE = {name: torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for name, shape in {"linear.weight": (40, 64), "linear.bias": (40,)}.items()}


def read(kind: str, folder: Path) -> sources.Checkpoint:
    if kind != "new":
        return sources.read_directory(tiny_checkpoints.save(kind, folder))
    checkpoint = sources.read_directory(tiny_checkpoints.save("gte", folder))
    del checkpoint.config["rope_parameters"]
    checkpoint.config |= {"model_type": "new", "rope_theta": 20000.0, "rope_scaling": {"factor": 8.0, "type": "ntk"}}  # As gte-multilingual-base has it.
    return checkpoint


def write_model(folder: Path, checkpoint: sources.Checkpoint, pooling: str, dense: bool = False) -> None:
    """A model directory without the exporter's own check: the oracle here is the only one. `dense` adds a Dense module with tanh after pooling."""
    architecture = architectures.find(checkpoint.config)
    sizes = architecture.sizes(checkpoint.config, checkpoint.tensors)

    def build(config, tensors):
        graph = architecture.build(config, tensors)
        if dense:
            heads.attach(graph, [heads.dense("2_Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}, DENSE)])
        return graph

    folder.mkdir()
    contract = SimpleNamespace(build=build, SIGNATURE=architecture.SIGNATURE, ARCHITECTURE=architecture.ARCHITECTURE)
    (folder / manifest.ENCODER).write_bytes(export.script(contract, checkpoint))
    (folder / manifest.TOKENIZER).write_text(text_side.strip(checkpoint.tokenizer), encoding="utf-8")
    manifest.write(
        folder,
        {
            "name": folder.name, "architecture": architecture.ARCHITECTURE, "family": architecture.FAMILY, **sizes, "trained_window": LO, "plain_limit": LO,
            "causal": architecture.CAUSAL, "pooling": pooling.upper(), "special_tokens": {"prefix": [3], "suffix": [2]},
            "trained_dimensions": [40 if dense else 64], **({"vector_size": 40} if dense else {}), "precision": "fp32",
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory, pb):
    """The stub, and each checkpoint as it was read."""
    exported = tmp_path_factory.mktemp("models")
    checkpoints = {kind: read(kind, tmp_path_factory.mktemp("checkpoints") / kind) for kind in POOLING}
    for kind, pooling in POOLING.items():
        write_model(exported / kind, checkpoints[kind], pooling)
    write_model(exported / "dense", checkpoints["roberta"], "mean", dense=True)
    running = start_server(tmp_path_factory.mktemp("families"), [*POOLING, "dense"], models_folder=exported)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield pb[1].EmbeddingServiceStub(channel), checkpoints
    assert running.stop() == 0


def vectors_of(stub, pb, kind: str, contents: list[list[int]], extension: dict) -> np.ndarray:
    request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(model=kind))
    ParseDict(extension, request.options.extension)
    for ids in contents:
        request.inputs.add().token_ids.ids.extend(ids)
    return np.array([result.embeddings[0].values for result in stub.Embed(request).results], dtype=np.float64)


@torch.inference_mode()
def transformers_vector(kind: str, checkpoint, content: list[int], extended: bool) -> np.ndarray:
    """The pooled vector of [CLS] content [SEP]."""
    config, more = dict(checkpoint.config), {}
    ids = [3, *content, 2]
    if extended and kind in FIRST_ROW:
        more["position_ids"] = torch.arange(len(ids)).unsqueeze(0) // 3 + FIRST_ROW[kind]
    elif extended:
        rope = {"rope_type": "default", "rope_theta": BASE}
        if kind == "new":  # Its factor divides the frequencies of any base.
            rope = {"rope_type": "linear", "rope_theta": BASE, "factor": 8.0 ** (2 / 32)}
            config |= {"model_type": "gte", "rope_scaling": None}
        of_layers = kind in ("modernbert", "gemma3_text")
        config["rope_parameters"] = {**config["rope_parameters"], "full_attention": rope} if of_layers else rope
    reference = architectures.find(checkpoint.config).reference(config, checkpoint.tensors)
    hidden = reference(input_ids=torch.tensor([ids]), **more).last_hidden_state[0].double().numpy()
    return {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[POOLING[kind]]


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "extended"])
@pytest.mark.parametrize("kind", POOLING)
def test_vectors_are_those_of_transformers(served, pb, kind, extended):
    """Extended: grouped positions of three tokens for position tables, another base for rotations; local windows and relative biases stay."""
    stub, checkpoints = served
    extension = {} if not extended else {"grouped": {"factor": 3}, "when": "ALWAYS"} if kind in FIRST_ROW else {"ntk": {"base": BASE}, "when": "ALWAYS"}
    rng = random.Random(kind)
    most = (3 * LO if extended else LO) - 2
    contents = [[rng.randrange(4, 190) for _ in range(n)] for n in (most, 1, most, rng.randint(2, most), rng.randint(2, most))]
    batched = vectors_of(stub, pb, kind, contents, extension)
    for content, vector in zip(contents, batched):
        alone = vectors_of(stub, pb, kind, [content], extension)[0]
        assert np.abs(alone - vector).max() <= 1e-5
        assert alone @ unit(transformers_vector(kind, checkpoints[kind], content, extended)) >= 0.99999


@pytest.mark.parametrize("kind, extension", [("mpnet", {"ntk": {"factor": 2}}), ("mpnet", {"self_extend": {}}), ("roberta", {"yarn": {}})])
def test_a_rotary_method_is_refused_in_words_where_positions_are_a_table(served, pb, kind, extension):
    with pytest.raises(grpc.RpcError) as refused:
        vectors_of(served[0], pb, kind, [[5, 6]], extension)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert kind in refused.value.details() and "APE" in refused.value.details()


def test_dense_layers_are_applied_to_each_window_before_these_are_aggregated(served, pb):
    stub, checkpoints = served
    content = [random.Random(3).randrange(4, 190) for _ in range(20)]

    def headed(part: list[int]) -> np.ndarray:
        pooled = transformers_vector("roberta", checkpoints["roberta"], part, extended=False)
        return np.tanh(DENSE["linear.weight"].double().numpy() @ pooled + DENSE["linear.bias"].double().numpy())

    assert stub.GetModel(pb[0].GetModelRequest(model="dense")).dimensions == 40
    assert vectors_of(stub, pb, "dense", [content], {})[0] @ unit(headed(content)) >= 0.99999
    windows = vectors_of(stub, pb, "dense", [content], {"windows": {"tokens": 12}, "when": "ALWAYS"})[0]
    assert windows @ unit(headed(content[:10]) + headed(content[10:])) >= 0.99999
