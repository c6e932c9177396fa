"""MPNet encoders: all-mpnet-base-v2, multi-qa-mpnet. BERT with a position table and, in every attention, a bias by distance like T5's, which all layers share.

A context extension changes the rows of the position table. The bias remains that of the real distance. Its last bucket holds every distance from 91 on, so it
has a trained value for any distance.
"""

import math
import re
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export import bert
from model.export.config import require
from model.export.graph import PackedAttention, frozen
from model.export.oracle import transformers_model
from model.export.weights import Weights

ARCHITECTURE = "mpnet"
FAMILY = "APE"
SIGNATURE = bert.SIGNATURE
CAUSAL = False
DEFAULT_POOLING = None

REQUIRED = {"hidden_act": "gelu"}
NAMES = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}  # Names within attention.attn.
FIRST_ROW = 2  # transformers numbers positions from here, regardless of pad_token_id.
MAX_DISTANCE = 128  # Larger distances share one bucket, as in transformers.
BIAS = "encoder.relative_attention_bias.weight"


class RelativeBiasAttention(PackedAttention):
    """PackedAttention with a bias by distance on the logits: softmax(query_scale q k / sqrt(d) + bias[heads, j - i]).

    `bias` is [heads, 2 farthest + 1], for distances -farthest..farthest; farther keys have the outermost bias. Queries are processed in tiles, so no buffer
    grows with the square of a sequence's length.
    """

    heads: Final[int]  # Repeated, because TorchScript does not read annotations of base classes.
    farthest: Final[int]
    tile_elements: Final[int]

    def __init__(self, heads: int, bias: nn.Parameter, tile_elements: int = 1 << 22):
        super().__init__(heads)
        self.bias = bias
        self.farthest = bias.size(1) // 2
        self.tile_elements = tile_elements  # Biases per tile: 16 MiB in float32, or more if 16 rows have more.

    def attend(self, qkv: Tensor, sequences: int, scale: float) -> Tensor:
        """qkv [sequences * n, 3H] of sequences of equal length -> [sequences * n, H]."""
        rows = qkv.size(0)
        n, head_dim = rows // sequences, qkv.size(1) // (3 * self.heads)
        split = qkv.view(sequences, n, 3, self.heads, head_dim).permute(2, 0, 3, 1, 4)
        position = torch.arange(n, device=qkv.device)
        tile = max(16, min(n, self.tile_elements // (n * self.heads)))
        # Allocated once: results of tiles that are kept would lie between the tiles' large temporary buffers and fragment the heap.
        context = torch.empty_like(split[0])
        for start in range(0, n, tile):
            distance = position - position[start : start + tile].unsqueeze(1)
            bias = self.bias[:, distance.clamp(-self.farthest, self.farthest) + self.farthest]
            query = split[0][:, :, start : start + tile]
            context[:, :, start : start + tile] = F.scaled_dot_product_attention(
                query, split[1], split[2], attn_mask=bias.unsqueeze(0), scale=scale / float(head_dim) ** 0.5
            )
        return context.transpose(1, 2).reshape(rows, self.heads * head_dim)


def bias_by_distance(table: Tensor) -> Tensor:
    """[buckets, heads] -> [heads, 2 MAX_DISTANCE + 1]. These are T5's bidirectional buckets: half of them are for keys to the right. Of each half, one half
    holds single distances, and the other grows with the logarithm. Computed in float32 as in transformers, so that rounding puts distances
    at the edge of a bucket into the same bucket."""
    half = table.size(0) // 2
    single = half // 2
    distance = torch.arange(-MAX_DISTANCE, MAX_DISTANCE + 1)
    away = distance.abs()
    by_logarithm = single + (torch.log(away.float() / single) / math.log(MAX_DISTANCE / single) * (half - single)).to(torch.long)
    bucket = torch.where(away < single, away, by_logarithm.clamp(max=half - 1)) + half * (distance > 0)
    return table[bucket].t()


def spelling(name: str) -> str:
    name = bert.spelling(name.removeprefix("mpnet."))
    name = re.sub(r"attention\.attn\.([qkvo])\.", lambda found: f"attention.{NAMES[found[1]]}.", name)
    return name.replace("attention.LayerNorm", "attention.output.LayerNorm")


def as_bert(config: dict, tensors: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    named = {spelling(name): tensor for name, tensor in tensors.items()}
    if bert.POSITION in named:
        named[bert.POSITION] = named[bert.POSITION][FIRST_ROW:]
    return config, named


def refuse_unsupported(config: dict) -> None:
    require("MPNet", config, REQUIRED)


sizes, longest_position, _ = bert.relative(as_bert)
reference = transformers_model


def build(config: dict, tensors: dict[str, Tensor]) -> bert.PackedEncoder:
    measured = sizes(config, tensors)
    weights = Weights(as_bert(config, tensors)[1], str, config.get("layer_norm_eps", 1e-12))
    bias = frozen(bias_by_distance(weights[BIAS]))
    return bert.PackedEncoder(weights, [RelativeBiasAttention(measured["attention_heads"], bias) for _ in range(measured["layers"])]).eval()
