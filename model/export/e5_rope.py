"""E5-RoPE of the LongEmbed paper (dwzhu/e5rope-base): BERT with rotary positions instead of a position table.

Its published code is RoFormer's with Llama's rotation: a pair is components j and j + d/2 of a head, not neighbors, and values are not rotated (`rotary_value`
false).
"""

import torch
from torch import Tensor, nn

from model.export import bert
from model.export.config import require
from model.export.errors import ExportError
from model.export.graph import LinearGelu, SpanMean
from model.export.rotary_graph import NormedWordEmbeddings, RotaryAttention, RotaryEncoder
from model.export.weights import Weights, load_reference

ARCHITECTURE = "e5-rope"
FAMILY = "ROPE"
SIGNATURE = "rope-v1"
CAUSAL = False
DEFAULT_POOLING = None

REQUIRED = {"hidden_act": "gelu", "rotary_value": False, "is_decoder": False, "add_cross_attention": False}


class Layer(nn.Module):
    """hidden [T, H], rotary, query_scale float32 [S], neighbor_window int32 [S], sequence_offsets int32 [S + 1] -> [T, H]."""

    def __init__(self, weights: Weights, prefix: str, heads: int):
        super().__init__()
        self.qkv = weights.fused(prefix + "attention.self.", ("query", "key", "value"))
        self.attention = RotaryAttention(heads, heads, causal=False)
        self.attention_output = weights.linear(prefix + "attention.output.dense")
        self.attention_norm = weights.norm(prefix + "attention.output.LayerNorm")
        self.intermediate = LinearGelu(weights[prefix + "intermediate.dense.weight"], weights[prefix + "intermediate.dense.bias"])
        self.output = weights.linear(prefix + "output.dense")
        self.output_norm = weights.norm(prefix + "output.LayerNorm")

    def forward(self, hidden: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(hidden), rotary, query_scale, neighbor_window, sequence_offsets)
        hidden = self.attention_norm(self.attention_output(context), hidden)
        return self.output_norm(self.output(self.intermediate(hidden)), hidden)


def spelling(name: str) -> str:
    return bert.spelling(name.removeprefix("e5rope."))


def refuse_unsupported(config: dict) -> None:
    require("E5-RoPE", config, REQUIRED)
    if config.get("embedding_size", config["hidden_size"]) != config["hidden_size"]:
        raise ExportError("this E5-RoPE projects its word embeddings (embedding_size differs from hidden_size), which is not exported; choose another checkpoint.")


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    weights = Weights(tensors, spelling)
    vocabulary, hidden = weights["embeddings.word_embeddings.weight"].shape
    heads = config["num_attention_heads"]
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["encoder.layer.0.intermediate.dense.weight"].size(0),
        "layers": weights.count("attention.self.query.weight"),
        "attention_heads": heads,
        "head_dim": hidden // heads,
        "rotary_dim": hidden // heads,
        "rotary_base": float(config.get("rope_theta", 10000)),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return config["max_position_embeddings"]


def build(config: dict, tensors: dict[str, Tensor]) -> RotaryEncoder:
    measured = sizes(config, tensors)
    epsilon = config.get("layer_norm_eps", 1e-12)
    weights = Weights(tensors, spelling, epsilon)
    word = weights["embeddings.word_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    embeddings = NormedWordEmbeddings(word, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], epsilon)
    layers = [Layer(weights, f"encoder.layer.{i}.", measured["attention_heads"]) for i in range(measured["layers"])]
    return RotaryEncoder(embeddings, layers, SpanMean()).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """Returns transformers' BertModel without positions, with an attention that rotates queries and keys. transformers has no E5-RoPE."""
    from transformers import BertConfig, BertModel
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    measured = sizes(config, tensors)
    frequencies = measured["rotary_base"] ** -(torch.arange(0, measured["rotary_dim"], 2, dtype=torch.float64) / measured["rotary_dim"])

    def rotated(x: Tensor) -> Tensor:
        """Rotates x [batch, heads, n, d], with each pair (j, j + d/2) as a complex number."""
        half = x.size(-1) // 2
        turns = torch.polar(torch.ones(x.size(2), half, dtype=torch.float64), torch.outer(torch.arange(x.size(2), dtype=torch.float64), frequencies))
        turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turns
        return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)

    def attention(module, query, key, value, attention_mask, scaling=None, **_):
        scores = rotated(query) @ rotated(key).transpose(2, 3) * (query.size(-1) ** -0.5 if scaling is None else scaling)
        return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("longembed_rotary", attention)
    full = {**config, **bert.transformers_sizes({**measured, "position_rows": config["max_position_embeddings"]}), "model_type": "bert"}
    model = BertModel(BertConfig.from_dict(full, attn_implementation="longembed_rotary"), add_pooling_layer=False)
    named = Weights(tensors, spelling).all_float32()
    positions = torch.zeros(config["max_position_embeddings"], measured["hidden_size"])
    return load_reference(model, {**named, "embeddings.position_embeddings.weight": positions})
