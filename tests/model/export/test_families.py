"""Compares architectures with transformers' own classes, token by token, and their parts with slow and simple references. Also tests what is
refused."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests/testing"))
import tiny_checkpoints
from test_command import manifest_of

from model.export import architectures, check, decoder, export, gte, heads, mpnet, sources
from model.export.__main__ import main
from model.export.errors import ExportError
from model.export.local_attention import LocalRotaryAttention
from model.export.oracle import transformers_model

ABSOLUTE = ["roberta", "camembert", "distilbert", "electra", "mpnet"]
ROTARY = ["qwen2", "qwen3", "bidirectional-llama", "bidirectional-mistral", "bidirectional-qwen2", "eurobert", "modernbert", "gte", "gemma3_text"]
LENGTHS = (1, 7, 7, 7, 32, 2, 31, 31)


def test_every_architecture_is_tested():
    """Every architecture has a tiny checkpoint of its own name. `new` is the name of gte in its checkpoints; tests/integration makes one."""
    assert set(architectures.MODULES) - {"new"} <= tiny_checkpoints.KINDS.keys() | tiny_checkpoints.FAMILIES.keys()
    assert set(architectures.MODULES) & tiny_checkpoints.FAMILIES.keys() <= {*ABSOLUTE, *ROTARY}


class Exported:
    def __init__(self, kind: str, folder):
        self.checkpoint = sources.read_directory(tiny_checkpoints.save(kind, folder))
        self.config, self.tensors = self.checkpoint.config, self.checkpoint.tensors
        self.architecture = architectures.find(self.config)
        self.sizes = self.architecture.sizes(self.config, self.tensors)
        self.graph = torch.jit.load(io.BytesIO(export.script(self.architecture, self.checkpoint)))

    def positions(self, lengths: list[int]) -> torch.Tensor:
        return check.positions_of({"family": self.architecture.FAMILY, **self.sizes})(lengths)


@pytest.fixture(scope="session")
def exported_of(tmp_path_factory):
    """Returns a function that exports each kind once."""
    made = {}

    def get(kind: str) -> Exported:
        if kind not in made:
            made[kind] = Exported(kind, tmp_path_factory.mktemp(kind) / kind)
        return made[kind]

    return get


def sequences_of(lengths=LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, 300, (n,), generator=generator).tolist() for n in lengths]


def token_vectors(graph, sequences: list[list[int]], positions: torch.Tensor) -> list[torch.Tensor]:
    """Returns every token's vector, by sequence. Any pooling is computed from these."""
    lengths = list(map(len, sequences))
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    spans = torch.stack([torch.arange(sum(lengths)), torch.arange(sum(lengths)) + 1], dim=1).to(torch.int32)
    count = len(lengths)
    with torch.inference_mode():
        vectors = graph(
            torch.tensor(sum(sequences, []), dtype=torch.int32), positions, torch.ones(count), torch.zeros(count, dtype=torch.int32), offsets, spans
        )
    return list(vectors.float().split(lengths))


def expected_vectors(reference, sequences: list[list[int]], **more) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [reference(input_ids=torch.tensor([ids]), **{k: f(len(ids)) for k, f in more.items()}).last_hidden_state[0] for ids in sequences]


def assert_equal_directions(vectors: list[torch.Tensor], expected: list[torch.Tensor], least: float = 1 - 1e-9) -> None:
    """Compares directions. float32 noise is 1e-12 here, and the two kinds of GELU differ by 1e-7."""
    assert F.cosine_similarity(torch.cat(vectors).double(), torch.cat(expected).double()).min() >= least


@pytest.mark.parametrize("kind", ABSOLUTE + ROTARY)
def test_every_token_vector_is_that_of_transformers_alone_and_batched(exported_of, kind):
    made = exported_of(kind)
    sequences = sequences_of()
    expected = expected_vectors(made.architecture.reference(made.config, made.tensors), sequences)
    batched = token_vectors(made.graph, sequences, made.positions(list(LENGTHS)))
    alone = [token_vectors(made.graph, [ids], made.positions([len(ids)]))[0] for ids in sequences]
    assert_equal_directions(batched, expected)
    assert_equal_directions(alone, expected)
    for a, b in zip(alone, batched):
        torch.testing.assert_close(F.normalize(a), F.normalize(b), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ABSOLUTE + ROTARY)
def test_forward_is_its_parts_one_after_the_other(exported_of, kind):
    made = exported_of(kind)
    positions, rotary = made.positions([3, 2]), made.architecture.FAMILY == "ROPE"
    tokens, scale, window = torch.tensor([5, 6, 7, 8, 9], dtype=torch.int32), torch.tensor([1.0, 1.3]), torch.zeros(2, dtype=torch.int32)
    offsets, spans = torch.tensor([0, 3, 5], dtype=torch.int32), torch.tensor([[0, 3], [3, 5], [1, 2]], dtype=torch.int32)
    with torch.inference_mode():
        hidden = made.graph.embeddings(tokens) if rotary else made.graph.embeddings(tokens, positions)
        for layer in made.graph.layers.children():
            hidden = layer(hidden, *([positions] if rotary else []), scale, window, offsets)
        assert torch.equal(made.graph.pooling(hidden, spans), made.graph(tokens, positions, scale, window, offsets, spans))


@pytest.mark.parametrize("kind", ABSOLUTE + ROTARY)
def test_the_graph_runs_in_bfloat16(exported_of, kind):
    """LibTorch runs the graph like this on a GPU: rotations and sums stay in float32. After three layers, little is left of bfloat16's precision of
    eight bits."""
    made = exported_of(kind)
    sequences = sequences_of((1, 7, 32))
    positions = made.positions([1, 7, 32])
    exact = token_vectors(made.graph, sequences, positions)
    rounded = torch.jit.load(io.BytesIO(export.script(made.architecture, made.checkpoint))).to(torch.bfloat16)
    assert_equal_directions(token_vectors(rounded, sequences, positions), exact, 0.97)


@pytest.mark.parametrize("kind", ABSOLUTE)
def test_grouped_positions_move_the_rows_of_the_table_alone(exported_of, kind):
    """MPNet's bias by distance does not change. transformers computes it from the tokens' places, whatever position_ids are."""
    made = exported_of(kind)
    sequences = sequences_of()
    first = 0 if kind in ("distilbert", "electra") else 2
    reference = made.architecture.reference(made.config, made.tensors)
    expected = expected_vectors(reference, sequences, position_ids=lambda n: torch.arange(n).unsqueeze(0) // 3 + first)
    assert_equal_directions(token_vectors(made.graph, sequences, torch.cat([torch.arange(n) // 3 for n in LENGTHS]).float()), expected)


@pytest.mark.parametrize("kind", ROTARY)
def test_an_ntk_base_changes_the_global_layers_alone(exported_of, kind):
    made = exported_of(kind)
    sequences = sequences_of()
    rope = {"rope_type": "default", "rope_theta": 777_777.0}
    config = dict(made.config)
    if kind in ("modernbert", "gemma3_text"):
        config["rope_parameters"] = {**config["rope_parameters"], "full_attention": rope}
    else:
        config["rope_parameters"] = rope
    expected = expected_vectors(made.architecture.reference(config, made.tensors), sequences)
    other = check.rotations(list(LENGTHS), made.sizes["rotary_dim"], 777_777.0)
    assert_equal_directions(token_vectors(made.graph, sequences, other), expected)


def explicit_local_attention(qkv: np.ndarray, heads: int, kv_heads: int, window: int, base: float) -> np.ndarray:
    """Computes local attention for one sequence in float64, with pairs of components as complex numbers."""
    n, d = len(qkv), qkv.shape[1] // (heads + 2 * kv_heads)
    split = qkv.reshape(n, -1, d)
    turns = np.exp(1j * np.outer(np.arange(n), base ** (-2.0 * np.arange(d // 2) / d)))[:, None]
    turned = (split[:, : heads + kv_heads, : d // 2] + 1j * split[:, : heads + kv_heads, d // 2 :]) * turns
    far = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > window
    outputs = []
    for head in range(heads):
        kept = head // (heads // kv_heads)
        logits = (turned[:, head] @ turned[:, heads + kept].conj().T).real / d**0.5
        weights = np.exp(np.where(far, -np.inf, logits))
        outputs.append(weights / weights.sum(axis=1, keepdims=True) @ split[:, heads + kv_heads + kept])
    return np.concatenate(outputs, axis=1)


@pytest.mark.parametrize("window, block", [(4, 3), (4, 16), (9, 256), (0, 5), (400, 7)])
def test_local_attention_matches_an_explicit_matrix_and_ignores_extensions(window, block):
    lengths = [1, 20, 20, window + 2, 70, window + 1, window + 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    qkv = torch.randn(int(offsets[-1]), (4 + 2 * 2) * 8, generator=torch.Generator().manual_seed(window))
    attention = torch.jit.script(LocalRotaryAttention(4, 2, window, 50.0, block))
    count, places = len(lengths), torch.tensor(offsets, dtype=torch.int32)
    plain = attention(qkv, torch.zeros(1, 2, len(qkv), 4), torch.ones(count), torch.zeros(count, dtype=torch.int32), places)
    for a, b in zip(offsets, offsets[1:]):
        np.testing.assert_allclose(plain[a:b].numpy(), explicit_local_attention(qkv[a:b].double().numpy(), 4, 2, window, 50.0), atol=2e-5)
    extended = attention(qkv, torch.randn(3, 2, len(qkv), 4), torch.full((count,), 1.7), torch.full((count,), 3, dtype=torch.int32), places)
    assert torch.equal(plain, extended)


@pytest.mark.parametrize("tile_elements", [1, 1 << 22])
def test_a_relative_bias_is_that_of_transformers_at_every_distance(tile_elements):
    """Includes distances far beyond the last bucket. Scores are multiplied by query_scale, and the bias is not."""
    torch.manual_seed(0)
    config = transformers.MPNetConfig(vocab_size=10, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8, initializer_range=1.0)
    encoder = transformers.MPNetModel(config, add_pooling_layer=False).encoder
    bias = torch.nn.Parameter(mpnet.bias_by_distance(encoder.relative_attention_bias.weight.detach()), requires_grad=False)
    attention = torch.jit.script(mpnet.RelativeBiasAttention(4, bias, tile_elements))
    lengths, scales = [300, 300, 300, 17], [1.0, 1.0, 1.4, 1.4]
    qkv = torch.randn(sum(lengths), 96)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    context = attention(qkv, torch.tensor(scales), torch.zeros(4, dtype=torch.int32), offsets.to(torch.int32))
    for start, n, scale in zip(offsets.tolist(), lengths, scales):
        query, key, value = (part.view(n, 4, 8).transpose(0, 1).double() for part in qkv[start : start + n].chunk(3, dim=1))
        logits = scale * query @ key.transpose(1, 2) / 8**0.5 + encoder.compute_position_bias(torch.zeros(1, n, 1))[0].double()
        expected = (torch.softmax(logits, dim=-1) @ value).transpose(0, 1).reshape(n, 32)
        torch.testing.assert_close(context[start : start + n].double(), expected, atol=1e-5, rtol=1e-5)


LONG_SEQUENCE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from model.export.local_attention import LocalRotaryAttention
from model.export.mpnet import RelativeBiasAttention

bias = torch.nn.Parameter(torch.zeros(12, 257), requires_grad=False)
local, relative = torch.jit.script(LocalRotaryAttention(12, 12, 64, 1e4)), torch.jit.script(RelativeBiasAttention(12, bias))

def grow(n, call):
    qkv, scale, window, offsets = torch.zeros(n, 2304), torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.tensor([0, n], dtype=torch.int32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        call(qkv, scale, window, offsets)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024

for n in (64, 8192):
    print(grow(n, lambda qkv, *rest: local(qkv, torch.zeros(1, 2, n, 32), *rest)), grow(n // 2, relative))
"""


def test_no_buffer_grows_with_the_square_of_a_length():
    """Scores alone would take 3 GiB for 8,192 tokens with local attention, and 768 MiB for 4,096 tokens with a relative bias."""
    done = subprocess.run([sys.executable, "-c", LONG_SEQUENCE, str(REPOSITORY)], capture_output=True, text=True, check=True)
    local, relative = map(int, done.stdout.split()[-2:])
    print(f"grew by {local} and {relative} MiB")
    assert local < 300 and relative < 150


def gte_with_ntk(exported_of) -> tuple[Exported, dict]:
    """Returns a checkpoint with the settings of gte-multilingual-base: theta 20,000 and an NTK factor of 8."""
    made = exported_of("gte")
    config = {key: value for key, value in made.config.items() if key != "rope_parameters"}
    return made, config | {"model_type": "new", "rope_theta": 20000.0, "rope_scaling": {"factor": 8.0, "type": "ntk"}, "position_embedding_type": "rope"}


def test_the_ntk_of_gte_is_that_of_its_published_code(exported_of):
    """Compares with NTKScalingRotaryEmbedding of Alibaba-NLP/new-impl: inv_freq of base times s, divided by s^(2/d). In the manifest these are
    rotary_base and rotary_factor."""
    made, config = gte_with_ntk(exported_of)
    sizes = gte.sizes(config, made.tensors)
    j, d = np.arange(16), 32
    published = 1.0 / (20000.0 * 8.0) ** (2 * j / d) / 8.0 ** (2 / d)
    np.testing.assert_allclose(sizes["rotary_base"] ** (-2.0 * j / d) / sizes["rotary_factor"], published, rtol=1e-12)

    sequences = sequences_of()
    angles = torch.outer(torch.cat([torch.arange(n, dtype=torch.float64) for n in LENGTHS]), torch.from_numpy(published))
    tables = torch.stack([angles.cos(), angles.sin()]).float().unsqueeze(0)
    assert_equal_directions(token_vectors(made.graph, sequences, tables), expected_vectors(gte.reference(config, made.tensors), sequences))


def test_linear_scaling_of_a_checkpoint_is_in_the_manifest(exported_of):
    made, sequences = exported_of("qwen2"), sequences_of()
    config = made.config | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}
    sizes = decoder.sizes(config, made.tensors)
    assert (sizes["rotary_base"], sizes["rotary_factor"]) == (10000.0, 4.0)
    quarter = torch.cat([torch.arange(n, dtype=torch.float64) for n in LENGTHS]) / 4
    angles = torch.outer(quarter, 10000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16))
    tables = torch.stack([angles.cos(), angles.sin()]).float().unsqueeze(0)
    assert_equal_directions(token_vectors(made.graph, sequences, tables), expected_vectors(decoder.reference(config, made.tensors), sequences))


@pytest.mark.parametrize("kind, prefix", [
    ("roberta", "roberta."), ("camembert", "roberta."), ("distilbert", "distilbert."), ("electra", "electra."), ("mpnet", "mpnet."), ("qwen3", "model."),
    ("eurobert", "model."), ("modernbert", "model."), ("gte", "new."), ("gte", "gte."), ("gemma3_text", "model."),
])  # fmt: skip
def test_names_may_have_the_prefix_of_a_model_with_a_head(exported_of, kind, prefix):
    made = exported_of(kind)
    prefixed = {prefix + name: tensor for name, tensor in made.tensors.items()} | {"lm_head.bias": torch.zeros(3)}
    assert made.architecture.sizes(made.config, prefixed) == made.sizes
    again = made.architecture.build(made.config, prefixed).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in made.graph.state_dict().items())
    if prefix != "gte.":
        expected_vectors(made.architecture.reference(made.config, prefixed), sequences_of((3,)))


@pytest.mark.parametrize("kind, local", [("modernbert", (1, 8)), ("gemma3_text", (2, 8)), ("eurobert", (None, None))])
def test_the_manifest_says_how_many_layers_are_local(exported_of, kind, local):
    """The window has 16 tokens, half of them on either side."""
    sizes = exported_of(kind).sizes
    assert (sizes.get("local_layers"), sizes.get("local_window")) == local


@pytest.mark.parametrize("kind", ["biased-llama", "biased-modernbert"])
def test_biases_are_taken_where_the_checkpoint_has_them(exported_of, kind):
    made, sequences = exported_of(kind), sequences_of()
    expected = expected_vectors(transformers_model(made.config, made.tensors), sequences)
    assert_equal_directions(token_vectors(made.graph, sequences, made.positions(list(LENGTHS))), expected)


def test_biases_of_some_of_the_projections_alone_are_refused(exported_of):
    made = exported_of("biased-llama")
    tensors = {name: tensor for name, tensor in made.tensors.items() if not name.endswith("layers.1.self_attn.k_proj.bias")}
    with pytest.raises(ExportError, match="has a bias layers.1.self_attn.q_proj.bias but none for layers.1.self_attn.k_proj"):
        decoder.build(made.config, tensors)


# ---------------------------------------------------------------------------------------------------------------------------------- Dense heads

TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


def dense_tensors(inputs: int, outputs: int, seed: int, bias: bool = True) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"linear.weight": torch.randn(outputs, inputs, generator=generator) / inputs**0.5, "linear.bias": torch.randn(outputs, generator=generator)}
    return tensors if bias else {"linear.weight": tensors["linear.weight"]}


def test_dense_heads_are_part_of_the_pooling_of_every_span(exported_of):
    made = exported_of("qwen3")
    first, second = dense_tensors(64, 96, 1, bias=False), dense_tensors(96, 40, 2)
    modules = [heads.dense("2_Dense", {"activation_function": IDENTITY, "bias": False}, first), heads.dense("3_Dense", {"activation_function": TANH}, second)]
    built = made.architecture.build(made.config, made.tensors)
    assert heads.vector_size(64, modules) == 40
    heads.attach(built, modules)
    sequences, tokens = sequences_of((5, 9)), sum(sequences_of((5, 9)), [])
    spans = torch.tensor([[0, 5], [5, 14], [2, 4], [13, 14]], dtype=torch.int32)
    arguments = (made.positions([5, 9]), torch.ones(2), torch.zeros(2, dtype=torch.int32), torch.tensor([0, 5, 14], dtype=torch.int32), spans)
    hidden = torch.cat(expected_vectors(made.architecture.reference(made.config, made.tensors), sequences)).double()
    pooled = torch.stack([hidden[a:b].mean(dim=0) for a, b in spans.tolist()])
    expected = torch.tanh(pooled @ first["linear.weight"].double().t() @ second["linear.weight"].double().t() + second["linear.bias"].double())
    with torch.inference_mode():
        vectors = torch.jit.script(built)(torch.tensor(tokens, dtype=torch.int32), *arguments)
    torch.testing.assert_close(vectors.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind, layers", [
    ("distilbert", [({"in_features": 64, "out_features": 40, "bias": True, "activation_function": TANH}, dense_tensors(64, 40, 1))]),
    ("gemma3_text", [
        ({"in_features": 64, "out_features": 96, "bias": False, "activation_function": IDENTITY}, dense_tensors(64, 96, 1, bias=False)),
        ({"in_features": 96, "out_features": 64, "bias": False, "activation_function": IDENTITY}, dense_tensors(96, 64, 2, bias=False)),
    ]),
    ("bert", [
        ({"in_features": 64, "out_features": 64, "bias": True, "activation_function": TANH, "use_residual": True}, dense_tensors(64, 64, 1)),
        (
            {"in_features": 64, "out_features": 40, "bias": True, "activation_function": TANH, "use_residual": True},
            dense_tensors(64, 40, 2) | {"residual.weight": dense_tensors(64, 40, 3)["linear.weight"]},
        ),
    ]),
    ("bert", [({"in_features": 64, "out_features": 40, "bias": True}, dense_tensors(64, 40, 1))]),
])  # fmt: skip
def test_dense_modules_are_exported_as_sentence_transformers_has_them(tmp_path, kind, layers):
    """Uses the shapes of distiluse and EmbeddingGemma. The export compares itself with the library if it is installed, and otherwise with the
    published formula."""
    folder = tiny_checkpoints.save(kind, tmp_path / kind)
    paths = ["", "1_Pooling", *(f"{number}_Dense" for number in range(2, 2 + len(layers))), "9_Normalize"]
    kinds = ["Transformer", "Pooling", *["Dense"] * len(layers), "Normalize"]
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"} for i, (path, name) in enumerate(zip(paths, kinds))]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}))
    for path, (config, tensors) in zip(paths[2:], layers):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
        safetensors.torch.save_file(tensors, folder / path / "model.safetensors")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    content = manifest_of(tmp_path / "out")
    assert content.get("vector_size", 64) == layers[-1][0]["out_features"] == content["trained_dimensions"][-1]


@pytest.mark.parametrize("config, tensors, message", [
    ({"activation_function": "torch.nn.modules.activation.Softmax"}, dense_tensors(64, 64, 1), "has the activation torch.nn.modules.activation.Softmax"),
    ({"activation_function": TANH, "in_features": 32}, dense_tensors(64, 64, 1), "says in_features = 32, but its tensors are for 64"),
    ({"activation_function": TANH, "bias": False}, dense_tensors(64, 64, 1), "says bias = False"),
    ({"activation_function": TANH, "bias": True}, dense_tensors(64, 64, 1, bias=False), "says bias = True"),
    ({"activation_function": TANH, "module_input_name": "token_embeddings"}, dense_tensors(64, 64, 1), "module_input_name = 'token_embeddings'"),
    ({"activation_function": TANH}, dense_tensors(64, 64, 1) | {"scale": torch.ones(1)}, "has a tensor scale"),
    ({"activation_function": TANH}, {"linear.bias": torch.ones(64)}, "no tensor linear.weight"),
    ({"activation_function": TANH}, dense_tensors(32, 64, 1), "takes vectors of 32 dimensions but gets 64"),
])  # fmt: skip
def test_dense_modules_that_are_not_computed_are_refused(config, tensors, message):
    with pytest.raises(ExportError, match=message):
        heads.vector_size(64, [heads.dense("2_Dense", config, tensors)])


# ------------------------------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind, change, message", [
    ("roberta", {"hidden_act": "relu"}, "this RoBERTa has hidden_act = 'relu'"),
    ("roberta", {"pad_token_id": None}, "pad_token_id = null"),
    ("camembert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
    ("distilbert", {"activation": "relu"}, "this DistilBERT has activation = 'relu'"),
    ("electra", {"embedding_size": 32}, "projects its word embeddings"),
    ("mpnet", {"hidden_act": "gelu_new"}, "this MPNet has hidden_act = 'gelu_new'"),
    ("qwen2", {"use_sliding_window": True}, "layers with a sliding window"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layers with a sliding window"),
    ("qwen3", {"layer_types": ["full_attention", "linear_attention", "full_attention"]}, "layers of type 'linear_attention'"),
    ("qwen2", {"is_causal": "no"}, "is_causal = 'no'"),
    ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
    ("qwen2", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "both rope_parameters and rope_scaling"),
    ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "both rope_parameters and rope_scaling"),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "both rope_parameters and rope_scaling"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}}}, r"scales its rotary positions \(yarn\)"),
    ("eurobert", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    ("modernbert", {"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
    ("modernbert", {"rope_parameters": None, "local_rope_theta": None}, "local_rope_theta = null"),
    ("modernbert", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "layers of type 'chunked_attention'"),
    ("modernbert", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}}, "of its local layers"),
    ("gte", {"logn_attention_scale": True}, "logn_attention_scale = True"),
    ("gte", {"layer_norm_type": "rms_norm"}, "layer_norm_type = 'rms_norm'"),
    ("gte", {"rope_parameters": None, "rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, "mixed_b = 0.6"),
    ("gemma3_text", {"use_bidirectional_attention": False}, "is causal"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
    ("gemma3_text", {"hidden_activation": "gelu"}, "hidden_activation = 'gelu'"),
])  # fmt: skip
def test_variants_that_no_graph_computes_are_refused(exported_of, kind, change, message):
    with pytest.raises(ExportError, match=message):
        architectures.find(exported_of(kind).config | change)


def test_an_end_of_sequence_that_the_tokenizer_appends_is_not_appended_twice(tmp_path):
    """Qwen3-Embedding does this in the template of its tokenizer."""
    folder = tiny_checkpoints.save("qwen3", tmp_path / "tiny-qwen3")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    content = manifest_of(tmp_path / "out")
    assert content["pooling"] == "LAST" and content["special_tokens"]["suffix"] == [2] and content["causal"] is True
    assert (content["head_dim"], content["attention_heads"], content["key_value_heads"], content["hidden_size"]) == (24, 4, 2, 64)


def test_a_decoder_that_sees_both_sides_must_say_how_it_pools(tmp_path, capsys):
    folder = tiny_checkpoints.save("bidirectional-qwen2", tmp_path / "tiny")
    assert json.loads((folder / "config.json").read_text())["is_causal"] is False
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "does not say how it pools" in capsys.readouterr().err
    assert main([str(folder), "--out", str(tmp_path / "out"), "--pooling", "mean"]) == 0
    content = manifest_of(tmp_path / "out")
    assert content["causal"] is False and content["architecture"] == "bidirectional-decoder"
