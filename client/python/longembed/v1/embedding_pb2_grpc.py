"""The stub of longembed.v1.EmbeddingService, for code written against protoc's modules."""

from longembed.channel import Stub as EmbeddingServiceStub

__all__ = ["EmbeddingServiceStub"]
