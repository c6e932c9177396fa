"""Tests graphs with rotary positions: SelfExtend against an explicit matrix of relative positions, tiles, mixed batches, and every architecture
against transformers."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, manifest_of

sys.path.insert(0, str(REPOSITORY / "tests/benchmark"))
import explicit_model
import self_extend_memory
import tiny_checkpoints

from model.export import architectures, check, export, rotary_graph, sources
from model.export.__main__ import main


@pytest.fixture(scope="module", params=["e5rope", "nomic_bert", "llama", "mistral", "xlm-roberta"])
def exported(request, tmp_path_factory):
    checkpoint = sources.read_directory(tiny_checkpoints.save(request.param, tmp_path_factory.mktemp(request.param)))
    architecture = architectures.find(checkpoint.config)
    return request.param, architecture, checkpoint, torch.jit.load(io.BytesIO(export.script(architecture, checkpoint)))


def test_a_packed_batch_gives_what_transformers_gives_for_each_text_alone(exported):
    _, architecture, checkpoint, graph = exported
    content = {"family": architecture.FAMILY, **architecture.sizes(checkpoint.config, checkpoint.tensors)}
    reference = architecture.reference(checkpoint.config, checkpoint.tensors)
    generator = torch.Generator().manual_seed(1)
    sequences = [torch.randint(4, 300, (n,), generator=generator).tolist() for n in (1, 7, 7, 7, 32, 2, 31, 31)]
    pooling = "LAST" if architecture.CAUSAL else "MEAN"
    with torch.inference_mode():
        packed = check.encode(graph, sequences, pooling, check.positions_of(content))
        for vector, ids in zip(packed, sequences):
            hidden = reference(input_ids=torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(vector, hidden[-1] if pooling == "LAST" else hidden.mean(dim=0), atol=2e-5, rtol=1e-4)


def test_forward_is_its_parts_one_after_the_other(exported):
    _, architecture, checkpoint, graph = exported
    content = {"family": architecture.FAMILY, **architecture.sizes(checkpoint.config, checkpoint.tensors)}
    positions = check.positions_of(content)([3, 2])
    tokens, scale, window = torch.tensor([5, 6, 7, 8, 9], dtype=torch.int32), torch.tensor([1.0, 1.3]), torch.zeros(2, dtype=torch.int32)
    offsets, spans = torch.tensor([0, 3, 5], dtype=torch.int32), torch.tensor([[0, 3], [3, 5], [1, 2]], dtype=torch.int32)
    rotary = [positions] if architecture.FAMILY == "ROPE" else []
    with torch.inference_mode():
        hidden = graph.embeddings(tokens) if rotary else graph.embeddings(tokens, positions)
        for layer in graph.layers.children():
            hidden = layer(hidden, *rotary, scale, window, offsets)
        assert torch.equal(graph.pooling(hidden, spans), graph(tokens, positions, scale, window, offsets, spans))


def self_extend_tables(n: int, group: int, window: int, dim: int, base: float) -> torch.Tensor:
    i = torch.arange(n)
    plain = check.rotations([n], dim, base)
    far = check.rotations([n + window], dim, base)
    return torch.cat([plain, plain[:, :, i // group], far[:, :, i // group + window - window // group]])


def explicit_attention(qkv: torch.Tensor, relative: np.ndarray, heads: int, kv_heads: int, base: float, scale: float, causal: bool) -> np.ndarray:
    d = qkv.size(1) // (heads + 2 * kv_heads)
    q, k, v = np.split(qkv.double().numpy(), [heads * d, (heads + kv_heads) * d], axis=1)
    shape = explicit_model.Shape("any", 0, d, base, heads, kv_heads)
    theta = base ** (-2.0 * np.arange(d // 2) / d)
    return explicit_model.attend(shape, q, k, v, explicit_model.Geometry(theta=theta, relative=relative.astype(float)), scale, layer=(0, 1), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n, group, window, tile_elements", [(10, 2, 4, 1 << 22), (37, 3, 8, 1), (100, 9, 4, 1), (300, 5, 31, 1 << 22), (33, 4, 32, 1), (64, 1, 8, 1)])
def test_self_extend_matches_an_explicit_matrix_of_relative_positions(causal, n, group, window, tile_elements):
    """Uses tiles of 16 queries (tile_elements 1) and one tile of 256. Group 1 is plain attention."""
    qkv = torch.randn(n, (4 + 2 * 2) * 8, generator=torch.Generator().manual_seed(n))
    attention = torch.jit.script(rotary_graph.RotaryAttention(4, 2, causal, tile_elements))
    tables = self_extend_tables(n, group, window, 8, 100.0)
    context = attention(qkv, tables, torch.tensor([1.3]), torch.tensor([window], dtype=torch.int32), torch.tensor([0, n], dtype=torch.int32))
    expected = explicit_attention(qkv, explicit_model.self_extended(n, group, window), 4, 2, 100.0, 1.3, causal)
    np.testing.assert_allclose(context.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n, shift_from, local_window, tile_elements", [(10, 4, 2, 1 << 22), (100, 33, 16, 1), (300, 100, 0, 1 << 22), (64, 1, 0, 1)])
def test_string_matches_an_explicit_matrix_of_relative_positions(causal, n, shift_from, local_window, tile_elements):
    """Uses SelfExtend's three tables: the plain one twice, and one for positions i - S + W, with S as the neighbor window."""
    qkv = torch.randn(n, (4 + 2 * 2) * 8, generator=torch.Generator().manual_seed(n))
    attention = torch.jit.script(rotary_graph.RotaryAttention(4, 2, causal, tile_elements))
    plain = check.rotations([n], 8, 100.0)
    shifted = plain[:, :, (torch.arange(n) - shift_from + local_window).clamp(min=0)]
    context = attention(
        qkv, torch.cat([plain, plain, shifted]), torch.tensor([1.3]), torch.tensor([shift_from], dtype=torch.int32), torch.tensor([0, n], dtype=torch.int32)
    )
    relative = explicit_model.string_distances(n, {"shift_from": shift_from, "local_window": local_window}, n)
    expected = explicit_attention(qkv, relative, 4, 2, 100.0, 1.3, causal)
    np.testing.assert_allclose(context.numpy(), expected, atol=2e-5)


def test_extended_and_plain_sequences_share_a_batch():
    """Each sequence has its own window, between plain sequences of equal length."""
    lengths, windows, groups = [20, 20, 33, 20, 20, 50], [0, 0, 8, 0, 6, 16], [1, 1, 3, 1, 2, 5]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    qkv = torch.randn(int(offsets[-1]), 3 * 16, generator=torch.Generator().manual_seed(2))
    parts = [self_extend_tables(n, g, w, 8, 50.0) if w else torch.cat([check.rotations([n], 8, 50.0), torch.zeros(2, 2, n, 4)]) for n, w, g in zip(lengths, windows, groups)]
    attention = torch.jit.script(rotary_graph.RotaryAttention(2, 2, False))
    context = attention(
        qkv, torch.cat(parts, dim=2), torch.ones(6), torch.tensor(windows, dtype=torch.int32), torch.tensor(offsets, dtype=torch.int32)
    ).numpy()
    for i, (n, w, g) in enumerate(zip(lengths, windows, groups)):
        rows = slice(offsets[i], offsets[i + 1])
        p = np.arange(n)
        relative = explicit_model.self_extended(n, g, w) if w else p[:, None] - p[None, :]
        np.testing.assert_allclose(context[rows], explicit_attention(qkv[rows], relative, 2, 2, 50.0, 1.0, False), atol=2e-5)


def test_components_beyond_the_rotated_ones_stay():
    heads = torch.randn(5, 2, 8)
    turned = rotary_graph.rotate(heads, check.rotations([5], 6, 100.0)[0])
    assert torch.equal(turned[:, :, 6:], heads[:, :, 6:]) and not torch.equal(turned[1:, :, :6], heads[1:, :, :6])


def test_memory_of_self_extend_grows_with_the_length_and_not_its_square():
    (small, _), (large, _) = self_extend_memory.measure(1024), self_extend_memory.measure(4096)
    print(f"1024: {small:.0f} MiB, 4096: {large:.0f} MiB")  # A matrix of scores alone would take 768 MiB.
    assert 0 < large < 4.6 * small and large < 342


def test_a_decoder_appends_eos_where_it_is_asked_to(tmp_path):
    """The tokenizer adds no EOS token. E5-Mistral was trained with EOS as the token whose vector is used."""
    folder = tiny_checkpoints.save("mistral", tmp_path / "tiny-mistral")
    assert main([str(folder), "--out", str(tmp_path / "out"), "--append-eos"]) == 0
    content = manifest_of(tmp_path / "out")
    assert content["pooling"] == "LAST" and content["special_tokens"] == {"prefix": [], "suffix": [2]} and content["causal"] is True
    assert (content["family"], content["rotary_dim"], content["rotary_base"], content["key_value_heads"], content["gated"]) == ("ROPE", 16, 10000.0, 2, True)
    assert main([str(folder), "--out", str(tmp_path / "cls"), "--pooling", "cls"]) == 1


@pytest.mark.parametrize("kind, change, message", [
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scales its rotary positions"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    ("nomic_bert", {"activation_function": "gelu"}, "activation_function = 'gelu'"),
    ("nomic_bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction = 0.5"),
    ("nomic_bert", {"norm_mlp": True}, "norm_mlp = True"),
    ("nomic_bert", {"rotary_head_dim": True}, "rotary_head_dim = True"),
    ("nomic_bert", {"num_experts": 8}, "num_experts = 8"),
    ("e5rope", {"rotary_value": True}, "rotary_value = True"),
    ("e5rope", {"embedding_size": 32}, "projects its word embeddings"),
])  # fmt: skip
def test_variants_that_the_graph_does_not_compute_are_refused(tmp_path, capsys, kind, change, message):
    folder = tiny_checkpoints.save(kind, tmp_path / kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert main([str(folder), "--out", str(tmp_path / "out"), "--pooling", "mean"]) == 1
    assert message in capsys.readouterr().err


def test_a_tuned_table_gives_short_texts_the_original_vectors(tmp_path):
    """Rows 0, s, 2s, ... are the original's, as in the paper's tuned model. Only the rows between them were trained."""
    original = tiny_checkpoints.save("bert", tmp_path / "original")
    tuned = tiny_checkpoints.expand_positions(tiny_checkpoints.save("bert", tmp_path / "tuned"), 4)
    for folder, more in ((original, []), (tuned, ["--position-stride", "4"])):
        assert main([str(folder), "--out", str(tmp_path / f"{folder.name}-out"), "--pooling", "mean", *more]) == 0
    content = manifest_of(tmp_path / "tuned-out")
    assert (content["trained_window"], content["plain_limit"], content["position_rows"], content["position_stride"]) == (32, 128, 128, 4)
    ids = [[3, 50, 60, 70, 2], [3, *range(20, 50), 2]]
    with torch.inference_mode():
        plain = check.encode(torch.jit.load(tmp_path / "original-out/encoder.pt"), ids, "MEAN")
        strided = check.encode(torch.jit.load(tmp_path / "tuned-out/encoder.pt"), ids, "MEAN", check.positions_of(content))
    assert torch.equal(plain, strided)
    assert main([str(tuned), "--out", str(tmp_path / "bad"), "--pooling", "mean", "--position-stride", "3"]) == 1
