"""A gRPC client made of HTTP/2 frames. It respects flow control when it sends, and may refuse to take answers."""

import contextlib
import socket
import struct
import threading
import time

import http2_frames as h2

FRAME_BYTES = 16384  # The default of SETTINGS_MAX_FRAME_SIZE.
CANCEL = 8


class Stuck(Exception):
    """The server does not read any more bytes."""


class RawClient:
    """One connection. `window` is the number of bytes that the server may send on a stream before they are read. 0 takes no answer at all."""

    def __init__(self, port: int, window: int = 0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.settimeout(None)
        self.change = threading.Condition()
        self.first_window = 65535
        self.windows = {0: 65535}  # Send windows by stream. 0 is the connection.
        self.ended: set[int] = set()  # Streams that the server has ended or reset.
        self.received, self.closed, self.next_stream = 0, False, 1
        self.write(h2.PREFACE + h2.settings({h2.INITIAL_WINDOW_SIZE: window}))
        threading.Thread(target=self._read, daemon=True).start()

    def write(self, content: bytes) -> None:
        try:
            self.socket.sendall(content)
        except OSError:
            self.closed = True

    def open(self, path: str, more: dict[str, str] | None = None) -> int:
        """Begins a call and returns its stream."""
        with self.change:
            stream, self.next_stream = self.next_stream, self.next_stream + 2
            self.windows[stream] = self.first_window
        self.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.grpc_headers(path, more)))
        return stream

    def send(self, stream: int, payload: bytes, end: bool = False, seconds: float = 20) -> None:
        """Sends a message. Raises Stuck if the server does not read it in time."""
        body, at, deadline = h2.grpc_message(payload), 0, time.monotonic() + seconds
        while at < len(body):
            size = self._take(stream, min(FRAME_BYTES, len(body) - at), deadline)
            last = at + size == len(body)
            self.write(h2.frame(h2.DATA, h2.END_STREAM if end and last else 0, stream, body[at : at + size]))
            at += size

    def call(self, path: str, payload: bytes, more: dict[str, str] | None = None) -> int:
        """Makes a whole unary call and returns its stream."""
        stream = self.open(path, more)
        self.send(stream, payload, end=True)
        return stream

    def reset(self, stream: int) -> None:
        self.write(h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    def abort(self) -> None:
        """Ends the connection with RST, like a client that died."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(OSError):
            # The reading thread holds the socket. Without this call, the socket would stay open until that thread reads something.
            self.socket.shutdown(socket.SHUT_RD)
        self.socket.close()

    def _take(self, stream: int, wanted: int, deadline: float) -> int:
        with self.change:
            while True:
                if self.closed or stream in self.ended:
                    raise Stuck("the server has ended the call")
                size = min(wanted, self.windows[0], self.windows[stream])
                if size > 0:
                    self.windows[0] -= size
                    self.windows[stream] -= size
                    return size
                if not self.change.wait(max(0.0, deadline - time.monotonic())):
                    raise Stuck("the server reads no further")

    def _read(self) -> None:
        pending = b""
        try:
            while more := self.socket.recv(1 << 16):
                pending += more
                while len(pending) >= 9:
                    length = int.from_bytes(pending[:3], "big")
                    if len(pending) < 9 + length:
                        break
                    self._frame(pending[3], pending[4], int.from_bytes(pending[5:9], "big") & 0x7FFFFFFF, pending[9 : 9 + length])
                    pending = pending[9 + length :]
        except OSError:
            pass
        with self.change:
            self.closed = True
            self.change.notify_all()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        with self.change:
            if kind == h2.WINDOW_UPDATE:
                self.windows[stream] = self.windows.get(stream, self.first_window) + int.from_bytes(payload, "big")
            elif kind == h2.SETTINGS and not flags & h2.ACK:
                self._settings(payload)
            elif kind == h2.PING and not flags & h2.ACK:
                self.write(h2.frame(h2.PING, h2.ACK, 0, payload))
            elif kind == h2.DATA:
                self.received += len(payload)
                self.write(h2.window_update(0, max(1, len(payload))) + h2.window_update(stream, max(1, len(payload))))
            if kind == h2.RST_STREAM or kind in (h2.DATA, h2.HEADERS) and flags & h2.END_STREAM:
                self.ended.add(stream)
            self.change.notify_all()

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at : at + 6])
            if name == h2.INITIAL_WINDOW_SIZE:
                for stream in self.windows.keys() - {0}:
                    self.windows[stream] += value - self.first_window
                self.first_window = value
        self.write(h2.frame(h2.SETTINGS, h2.ACK))
