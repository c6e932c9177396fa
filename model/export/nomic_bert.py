"""nomic-bert (nomic-embed-text): BERT with rotary positions, SwiGLU feed-forward layers and no biases in its linear layers."""

import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from model.export.config import require
from model.export.errors import ExportError
from model.export.graph import SpanMean
from model.export.layers import GatedPostNormLayer
from model.export.rotary_graph import NormedWordEmbeddings, RotaryAttention, RotaryEncoder, SwiGlu
from model.export.weights import Weights

ARCHITECTURE = "nomic-bert"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = False
DEFAULT_POOLING = None

# Keys of the published configuration, and transformers' `hidden_act`. transformers' configuration has none of the others, and its model computes the same.
REQUIRED = {
    "activation_function": "swiglu", "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "prenorm": False, "use_rms_norm": False,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "parallel_block": False, "causal": False, "hidden_act": "silu",
}  # fmt: skip
# Keys of the published code that change the network if they are set.
UNSET = ("norm_mlp", "rotary_head_dim", "num_experts")


def layer(weights: Weights, prefix: str, heads: int) -> GatedPostNormLayer:
    return GatedPostNormLayer(
        qkv=weights.linear_no_bias(prefix + "attn.Wqkv"),
        attention=RotaryAttention(heads, heads, causal=False),
        attention_output=weights.linear_no_bias(prefix + "attn.out_proj"),
        attention_norm=weights.norm(prefix + "norm1"),
        gate_and_value=weights.linear_no_bias(prefix + "mlp.fc12", prefix + "mlp.fc11"),
        activation=SwiGlu(),
        output=weights.linear_no_bias(prefix + "mlp.fc2"),
        output_norm=weights.norm(prefix + "norm2"),
    )


def spelling(name: str) -> str:
    return name.removeprefix("bert.").removeprefix("nomic_bert.")


def setting(config: dict, published: str, native: str, otherwise=None):
    """Returns a setting by its published name or by transformers' name."""
    return config.get(published, config.get(native, otherwise))


def rotary_base(config: dict) -> float:
    return float(config.get("rotary_emb_base") or (config.get("rope_parameters") or {}).get("rope_theta") or 1000)


def refuse_unsupported(config: dict) -> None:
    require("nomic-bert", config, REQUIRED)
    for key in UNSET:
        if config.get(key):
            raise ExportError(f"this nomic-bert has {key} = {config[key]!r}, which is not exported; choose another checkpoint.")


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embeddings.word_embeddings.weight"].shape
    heads = setting(config, "n_head", "num_attention_heads")
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["encoder.layers.0.mlp.fc11.weight"].size(0),
        "gated": True,
        "layers": weights.count("attn.Wqkv.weight"),
        "attention_heads": heads,
        "head_dim": hidden // heads,
        "rotary_dim": hidden // heads,
        "rotary_base": rotary_base(config),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return setting(config, "max_trained_positions", "max_position_embeddings", 2048)


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    epsilon = setting(config, "layer_norm_epsilon", "layer_norm_eps", 1e-12)
    weights = Weights(tensors, spelling, epsilon)
    word = weights["embeddings.word_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    embeddings = NormedWordEmbeddings(word, weights["emb_ln.weight"], weights["emb_ln.bias"], epsilon)
    layers = [layer(weights, f"encoder.layers.{i}.", measured["attention_heads"]) for i in range(measured["layers"])]
    return RotaryEncoder(embeddings, layers, SpanMean()).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """Returns transformers' own NomicBertModel, which reads the published names."""
    import safetensors.torch
    from transformers import NomicBertModel

    measured = sizes(config, tensors)
    native = {
        "model_type": "nomic_bert",
        "vocab_size": measured["vocabulary_size"],
        "hidden_size": measured["hidden_size"],
        "intermediate_size": measured["intermediate_size"],
        "num_hidden_layers": measured["layers"],
        "num_attention_heads": measured["attention_heads"],
        "max_position_embeddings": longest_position(config, tensors),
        "layer_norm_eps": setting(config, "layer_norm_epsilon", "layer_norm_eps", 1e-12),
        "type_vocab_size": config.get("type_vocab_size", 2),
        "rope_parameters": {"rope_type": "default", "rope_theta": measured["rotary_base"]},
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(native), encoding="utf-8")
        named = {name: tensor.contiguous() for name, tensor in Weights(tensors, spelling).all_float32().items()}
        safetensors.torch.save_file(named, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model = NomicBertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32)
    return model.eval()
