"""DistilBERT encoders: msmarco-distilbert, distiluse. BERT's graph without token types, under other names."""

import re

from torch import Tensor

from model.export import bert
from model.export.config import require
from model.export.oracle import transformers_model

ARCHITECTURE = "distilbert"
FAMILY = "APE"
SIGNATURE = bert.SIGNATURE
CAUSAL = False
DEFAULT_POOLING = None

REQUIRED = {"activation": "gelu"}
NAMES = {
    "attention.q_lin": "attention.self.query", "attention.k_lin": "attention.self.key", "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense", "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense", "ffn.lin2": "output.dense", "output_layer_norm": "output.LayerNorm",
}  # fmt: skip


def spelling(name: str) -> str:
    name = bert.spelling(name.removeprefix("distilbert."))
    found = re.fullmatch(r"transformer\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    return f"encoder.layer.{found[1]}.{NAMES.get(found[2], found[2])}.{found[3]}" if found else name


def as_bert(config: dict, tensors: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    # DistilBERT has no setting for the epsilon.
    return {"num_attention_heads": config["n_heads"], "layer_norm_eps": 1e-12}, {spelling(name): tensor for name, tensor in tensors.items()}


def refuse_unsupported(config: dict) -> None:
    require("DistilBERT", config, REQUIRED)


sizes, longest_position, build = bert.relative(as_bert)
reference = transformers_model
