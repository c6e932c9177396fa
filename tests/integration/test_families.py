"""Compares further architectures, over gRPC, with transformers' own classes. Vectors without an extension, and with one extension that
transformers supports, are compared for both engines. Every other extension is compared for the server's own kernels, with transformers' network
and explicit attention."""

import random
import sys
from contextlib import contextmanager
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
import explicit_attention  # noqa: E402
import explicit_model  # noqa: E402
import tiny_checkpoints  # noqa: E402
from explicit_model import Shape, unit  # noqa: E402

from model.export import architectures, export, heads, manifest, sources, tokenizer_file  # noqa: E402

LO = tiny_checkpoints.WINDOW
POOLING = {
    "roberta": "mean", "distilbert": "cls", "mpnet": "mean", "qwen2": "last", "qwen3": "last", "bidirectional-qwen2": "mean", "eurobert": "mean",
    "modernbert": "cls", "biased-modernbert": "mean", "gte": "cls", "new": "mean", "gemma3_text": "mean",
}  # fmt: skip
FLAGS = Path("/proc/cpuinfo").read_text().split()
NATIVE = "avx2" in FLAGS or "asimd" in FLAGS
BFLOAT16_KERNELS = ("avx512-amx", "avx512-bf16", "neon-bf16")  # Kernel sets that multiply in bfloat16. All others multiply rows of float32.
REACH = 8  # The reach of local layers. In both checkpoints that have them, a local layer sees 16 tokens.
FIRST_ROW = {"roberta": 2, "distilbert": 0, "mpnet": 2}  # The first row of transformers' position table that is used.
BASE = 777_777.0
DENSE = {name: torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for name, shape in {"linear.weight": (40, 64), "linear.bias": (40,)}.items()}


def read(kind: str, folder: Path) -> sources.Checkpoint:
    if kind != "new":
        return sources.read_directory(tiny_checkpoints.save(kind, folder))
    checkpoint = sources.read_directory(tiny_checkpoints.save("gte", folder))
    del checkpoint.config["rope_parameters"]
    checkpoint.config |= {"model_type": "new", "rope_theta": 20000.0, "rope_scaling": {"factor": 8.0, "type": "ntk"}}  # As in gte-multilingual-base.
    return checkpoint


def write_model(folder: Path, checkpoint: sources.Checkpoint, pooling: str, dense: bool = False) -> None:
    """Writes a model directory without the exporter's own check, so that the oracle of this test is the only check. `dense` adds a Dense module
    with tanh after pooling."""
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
    (folder / manifest.TOKENIZER).write_text(tokenizer_file.strip(checkpoint.tokenizer), encoding="utf-8")
    manifest.write(
        folder,
        {
            "name": folder.name, "architecture": architecture.ARCHITECTURE, "family": architecture.FAMILY, **sizes, "trained_window": LO, "plain_limit": LO,
            "causal": architecture.CAUSAL, "pooling": pooling.upper(), "special_tokens": {"prefix": [3], "suffix": [2]},
            "trained_dimensions": [40 if dense else 64], **({"vector_size": 40} if dense else {}), "precision": "fp32",
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports all models. Returns the folder of model directories, and each checkpoint as it was read."""
    folder = tmp_path_factory.mktemp("models")
    checkpoints = {kind: read(kind, tmp_path_factory.mktemp("checkpoints") / kind) for kind in POOLING}
    for kind, pooling in POOLING.items():
        write_model(folder / kind, checkpoints[kind], pooling)
    write_model(folder / "dense", checkpoints["roberta"], "mean", dense=True)
    return folder, checkpoints


@contextmanager
def serve(tmp_path_factory, pb, exported, model_options: str):
    """Yields the stub of a server with all models. The server stops at the end of the block, even if a test is skipped."""
    running = start_server(tmp_path_factory.mktemp("families"), [*POOLING, "dense"], models_folder=exported[0], model_options=model_options)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            yield pb[1].EmbeddingServiceStub(channel)
    finally:
        status = running.stop()
    assert status == 0


def needs_native() -> None:
    if not NATIVE:
        pytest.skip("this processor has neither AVX2 nor NEON")


@pytest.fixture(scope="module")
def native(tmp_path_factory, pb, exported):
    """Returns the stub of a server that uses its own kernels."""
    needs_native()
    with serve(tmp_path_factory, pb, exported, "") as stub:
        yield stub


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory, pb, exported):
    with serve(tmp_path_factory, pb, exported, "engine: torchscript") as stub:
        yield stub


@pytest.fixture(scope="module", params=["bf16", "int8"])
def narrow(request, tmp_path_factory, pb, exported):
    """Returns the stub of a server in a narrow precision, the precision, and the server's kernels."""
    needs_native()
    with serve(tmp_path_factory, pb, exported, f"precision: {request.param}") as stub:
        kernels = stub.ListModels(pb[0].ListModelsRequest()).models[0].kernels
        if request.param == "bf16" and kernels not in BFLOAT16_KERNELS:
            pytest.skip(f"the kernels {kernels} have no products of bfloat16")
        yield stub, request.param, kernels


@pytest.fixture(params=["native", "torchscript"])
def served(request, exported):
    """Returns a stub and the checkpoints."""
    return request.getfixturevalue(request.param), exported[1]


def vectors_of(stub, pb, kind: str, contents: list[list[int]], extension: dict) -> np.ndarray:
    request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(model=kind))
    ParseDict(extension, request.options.extension)
    for ids in contents:
        request.inputs.add().token_ids.ids.extend(ids)
    return np.array([result.embeddings[0].values for result in stub.Embed(request).results], dtype=np.float64)


@torch.inference_mode()
def transformers_vector(kind: str, checkpoint, content: list[int], extended: bool) -> np.ndarray:
    """Returns the pooled vector of [CLS] content [SEP]."""
    config, more = dict(checkpoint.config), {}
    ids = [3, *content, 2]
    if extended and kind in FIRST_ROW:
        more["position_ids"] = torch.arange(len(ids)).unsqueeze(0) // 3 + FIRST_ROW[kind]
    elif extended:
        rope = {"rope_type": "default", "rope_theta": BASE}
        if kind == "new":  # Its factor divides the frequencies of any rotary base.
            rope = {"rope_type": "linear", "rope_theta": BASE, "factor": 8.0 ** (2 / 32)}
            config |= {"model_type": "gte", "rope_scaling": None}
        of_layers = "full_attention" in (config.get("rope_parameters") or {})
        config["rope_parameters"] = {**config["rope_parameters"], "full_attention": rope} if of_layers else rope
    reference = architectures.find(checkpoint.config).reference(config, checkpoint.tensors)
    hidden = reference(input_ids=torch.tensor([ids]), **more).last_hidden_state[0].double().numpy()
    return {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[POOLING[kind]]


@pytest.mark.parametrize("kind", [*POOLING, "dense"])
def test_the_servers_own_kernels_run_every_family(native, pb, kind):
    assert native.GetModel(pb[0].GetModelRequest(model=kind)).engine == "native"


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "extended"])
@pytest.mark.parametrize("kind", POOLING)
def test_vectors_are_those_of_transformers(served, pb, kind, extended):
    """`extended` means grouped positions of three tokens for position tables, and another base for rotations. Local windows and relative biases do
    not change."""
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


def to_bfloat16(rows: torch.Tensor) -> torch.Tensor:
    return rows.bfloat16().float()


def to_int8(rows: torch.Tensor, pairs: bool = False) -> torch.Tensor:
    """With `pairs`, neighbors of equal sign have a sum of at most 127 steps, for processors that add their products in 16 bits."""
    largest = rows.abs().amax(dim=-1, keepdim=True)
    if pairs:
        first, second = rows[..., 0::2], rows[..., 1::2]
        sums = torch.where((first < 0) == (second < 0), (first + second).abs(), 0)
        largest = torch.maximum(largest, sums.amax(dim=-1, keepdim=True))
    scale = largest.clamp(min=1e-30) / 127
    return torch.round(rows / scale) * scale


def rounded(reference: torch.nn.Module, precision: str, pairs: bool) -> torch.nn.Module:
    """Rounds the inputs of linear layers as the server's matrix products do: weights per output row, and tokens."""
    rounding = {"bf16": to_bfloat16, "int8": to_int8}[precision]
    for layer in reference.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = to_int8(layer.weight.data, pairs) if precision == "int8" else rounding(layer.weight.data)
            layer.register_forward_pre_hook(lambda layer, inputs: (rounding(inputs[0]), *inputs[1:]))
    return reference


@pytest.mark.parametrize("kind", POOLING)
def test_narrow_precisions_round_the_operands_of_products(narrow, exported, pb, kind):
    """Compares with transformers' networks whose operands are rounded. Cosines with networks in float32 are lower by up to 0.02.
    Float noise that changes a rounded integer lowers a cosine by 1e-4. bfloat16 attention rounds more than the operands."""
    (stub, precision, kernels), checkpoint = narrow, exported[1][kind]
    least = 0.99 if kernels in BFLOAT16_KERNELS else 0.9995
    rng = random.Random(kind)
    contents = [[rng.randrange(4, 190) for _ in range(n)] for n in (1, 5, 17, LO - 2, LO - 2)]
    for content, vector in zip(contents, vectors_of(stub, pb, kind, contents, {})):
        reference = rounded(architectures.find(checkpoint.config).reference(checkpoint.config, checkpoint.tensors), precision, pairs=kernels in ("avx512", "avx2"))
        with torch.inference_mode():
            hidden = reference(input_ids=torch.tensor([[3, *content, 2]])).last_hidden_state[0].double().numpy()
        assert vector @ unit(explicit_model.pooled(hidden, POOLING[kind])) >= least


TABLE = [{"grouped": {}}, {"recurrent": {}}, {"interpolation": {"factor": 3.5}}, {"interpolation": {}, "attention_log_scaling": True}]
ROTARY = [
    *TABLE, {"ntk": {"factor": 4}}, {"ntk_dynamic": {}, "attention_log_scaling": True}, {"ntk_by_parts": {"factor": 4}}, {"yarn": {}}, {"resonance": True},
    {"self_extend": {}}, {"self_extend": {"group": 9, "neighbor_window": 4}, "attention_log_scaling": True},
    {"dual_chunk": {}}, {"dual_chunk": {"chunk": 7, "local_window": 9}, "attention_log_scaling": True},
    {"shifted_rotary": {"shift_from": LO, "local_window": 2}},
]  # fmt: skip


def shape_of(kind: str, checkpoint) -> Shape:
    sizes = architectures.find(checkpoint.config).sizes(checkpoint.config, checkpoint.tensors)
    return Shape(
        kind, LO, sizes.get("rotary_dim", 0), sizes.get("rotary_base", 0.0), factor=sizes.get("rotary_factor", 1.0), causal=kind in ("qwen2", "qwen3"),
        first_row=FIRST_ROW.get(kind, 0), reach=REACH,
    )  # fmt: skip


@pytest.mark.parametrize("kind, extension", [(kind, e) for kind in POOLING for e in (TABLE if kind in FIRST_ROW else ROTARY)], ids=str)
def test_every_extension_matches_its_formulas_in_the_network_of_transformers(native, exported, pb, kind, extension):
    """Local layers keep their window, base and scale, and MPNet keeps its bias."""
    checkpoint, rng = exported[1][kind], random.Random(f"{kind} {extension}")
    most = (LO if extension == {"resonance": True} else 2 * LO - 2 if "shifted_rotary" in extension else 3 * LO) - 2
    contents = [[rng.randrange(4, 190) for _ in range(n)] for n in (most, rng.randint(2, most))]
    for content, vector in zip(contents, vectors_of(native, pb, kind, contents, {**extension, "when": "ALWAYS"})):
        reference = architectures.find(checkpoint.config).reference(checkpoint.config, checkpoint.tensors)
        hidden = explicit_attention.hidden_states(reference, [3, *content, 2], extension, shape_of(kind, checkpoint))
        assert vector @ unit(explicit_model.pooled(hidden, POOLING[kind])) >= 0.99999


CALIBRATED = [{"interpolation": {}, "attention_calibration": {"basket": 7, "layers": 1.0}}, {"recurrent": {}, "attention_calibration": {"basket": 20, "strength": 1.0}}]


@pytest.mark.parametrize("kind, extension", [(kind, e) for kind in POOLING if kind not in FIRST_ROW for e in CALIBRATED], ids=str)
def test_calibration_matches_its_formula_in_the_network_of_transformers(served, pb, kind, extension):
    """Local layers count among the layers, but calibration does not change them."""
    (stub, checkpoints), rng = served, random.Random(f"{kind} {extension}")
    checkpoint, most = checkpoints[kind], 3 * LO - 2
    contents = [[rng.randrange(4, 190) for _ in range(n)] for n in (most, rng.randint(2, most))]
    for content, vector in zip(contents, vectors_of(stub, pb, kind, contents, {**extension, "when": "ALWAYS"})):
        reference = architectures.find(checkpoint.config).reference(checkpoint.config, checkpoint.tensors)
        hidden = explicit_attention.hidden_states(reference, [3, *content, 2], extension, shape_of(kind, checkpoint), POOLING[kind])
        assert vector @ unit(explicit_model.pooled(hidden, POOLING[kind])) >= 0.99999


@pytest.mark.parametrize("kind", FIRST_ROW)
def test_calibration_by_the_kernels_equals_that_by_libtorch(native, torchscript, pb, kind):
    """MPNet's logits include its bias. The two engines share no code."""
    rng = random.Random(kind)
    contents = [[rng.randrange(4, 190) for _ in range(n)] for n in (3 * LO - 2, LO + 5)]
    for extension in CALIBRATED:
        by_kernels, by_formula = (vectors_of(stub, pb, kind, contents, extension) for stub in (native, torchscript))
        assert np.abs(by_kernels - by_formula).max() <= 1e-5
        uncalibrated = {name: value for name, value in extension.items() if name != "attention_calibration"}
        assert np.abs(by_kernels - vectors_of(native, pb, kind, contents, uncalibrated)).max() > 1e-4


@pytest.mark.parametrize("kind, extension", [("mpnet", {"ntk": {"factor": 2}}), ("mpnet", {"self_extend": {}}), ("roberta", {"yarn": {}})])
def test_a_rotary_method_is_refused_with_a_reason_where_positions_are_a_table(served, pb, kind, extension):
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
