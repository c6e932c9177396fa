"""Opens the connection to the server: address, TLS, API key, gRPC's own retries, message sizes."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import grpc

from longembed import messages

DEFAULT_SERVER = "127.0.0.1:50051"

# gRPC can retry a call only if it buffers the whole call until its first answer. The default of 256 KiB would leave larger calls without retries.
_RETRY_BUFFER_BYTES = 64 << 20


@dataclass(frozen=True)
class TLS:
    """TLS settings. Each value is PEM, as bytes or as the path of a file.

    root_certificates: the authorities of the server's certificate. None: gRPC's built-in list.
    client_certificate, client_key: for servers that require a client certificate (mTLS). Set both or neither."""

    root_certificates: bytes | str | os.PathLike | None = None
    client_certificate: bytes | str | os.PathLike | None = None
    client_key: bytes | str | os.PathLike | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("TLS: client_certificate and client_key belong together: give both or neither")
        root, certificate, key = (_pem(value) for value in (self.root_certificates, self.client_certificate, self.client_key))
        return grpc.ssl_channel_credentials(root, key, certificate)


def _pem(value: bytes | str | os.PathLike | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return Path(value).read_bytes()


def address(server: str | None) -> str:
    """Returns `server`, or the environment variable LONGEMBED_SERVER, or the default address. Refuses a URL, which gRPC would look up as a host name."""
    chosen = server or os.environ.get("LONGEMBED_SERVER") or DEFAULT_SERVER
    if chosen.lower().startswith(("http://", "https://")):
        raise ValueError(f"{'server' if server else 'LONGEMBED_SERVER'} is {chosen!r}; give HOST:PORT of gRPC, and tls=TLS() if it has TLS")
    return chosen


def open_channel(transport: ModuleType, server: str, tls: TLS | None, max_receive_bytes: int | None):
    """Opens a channel of `transport`, which is grpc or grpc.aio."""
    options = _channel_options(max_receive_bytes)
    if is_local(server):
        options.append(("grpc.enable_http_proxy", 0))
    return transport.secure_channel(server, tls.credentials(), options) if tls else transport.insecure_channel(server, options)


def is_local(server: str) -> bool:
    """Returns true if the address is on this machine. A proxy from the environment (http_proxy, grpc_proxy) could not reach it."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    target = server.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/")
    host = target[1 : target.find("]")] if target.startswith("[") else target.rsplit(":", 1)[0] if target.count(":") == 1 else target
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _channel_options(max_receive_bytes: int | None) -> list[tuple[str, object]]:
    """Returns the options of a channel. gRPC's default receive limit of 4 MiB is less than the window vectors of one long text. The server limits
    its answers itself (limits.max_response_bytes)."""
    return [
        ("grpc.max_receive_message_length", -1 if max_receive_bytes is None else max_receive_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.service_config", _service_config()),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        # Finds a server that is gone without a word, so that a stream goes on at another one. The server allows a ping every 15 seconds.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


def _service_config() -> str:
    """Returns the retry policy of unary calls. gRPC does not retry streams: the client resends their texts itself."""
    config = json.loads(resources.files(__package__).joinpath("retry_service_config.json").read_text())
    config["methodConfig"].append({"name": [{"service": messages.SERVICE.full_name, "method": "EmbedStream"}]})
    return json.dumps(config)


def metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("api_key must be printable ASCII; strip the line break that files end with")
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()


class Stub:
    """The methods of longembed.v1.EmbeddingService on a channel of grpc or grpc.aio. Each has its name in the proto."""

    def __init__(self, channel: Any):
        for method in messages.SERVICE.methods:
            request, response = getattr(messages, method.input_type.name), getattr(messages, method.output_type.name)
            make = channel.stream_stream if method.client_streaming else channel.unary_unary
            path = f"/{messages.SERVICE.full_name}/{method.name}"
            setattr(self, method.name, make(path, request_serializer=request.SerializeToString, response_deserializer=response.FromString))

    if TYPE_CHECKING:  # Type checkers cannot know the methods that the constructor sets.

        def __getattr__(self, name: str) -> Any: ...
