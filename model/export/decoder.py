"""Llama, Mistral, Qwen2, Qwen3 and EuroBERT: rotary positions, grouped-query attention, and RMS norms before attention and feed-forward layers.

Biases of linear layers and norms of heads are used if the checkpoint has them. Decoders are causal: E5-Mistral, Qwen3-Embedding. Decoders with bidirectional
attention have `is_causal: false`, which transformers supports from 5.2 on; EuroBERT is always bidirectional (eurobert.py). Mistral's sliding window is
disabled: E5-Mistral was trained without it, and it would conflict with context extensions.
"""

from torch import Tensor, nn

from model.export import rotary_scaling
from model.export.config import layer_kinds, read_rope, require
from model.export.errors import ExportError
from model.export.layers import HeadNormLayer, PreNormLayer, linear
from model.export.oracle import transformers_model
from model.export.rotary_graph import HeadNorm, NormedSpanMean, RmsNorm, RotaryAttention, RotaryEncoder, SwiGlu, WordEmbeddings
from model.export.weights import Weights

ARCHITECTURE = "decoder"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = True
DEFAULT_POOLING = "LAST"

ROPE_TYPES = ("default", "linear", *rotary_scaling.KINDS)
REQUIRED = {"hidden_act": "silu", "pretraining_tp": 1}


def is_causal(config: dict) -> bool:
    return config["model_type"] != "eurobert" and config.get("is_causal") is not False


def layer(weights: Weights, prefix: str, config: dict, heads: int, key_value_heads: int) -> nn.Module:
    epsilon = config["rms_norm_eps"]
    parts = {
        "attention_norm": RmsNorm(weights[prefix + "input_layernorm.weight"], epsilon),
        "qkv": linear(weights, *(f"{prefix}self_attn.{part}_proj" for part in "qkv")),
        "attention": RotaryAttention(heads, key_value_heads, causal=is_causal(config)),
        "attention_output": linear(weights, prefix + "self_attn.o_proj"),
        "output_norm": RmsNorm(weights[prefix + "post_attention_layernorm.weight"], epsilon),
        "gate_and_value": linear(weights, prefix + "mlp.gate_proj", prefix + "mlp.up_proj"),
        "activation": SwiGlu(),
        "output": linear(weights, prefix + "mlp.down_proj"),
    }
    if prefix + "self_attn.q_norm.weight" not in weights:
        return PreNormLayer(**parts)
    norms = (weights[f"{prefix}self_attn.{part}_norm.weight"] for part in "qk")
    return HeadNormLayer(head_norm=HeadNorm(heads, key_value_heads, *norms, epsilon), **parts)


def spelling(name: str) -> str:
    return name.removeprefix("model.")


def refuse_unsupported(config: dict) -> None:
    kind = config["model_type"]
    require(kind, config, REQUIRED)
    read_rope(kind, config)
    if config.get("is_causal") not in (None, True, False):
        raise ExportError(f"this {kind} has is_causal = {config['is_causal']!r}, which is neither true nor false; correct its config.json.")
    if kind != "mistral" and (config.get("use_sliding_window") or "sliding_attention" in layer_kinds(kind, config, [])):
        raise ExportError(f"this {kind} has layers with a sliding window (use_sliding_window, layer_types), which are not exported; choose another checkpoint.")


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embed_tokens.weight"].shape
    heads = config["num_attention_heads"]
    head_dim = weights["layers.0.self_attn.q_proj.weight"].size(0) // heads
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["layers.0.mlp.up_proj.weight"].size(0),
        "gated": True,
        "layers": weights.count("self_attn.q_proj.weight"),
        "attention_heads": heads,
        "key_value_heads": weights["layers.0.self_attn.k_proj.weight"].size(0) // head_dim,
        "head_dim": head_dim,
        "rotary_dim": head_dim,
        **read_rope(config["model_type"], config).sizes(),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    window = config.get("sliding_window") if config["model_type"] == "mistral" else None
    return min(config["max_position_embeddings"], window or config["max_position_embeddings"])


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    weights = Weights(tensors, spelling)
    heads, key_value_heads = measured["attention_heads"], measured["key_value_heads"]
    layers = [layer(weights, f"layers.{i}.", config, heads, key_value_heads) for i in range(measured["layers"])]
    last_norm = RmsNorm(weights["norm.weight"], config["rms_norm_eps"])
    return RotaryEncoder(WordEmbeddings(weights["embed_tokens.weight"]), layers, NormedSpanMean(last_norm)).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """Returns transformers' own model, without a sliding window."""
    measured = sizes(config, tensors)
    no_window = {"sliding_window": None} if config["model_type"] == "mistral" else {}
    return transformers_model(config, tensors, vocab_size=measured["vocabulary_size"], num_hidden_layers=measured["layers"], **no_window)
