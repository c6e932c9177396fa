"""The protobuf messages of longembed.v1, and those of google.rpc that its errors use.

They live in their own descriptor pool. In the same process they therefore do not clash with other generated code for the same protos, whatever its
version."""

from __future__ import annotations

from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MESSAGES = "messages.pb"
_POOL = descriptor_pool.DescriptorPool()


def _load() -> None:
    """Defines every message of the package's protos as an attribute of this module."""
    try:
        data = resources.files(__package__).joinpath(_MESSAGES).read_bytes()
    except FileNotFoundError as error:
        raise ImportError("longembed's messages have not been generated: install the package with pip instead of importing its source folder") from error
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        _POOL.AddSerializedFile(file.SerializeToString())
        if file.package.startswith(("longembed.", "google.rpc")):
            for message in file.message_type:
                full_name = f"{file.package}.{message.name}"
                globals()[message.name] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))


_load()

SERVICE = _POOL.FindServiceByName("longembed.v1.EmbeddingService")
