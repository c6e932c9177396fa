"""The stub of longembed.v1.EmbeddingService, for code that imports protoc's modules."""

from longembed.channel import Stub as EmbeddingServiceStub

__all__ = ["EmbeddingServiceStub"]
