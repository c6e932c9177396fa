"""Compares every context extension, over gRPC and on small random models of every architecture, with formulas in float64 and with transformers'
own rope types."""

import json
import random
import sys
import threading

import grpc
import numpy as np
import pytest
import torch
import transformers
import yaml
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from tokenizers import Tokenizer

from running_server import ROOT, start_server
from test_protocol import details

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import explicit_model  # noqa: E402
import tiny_checkpoints  # noqa: E402
from explicit_model import unit  # noqa: E402

from model.export import manifest, sources  # noqa: E402
from model.export.__main__ import main  # noqa: E402

LO = tiny_checkpoints.WINDOW
KINDS = list(tiny_checkpoints.KINDS)
ROPE = [kind for kind in KINDS if kind not in ("bert", "xlm-roberta")]
POOLING = {"bert": "mean", "xlm-roberta": "cls", "e5rope": "mean", "nomic_bert": "mean", "llama": "last", "mistral": "mean"}

POSITIONS = [
    {}, {"grouped": {}}, {"grouped": {"factor": 4}}, {"recurrent": {}}, {"interpolation": {}}, {"interpolation": {"factor": 3.5}},
]  # fmt: skip
DUAL_CHUNK = [
    {"dual_chunk": {}}, {"dual_chunk": {"chunk": 10}}, {"dual_chunk": {"local_window": 3}}, {"dual_chunk": {"chunk": 5, "local_window": 7}},
    {"dual_chunk": {"chunk": 1, "local_window": 1}}, {"dual_chunk": {"chunk": 31, "local_window": 1}},
]  # fmt: skip
ROPE_ONLY = [
    {"ntk": {"base": 50000}}, {"ntk": {"factor": 4}}, {"ntk_dynamic": {}}, {"ntk_dynamic": {"factor": 2}}, {"ntk_by_parts": {}}, {"ntk_by_parts": {"factor": 4}},
    {"yarn": {}}, {"yarn": {"factor": 4, "beta_fast": 4, "beta_slow": 0.5}}, {"resonance": True}, {"interpolation": {}, "resonance": True},
    {"ntk": {"factor": 4}, "resonance": True}, {"ntk_dynamic": {}, "resonance": True}, {"yarn": {}, "resonance": True},
    {"self_extend": {}}, {"self_extend": {"group": 5}}, {"self_extend": {"neighbor_window": 8}}, {"self_extend": {"group": 9, "neighbor_window": 4}},
    *DUAL_CHUNK,
    {"shifted_rotary": {}}, {"shifted_rotary": {"shift_from": 20, "local_window": 4}}, {"shifted_rotary": {"shift_from": LO, "local_window": 0}},
]  # fmt: skip
CASES = [(kind, {**extension, **scaled}) for kind in KINDS for extension in POSITIONS + (ROPE_ONLY if kind in ROPE else []) for scaled in ({}, {"attention_log_scaling": True})
    if not scaled or extension and set(extension) != {"resonance"}]  # Plain sequences end at Lo, where the scale is 1.
TEMPERATURES = [{"attention_temperature": 0.5, "when": "ALWAYS"}, {"attention_temperature": 2.0, "interpolation": {}, "attention_log_scaling": True}]
CASES += [(kind, extension) for kind in KINDS for extension in TEMPERATURES]
# Baskets of one position, baskets that split blocks of keys, and baskets larger than a sequence. Shares of the three layers from one layer to all.
CALIBRATED = [
    {"attention_calibration": {"basket": 1}, "recurrent": {}}, {"attention_calibration": {"basket": 7, "strength": 1.0, "layers": 1.0}, "interpolation": {}},
    {"attention_calibration": {"basket": 16, "strength": 0.3, "layers": 0.4}, "grouped": {}, "attention_log_scaling": True},
    {"attention_calibration": {"basket": 40, "layers": 0.1}, "recurrent": {}},
]  # fmt: skip
CALIBRATED_ROPE = [{"attention_calibration": {"basket": 9, "layers": 1.0}, "self_extend": {}}, {"attention_calibration": {"basket": 12}, "yarn": {}}, {"attention_calibration": {"basket": 10, "layers": 0.6}, "dual_chunk": {}}]
CALIBRATED_CASES = [(kind, extension) for kind in KINDS for extension in CALIBRATED + (CALIBRATED_ROPE if kind in ROPE else [])]
CASES += CALIBRATED_CASES

EXPECTED: dict = {}  # The cache of `expected`. Both engines are compared with the same values.


class Models:
    """The running server, and the parameters that the oracle needs about its models."""

    def __init__(self, stub, pb, shapes, tokenizers, folder=None):
        self.stub, self.pb, self.shapes, self.tokenizers, self.folder = stub, pb, shapes, tokenizers, folder

    def request(self, kind: str, contents: list[list[int]], extension: dict | None, **options):
        request = self.pb.EmbedRequest(options=self.pb.EmbedOptions(model=kind, **options))
        if extension is not None:
            ParseDict(extension, request.options.extension)
        for ids in contents:
            request.inputs.add().token_ids.ids.extend(ids)
        return request

    def vectors(self, kind: str, contents: list[list[int]], extension: dict | None, **options) -> np.ndarray:
        results = self.stub.Embed(self.request(kind, contents, extension, **options)).results
        return np.array([result.embeddings[0].values for result in results], dtype=np.float64)


def specials(kind: str) -> tuple[list[int], list[int]]:
    return ([3], [2]) if kind not in ("llama", "mistral") else ([], [2] if kind == "llama" else [])


def whole(kind: str, content: list[int]) -> list[int]:
    before, after = specials(kind)
    return before + content + after


def random_ids(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(4, 190) for _ in range(n)]


def capacity(extension: dict) -> int:
    """Returns the most tokens of one sequence, as an upper bound for random lengths."""
    for name in ("grouped", "interpolation", "ntk", "ntk_by_parts", "yarn"):
        if "factor" in extension.get(name, {}):
            return int(extension[name]["factor"] * LO)
    if "shifted_rotary" in extension:
        s = extension["shifted_rotary"].get("shift_from", LO // 3)
        return LO + s - extension["shifted_rotary"].get("local_window", s // 2)
    asked = extension.get("self_extend", {})
    if "group" in asked:
        w = asked.get("neighbor_window", 1)
        return asked["group"] * (LO - w) + w
    methods = set(extension) - {"resonance", "attention_log_scaling", "attention_temperature", "attention_calibration", "when", "windows"}
    return 5 * LO if methods else LO


def expected(models: Models, kind: str, content: list[int], extension: dict) -> np.ndarray:
    """Returns the pooled, un-normalized vector of one sequence under an extension without windows."""
    shape, ids = models.shapes[kind], whole(kind, content)
    applies = extension.get("when") == "ALWAYS" or len(ids) > LO
    asked = (kind, tuple(ids), json.dumps(extension if applies else {}, sort_keys=True))
    if asked not in EXPECTED:
        EXPECTED[asked] = explicit_model.sequence_vector(shape, ids, extension if applies else {}, POOLING[kind])
    return EXPECTED[asked]


@pytest.fixture(scope="module")
def models(tmp_path_factory, pb):
    checkpoints, exported = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("models")
    shapes, tokenizers = {}, {}
    for kind in KINDS:
        folder = tiny_checkpoints.save(kind, checkpoints / kind)
        options = ["--pooling", POOLING[kind], "--prompt", "passage=about: ", "--recommended-multi-vector-extension", '{"windows": {"tokens": 9}}']
        assert main([str(folder), "--out", str(exported / kind), *options]) == 0
        shapes[kind] = explicit_model.shape_of(kind, sources.read_directory(folder), LO)
        tokenizers[kind] = Tokenizer.from_file(str(exported / kind / "tokenizer.json"))
    running = start_server(tmp_path_factory.mktemp("methods"), KINDS, "profiles: {small: {windows: {tokens: 12}}}\n", exported)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield Models(pb[1].EmbeddingServiceStub(channel), pb[0], shapes, tokenizers, exported)
    assert running.stop() == 0


@pytest.fixture(scope="module")
def by_libtorch(tmp_path_factory, models):
    """Returns the same models, run by LibTorch."""
    running = start_server(tmp_path_factory.mktemp("libtorch"), KINDS, models_folder=models.folder, model_options="engine: torchscript")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield Models(type(models.stub)(channel), models.pb, models.shapes, models.tokenizers)
    assert running.stop() == 0


def name_of(value) -> str:
    return value if isinstance(value, str) else str(value).replace("'", "").replace(" ", "")


@pytest.mark.parametrize("kind, extension", CASES, ids=name_of)
def test_a_method_matches_its_formulas_alone_and_batched(models, kind, extension):
    compare_with_formulas(models, kind, extension)


@pytest.mark.parametrize("kind, extension", CALIBRATED_CASES + [(kind, extension) for kind in ROPE for extension in DUAL_CHUNK], ids=name_of)
def test_a_method_matches_its_formulas_with_libtorch(by_libtorch, kind, extension):
    compare_with_formulas(by_libtorch, kind, extension)


def compare_with_formulas(models, kind: str, extension: dict):
    rng = random.Random(f"{kind} {extension}")
    extension = {**extension, "when": "ALWAYS"}  # The planner's tests check that texts that `when: LONG` leaves plain are equal to the last bit.
    most = capacity(extension) - 2
    contents = [random_ids(rng, n) for n in (most, 1, min(most, LO), *(rng.randint(1, most) for _ in range(5)))]
    batched = models.vectors(kind, contents, extension)
    for content, vector in zip(contents, batched):
        alone = models.vectors(kind, [content], extension)[0]
        assert np.abs(alone - vector).max() <= 1e-5
        assert alone @ unit(expected(models, kind, content, extension)) >= 0.99999


def test_the_worked_example_of_calibration():
    """Five keys in baskets of two. Query 0 is the pooled special token. It keeps .4, and the three baskets get .2 each."""
    row = np.array([0.4, 0.1, 0.25, 0.15, 0.1])
    even = explicit_model.Calibration(strength=1, basket=2, special=0).of_row(row, 0)
    np.testing.assert_allclose(even, [0.4, 0.2, 0.2 * 25 / 40, 0.2 * 15 / 40, 0.2])
    np.testing.assert_allclose(explicit_model.Calibration(strength=0.5, basket=2, special=0).of_row(row, 0), (row + even) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_that_changes_nothing_is_the_plain_vector(models, by_libtorch, kind):
    """Covers strength 0, a sequence within one basket, and short texts (unless `when` is ALWAYS)."""
    content = random_ids(random.Random(kind), 3 * LO)
    for engine in (models, by_libtorch):
        plain = engine.vectors(kind, [content], {"interpolation": {}})
        for unchanged in ({"strength": 0, "basket": 4}, {"basket": 4 * LO}):
            assert np.array_equal(plain, engine.vectors(kind, [content], {"interpolation": {}, "attention_calibration": unchanged}))
        assert np.abs(plain - engine.vectors(kind, [content], {"interpolation": {}, "attention_calibration": {"basket": 4}})).max() > 1e-4
        assert np.array_equal(engine.vectors(kind, [content[:20]], None), engine.vectors(kind, [content[:20]], {"attention_calibration": {"basket": 4}}))


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "llama"])
def test_each_window_is_calibrated_by_its_own_length(models, kind):
    content, calibration = random_ids(random.Random(kind), 90), {"attention_calibration": {"basket": 5, "layers": 1.0}}
    ranges = cut(90, 24 - len(whole(kind, [])), 0, "SHORT")
    rows = [expected(models, kind, content[a:b], {**calibration, "when": "ALWAYS"}) for a, b in ranges]
    found = models.vectors(kind, [content], {**calibration, "windows": {"tokens": 24, "last": "SHORT"}})[0]
    assert found @ unit(np.mean(rows, axis=0)) >= 0.99999


@pytest.mark.parametrize("kind", ["xlm-roberta", "llama"])
def test_every_row_is_calibrated_for_spans(models, by_libtorch, kind):
    content, extension = random_ids(random.Random(kind), 70), {"interpolation": {}, "attention_calibration": {"basket": 8}}
    shape, ids = models.shapes[kind], whole(kind, content)
    where = explicit_model.geometry(extension, len(ids), shape)
    where.calibration = explicit_model.calibration(extension, "mean", len(ids))
    hidden = explicit_model.hidden_states(shape, ids, where, 1.0)[len(specials(kind)[0]) :]
    options = {"output": models.pb.EmbedOptions.SPAN_VECTORS, "spans": models.pb.SpanOptions(every_tokens={"tokens": 16})}
    for engine in (models, by_libtorch):
        result = engine.stub.Embed(engine.request(kind, [content], extension, **options)).results[0]
        for embedding in result.embeddings:
            assert np.dot(embedding.values, unit(hidden[embedding.range.start : embedding.range.end].mean(axis=0))) >= 0.99999


def test_explain_shows_the_calibration_in_effect(models):
    request = models.request("e5rope", [random_ids(random.Random(1), 98)], {"interpolation": {}, "attention_calibration": {"basket": 30}})
    method = models.stub.Explain(models.pb.ExplainRequest(options=request.options, inputs=request.inputs)).results[0].sequences[0].method
    assert (method.calibration.strength, method.calibration.baskets, method.calibration.layers) == (0.5, 4, 2)
    request.options.extension.attention_calibration.basket = 100
    method = models.stub.Explain(models.pb.ExplainRequest(options=request.options, inputs=request.inputs)).results[0].sequences[0].method
    assert not method.HasField("calibration")


@pytest.mark.parametrize("kind", ROPE)
def test_shifted_rotary_from_beyond_the_text_is_plain(models, kind):
    content = random_ids(random.Random(kind), LO - 2 - len(sum(specials(kind), [])))
    plain = models.vectors(kind, [content], {})
    shifted = models.vectors(kind, [content], {"shifted_rotary": {"shift_from": LO - 2, "local_window": 3}, "when": "ALWAYS"})
    assert np.array_equal(plain, shifted)
    moved = models.vectors(kind, [content], {"shifted_rotary": {"shift_from": 5, "local_window": 1}, "when": "ALWAYS"})
    assert np.abs(plain - moved).max() > 1e-4


def test_the_worked_example_of_self_extend():
    relative = explicit_model.self_extended(10, 2, 4)
    assert list(-relative[0]) == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6]
    assert list(-relative[4]) == [-4, -3, -2, -1, 0, 1, 2, 3, 4, 4]


def test_the_worked_example_of_dual_chunk_attention():
    """The example of the paper's figure 2: 12 tokens, a trained window of 10, chunks of 6, and a local window of 4."""
    relative = explicit_model.dual_chunked(12, 6, 4)
    assert list(relative[6]) == [6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5]
    assert list(relative[9][:6]) == list(relative[11][:6]) == [9, 8, 7, 6, 5, 4]
    assert list(explicit_model.dual_chunked(14, 6, 4)[12]) == [9, 8, 7, 6, 5, 4, 6, 5, 4, 3, 2, 1, 0, -1]
    assert relative.max() == 9 and (relative == -relative.T).all()


@pytest.mark.parametrize("kind", ROPE)
def test_one_chunk_is_the_plain_vector(models, by_libtorch, kind):
    content = random_ids(random.Random(kind), LO - 10)
    for engine in (models, by_libtorch):
        plain = engine.vectors(kind, [content], None)
        for chunk in ({}, {"chunk": LO - 4, "local_window": 2}):
            assert np.array_equal(plain, engine.vectors(kind, [content], {"dual_chunk": chunk, "when": "ALWAYS"}))


ROPE_TYPES = [
    ({"interpolation": {"factor": 4}}, lambda n: {"rope_type": "linear", "factor": 4.0}),
    ({"ntk_dynamic": {"factor": 1}}, lambda n: {"rope_type": "dynamic", "factor": 1.0}),
    ({"ntk_dynamic": {"factor": 3}}, lambda n: {"rope_type": "dynamic", "factor": 3.0}),
    ({"yarn": {"factor": 4}}, lambda n: {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": LO}),
    ({"yarn": {"factor": 2.5, "beta_fast": 16, "beta_slow": 2}},
     lambda n: {"rope_type": "yarn", "factor": 2.5, "beta_fast": 16.0, "beta_slow": 2.0, "original_max_position_embeddings": LO}),
]  # fmt: skip


@pytest.mark.parametrize("extension, rope", ROPE_TYPES, ids=[name_of(extension) for extension, _ in ROPE_TYPES])
def test_scalings_are_the_rope_types_of_transformers(models, extension, rope):
    """Compares Llama models. transformers overrides YaRN's factor by max_position_embeddings / original_max_position_embeddings, so both are set."""
    rng = random.Random(7)
    tensors = {name: torch.from_numpy(tensor).float() for name, tensor in models.shapes["llama"].tensors.items()}
    for n in (LO + 1, 50, 79):
        parameters = {"rope_theta": 10000.0, **rope(n)}
        longest = int(parameters["factor"] * LO) if parameters["rope_type"] == "yarn" else LO
        config = transformers.LlamaConfig(
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=longest, rms_norm_eps=1e-5, rope_parameters=parameters,
            attn_implementation="eager", **tiny_checkpoints.COMMON,
        )  # fmt: skip
        reference = transformers.LlamaModel(config).eval()
        reference.load_state_dict(tensors)
        content = random_ids(rng, n - 1)
        with torch.inference_mode():
            hidden = reference(input_ids=torch.tensor([whole("llama", content)])).last_hidden_state[0, -1].double().numpy()
        assert models.vectors("llama", [content], {**extension, "when": "ALWAYS"})[0] @ unit(hidden) >= 0.99999


SCALED_CHECKPOINTS = {
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": LO},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": LO},
    "longrope": {
        "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": LO, "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0],
        "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def scaled_checkpoints(tmp_path_factory, pb):
    """Starts a server of Llama models whose checkpoints scale each pair's frequency. Also returns transformers' models of the same checkpoints."""
    checkpoints, exported = tmp_path_factory.mktemp("scaled"), tmp_path_factory.mktemp("scaled-models")
    references = {}
    for name, scaling in SCALED_CHECKPOINTS.items():
        folder = tiny_checkpoints.save("llama", checkpoints / name)
        config = json.loads((folder / "config.json").read_text())
        config |= {"max_position_embeddings": 4 * LO, "rope_parameters": {"rope_theta": 10000.0, **scaling}}
        (folder / "config.json").write_text(json.dumps(config))
        assert main([str(folder), "--out", str(exported / name), "--pooling", "last"]) == 0
        references[name] = transformers.LlamaModel.from_pretrained(folder, attn_implementation="eager").eval()
    running = start_server(tmp_path_factory.mktemp("scaled-server"), list(SCALED_CHECKPOINTS), "", exported)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield Models(pb[1].EmbeddingServiceStub(channel), pb[0], {}, {}), references
    assert running.stop() == 0


@pytest.mark.parametrize("name", SCALED_CHECKPOINTS)
def test_a_scaling_of_the_checkpoint_is_that_of_transformers(scaled_checkpoints, name):
    """Compares short and long texts, alone and in one batch, and a short text after a long one."""
    served, references = scaled_checkpoints
    rng = random.Random(name)
    contents = [random_ids(rng, n - 1) for n in (2, 17, LO, LO + 1, 50, 4 * LO, LO, 20)]
    together = served.vectors(name, contents, None)
    for content, vector in zip(contents, together):
        with torch.inference_mode():
            hidden = references[name](input_ids=torch.tensor([whole("llama", content)])).last_hidden_state[0, -1].double().numpy()
        assert vector @ unit(hidden) >= 0.99999
        assert np.abs(served.vectors(name, [content], None)[0] - vector).max() <= 1e-5


@pytest.mark.parametrize("name", SCALED_CHECKPOINTS)
def test_a_method_that_replaces_the_checkpoints_frequencies_is_refused(scaled_checkpoints, name):
    served, _ = scaled_checkpoints
    model = served.stub.GetModel(served.pb.GetModelRequest(model=name))
    assert model.rotary_scaling == name and "self_extend" in model.methods and not {"ntk", "ntk_dynamic", "ntk_by_parts", "yarn"} & set(model.methods)
    content = random_ids(random.Random(name), 5 * LO)
    for method in ({"ntk": {"factor": 2}}, {"ntk_dynamic": {}}, {"ntk_by_parts": {}}, {"yarn": {}}):
        with pytest.raises(grpc.RpcError) as refused:
            served.vectors(name, [content], method)
        assert details(refused.value)[error_details_pb2.BadRequest].field_violations[0].field == f"options.extension.{next(iter(method))}"
    for method in ({"interpolation": {}}, {"grouped": {}}, {"recurrent": {}}, {"self_extend": {}}, {"interpolation": {}, "resonance": True}, {"windows": {}}):
        assert np.isfinite(served.vectors(name, [content], method)).all()


@pytest.mark.parametrize("name", SCALED_CHECKPOINTS)
def test_interpolation_divides_the_checkpoints_frequencies(scaled_checkpoints, name):
    """The oracle is transformers' own network. Its frequencies are those for long texts, divided by the factor."""
    served, references = scaled_checkpoints
    content = random_ids(random.Random(name), 6 * LO)
    reference, n = references[name], 6 * LO + 1
    with torch.inference_mode():
        reference(input_ids=torch.tensor([whole("llama", content)]))  # Makes LongRoPE use its long factors.
        kept = reference.rotary_emb.inv_freq
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(reference.config)
        angles = torch.outer(torch.arange(n, dtype=torch.float64), kept.double() / (n / (4 * LO)))
        amplitude = rotary.attention_scaling
        tables = tuple(torch.cat([turned, turned], dim=1).float()[None] * amplitude for turned in (angles.cos(), angles.sin()))
        original, reference.rotary_emb.forward = reference.rotary_emb.forward, lambda *_, **__: tables
        hidden = reference(input_ids=torch.tensor([whole("llama", content)])).last_hidden_state[0, -1].double().numpy()
        reference.rotary_emb.forward = original
    assert served.vectors(name, [content], {"interpolation": {}})[0] @ unit(hidden) >= 0.99999


def cut(c: int, room: int, overlap: int, last: str) -> list[tuple[int, int]]:
    windows, start = [], 0
    while True:
        end = min(start + room, c)
        windows.append((max(0, end - room) if last == "BACK_EXTENDED" else start, end))
        if end == c:
            return windows
        start += room - overlap


AGGREGATE = {
    "MEAN": lambda rows, lengths: np.mean(rows, axis=0),
    "TOKEN_WEIGHTED_MEAN": lambda rows, lengths: np.average(rows, axis=0, weights=lengths),
    "MAX": lambda rows, lengths: np.max(rows, axis=0),
    "FIRST": lambda rows, lengths: rows[0],
    "NORM_WEIGHTED": lambda rows, lengths: norm_weighted(rows, 1.0),
    "TOP_NORM": lambda rows, lengths: top_norm(rows, 3),
}


def norm_weighted(rows, temperature: float) -> np.ndarray:
    """Returns sum_i softmax(|v_i| / T) v_i."""
    norms = [np.sqrt(np.sum(row * row)) / temperature for row in rows]
    weights = [np.exp(norm - max(norms)) for norm in norms]
    return sum(weight * row for weight, row in zip(weights, rows, strict=True)) / sum(weights)


def top_norm(rows, top: int) -> np.ndarray:
    return np.mean(sorted(rows, key=lambda row: -np.sum(row * row))[:top], axis=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aggregation", AGGREGATE)
def test_windows_compose_with_every_positions_method(models, kind, aggregation):
    rng = random.Random(f"{kind} {aggregation}")
    overhead = len(whole(kind, []))
    methods = [e for e in POSITIONS + (ROPE_ONLY if kind in ROPE else []) if len(e) < 2]
    for extension in rng.sample(methods, 4) + [{}]:
        tokens = rng.randint(overhead + 2, min(capacity(extension), 80))
        windows = {"tokens": tokens, "overlap": rng.randint(0, tokens - overhead - 1), "last": rng.choice(["SHORT", "BACK_EXTENDED"]), "aggregation": aggregation}
        content = random_ids(rng, rng.randint(LO + 1, 4 * LO))
        ranges = cut(len(content), tokens - overhead, windows["overlap"], windows["last"])
        # The method applies even to a window within Lo, with the window's own length. `when` looks at the input, not at its windows.
        rows = [expected(models, kind, content[a:b], {**extension, "when": "ALWAYS"}) for a, b in ranges]
        result = models.stub.Embed(models.request(kind, [content], {**extension, "windows": windows})).results[0]
        assert [(s.content.start, s.content.end) for s in result.sequences] == ranges
        assert result.tokens == len(content) + overhead and result.truncated_tokens == 0
        wanted = unit(AGGREGATE[aggregation](rows, [b - a + overhead for a, b in ranges]))
        assert np.dot(result.embeddings[0].values, wanted) >= 0.99999


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("numbers", [{"norm_temperature": 0.5}, {"norm_temperature": 4.0}, {"top": 1}, {"top": 2}, {"top": 99}], ids=name_of)
def test_parameters_of_an_aggregation_match_its_formulas(models, kind, numbers):
    content = random_ids(random.Random(f"{kind} {numbers}"), 100)
    ranges = cut(100, 20 - len(whole(kind, [])), 0, "SHORT")
    rows = [expected(models, kind, content[a:b], {"when": "ALWAYS"}) for a, b in ranges]
    wanted = norm_weighted(rows, numbers["norm_temperature"]) if "norm_temperature" in numbers else top_norm(rows, numbers["top"])
    windows = {"tokens": 20, "last": "SHORT", "aggregation": "NORM_WEIGHTED" if "norm_temperature" in numbers else "TOP_NORM", **numbers}
    assert models.vectors(kind, [content], {"windows": windows})[0] @ unit(wanted) >= 0.99999


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors, aggregation", [(1, "MEAN"), (3, "MEAN"), (4, "TOP_NORM"), (50, "MEAN")])
def test_groups_are_means_of_neighboring_windows(models, kind, vectors, aggregation):
    content, short = random_ids(random.Random(kind), 150), random_ids(random.Random(kind), 20)
    room = 16 - len(whole(kind, []))
    ranges = cut(150, room, 2, "SHORT")
    rows = [expected(models, kind, content[a:b], {"when": "ALWAYS"}) for a, b in ranges]
    windows = {"tokens": 16, "overlap": 2, "last": "SHORT", "vectors": vectors, "aggregation": aggregation}
    request = models.request(kind, [content, short], {"windows": windows}, output=models.pb.EmbedOptions.WINDOW_VECTORS)
    result, plain = models.stub.Embed(request).results
    groups = np.array_split(np.arange(len(rows)), min(vectors, len(rows)))
    assert [(e.range.start, e.range.end) for e in result.embeddings] == [(ranges[g[0]][0], ranges[g[-1]][1]) for g in groups]
    for embedding, group in zip(result.embeddings, groups, strict=True):
        assert np.dot(embedding.values, unit(AGGREGATE[aggregation]([rows[i] for i in group], None))) >= 0.99999
    assert len(plain.embeddings) == 1
    explained = models.stub.Explain(models.pb.ExplainRequest(options=request.options, inputs=request.inputs)).results
    assert list(explained[0].vectors) == [embedding.range for embedding in result.embeddings]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extension", [{"interpolation": {}}, {"grouped": {}, "attention_log_scaling": True}, {"windows": {"tokens": 20}}, {}], ids=name_of)
def test_max_tokens_cuts_before_the_extension_applies(models, kind, extension):
    content = random_ids(random.Random(kind), 200)
    overhead = len(whole(kind, []))
    for truncate, kept in (("END", slice(0, 60 - overhead)), ("START", slice(200 - 60 + overhead, 200))):
        options = {"max_tokens": 60, "truncate": models.pb.EmbedOptions.Truncate.Value(truncate)}
        if not extension:
            options["max_tokens"], kept = 25, slice(0, 25 - overhead) if truncate == "END" else slice(200 - 25 + overhead, 200)
        result = models.stub.Embed(models.request(kind, [content], extension, **options)).results[0]
        alone = models.vectors(kind, [content[kept]], extension)[0]
        assert np.array_equal(np.array(result.embeddings[0].values), alone)
        assert (result.tokens, result.truncated_tokens) == (options["max_tokens"], 200 - len(content[kept]))
        assert (result.sequences[0].content.start, result.sequences[-1].content.end) == (kept.start, kept.stop)
        if len(result.sequences) == 1:
            wanted = unit(expected(models, kind, content[kept], extension))
            assert np.dot(result.embeddings[0].values, wanted) >= 0.99999


@pytest.mark.parametrize("kind", KINDS)
def test_one_window_is_the_plain_path(models, kind):
    content = random_ids(random.Random(kind), 20)
    plain = models.vectors(kind, [content], None)
    for when in ("LONG", "ALWAYS"):
        assert np.array_equal(plain, models.vectors(kind, [content], {"windows": {}, "when": when}))


def test_token_weighted_windows_are_a_block_diagonal_mean(models):
    """For mean pooling, the result is the mean over the token vectors of all windows."""
    content = random_ids(random.Random(3), 75)
    windows = {"tokens": 20, "last": "SHORT", "aggregation": "TOKEN_WEIGHTED_MEAN"}
    shape = models.shapes["e5rope"]
    hidden = []
    for a, b in cut(75, 18, 0, "SHORT"):
        ids = whole("e5rope", content[a:b])
        hidden.append(explicit_model.hidden_states(shape, ids, explicit_model.geometry({}, len(ids), shape), 1.0))
    assert models.vectors("e5rope", [content], {"windows": windows})[0] @ unit(np.concatenate(hidden).mean(axis=0)) >= 0.99999


@pytest.mark.parametrize("kind", KINDS)
def test_window_vectors_are_the_windows_own(models, kind):
    content = random_ids(random.Random(kind), 90)
    request = models.request(kind, [content], {"windows": {"tokens": 24}}, output=models.pb.EmbedOptions.WINDOW_VECTORS)
    result = models.stub.Embed(request).results[0]
    ranges = cut(90, 24 - len(whole(kind, [])), 0, "BACK_EXTENDED")
    assert [(e.range.start, e.range.end) for e in result.embeddings] == ranges
    for embedding, (a, b) in zip(result.embeddings, ranges, strict=True):
        assert np.dot(embedding.values, unit(expected(models, kind, content[a:b], {}))) >= 0.99999


@pytest.mark.parametrize("kind, extension", [("bert", {"interpolation": {}}), ("e5rope", {"self_extend": {}}), ("llama", {"yarn": {}})], ids=name_of)
def test_spans_are_means_over_one_pass(models, kind, extension):
    content = random_ids(random.Random(kind), 70)
    options = {"output": models.pb.EmbedOptions.SPAN_VECTORS}
    request = models.request(kind, [content], extension, spans=models.pb.SpanOptions(every_tokens={"tokens": 16}), **options)
    result = models.stub.Embed(request).results[0]
    shape, ids = models.shapes[kind], whole(kind, content)
    hidden = explicit_model.hidden_states(shape, ids, explicit_model.geometry(extension, len(ids), shape), 1.0)[len(specials(kind)[0]) :]
    assert [(e.range.start, e.range.end) for e in result.embeddings] == [(0, 16), (16, 32), (32, 48), (48, 64), (64, 70)]
    for embedding in result.embeddings:
        assert np.dot(embedding.values, unit(hidden[embedding.range.start : embedding.range.end].mean(axis=0))) >= 0.99999
    ranged = models.request(kind, [content], extension, spans=models.pb.SpanOptions(ranges={}), **options)
    for a, b in [(5, 6), (0, 70), (30, 64)]:
        ranged.inputs[0].ranges.add(start=a, end=b)
    for embedding, (a, b) in zip(models.stub.Embed(ranged).results[0].embeddings, [(5, 6), (0, 70), (30, 64)], strict=True):
        assert np.dot(embedding.values, unit(hidden[a:b].mean(axis=0))) >= 0.99999


def states_of_spans(models, kind: str, content: list[int], windows: dict, extension: dict) -> np.ndarray:
    """Returns, for each token, its state in the window whose text-cutting edge is farthest away: [content, H] float64. Of equal windows, the first
    counts."""
    shape, before = models.shapes[kind], len(specials(kind)[0])
    ranges = cut(len(content), windows["tokens"] - len(whole(kind, [])), windows.get("overlap", 0), windows.get("last", "BACK_EXTENDED"))
    states, margins = np.zeros((len(content), 64)), np.full(len(content), -1.0)
    for a, b in ranges:
        ids = whole(kind, content[a:b])
        hidden = explicit_model.hidden_states(shape, ids, explicit_model.geometry(extension, len(ids), shape), 1.0)
        for p in range(a, b):
            margin = min(np.inf if a == 0 else p - a, np.inf if b == len(content) else b - 1 - p)
            if margin > margins[p]:
                states[p], margins[p] = hidden[before + p - a], margin
    return states


@pytest.mark.parametrize("windows", [{"tokens": 24}, {"tokens": 24, "overlap": 9}, {"tokens": 20, "overlap": 13, "last": "SHORT"}], ids=name_of)
@pytest.mark.parametrize("kind, extension", [("bert", {}), ("xlm-roberta", {}), ("nomic_bert", {"self_extend": {"group": 3, "neighbor_window": 8}}), ("llama", {})], ids=name_of)
def test_spans_across_windows_are_means_over_their_tokens(models, kind, extension, windows):
    """Tests long late chunking (arXiv 2409.04701). One call has texts of several lengths, so that their windows share batches."""
    rng = random.Random(f"{kind} {windows}")
    contents = [random_ids(rng, n) for n in (90, 60, 131)]
    asked = [(0, 1), (5, 77), (20, 26), (0, 90), (89, 90), (21, 44), (40, 41)]
    request = models.request(kind, contents, {**extension, "windows": windows}, output=models.pb.EmbedOptions.SPAN_VECTORS, spans=models.pb.SpanOptions(every_tokens={"tokens": 16}))
    for content, result in zip(contents, models.stub.Embed(request).results, strict=True):
        states = states_of_spans(models, kind, content, windows, extension)
        ranges = [(e.range.start, e.range.end) for e in result.embeddings]
        assert ranges == [(a, min(a + 16, len(content))) for a in range(0, len(content), 16)] and result.truncated_tokens == 0
        for embedding, (a, b) in zip(result.embeddings, ranges):
            assert np.dot(embedding.values, unit(states[a:b].mean(axis=0))) >= 0.99999
    request = models.request(kind, contents[:1], {**extension, "windows": windows}, output=models.pb.EmbedOptions.SPAN_VECTORS, spans=models.pb.SpanOptions(ranges={}))
    for a, b in asked:
        request.inputs[0].ranges.add(start=a, end=b)
    states = states_of_spans(models, kind, contents[0], windows, extension)
    for embedding, (a, b) in zip(models.stub.Embed(request).results[0].embeddings, asked, strict=True):
        assert np.dot(embedding.values, unit(states[a:b].mean(axis=0))) >= 0.99999


def test_ranges_of_a_text_in_windows_stay_exact(models):
    """Ranges are in code points, for a text of many windows. Explain plans the same sequences."""
    text = "Ah, é! Then bc. " * 12
    tokens = models.tokenizers["bert"].encode(text, add_special_tokens=False)
    options = {"windows": {"tokens": 24, "overlap": 6}}
    request = models.request("bert", [], options, output=models.pb.EmbedOptions.SPAN_VECTORS, spans=models.pb.SpanOptions(ranges={}))
    request.inputs.add(text=text)
    asked = [(4 + 16 * i, 4 + 16 * i + length) for i, length in enumerate((1, 3, 40, 90))]
    for a, b in asked:
        request.inputs[0].ranges.add(start=a, end=b)
    result = models.stub.Embed(request).results[0]
    states = states_of_spans(models, "bert", tokens.ids, options["windows"], {})
    for embedding, (a, b) in zip(result.embeddings, asked, strict=True):
        overlapping = [i for i, (start, end) in enumerate(tokens.offsets) if start < b and end > a]
        assert (embedding.range.start, embedding.range.end) == (overlapping[0], overlapping[-1] + 1)
        assert np.dot(embedding.values, unit(states[overlapping].mean(axis=0))) >= 0.99999
    plan = models.stub.Explain(models.pb.ExplainRequest(options=request.options, inputs=request.inputs)).results[0]
    assert list(plan.sequences) == list(result.sequences)


def test_spans_of_one_window_are_the_plain_ones(models):
    content = random_ids(random.Random(5), LO - 2)
    options = {"output": models.pb.EmbedOptions.SPAN_VECTORS, "spans": models.pb.SpanOptions(every_tokens={"tokens": 7})}
    plain, windows = (
        models.stub.Embed(models.request("bert", [content], extension, **options)).results[0] for extension in ({}, {"windows": {}, "when": "ALWAYS"})
    )
    assert [list(e.values) for e in plain.embeddings] == [list(e.values) for e in windows.embeddings]


def test_spans_of_a_text_are_in_code_points(models):
    """"é" is one code point of two bytes. The tokenizer's tokens are single characters and ends of words."""
    text = "Ah, é! Then bc. Last one?"
    tokens = models.tokenizers["bert"].encode(text, add_special_tokens=False)
    request = models.pb.EmbedRequest(inputs=[models.pb.Input(text=text)])
    request.options.model = "bert"
    request.options.prompt_name = "passage"
    request.options.output = models.pb.EmbedOptions.SPAN_VECTORS
    request.options.spans.ranges.SetInParent()
    asked = [(4, 5), (0, 6), (7, 15)]
    for a, b in asked:
        request.inputs[0].ranges.add(start=a, end=b)
    for embedding, (a, b) in zip(models.stub.Embed(request).results[0].embeddings, asked, strict=True):
        overlapping = [i for i, (start, end) in enumerate(tokens.offsets) if start < b and end > a]
        assert (embedding.range.start, embedding.range.end) == (overlapping[0], overlapping[-1] + 1)
    request.inputs[0].ClearField("ranges")
    request.options.spans.sentences.SetInParent()
    spans = [(e.range.start, e.range.end) for e in models.stub.Embed(request).results[0].embeddings]
    sentences = [(0, 6), (7, 15), (16, 25)]
    for (start, end), (a, b) in zip(spans, sentences, strict=True):
        overlapping = [i for i, (s, e) in enumerate(tokens.offsets) if s < b and e > a]
        assert (start, end) == (overlapping[0], overlapping[-1] + 1)


@pytest.mark.parametrize("reason, change", [
    ("SPAN_OUT_OF_RANGE", lambda r: r.inputs[0].ranges.add(start=3, end=3)),
    ("SPAN_OUT_OF_RANGE", lambda r: r.inputs[0].ranges.add(start=0, end=99)),
    ("SPAN_EMPTY", lambda r: r.inputs[0].ranges.add(start=2, end=3)),
    ("SPAN_TRUNCATED", lambda r: (r.inputs[0].__setattr__("text", "ab " * 60), setattr(r.options, "truncate", 1), r.inputs[0].ranges.add(start=170, end=175))),
], ids=["empty", "beyond", "blank", "truncated"])  # fmt: skip
def test_a_bad_range_is_named(models, reason, change):
    request = models.pb.EmbedRequest(inputs=[models.pb.Input(text="ab cd")])
    request.options.model = "bert"
    request.options.output = models.pb.EmbedOptions.SPAN_VECTORS
    request.options.spans.ranges.SetInParent()
    request.inputs[0].ranges.add(start=0, end=1)
    change(request)
    with pytest.raises(grpc.RpcError) as error:
        models.stub.Embed(request)
    found = details(error.value)
    assert found[error_details_pb2.ErrorInfo].reason == reason
    assert found[error_details_pb2.BadRequest].field_violations[0].field == "inputs[0].ranges[1]"


@pytest.mark.parametrize("kind", ROPE)
def test_a_short_text_after_a_long_one_is_as_if_alone(models, kind):
    rng = random.Random(kind)
    short, long = random_ids(rng, 40), random_ids(rng, 400)
    for extension in ({"ntk_dynamic": {}}, {"yarn": {}}, {"interpolation": {}}, {"self_extend": {}}, {"dual_chunk": {}}, {"recurrent": {}}):
        before = models.vectors(kind, [short], extension)
        models.vectors(kind, [long], extension)
        assert np.array_equal(before, models.vectors(kind, [short], extension))


def test_requests_with_different_choices_share_batches(models):
    """Sends many requests at once to one model. Each must get the same answer as alone."""
    rng = random.Random(11)
    requests = []
    for _ in range(40):
        extension = {**rng.choice([e for e in POSITIONS + ROPE_ONLY if e]), **rng.choice([{}, {"attention_log_scaling": True}, {"attention_calibration": {"basket": 11}}])}
        contents = [random_ids(rng, rng.randint(1, capacity(extension) - 2)) for _ in range(rng.randint(1, 4))]
        requests.append((contents, extension))
    alone = [models.vectors("e5rope", contents, extension) for contents, extension in requests]
    together: list = [None] * len(requests)

    def send(i):
        together[i] = models.vectors("e5rope", *requests[i])

    threads = [threading.Thread(target=send, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected_vectors, vectors in zip(alone, together):
        assert np.abs(expected_vectors - vectors).max() <= 1e-5


def test_recommended_and_profile_are_what_they_stand_for(models):
    content = random_ids(random.Random(1), 100)
    for name, spelt_out in (({"recommended": {}}, {"windows": {}}), ({"profile": "small"}, {"windows": {"tokens": 12}})):
        answers = [models.stub.Embed(models.request("bert", [content], extension)) for extension in (name, spelt_out)]
        assert answers[0].results == answers[1].results and answers[0].recipe == answers[1].recipe
    described = models.stub.GetModel(models.pb.GetModelRequest(model="bert"))
    assert list(described.profiles) == ["small"] and "yarn" not in described.methods and described.recommended_extension.HasField("windows")
    assert "self_extend" in models.stub.GetModel(models.pb.GetModelRequest(model="llama")).methods


@pytest.mark.parametrize("output, spelt_out", [("ONE_VECTOR", {"windows": {}}), ("WINDOW_VECTORS", {"windows": {"tokens": 9}})])
def test_recommended_depends_on_the_output(models, output, spelt_out):
    content = random_ids(random.Random(1), 100)
    answers = [models.stub.Embed(models.request("bert", [content], extension, output=output)) for extension in ({"recommended": {}}, spelt_out)]
    assert answers[0].results == answers[1].results and answers[0].recipe == answers[1].recipe
    # One window is 30 content tokens in the first case, and 7 in the second.
    assert len(answers[0].results[0].sequences) == (4 if output == "ONE_VECTOR" else 15)
    assert len(answers[0].results[0].embeddings) == (1 if output == "ONE_VECTOR" else 15)


def test_a_bad_recommendation_ends_the_start(tmp_path):
    folder = tiny_checkpoints.save("bert", tmp_path / "checkpoint")
    assert main([str(folder), "--out", str(tmp_path / "bert"), "--pooling", POOLING["bert"]]) == 0
    file = tmp_path / "bert" / manifest.FILE
    content = yaml.safe_load(file.read_text())
    for key, value, said in (
        ("recommended_extension", '{"windoes": {}}', "recommended_extension of its manifest: .*windoes"),
        ("recommended_multi_vector_extension", f'{{"windows": {{"tokens": {LO + 1}}}}}', "recommended_multi_vector_extension of its manifest: windows.tokens"),
        ("recommended_multi_vector_extension", '{"grouped": {}}', "recommended_multi_vector_extension of its manifest: has no windows"),
        ("recommendation_evidence", {"sets": ["qmsum"]}, "recommendation_evidence.sets must be a string"),
    ):
        file.write_text(yaml.safe_dump(content | {key: value}))
        with pytest.raises(RuntimeError, match=said):
            start_server(tmp_path, ["bert"], models_folder=tmp_path)


def test_a_tuned_table_through_the_server(models, tmp_path, pb):
    """Within Lo, vectors are those of the original model. Beyond Lo every row of the table is used. A
    method multiplies its positions by the table's stride."""
    folder = tiny_checkpoints.expand_positions(tiny_checkpoints.save("bert", tmp_path / "checkpoint"), 3)
    assert main([str(folder), "--out", str(tmp_path / "tuned"), "--name", "tuned", "--pooling", POOLING["bert"], "--position-stride", "3"]) == 0
    shape = explicit_model.shape_of("bert", sources.read_directory(folder), LO)
    running = start_server(tmp_path, ["tuned"], models_folder=tmp_path)
    rng = random.Random(8)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        tuned = Models(pb[1].EmbeddingServiceStub(channel), pb[0], {}, {})
        short, long = random_ids(rng, LO - 2), random_ids(rng, 3 * LO - 2)
        assert np.array_equal(tuned.vectors("tuned", [short], None), models.vectors("bert", [short], None))
        for content, extension, rows in (
            (long, None, np.arange(3 * LO)),
            (long, {"interpolation": {"factor": 6}}, 3 * np.arange(3 * LO) / 6),
            (long, {"grouped": {}}, 3 * (np.arange(3 * LO) // 3)),
            (short, {"recurrent": {}, "when": "ALWAYS"}, 3 * np.arange(LO)),
        ):
            hidden = explicit_model.hidden_states(shape, whole("bert", content), explicit_model.Geometry(rows=rows), 1.0)
            assert tuned.vectors("tuned", [content], extension)[0] @ unit(explicit_model.pooled(hidden, POOLING["bert"])) >= 0.99999
        with pytest.raises(grpc.RpcError, match=f"the limit is {3 * LO}"):
            tuned.vectors("tuned", [[*long, 5]], None)
    assert running.stop() == 0


def test_explain_shows_the_plan_of_embed(models):
    content = random_ids(random.Random(2), 100)
    for extension in ({"yarn": {}}, {"self_extend": {}}, {"ntk_dynamic": {}, "attention_log_scaling": True}, {"windows": {"tokens": 40}, "grouped": {"factor": 2}}):
        embed = models.request("e5rope", [content], extension)
        explain = models.pb.ExplainRequest(options=embed.options, inputs=embed.inputs)
        plan, result = models.stub.Explain(explain).results[0], models.stub.Embed(embed).results[0]
        assert list(plan.sequences) == list(result.sequences)
    method = models.stub.Explain(models.pb.ExplainRequest(options=models.request("e5rope", [], {"self_extend": {}}).options, inputs=embed.inputs)).results[0].sequences[0].method
    chunked = models.stub.Explain(models.pb.ExplainRequest(options=models.request("e5rope", [], {"dual_chunk": {}}).options, inputs=embed.inputs)).results[0].sequences[0].method
    assert (chunked.kind, chunked.chunk, chunked.local_window) == (models.pb.Method.DUAL_CHUNK, 24, 8)
    assert (method.group, method.neighbor_window) == (5, 8)  # 102 tokens, so s = ceil(102 / 32) = 4.
