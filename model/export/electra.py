"""ELECTRA encoders with BERT's network: those whose word embeddings are as wide as their layers (electra-base, -large)."""

from torch import Tensor

from model.export import bert
from model.export.errors import ExportError
from model.export.oracle import transformers_model

ARCHITECTURE = "electra"
FAMILY = "APE"
SIGNATURE = bert.SIGNATURE
CAUSAL = False
DEFAULT_POOLING = None


def as_bert(config: dict, tensors: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    return config, {bert.spelling(name.removeprefix("electra.")): tensor for name, tensor in tensors.items()}


def refuse_unsupported(config: dict) -> None:
    bert.refuse_unsupported(config, "ELECTRA")
    if config.get("embedding_size", 128) != config["hidden_size"]:
        raise ExportError("this ELECTRA projects its word embeddings (embedding_size differs from hidden_size), which is not exported; choose another checkpoint.")


sizes, longest_position, build = bert.relative(as_bert)
reference = transformers_model
