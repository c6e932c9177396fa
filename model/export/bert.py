"""BERT encoders with learned absolute positions: E5, BGE, GTE, Contriever, MiniLM."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.errors import ExportError
from model.export.graph import Linear, LinearGelu, PackedAttention, ResidualNorm, SpanMean, frozen

ARCHITECTURE = "bert"
FAMILY = "APE"
SIGNATURE = "ape-v1"
CAUSAL = False

# What the graph below computes. A config that says anything else of these is refused.
REQUIRED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


class Embeddings(nn.Module):
    """tokens int32 [T], positions float32 [T] -> [T, H].

    A position between two integers takes the linear interpolation of their rows; an integer takes its row exactly; beyond the last row it takes the last.
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
    """hidden [T, H], query_scale float32 [S], neighbour_window int32 [S], sequence_offsets int32 [S + 1] -> [T, H].

    neighbour_window is there because every family's layer has the same signature; absolute positions have no use for it.
    """

    def __init__(self, weights: "Weights", prefix: str, heads: int):
        super().__init__()
        self.qkv = Linear(*weights.fused(prefix + "attention.self.", ("query", "key", "value")))
        self.attention = PackedAttention(heads)
        self.attention_output = Linear(*weights.linear(prefix + "attention.output.dense"))
        self.attention_norm = weights.norm(prefix + "attention.output.LayerNorm")
        self.intermediate = LinearGelu(*weights.linear(prefix + "intermediate.dense"))
        self.output = Linear(*weights.linear(prefix + "output.dense"))
        self.output_norm = weights.norm(prefix + "output.LayerNorm")

    def forward(self, hidden: Tensor, query_scale: Tensor, neighbour_window: Tensor, sequence_offsets: Tensor) -> Tensor:
        context = self.attention(self.qkv(hidden), query_scale, neighbour_window, sequence_offsets)
        hidden = self.attention_norm(self.attention_output(context), hidden)
        return self.output_norm(self.output(self.intermediate(hidden)), hidden)


class PackedEncoder(nn.Module):
    """The whole graph, of signature ape-v1. A loader may call embeddings, each of layers, and pooling by itself instead of forward."""

    def __init__(self, weights: "Weights", layers: int, heads: int):
        super().__init__()
        self.embeddings = weights.embeddings()
        self.layers = nn.ModuleList(Layer(weights, f"encoder.layer.{i}.", heads) for i in range(layers))
        self.pooling = SpanMean()

    def forward(
        self, tokens: Tensor, positions: Tensor, query_scale: Tensor, neighbour_window: Tensor, sequence_offsets: Tensor, spans: Tensor
    ) -> Tensor:
        hidden = self.embeddings(tokens, positions)
        for layer in self.layers:
            hidden = layer(hidden, query_scale, neighbour_window, sequence_offsets)
        return self.pooling(hidden, spans)


class Weights:
    """Looks tensors up by transformers' names, whatever prefix or old spelling the file uses."""

    def __init__(self, tensors: dict[str, Tensor], epsilon: float):
        self._tensors = {_modern(name): tensor for name, tensor in tensors.items()}
        self._epsilon = epsilon

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ExportError(f"the checkpoint has no tensor {name}; check that its weights belong to its config.json.")
        return self._tensors[name].to(torch.float32)

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        return self[name + ".weight"], self[name + ".bias"]

    def fused(self, prefix: str, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        return tuple(torch.cat([self[f"{prefix}{name}.{kind}"] for name in names]) for kind in ("weight", "bias"))

    def norm(self, name: str) -> ResidualNorm:
        return ResidualNorm(*self.linear(name), self._epsilon)

    def embeddings(self) -> Embeddings:
        # Token type 0 goes into the word table, because transformers adds these two first: the sum keeps every bit.
        word = self["embeddings.word_embeddings.weight"] + self["embeddings.token_type_embeddings.weight"][0]
        return Embeddings(word, self["embeddings.position_embeddings.weight"], self.norm("embeddings.LayerNorm"))

    def for_transformers(self) -> dict[str, Tensor]:
        return {name: tensor.to(torch.float32) for name, tensor in self._tensors.items() if tensor.is_floating_point()}


def _modern(name: str) -> str:
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def refuse_unsupported(config: dict) -> None:
    for key, value in REQUIRED.items():
        if config.get(key, value) != value:
            raise ExportError(f"this BERT has {key} = {config[key]!r} and only {value!r} is exported; choose another checkpoint.")


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    """The manifest's sizes, read off the tensors; only the number of heads is known to the config alone."""
    weights = Weights(tensors, 0.0)
    vocabulary, hidden = weights["embeddings.word_embeddings.weight"].shape
    layers = sum(_modern(name).endswith("attention.self.query.weight") for name in tensors)
    heads = config["num_attention_heads"]
    return {
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": weights["encoder.layer.0.intermediate.dense.weight"].size(0),
        "layers": layers,
        "attention_heads": heads,
        "head_dim": hidden // heads,
        "position_rows": weights["embeddings.position_embeddings.weight"].size(0),
    }


def build(config: dict, tensors: dict[str, Tensor]) -> PackedEncoder:
    """The graph, ready to be scripted."""
    measured = sizes(config, tensors)
    weights = Weights(tensors, config.get("layer_norm_eps", 1e-12))
    return PackedEncoder(weights, measured["layers"], measured["attention_heads"]).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """transformers' own BertModel with the same weights, in float32: the oracle of the check."""
    from transformers import BertConfig, BertModel

    measured = sizes(config, tensors)
    full = {
        **config,
        "vocab_size": measured["vocabulary_size"],
        "hidden_size": measured["hidden_size"],
        "intermediate_size": measured["intermediate_size"],
        "num_hidden_layers": measured["layers"],
        "max_position_embeddings": measured["position_rows"],
    }
    model = BertModel(BertConfig.from_dict(full, attn_implementation="eager"), add_pooling_layer=False).to(torch.float32)
    outcome = model.load_state_dict(Weights(tensors, 0.0).for_transformers(), strict=False)
    if outcome.missing_keys:
        raise ExportError(f"the checkpoint lacks {outcome.missing_keys[0]}; check that its weights belong to its config.json.")
    return model.eval()
