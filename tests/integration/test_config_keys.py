"""Tests that keys of the config reach what they control, in a running server."""

import os
import re
import socket
import struct
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from http_client import LISTENS, MODEL
from running_server import start_server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
PING = 6  # A frame's type (RFC 9113, section 6).


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a server with these lines of config. Every server ends after the test."""
    running = []

    def with_config(extra: str, **options):
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(start_server(folder, [MODEL], extra=extra, **options))
        return running[-1]

    yield with_config
    for server in running:
        assert server.stop() == 0


def metric(server, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10).read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def embed(server, pb, texts: list[str], **options):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(**options), inputs=[pb[0].Input(text=text) for text in texts])
        return pb[1].EmbeddingServiceStub(channel).Embed(request, timeout=120)


def test_max_batch_sequences_bounds_every_batch(start, pb):
    server = start("", model_options="max_batch_sequences: 2")
    batches = metric(server, "longembed_batch_sequences_count")
    embed(server, pb, ["a"] * 9)
    assert metric(server, "longembed_batch_sequences_count") - batches >= 5


def test_tokenization_threads_are_started(start):
    threads = [len(os.listdir(f"/proc/{start(f'tokenization_threads: {count}{chr(10)}').process.pid}/task")) for count in (1, 41)]
    assert 35 <= threads[1] - threads[0] <= 45  # gRPC's own threads come and go.


def test_max_bulk_queue_wait_bounds_bulk_calls_alone(start, pb):
    server = start("limits: {max_queue_wait: 100s, max_bulk_queue_wait: 100ms}\n")
    texts = ["one two three four five six seven eight " * 50] * 16
    embed(server, pb, texts)  # The server learns how long its batches take.

    def refusal(priority: str) -> str:
        try:
            embed(server, pb, texts, priority=priority)
        except grpc.RpcError as error:
            return error.details()
        return ""

    with ThreadPoolExecutor(8) as pool:
        bulk = [message for message in pool.map(refusal, ["BULK"] * 8) if message]
        assert bulk and all("100ms" in message for message in bulk), bulk
        assert not any(pool.map(refusal, ["INTERACTIVE"] * 8))


def frame_types(connection: socket.socket, seconds: float) -> list[int]:
    """Returns the types of the HTTP/2 frames that arrive in this time."""
    end, data, types = time.monotonic() + seconds, b"", []
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            received = connection.recv(1 << 16)
        except TimeoutError:
            break
        if not received:
            break
        data += received
        while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
            types.append(data[3])
            data = data[9 + length :]
    return types


def test_an_idle_grpc_connection_is_pinged_after_keepalive(start):
    pings = {}
    for keepalive in ("1s", "60s"):
        server = start(f"connections: {{keepalive: {keepalive}}}\n")
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(PREFACE + EMPTY_SETTINGS)
            pings[keepalive] = PING in frame_types(connection, 4)
    assert pings == {"1s": True, "60s": False}


def test_a_client_that_does_not_read_is_cut_off_after_keepalive(start):
    body = b'{"inputs": [' + b", ".join([b'"' + b"a b c d e f g " * 20 + b'"'] * 20) + b"]}"
    head = f"POST /embed_all HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server = start(LISTENS + "connections: {keepalive: 1s}\n")
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head + body)
        deadline = time.monotonic() + 60
        # Linux's TCP_INFO begins with the state, which is 1 while the connection is established.
        while struct.unpack("B", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0] == 1:
            assert time.monotonic() < deadline, "the connection is still open"
            time.sleep(0.1)
