"""Compares checkpoints that scale each pair's rotary frequency with transformers' own models of such configurations. Also tests what is refused."""

import io
import json
import random
import sys

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import REPOSITORY
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

sys.path.insert(0, str(REPOSITORY / "tests/testing"))
import tiny_checkpoints  # noqa: E402

from model.export import architectures, check, export, rotary_scaling, sources  # noqa: E402
from model.export.__main__ import main  # noqa: E402
from model.export.errors import ExportError  # noqa: E402

PAIRS = 8
SHORT, LONG = [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0], [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0]
SCALINGS = [
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 4.0, "beta_slow": 0.5, "truncate": False, "attention_factor": 1.25},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 0.5},
    {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.1},
]
LENGTHS = (1, 7, 31, 32, 33, 33, 64, 65, 100, 128)


def name_of(scaling: dict) -> str:
    return "-".join(str(value) for value in scaling.values() if not isinstance(value, list))


def checkpoint_of(folder, scaling: dict, longest: int = 128):
    """Returns a tiny Llama whose config.json contains `scaling`."""
    tiny_checkpoints.save("llama", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"max_position_embeddings": longest, "rope_parameters": {"rope_theta": 10000.0, **scaling}}
    (folder / "config.json").write_text(json.dumps(config))
    return sources.read_directory(folder)


@pytest.mark.parametrize("scaling", SCALINGS, ids=name_of)
def test_the_factors_are_those_of_transformers(scaling):
    config = transformers.LlamaConfig(
        num_attention_heads=4, hidden_size=64, head_dim=16, max_position_embeddings=128, rope_parameters={"rope_theta": 10000.0, **scaling}
    )
    settings = {"num_attention_heads": 4, "hidden_size": 64, "head_dim": 16, "max_position_embeddings": 128}
    ours = rotary_scaling.read("llama", settings, {"rope_theta": 10000.0, **scaling})
    plain = 10000.0 ** (-np.arange(PAIRS) / PAIRS)
    for length in (32, 65):
        frequencies, amplitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", seq_len=length)
        factors = ours.long_factors if ours.long_factors and length > ours.long_from else ours.factors
        np.testing.assert_allclose(plain / np.array(factors), frequencies.double().numpy(), rtol=1e-6)
        assert ours.amplitude == pytest.approx(amplitude, rel=1e-9)


@pytest.mark.parametrize("scaling", SCALINGS, ids=name_of)
def test_short_and_long_texts_in_one_batch_have_the_vectors_of_transformers(tmp_path, scaling):
    checkpoint = checkpoint_of(tmp_path / "llama", scaling)
    architecture = architectures.find(checkpoint.config)
    content = {"family": architecture.FAMILY, **architecture.sizes(checkpoint.config, checkpoint.tensors)}
    assert content["rotary_scaling"]["kind"] == scaling["rope_type"]
    graph = torch.jit.load(io.BytesIO(export.script(architecture, checkpoint)))
    generator = torch.Generator().manual_seed(3)
    sequences = [torch.randint(4, 300, (n,), generator=generator).tolist() for n in LENGTHS]
    config = transformers.LlamaConfig(**{**checkpoint.config, "attn_implementation": "eager"})
    reference = transformers.LlamaModel(config).eval()
    reference.load_state_dict({name.removeprefix("model."): tensor for name, tensor in checkpoint.tensors.items()})
    with torch.inference_mode():
        ours = check.encode(graph, sequences, "LAST", check.positions_of(content)).double()
        for vector, ids in zip(ours, sequences):
            theirs = reference(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].double()
            assert torch.nn.functional.cosine_similarity(vector, theirs, dim=0) >= 0.99999


@pytest.mark.parametrize("scaling", [SCALINGS[0], SCALINGS[1], SCALINGS[4]], ids=name_of)
def test_a_checkpoint_is_exported_and_checked_from_text_to_vector(tmp_path, scaling):
    checkpoint_of(tmp_path / "llama", scaling)
    assert main([str(tmp_path / "llama"), "--out", str(tmp_path / "out"), "--append-eos"]) == 0
    written = yaml.safe_load((tmp_path / "out/longembed-model.yaml").read_text())
    assert written["trained_window"] == 128 and len(written["rotary_scaling"]["factors"]) == PAIRS
    assert ("long_factors" in written["rotary_scaling"]) == (scaling["rope_type"] == "longrope")


def test_long_factors_change_only_long_texts(tmp_path):
    """Verifies the assumption of the check: with the short factors everywhere, long texts would have other vectors."""
    checkpoint = checkpoint_of(tmp_path / "llama", SCALINGS[4])
    sizes = architectures.find(checkpoint.config).sizes(checkpoint.config, checkpoint.tensors)
    right = check.positions_of({"family": "ROPE", **sizes})([32, 33])
    short = check.positions_of({"family": "ROPE", **sizes, "rotary_scaling": {**sizes["rotary_scaling"], "long_from": 1000}})([32, 33])
    assert torch.equal(right[:, :, :32], short[:, :, :32]) and not torch.allclose(right[:, :, 40:], short[:, :, 40:])


@pytest.mark.parametrize("scaling, words", [
    ({**SCALINGS[0], "factor": None}, "with factor = None"),
    ({**SCALINGS[0], "low_freq_factor": 4.0}, r"below high_freq_factor \(4\)"),
    ({**SCALINGS[0], "original_max_position_embeddings": 0.5}, "a whole number above 0"),
    ({**SCALINGS[1], "factor": "4"}, "with factor = 4, which must be a number above 0"),
    ({**SCALINGS[1], "attention_factor": -1}, "attention_factor = -1"),
    ({**SCALINGS[4], "short_factor": SHORT[:-1]}, "short_factor"),
    ({**SCALINGS[4], "long_factor": [*LONG[:-1], 0]}, "a list of 8 numbers above 0"),
    ({**SCALINGS[4], "long_factor": None}, "long_factor = None"),
    ({"rope_type": "dynamic", "factor": 2.0}, "scales its rotary positions"),
], ids=str)  # fmt: skip
def test_ambiguous_settings_are_refused(tmp_path, scaling, words):
    checkpoint = checkpoint_of(tmp_path / "llama", scaling)
    with pytest.raises(ExportError, match=words):
        architectures.find(checkpoint.config).refuse_unsupported(checkpoint.config)
