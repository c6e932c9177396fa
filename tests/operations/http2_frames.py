"""Builds HTTP/2 frames by hand, for a load balancer's health check, and for misbehaving clients that no library supports."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: dict[int, int] | None = None) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in (values or {}).items()))


def window_update(stream: int, bytes_more: int) -> bytes:
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", bytes_more))


def integer(value: int, prefix_bits: int, first: int) -> bytes:
    """Encodes an integer as in RFC 7541, section 5.1."""
    most = (1 << prefix_bits) - 1
    return bytes([first | value]) if value < most else bytes([first | most]) + varint(value - most)


def varint(value: int) -> bytes:
    """Encodes a variable-length integer. HPACK uses this form after the prefix, and protobuf for all numbers."""
    out = b""
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def literal(name: bytes, value: bytes) -> bytes:
    """Encodes a header field that is not added to any table (RFC 7541, section 6.2.2)."""
    return b"\0" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value


def grpc_headers(path: str, more: dict[str, str] | None = None) -> bytes:
    """Returns the header block of a gRPC call. References to the static table would be shorter, but harder to read."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **(more or {}),
    }
    return b"".join(literal(name.encode(), value.encode()) for name, value in fields.items())


def grpc_message(payload: bytes) -> bytes:
    return struct.pack(">BI", 0, len(payload)) + payload


def unary_call(stream: int, path: str, payload: bytes, more: dict[str, str] | None = None) -> bytes:
    """Returns the frames of a whole request, with data frames of at most 16 kB."""
    out, body = frame(HEADERS, END_HEADERS, stream, grpc_headers(path, more)), grpc_message(payload)
    for at in range(0, len(body), 16384):
        last = at + 16384 >= len(body)
        out += frame(DATA, END_STREAM if last else 0, stream, body[at : at + 16384])
    return out
