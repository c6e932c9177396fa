"""XLM-RoBERTa encoders: multilingual-e5, bge-m3 (its dense vectors).

BERT's graph, but for the position table: theirs begins two rows late (the padding token's row, and one more), and transformers adds that offset to every position.
The rows before it are cut off here, so that row 0 is position 0 and no offset remains anywhere.
"""

import torch
from torch import Tensor, nn

from model.export import bert
from model.export.weights import Weights, load_reference

ARCHITECTURE = "xlm-roberta"
FAMILY = "APE"
SIGNATURE = bert.SIGNATURE
CAUSAL = False
DEFAULT_POOLING = None

refuse_unsupported = bert.refuse_unsupported


def spelling(name: str) -> str:
    return bert.spelling(name.removeprefix("roberta."))


def first_row(config: dict) -> int:
    return config.get("pad_token_id", 1) + 1


def sizes(config: dict, tensors: dict[str, Tensor]) -> dict:
    measured = bert.sizes(config, _bert_names(tensors))
    return {**measured, "position_rows": measured["position_rows"] - first_row(config)}


def longest_position(config: dict, tensors: dict[str, Tensor]) -> int:
    return sizes(config, tensors)["position_rows"]


def build(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    measured = sizes(config, tensors)
    weights = Weights(tensors, spelling, config.get("layer_norm_eps", 1e-5))
    position = weights["embeddings.position_embeddings.weight"][first_row(config) :]
    return bert.PackedEncoder(weights, position, measured["layers"], measured["attention_heads"]).eval()


def reference(config: dict, tensors: dict[str, Tensor]) -> nn.Module:
    """transformers' own XLMRobertaModel with the same weights, in float32."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    full = {**config, **bert.transformers_sizes(bert.sizes(config, _bert_names(tensors)))}
    model = XLMRobertaModel(XLMRobertaConfig.from_dict(full, attn_implementation="eager"), add_pooling_layer=False)
    return load_reference(model, Weights(tensors, spelling).all_float32())


def _bert_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {spelling(name): tensor for name, tensor in tensors.items()}
