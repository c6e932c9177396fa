"""Mistral and Llama decoders as embedders: E5-Mistral, and any decoder of these types. Causal, rotary, grouped-query attention, RMS norms before the layers.

Mistral's sliding window is off: E5-Mistral was trained without it, and a context extension would fight it.
"""

from torch import Tensor, nn

from model.export.errors import ExportError
from model.export.rotary_graph import NormedSpanMean, RmsNorm, RotaryAttention, RotaryEncoder, SwiGlu, WordEmbeddings
from model.export.weights import Weights, load_reference

ARCHITECTURE = "decoder"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = True
DEFAULT_POOLING = "LAST"

REQUIRED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}


class Layer(nn.Module):
    """hidden [T, H], rotary, query_scale float32 [S], neighbour_window int32 [S], sequence_offsets int32 [S + 1] -> [T, H]."""

    def __init__(self, weights: Weights, prefix: str, heads: int, key_value_heads: int, epsilon: float):
        super().__init__()
        self.attention_norm = RmsNorm(weights[prefix + "input_layernorm.weight"], epsilon)
        self.qkv = weights.linear_no_bias(*(f"{prefix}self_attn.{part}_proj" for part in "qkv"))
        self.attention = RotaryAttention(heads, key_value_heads, causal=True)
        self.attention_output = weights.linear_no_bias(prefix + "self_attn.o_proj")
        self.output_norm = RmsNorm(weights[prefix + "post_attention_layernorm.weight"], epsilon)
        self.gate_and_value = weights.linear_no_bias(prefix + "mlp.gate_proj", prefix + "mlp.up_proj")
        self.activation = SwiGlu()
        self.output = weights.linear_no_bias(prefix + "mlp.down_proj")

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbour_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(self.attention_norm(hidden)), rotary, query_scale, neighbour_window, sequence_offsets)
        hidden = hidden + self.attention_output(context)
        return hidden + self.output(self.activation(self.gate_and_value(self.output_norm(hidden))))


def spelling(name: str) -> str:
    return name.removeprefix("model.")


def rope_settings(config: dict) -> dict:
    """transformers moved these from two keys of the config into one mapping."""
    return config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}


def refuse_unsupported(config: dict) -> None:
    for key, value in REQUIRED.items():
        if config.get(key, value) != value:
            raise ExportError(f"this decoder has {key} = {config[key]!r} and only {value!r} is exported; choose another checkpoint.")
    kind = rope_settings(config).get("rope_type", rope_settings(config).get("type", "default"))
    if kind != "default":
        raise ExportError(f"this decoder scales its rotary positions ({kind}); export the model it was made from, and ask for the scaling in a request.")


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
        "rotary_base": float(rope_settings(config)["rope_theta"]),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return min(config["max_position_embeddings"], config.get("sliding_window") or config["max_position_embeddings"])


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    epsilon = config["rms_norm_eps"]
    weights = Weights(tensors, spelling)
    heads, key_value_heads = measured["attention_heads"], measured["key_value_heads"]
    layers = [Layer(weights, f"layers.{i}.", heads, key_value_heads, epsilon) for i in range(measured["layers"])]
    return RotaryEncoder(WordEmbeddings(weights["embed_tokens.weight"]), layers, NormedSpanMean(RmsNorm(weights["norm.weight"], epsilon))).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """transformers' own MistralModel or LlamaModel with the same weights, in float32; no sliding window."""
    from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

    measured = sizes(config, tensors)
    full = {
        **{key: value for key, value in config.items() if key not in ("rope_theta", "rope_scaling", "dtype", "torch_dtype")},
        "vocab_size": measured["vocabulary_size"],
        "num_hidden_layers": measured["layers"],
        "rope_parameters": {"rope_type": "default", "rope_theta": measured["rotary_base"]},
    }
    if config["model_type"] == "mistral":
        model = MistralModel(MistralConfig.from_dict({**full, "sliding_window": None}, attn_implementation="eager"))
    else:
        model = LlamaModel(LlamaConfig.from_dict(full, attn_implementation="eager"))
    return load_reference(model, Weights(tensors, spelling).all_float32())
