"""Decoders that were trained to see both sides of a token: EuroBERT, and Llama, Mistral or Qwen with `is_causal: false`."""

from model.export.decoder import FAMILY, SIGNATURE, build, longest_position, reference, refuse_unsupported, sizes  # noqa: F401

ARCHITECTURE = "bidirectional-decoder"
CAUSAL = False
DEFAULT_POOLING = None
