"""Tests that keys of the config reach what they control, in a running server."""

import contextlib
import os
import re
import socket
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


CONFIG = (
    LISTENS
    + """connections: {keepalive: 1s}
limits: {max_queue_wait: 100s, max_bulk_queue_wait: 100ms}
tokenization_threads: 41
"""
)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """Starts a server whose config has other values than the defaults, which the server of other tests has."""
    running = start_server(tmp_path_factory.mktemp("configured"), [MODEL], extra=CONFIG, model_options="max_batch_sequences: 2")
    yield running
    assert running.stop() == 0


def metric(server, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10).read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def embed(server, pb, texts: list[str], **options):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(**options), inputs=[pb[0].Input(text=text) for text in texts])
        return pb[1].EmbeddingServiceStub(channel).Embed(request, timeout=120)


def test_max_batch_sequences_bounds_every_batch(configured, pb):
    batches = metric(configured, "longembed_batch_sequences_count")
    embed(configured, pb, ["a"] * 9)
    assert metric(configured, "longembed_batch_sequences_count") - batches >= 5


def test_tokenization_threads_are_started(configured):
    """By default there are three on two cores."""
    assert len(os.listdir(f"/proc/{configured.process.pid}/task")) >= 41


def test_max_bulk_queue_wait_bounds_bulk_calls_alone(configured, pb):
    texts = ["one two three four five six seven eight " * 12] * 4
    embed(configured, pb, texts)  # The server learns how long its batches take.

    def refusal(priority: str) -> str:
        try:
            embed(configured, pb, texts, priority=priority)
        except grpc.RpcError as error:
            return error.details()
        return ""

    with ThreadPoolExecutor(8) as pool:
        bulk = [message for message in pool.map(refusal, ["BULK"] * 8) if message]
        assert bulk and all("the limit is 75ms" in message for message in bulk), bulk
        assert not any("100ms" in message for message in pool.map(refusal, ["INTERACTIVE"] * 8))


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


def test_an_idle_grpc_connection_is_pinged_after_keepalive(server, configured):
    pinged = []
    for one in (server, configured):
        with socket.create_connection(("127.0.0.1", one.port)) as connection:
            connection.sendall(PREFACE + EMPTY_SETTINGS)
            pinged.append(PING in frame_types(connection, 4))
    assert pinged == [False, True]


def test_a_client_that_does_not_read_is_cut_off_after_keepalive(configured):
    body = b'{"inputs": [' + b", ".join([b'"' + b"a b c d e f g " * 20 + b'"'] * 20) + b"]}"
    head = f"POST /embed_all HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", configured.http_port), timeout=60) as connection:
        connection.sendall(head + body)
        answer = connection.recv(4096)
        announced = int(re.search(rb"Content-Length: (\d+)", answer)[1])
        time.sleep(5)
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(1 << 20):
                answer += received
    assert len(answer) < announced
