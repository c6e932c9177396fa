"""EmbeddingGemma: the text model of Gemma 3 with bidirectional attention.

Each layer has four RMS norms with zero-centered weights (1 + weight), norms of query and key heads, and GeGLU with tanh. There are two kinds of layers: global
attention, and local attention with its own rotary base. A context extension changes only the global layers (local_attention.py).
"""

from torch import Tensor, nn

from model.export.config import Rope, layer_kinds, local_sizes, refuse_scaled_local_layers, require, rope_of_layers
from model.export.errors import ExportError
from model.export.layers import SandwichNormLayer, linear
from model.export.local_attention import LocalRotaryAttention
from model.export.oracle import transformers_model
from model.export.rotary_graph import GeGluTanh, HeadNorm, NormedSpanMean, RmsNorm, RotaryAttention, RotaryEncoder, WordEmbeddings
from model.export.weights import Weights

ARCHITECTURE = "gemma3"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = False
DEFAULT_POOLING = None

ROPE_TYPES = ("default", "linear")
ROPE_BY_LAYER_TYPE = True
REQUIRED = {"hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": None}


def global_rope(config: dict) -> Rope:
    return rope_of_layers("Gemma 3", config, "full_attention", "rope_theta", 1_000_000.0)


def local_rope(config: dict) -> Rope:
    return rope_of_layers("Gemma 3", config, "sliding_attention", "rope_local_base_freq", 10_000.0, scaled=False)


def kinds_of(config: dict) -> list[str]:
    every = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    return layer_kinds("Gemma 3", config, ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(config["num_hidden_layers"])])


def local_window(config: dict) -> int:
    """Returns the number of tokens that a local layer sees on either side."""
    return config["sliding_window"] // 2


def norm(weights: Weights, name: str, config: dict) -> RmsNorm:
    return RmsNorm(1 + weights[name + ".weight"], config["rms_norm_eps"])


def layer(weights: Weights, prefix: str, config: dict, measured: dict, kind: str) -> SandwichNormLayer:
    heads, key_value_heads, head_dim = measured["attention_heads"], measured["key_value_heads"], measured["head_dim"]
    if kind == "full_attention":
        attention = RotaryAttention(heads, key_value_heads, causal=False)
    else:
        attention = LocalRotaryAttention(heads, key_value_heads, local_window(config), local_rope(config).base)
    # The graph's attention divides by the square root of head_dim, Gemma by that of query_pre_attn_scalar.
    query = (1 + weights[prefix + "self_attn.q_norm.weight"]) * (head_dim / config.get("query_pre_attn_scalar", 256)) ** 0.5
    key = 1 + weights[prefix + "self_attn.k_norm.weight"]
    return SandwichNormLayer(
        attention_norm=norm(weights, prefix + "input_layernorm", config),
        qkv=linear(weights, *(f"{prefix}self_attn.{part}_proj" for part in "qkv")),
        head_norm=HeadNorm(heads, key_value_heads, query, key, config["rms_norm_eps"]),
        attention=attention,
        attention_output=linear(weights, prefix + "self_attn.o_proj"),
        attention_output_norm=norm(weights, prefix + "post_attention_layernorm", config),
        feed_forward_norm=norm(weights, prefix + "pre_feedforward_layernorm", config),
        gate_and_value=linear(weights, prefix + "mlp.gate_proj", prefix + "mlp.up_proj"),
        activation=GeGluTanh(),
        output=linear(weights, prefix + "mlp.down_proj"),
        output_norm=norm(weights, prefix + "post_feedforward_layernorm", config),
    )


def spelling(name: str) -> str:
    return name.removeprefix("model.")


def refuse_unsupported(config: dict) -> None:
    require("Gemma 3", config, REQUIRED)
    if config.get("use_bidirectional_attention") is not True:
        raise ExportError("this Gemma 3 is causal (use_bidirectional_attention is not true), but only EmbeddingGemma's kind is exported; choose another checkpoint.")
    kinds_of(config)
    global_rope(config)
    refuse_scaled_local_layers("Gemma 3", local_rope(config))


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embed_tokens.weight"].shape
    head_dim = weights["layers.0.self_attn.q_norm.weight"].size(0)
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["layers.0.mlp.up_proj.weight"].size(0),
        "gated": True,
        "layers": weights.count("self_attn.q_proj.weight"),
        **local_sizes(kinds_of(config), local_window(config)),
        "attention_heads": weights["layers.0.self_attn.q_proj.weight"].size(0) // head_dim,
        "key_value_heads": weights["layers.0.self_attn.k_proj.weight"].size(0) // head_dim,
        "head_dim": head_dim,
        "rotary_dim": head_dim,
        **global_rope(config).sizes(),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return config["max_position_embeddings"]


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    weights = Weights(tensors, spelling)
    word = weights["embed_tokens.weight"] * measured["hidden_size"] ** 0.5
    layers = [layer(weights, f"layers.{i}.", config, measured, kind) for i, kind in enumerate(kinds_of(config))]
    return RotaryEncoder(WordEmbeddings(word), layers, NormedSpanMean(norm(weights, "norm", config))).eval()


reference = transformers_model
