"""gte "new" encoders: gte-base/large-en-v1.5, gte-multilingual-base, snowflake-arctic-embed-m-v2.0.

BERT with rotary positions and GeGLU. Queries, keys and values are one tensor. The published code is `NewModel` (Alibaba-NLP/new-impl); transformers has the
network as GteModel.
"""

import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from model.export.config import Rope, refuse_two_ropes, require, rope_of, rope_settings
from model.export.errors import ExportError
from model.export.graph import LinearNoBias, SpanMean
from model.export.layers import GatedPostNormLayer, linear
from model.export.rotary_graph import GeGlu, NormedWordEmbeddings, RotaryAttention, RotaryEncoder
from model.export.weights import Weights

ARCHITECTURE = "gte"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = False
DEFAULT_POOLING = None

OWN_CODE = True  # This module computes the same as NewModel.
ROPE_TYPES = ("default", "linear", "ntk")
REQUIRED = {"hidden_act": "gelu", "position_embedding_type": "rope", "layer_norm_type": "layer_norm", "logn_attention_scale": False}
DEFAULT_BASES = {"new": 10_000.0, "gte": 160_000.0}  # In the published code's config, and in transformers'.


def plain_rope(config: dict) -> Rope:
    """Returns the rotary frequencies. For the published code's `ntk` with factor s (kexue.fm/archives/9706), theta_j = (b s)^(-2j/d) / s^(2/d)."""
    refuse_two_ropes(config)
    settings = rope_settings(config, DEFAULT_BASES[config["model_type"]])
    if settings.get("rope_type") != "ntk":
        return rope_of("gte", settings)
    if settings.get("mixed_b") is not None:
        raise ExportError(f"this gte has rope_scaling with mixed_b = {settings['mixed_b']!r}, which is not exported; choose another checkpoint.")
    factor = float(settings["factor"])
    return Rope(settings["rope_theta"] * factor, factor ** (2 / (config["hidden_size"] // config["num_attention_heads"])), "ntk")


def layer(weights: Weights, prefix: str, heads: int) -> GatedPostNormLayer:
    value_and_gate = weights[prefix + "mlp.up_gate_proj.weight"]
    if prefix + "mlp.up_gate_proj.bias" in weights:
        raise ExportError("this gte has a bias up_gate_proj.bias, which no known one has; choose another checkpoint.")
    return GatedPostNormLayer(
        qkv=linear(weights, prefix + "attention.qkv_proj"),
        attention=RotaryAttention(heads, heads, causal=False),
        attention_output=linear(weights, prefix + "attention.o_proj"),
        attention_norm=weights.norm(prefix + "attn_ln"),
        gate_and_value=LinearNoBias(torch.cat(value_and_gate.chunk(2)[::-1])),
        activation=GeGlu(),
        output=linear(weights, prefix + "mlp.down_proj"),
        output_norm=weights.norm(prefix + "mlp_ln"),
    )


def spelling(name: str) -> str:
    return name.removeprefix("new.").removeprefix("gte.")


def refuse_unsupported(config: dict) -> None:
    require("gte", config, REQUIRED)
    plain_rope(config)


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embeddings.word_embeddings.weight"].shape
    heads = config["num_attention_heads"]
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["encoder.layer.0.mlp.down_proj.weight"].size(1),
        "gated": True,
        "layers": weights.count("attention.qkv_proj.weight"),
        "attention_heads": heads,
        "head_dim": hidden // heads,
        "rotary_dim": hidden // heads,
        **plain_rope(config).sizes(),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return config["max_position_embeddings"]


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    epsilon = config.get("layer_norm_eps", 1e-12)
    weights = Weights(tensors, spelling, epsilon)
    word = weights["embeddings.word_embeddings.weight"]
    if config.get("type_vocab_size", 1):
        word = word + weights["embeddings.token_type_embeddings.weight"][0]
    embeddings = NormedWordEmbeddings(word, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], epsilon)
    layers = [layer(weights, f"encoder.layer.{i}.", measured["attention_heads"]) for i in range(measured["layers"])]
    return RotaryEncoder(embeddings, layers, SpanMean()).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """Returns transformers' own GteModel, which reads the published names."""
    import safetensors.torch
    from transformers import GteModel

    rope = plain_rope(config)
    scaled = {"rope_type": "linear", "factor": rope.factor} if rope.factor != 1 else {"rope_type": "default"}
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "architectures", "rope_theta", "rope_scaling", "torch_dtype", "dtype")}
    native = {**kept, "model_type": "gte", "type_vocab_size": config.get("type_vocab_size", 1), "rope_parameters": {**scaled, "rope_theta": rope.base}}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(native), encoding="utf-8")
        named = {name: tensor.contiguous() for name, tensor in Weights(tensors, spelling).all_float32().items()}
        safetensors.torch.save_file(named, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        return GteModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
