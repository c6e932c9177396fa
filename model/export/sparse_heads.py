"""Heads that give weights of vocabulary entries: SPLADE's masked-language-model head, and bge-m3's weight per token. They become `sparse_head.pt`.

The input is n rows of hidden states of a few sequences. Part i is the rows offsets[i] to offsets[i + 1], which belong to one sequence. A head returns the
nonzero weights of each part: their number, their vocabulary ids in ascending order, and their values. The vectors of a sequence's parts are combined by
maximum, or for heads that sum, by addition.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export import files
from model.export.errors import ExportError
from model.export.graph import LayerNorm, Linear
from model.export.layers import layer_norm
from model.export.weights import Weights

SIGNATURE = "sparse-v1"
ACTIVATIONS = ("relu", "log1p_relu")  # In sentence-transformers' SpladePooling: log(1 + relu(x)), and log(1 + log(1 + relu(x))).
STRATEGIES = ("max", "sum")
TOKEN_WEIGHTS_FILE = "sparse_linear.pt"
# Special tokens without a weight in bge-m3's published code.
UNWEIGHTED = ("cls", "eos", "pad", "unk")


@dataclass(frozen=True)
class Splade:
    """Settings of sentence-transformers' SpladePooling, with its defaults, which it also uses for a bare masked language model."""

    strategy: str = "max"
    activation: str = "relu"

    @property
    def kind(self) -> str:
        """Returns the manifest's sparse_head."""
        return f"SPLADE_{self.strategy.upper()}"


@dataclass(frozen=True)
class _Names:
    """Names of the tensors of a masked language model's head in transformers: dense, GELU, norm, and a decoder over the vocabulary."""

    dense: str
    norm: str
    decoder: str
    words: str  # Word embeddings, which are also the decoder's weights if the two are tied.
    bias: str
    epsilon: tuple[str | None, float]  # Key of the configuration, and its default.


_LM_HEAD = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder")
_NAMES = {
    "bert": _Names("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder", "bert.embeddings.word_embeddings", "cls.predictions.bias", ("layer_norm_eps", 1e-12)),
    "distilbert": _Names("vocab_transform", "vocab_layer_norm", "vocab_projector", "distilbert.embeddings.word_embeddings", "vocab_projector.bias", (None, 1e-12)),
    "modernbert": _Names("head.dense", "head.norm", "decoder", "model.embeddings.tok_embeddings", "decoder.bias", ("norm_eps", 1e-5)),
    "mpnet": _Names(*_LM_HEAD, "mpnet.embeddings.word_embeddings", "lm_head.bias", ("layer_norm_eps", 1e-12)),
    "roberta": _Names(*_LM_HEAD, "roberta.embeddings.word_embeddings", "lm_head.bias", ("layer_norm_eps", 1e-12)),
}  # fmt: skip
_NAMES |= {"camembert": _NAMES["roberta"], "xlm-roberta": _NAMES["roberta"]}


class SpladeHead(nn.Module):
    """hidden float32 [n, H], tokens int32 [n], offsets int32 [parts + 1] -> counts int64 [parts], ids int32 [N], weights float32 [N] (arXiv 2107.05720, 2109.10086)."""

    maximum: Final[bool]
    twice: Final[bool]

    def __init__(self, dense: Linear, norm: LayerNorm, decoder: Linear, splade: Splade):
        super().__init__()
        self.dense = dense
        self.norm = norm
        self.decoder = decoder
        self.maximum = splade.strategy == "max"
        self.twice = splade.activation == "log1p_relu"

    def forward(self, hidden: Tensor, tokens: Tensor, offsets: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        logits = self.decoder(self.norm(F.gelu(self.dense(hidden))))
        bounds: List[int] = offsets.cpu().to(torch.int64).tolist()
        rows: List[Tensor] = []
        for i in range(len(bounds) - 1):
            part = logits[bounds[i] : bounds[i + 1]]
            # Weights increase with logits, so the weight of the maximum is the maximum of the weights.
            rows.append(self.weigh(part.amax(dim=0)) if self.maximum else self.weigh(part).sum(dim=0))
        weights = torch.stack(rows)
        places = weights.nonzero()
        return (weights != 0).sum(dim=1), places[:, 1].to(torch.int32), weights[places[:, 0], places[:, 1]]

    def weigh(self, logits: Tensor) -> Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self.twice else weights


class TokenWeightsHead(nn.Module):
    """A head with the same arguments and results as SpladeHead (arXiv 2402.03216). Gives relu(linear(h)) for the id of each token that is not `unweighted`,
    with the maximum over equal ids."""

    def __init__(self, linear: Linear, unweighted: list[int], vocabulary: int):
        super().__init__()
        self.linear = linear
        weighted = torch.ones(vocabulary)
        weighted[unweighted] = 0
        self.weighted = nn.Parameter(weighted, requires_grad=False)

    def forward(self, hidden: Tensor, tokens: Tensor, offsets: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        ids = tokens.to(torch.int64)
        weights = torch.relu(self.linear(hidden)).squeeze(1) * self.weighted[ids]
        bounds: List[int] = offsets.cpu().to(torch.int64).tolist()
        counts: List[int] = []
        found: List[Tensor] = []
        values: List[Tensor] = []
        for i in range(len(bounds) - 1):
            own = weights[bounds[i] : bounds[i + 1]]
            unique, place = torch.unique(ids[bounds[i] : bounds[i + 1]], sorted=True, return_inverse=True)
            most = torch.zeros(unique.size(0), dtype=own.dtype, device=own.device).scatter_reduce(0, place, own, "amax")
            kept = most != 0
            counts.append(int(kept.sum()))
            found.append(unique[kept].to(torch.int32))
            values.append(most[kept])
        return torch.tensor(counts), torch.cat(found), torch.cat(values)


def splade_settings(name: str, config: dict) -> Splade:
    """Reads the SpladePooling module in a checkpoint's folder `name` from its config.json."""
    splade = Splade(config.get("pooling_strategy", "max"), config.get("activation_function", "relu"))
    for key, value, known in (("pooling_strategy", splade.strategy, STRATEGIES), ("activation_function", splade.activation, ACTIVATIONS)):
        if value not in known:
            raise ExportError(f"{name}/config.json says {key} = {value!r} but only {', '.join(known)} are served; choose another checkpoint.")
    return splade


def splade(config: dict, tensors: dict[str, Tensor], settings: Splade) -> SpladeHead:
    """Returns the masked-language-model head of a checkpoint."""
    kind = config["model_type"]
    if kind not in _NAMES:
        raise ExportError(f"the masked-language-model head of {kind!r} is not exported (supported: {', '.join(sorted(_NAMES))}); choose another checkpoint.")
    activation = config.get("classifier_activation", "gelu") if kind == "modernbert" else config.get("hidden_act", config.get("activation", "gelu"))
    if activation != "gelu":
        raise ExportError(f"the masked-language-model head's activation is {activation!r} but only 'gelu' is exported; choose another checkpoint.")
    names = _NAMES[kind]
    weights = Weights(tensors, _spelling)
    if names.dense + ".weight" not in weights:
        raise ExportError(
            f"the checkpoint has no masked-language-model head ({names.dense}.weight), which SPLADE's weights come from; export it with the pooling that it was trained for."
        )
    key, default = names.epsilon
    hidden = weights[names.dense + ".weight"].size(0)
    dense = Linear(weights[names.dense + ".weight"], _bias(weights, names.dense + ".bias", hidden))
    own = _own_decoder(config, names, weights)
    words = weights[(names.decoder if own else names.words) + ".weight"]
    bias = names.decoder + ".bias" if own and names.decoder + ".bias" in weights else names.bias
    decoder = Linear(words, _bias(weights, bias, words.size(0)))
    return SpladeHead(dense, layer_norm(weights, names.norm, config.get(key, default)), decoder, settings).eval()


def _spelling(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _bias(weights: Weights, name: str, size: int) -> Tensor:
    """Returns a bias, or zeros if the checkpoint has none, which is possible for ModernBERT."""
    return weights[name] if name in weights else torch.zeros(size)


def _own_decoder(config: dict, names: _Names, weights: Weights) -> bool:
    """Returns whether the decoder has its own weights instead of the word embeddings."""
    return names.decoder + ".weight" in weights and (config.get("tie_word_embeddings") is False or names.words + ".weight" not in weights)


def token_weights_file(folder: Path) -> Path | None:
    file = folder / TOKEN_WEIGHTS_FILE
    return file if files.is_there(file) else None


def token_weights(folder: Path, special_ids: dict[str, int], hidden: int, vocabulary: int) -> TokenWeightsHead:
    """Returns the head in `folder`'s sparse_linear.pt. `special_ids` maps roles to the tokenizer's special tokens."""
    files.refuse_pointer(folder / TOKEN_WEIGHTS_FILE)
    tensors = files.pickled_tensors(folder / TOKEN_WEIGHTS_FILE)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"weight": (1, hidden), "bias": (1,)}:
        raise ExportError(
            f"{TOKEN_WEIGHTS_FILE} holds {shapes} instead of a weight of (1, {hidden}) and a bias of (1,); take it from the original checkpoint."
        )
    unweighted = sorted({special_ids[role] for role in UNWEIGHTED if special_ids.get(role) is not None})
    return TokenWeightsHead(Linear(tensors["weight"], tensors["bias"]), unweighted, vocabulary).eval()
