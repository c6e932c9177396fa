"""Compares the graph with slow and simple references that share no code with it."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY

from model.export import architectures, bert, check, export


@pytest.fixture(scope="module")
def graph(tiny_checkpoint):
    return torch.jit.load(io.BytesIO(export.script(architectures.find(tiny_checkpoint.config), tiny_checkpoint)))


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    return bert.reference(tiny_checkpoint.config, tiny_checkpoint.tensors)


def random_sequences(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("pooling", ["MEAN", "CLS"])
def test_a_packed_batch_gives_what_transformers_gives_for_each_text_alone(graph, reference, pooling):
    sequences = random_sequences(1, 7, 7, 7, 40, 2, 39, 39)
    with torch.inference_mode():
        packed = check.encode(graph, sequences, pooling)
        for vector, ids in zip(packed, sequences):
            hidden = reference(input_ids=torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(vector, hidden[0] if pooling == "CLS" else hidden.mean(dim=0), atol=1e-5, rtol=1e-5)


def test_forward_is_its_parts_one_after_the_other(graph):
    tokens = torch.tensor([5, 6, 7, 8, 9], dtype=torch.int32)
    positions = torch.tensor([0, 1, 2, 0, 1.5])
    scale, window = torch.tensor([1.0, 1.3]), torch.zeros(2, dtype=torch.int32)
    offsets = torch.tensor([0, 3, 5], dtype=torch.int32)
    spans = torch.tensor([[0, 3], [3, 5], [1, 2]], dtype=torch.int32)
    with torch.inference_mode():
        hidden = graph.embeddings(tokens, positions)
        for layer in graph.layers.children():
            hidden = layer(hidden, scale, window, offsets)
        assert torch.equal(graph.pooling(hidden, spans), graph(tokens, positions, scale, window, offsets, spans))


def looked_up_in_double(table: np.ndarray, positions: np.ndarray) -> np.ndarray:
    last = len(table) - 1
    return np.stack([np.stack([np.interp(min(p, last), np.arange(last + 1), column) for column in table.T]) for p in positions])


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.7, 8.0])
def test_positions_between_rows_are_interpolated(tiny_checkpoint, factor):
    """Norm and word vectors are made neutral, so that the result is the rows themselves."""
    embeddings = bert.build(tiny_checkpoint.config, tiny_checkpoint.tensors).embeddings
    embeddings.word.data.zero_()
    embeddings.norm = PassThrough()
    positions = torch.arange(40 * int(factor) + 5, dtype=torch.float32) / factor
    rows = torch.jit.script(embeddings)(torch.zeros(len(positions), dtype=torch.int32), positions)
    expected = looked_up_in_double(embeddings.position.double().numpy(), positions.double().numpy())
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-6)


def test_integer_positions_give_their_rows_exactly_and_later_ones_the_last_row(tiny_checkpoint):
    embeddings = bert.build(tiny_checkpoint.config, tiny_checkpoint.tensors).embeddings
    embeddings.word.data.zero_()
    embeddings.norm = PassThrough()
    rows = embeddings(torch.zeros(43, dtype=torch.int32), torch.cat([torch.arange(40.0), torch.tensor([39.01, 40, 1e6])]))
    assert torch.equal(rows[:40], embeddings.position)
    assert torch.equal(rows[40:], embeddings.position[39:].expand(3, -1))


class PassThrough(torch.nn.Module):
    def forward(self, update: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return update + residual


def explicit_attention(qkv: torch.Tensor, scale: float, heads: int) -> torch.Tensor:
    """Computes attention for one sequence, one head at a time, in float64."""
    query, key, value = qkv.double().chunk(3, dim=1)
    outputs = []
    for q, k, v in zip(query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1)):
        weights = torch.exp(scale * (q @ k.t()) / q.size(1) ** 0.5)
        outputs.append(weights @ v / weights.sum(dim=1, keepdim=True))
    return torch.cat(outputs, dim=1)


def test_query_scale_multiplies_the_logits_of_its_own_sequence(graph):
    lengths, scales = [5, 5, 5, 9, 1], [1.0, 1.0, 1.7, 0.6, 2.0]
    offsets = [0, 5, 10, 15, 24, 25]
    qkv = torch.randn(25, 144, generator=torch.Generator().manual_seed(3))
    attention = next(graph.layers.children()).attention
    context = attention(qkv, torch.tensor(scales), torch.zeros(5, dtype=torch.int32), torch.tensor(offsets, dtype=torch.int32))
    for start, length, scale in zip(offsets, lengths, scales):
        rows = slice(start, start + length)
        torch.testing.assert_close(context[rows].double(), explicit_attention(qkv[rows], scale, 4), atol=1e-5, rtol=1e-5)


def test_a_query_scale_of_one_changes_no_bit(graph):
    qkv = torch.randn(6, 144, generator=torch.Generator().manual_seed(4))
    attention = next(graph.layers.children()).attention
    context = attention(qkv, torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.tensor([0, 6], dtype=torch.int32))
    query, key, value = (part.view(1, 6, 4, 12).transpose(1, 2) for part in qkv.chunk(3, dim=1))
    assert torch.equal(context, F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(6, 48))


def test_spans_are_averaged_each_on_its_own(graph):
    hidden = torch.randn(10, 48, generator=torch.Generator().manual_seed(5))
    hidden[9] = 1e30
    spans = [[0, 1], [0, 9], [3, 5], [4, 9], [4, 5]]
    vectors = graph.pooling(hidden, torch.tensor(spans, dtype=torch.int32))
    torch.testing.assert_close(vectors.double(), torch.stack([hidden[a:b].double().mean(0) for a, b in spans]), atol=1e-6, rtol=1e-6)
    assert torch.equal(vectors[4], hidden[4])


def test_the_file_states_its_contract_and_no_path_of_this_machine(tiny_checkpoint):
    data = export.script(bert, tiny_checkpoint)
    extra = {"longembed.json": ""}
    torch.jit.load(io.BytesIO(data), _extra_files=extra)
    assert extra["longembed.json"] == b'{"format_version":1,"signature":"ape-v1","architecture":"bert"}'
    assert f"{REPOSITORY}/".encode() not in data


LONG_SEQUENCE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from model.export import bert, check
from transformers import BertConfig, BertModel
model = BertModel(BertConfig(hidden_size=384, num_attention_heads=12, intermediate_size=1536, num_hidden_layers=1), add_pooling_layer=False)
graph = torch.jit.script(bert.build(model.config.to_dict(), model.state_dict()))
with torch.inference_mode():
    check.encode(graph, [[5] * 16], "MEAN")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check.encode(graph, [[5] * 8192], "MEAN")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_8192_tokens_of_one_sequence_fit_in_256_mib():
    """One layer with the size of e5-small's is enough, because layers reuse each other's memory. A matrix of scores alone would take 3 GiB."""
    done = subprocess.run([sys.executable, "-c", LONG_SEQUENCE, str(REPOSITORY)], capture_output=True, text=True, check=True)
    grown_mib = int(done.stdout) / 1024
    print(f"grew by {grown_mib:.0f} MiB")
    assert grown_mib < 256
