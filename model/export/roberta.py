"""RoBERTa and CamemBERT encoders: all-distilroberta, all-roberta-large, sentence-camembert.

BERT's graph with a different position table. RoBERTa's table begins two rows later (one row for the padding token, and one more), and transformers adds this
offset to every position. These rows are removed here, so that row 0 is position 0 and no offset is needed.
"""

from torch import Tensor

from model.export import bert
from model.export.errors import ExportError
from model.export.oracle import transformers_model

ARCHITECTURE = "roberta"
FAMILY = "APE"
SIGNATURE = bert.SIGNATURE
CAUSAL = False
DEFAULT_POOLING = None


def as_bert(config: dict, tensors: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    named = {bert.spelling(name.removeprefix("roberta.")): tensor for name, tensor in tensors.items()}
    if bert.POSITION in named:
        named[bert.POSITION] = named[bert.POSITION][config.get("pad_token_id", 1) + 1 :]
    return config, named


def refuse_unsupported(config: dict) -> None:
    bert.refuse_unsupported(config, "RoBERTa")
    if config.get("pad_token_id", 1) is None:
        raise ExportError("this RoBERTa has pad_token_id = null, but its positions begin after that id; write the id of the padding token there.")


sizes, longest_position, build = bert.relative(as_bert)
reference = transformers_model
