"""BERT encoders with learned absolute positions: E5, BGE, GTE, Contriever, MiniLM."""

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.config import require
from model.export.graph import LinearGelu, PackedAttention, ResidualNorm, SpanMean, frozen
from model.export.weights import Weights, load_reference

ARCHITECTURE = "bert"
FAMILY = "APE"
SIGNATURE = "ape-v1"
CAUSAL = False
DEFAULT_POOLING = None  # Pooling of checkpoints without a setting; None: a setting is required.

# The values that the graph below computes. A config with other values is refused.
REQUIRED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}

POSITION = "embeddings.position_embeddings.weight"


class Embeddings(nn.Module):
    """tokens int32 [T], positions float32 [T] -> [T, H].

    A position between two integers gets the linear interpolation of their rows, and an integer gets exactly its row. Positions beyond the last row get the last
    row.
    """

    def __init__(self, word: Tensor, position: Tensor, norm: ResidualNorm):
        super().__init__()
        self.word = frozen(word)
        self.position = frozen(position)
        self.norm = norm

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        last = float(self.position.size(0) - 1)
        place = positions.clamp(0.0, last)
        row = place.floor()
        below = F.embedding(row.to(torch.int32), self.position)
        above = F.embedding((row + 1.0).clamp(0.0, last).to(torch.int32), self.position)
        share = (place - row).unsqueeze(1).to(below.dtype)
        return self.norm(F.embedding(tokens, self.word), torch.lerp(below, above, share))


class Layer(nn.Module):
    """hidden [T, H], query_scale float32 [S], neighbor_window int32 [S], sequence_offsets int32 [S + 1] -> [T, H].

    neighbor_window is not used with absolute positions. It exists because the layers of all families have the same signature.
    """

    def __init__(self, weights: Weights, prefix: str, attention: nn.Module):
        super().__init__()
        self.qkv = weights.fused(prefix + "attention.self.", ("query", "key", "value"))
        self.attention = attention
        self.attention_output = weights.linear(prefix + "attention.output.dense")
        self.attention_norm = weights.norm(prefix + "attention.output.LayerNorm")
        self.intermediate = LinearGelu(weights[prefix + "intermediate.dense.weight"], weights[prefix + "intermediate.dense.bias"])
        self.output = weights.linear(prefix + "output.dense")
        self.output_norm = weights.norm(prefix + "output.LayerNorm")

    def forward(self, hidden: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(hidden), query_scale, neighbor_window, sequence_offsets)
        hidden = self.attention_norm(self.attention_output(context), hidden)
        return self.output_norm(self.output(self.intermediate(hidden)), hidden)


class PackedEncoder(nn.Module):
    """A whole graph of signature ape-v1. Instead of forward, a loader may call embeddings, each layer and pooling separately."""

    def __init__(self, weights: Weights, attentions: list[nn.Module]):
        """`attentions` holds the attention of each layer."""
        super().__init__()
        self.embeddings = embeddings(weights)
        self.layers = nn.ModuleList(Layer(weights, f"encoder.layer.{i}.", attention) for i, attention in enumerate(attentions))
        self.pooling = SpanMean()

    def forward(
        self, tokens: Tensor, positions: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor, spans: Tensor
    ) -> Tensor:
        hidden = self.embeddings(tokens, positions)
        for layer in self.layers:
            hidden = layer(hidden, query_scale, neighbor_window, sequence_offsets)
        return self.pooling(hidden, spans)


def embeddings(weights: Weights) -> Embeddings:
    word = weights["embeddings.word_embeddings.weight"]
    if "embeddings.token_type_embeddings.weight" in weights:
        # Adds the row of token type 0 to the word table. transformers also adds these two first, so the sum is bitwise equal.
        word = word + weights["embeddings.token_type_embeddings.weight"][0]
    return Embeddings(word, weights[POSITION], weights.norm("embeddings.LayerNorm"))


def spelling(name: str) -> str:
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def refuse_unsupported(config: dict, kind: str = "BERT") -> None:
    require(kind, config, REQUIRED)


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    """Returns the manifest's sizes. They come from the tensors, except for the number of heads, which only the config has."""
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
        "position_rows": weights[POSITION].size(0),
    }


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return sizes(config, tensors)["position_rows"]


def build(config: dict, tensors: dict[str, Tensor]) -> PackedEncoder:
    """Returns the graph, ready to be scripted."""
    measured = sizes(config, tensors)
    attentions = [PackedAttention(measured["attention_heads"]) for _ in range(measured["layers"])]
    return PackedEncoder(Weights(tensors, spelling, config.get("layer_norm_eps", 1e-12)), attentions).eval()


def relative(as_bert: Callable[[dict, dict], tuple[dict, dict]]) -> tuple[Callable, Callable, Callable]:
    """Returns sizes, longest_position and build for an architecture that equals BERT except for names. `as_bert` converts config and tensors to BERT's names,
    with a position table that begins at position 0."""
    return (
        lambda config, tensors: sizes(*as_bert(config, tensors)),
        lambda config, tensors: longest_position(*as_bert(config, tensors)),
        lambda config, tensors: build(*as_bert(config, tensors)),
    )


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """Returns transformers' BertModel with the same weights in float32, as the oracle of the check."""
    from transformers import BertConfig, BertModel

    full = {**config, **transformers_sizes(sizes(config, tensors))}
    model = BertModel(BertConfig.from_dict(full, attn_implementation="eager"), add_pooling_layer=False)
    return load_reference(model, Weights(tensors, spelling).all_float32())


def transformers_sizes(measured: dict) -> dict:
    return {
        "vocab_size": measured["vocabulary_size"],
        "hidden_size": measured["hidden_size"],
        "intermediate_size": measured["intermediate_size"],
        "num_hidden_layers": measured["layers"],
        "max_position_embeddings": measured["position_rows"],
    }
