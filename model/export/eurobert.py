"""EuroBERT: Llama's network with bidirectional attention. The published code is `EuroBertModel`; transformers has it since 5.0."""

from model.export.decoder import FAMILY, ROPE_TYPES, SIGNATURE, build, is_causal, longest_position, reference, refuse_unsupported, sizes  # noqa: F401

ARCHITECTURE = "eurobert"
CAUSAL = False
DEFAULT_POOLING = None
OWN_CODE = True
