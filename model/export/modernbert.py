"""ModernBERT encoders: gte-modernbert, nomic modernbert, granite-embedding r2.

Norms without biases before the layers, and GeGLU. There are two kinds of layers: global attention, and local attention with its own rotary base. A context
extension changes only the global layers (local_attention.py).
"""

from torch import Tensor, nn

from model.export.config import Rope, layer_kinds, local_sizes, refuse_scaled_local_layers, require, rope_of_layers
from model.export.layers import PreNormLayer, layer_norm, linear
from model.export.local_attention import LocalRotaryAttention
from model.export.oracle import transformers_model
from model.export.rotary_graph import GeGlu, NormedSpanMean, NormedWordEmbeddings, RotaryAttention, RotaryEncoder
from model.export.weights import Weights

ARCHITECTURE = "modernbert"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = False
DEFAULT_POOLING = None

ROPE_TYPES = ("default", "linear")
ROPE_BY_LAYER_TYPE = True
REQUIRED = {"hidden_activation": "gelu"}


def global_rope(config: dict) -> Rope:
    return rope_of_layers("ModernBERT", config, "full_attention", "global_rope_theta", 160_000.0)


def local_rope(config: dict) -> Rope:
    return rope_of_layers("ModernBERT", config, "sliding_attention", "local_rope_theta", 10_000.0)


def kinds_of(config: dict) -> list[str]:
    every = config.get("global_attn_every_n_layers", 3)
    return layer_kinds("ModernBERT", config, ["sliding_attention" if i % every else "full_attention" for i in range(config["num_hidden_layers"])])


def local_window(config: dict) -> int:
    """Returns the number of tokens that a local layer sees on either side."""
    return config.get("local_attention", 128) // 2


def layer(weights: Weights, number: int, config: dict, kind: str) -> PreNormLayer:
    prefix, heads, epsilon = f"layers.{number}.", config["num_attention_heads"], config.get("norm_eps", 1e-5)
    if kind == "full_attention":
        attention = RotaryAttention(heads, heads, causal=False)
    else:
        attention = LocalRotaryAttention(heads, heads, local_window(config), local_rope(config).base)
    return PreNormLayer(
        attention_norm=layer_norm(weights, prefix + "attn_norm", epsilon) if number else nn.Identity(),  # The embeddings' norm precedes layer 0.
        qkv=linear(weights, prefix + "attn.Wqkv"),
        attention=attention,
        attention_output=linear(weights, prefix + "attn.Wo"),
        output_norm=layer_norm(weights, prefix + "mlp_norm", epsilon),
        gate_and_value=linear(weights, prefix + "mlp.Wi"),
        activation=GeGlu(),
        output=linear(weights, prefix + "mlp.Wo"),
    )


def spelling(name: str) -> str:
    return name.removeprefix("model.")


def refuse_unsupported(config: dict) -> None:
    require("ModernBERT", config, REQUIRED)
    kinds_of(config)
    global_rope(config)
    refuse_scaled_local_layers("ModernBERT", local_rope(config))


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embeddings.tok_embeddings.weight"].shape
    heads = config["num_attention_heads"]
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["layers.0.mlp.Wo.weight"].size(1),
        "gated": True,
        "layers": weights.count("attn.Wqkv.weight"),
        **local_sizes(kinds_of(config), local_window(config)),
        "attention_heads": heads,
        "head_dim": hidden // heads,
        "rotary_dim": hidden // heads,
        **global_rope(config).sizes(),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return config["max_position_embeddings"]


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    epsilon = config.get("norm_eps", 1e-5)
    weights = Weights(tensors, spelling)
    norm = layer_norm(weights, "embeddings.norm", epsilon)
    embeddings = NormedWordEmbeddings(weights["embeddings.tok_embeddings.weight"], norm.weight, norm.bias, epsilon)
    layers = [layer(weights, i, config, kind) for i, kind in enumerate(kinds_of(config))]
    return RotaryEncoder(embeddings, layers, NormedSpanMean(layer_norm(weights, "final_norm", epsilon))).eval()


reference = transformers_model
