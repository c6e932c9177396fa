"""XLM-RoBERTa encoders: multilingual-e5, bge-m3 (its dense vectors). RoBERTa's network with another vocabulary."""

from model.export.roberta import CAUSAL, DEFAULT_POOLING, FAMILY, SIGNATURE, build, longest_position, reference, refuse_unsupported, sizes  # noqa: F401

ARCHITECTURE = "xlm-roberta"
