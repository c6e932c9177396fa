"""Llama, Mistral or Qwen trained with bidirectional attention (`is_causal: false`)."""

from model.export.decoder import FAMILY, ROPE_TYPES, SIGNATURE, build, is_causal, longest_position, reference, refuse_unsupported, sizes  # noqa: F401

ARCHITECTURE = "bidirectional-decoder"
CAUSAL = False
DEFAULT_POOLING = None
