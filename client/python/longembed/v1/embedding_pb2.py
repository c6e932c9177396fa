"""The messages of longembed/v1/embedding.proto, for code that imports protoc's modules. They are the same classes as in longembed.messages."""

from google.protobuf.message import Message as _Message

from longembed import messages as _messages

globals().update({name: kind for name, kind in vars(_messages).items() if isinstance(kind, type) and issubclass(kind, _Message)})
