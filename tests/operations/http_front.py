"""Tests the HTTP port in the same way as gRPC's: access control, overload, hostile clients, every way in which a call can end, and a drain."""

import argparse
import contextlib
import http.client
import itertools
import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from auth_matrix import HASH, HASHED_KEY, PLAIN_KEY, RIGHT, WRONG
from harness import Authority, Replica, Report, free_port, run, text_of, until

MAX_CONNECTIONS = 200
HEADER_SECONDS = 1.0  # connections.handshake_timeout.
JSON = {"Content-Type": "application/json"}
# Every route, with a request that is answered with status 200.
ROUTES = {
    "/v1/embeddings": {"input": "a"},
    "/v2/embed": {"texts": ["a"], "input_type": "search_query"},
    "/embed": {"inputs": "a"},
    "/embed_all": {"inputs": "a"},
    "/tokenize": {"inputs": "a"},
    "/decode": {"ids": [101, 102]},
    "/longembed/v1/embed": {"inputs": [{"text": "a"}]},
    "/longembed/v1/explain": {"inputs": [{"text": "a"}]},
    "/longembed/v1/tokenize": {"texts": ["a"]},
    "/v1/models": None,
    "/v1/models/e5-small-v2": None,
    "/embeddings": {"input": "a"},
    "/models": None,
    "/models/e5-small-v2": None,
    "/longembed/v1/models": None,
    "/longembed/v1/models/e5-small-v2": None,
    "/info": None,
}


class Front:
    """The HTTP port of a replica."""

    def __init__(self, folder: Path, arguments: argparse.Namespace, name: str, settings: dict | None = None):
        self.port = free_port()
        timing = {"connections": {"max": MAX_CONNECTIONS, "handshake_timeout": f"{round(HEADER_SECONDS * 1000)}ms"}}
        self.replica = Replica(folder, arguments, {"http_listen": f"127.0.0.1:{self.port}", **timing, **(settings or {})}, name=name)

    def __enter__(self) -> "Front":
        self.replica.start()
        return self

    def __exit__(self, *_) -> None:
        self.replica.__exit__()

    def ask(self, path: str, body=None, headers: dict | None = None, tls: ssl.SSLContext | None = None, seconds: float = 30) -> tuple[int, bytes, dict]:
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=seconds, context=tls)
            if tls
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        )
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, content, {**JSON, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def embed(self, text: str, **more) -> tuple[int, dict, dict]:
        status, content, headers = self.ask("/v1/embeddings", {"input": text}, **more)
        return status, json.loads(content), headers

    def connect(self, first: bytes = b"") -> socket.socket | None:
        """Returns None if the server or the system refuses the connection."""
        plain = socket.socket()
        plain.settimeout(10)
        try:
            plain.connect(("127.0.0.1", self.port))
            plain.sendall(first)
        except OSError:
            plain.close()
            return None
        return plain


def request_bytes(body: bytes, more: str = "", path: str = "/v1/embeddings") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def rest_of(connection: socket.socket | None) -> bytes:
    """Returns the bytes received until the server closes the connection."""
    parts = []
    with contextlib.suppress(OSError):
        while connection is not None and (part := connection.recv(65536)):
            parts.append(part)
    return b"".join(parts)


def at_rest(front: Front, report: Report, name: str) -> None:
    report.bar(f"{name}: every gauge is 0 again", until(front.replica.at_rest, 20), str(front.replica.gauges()))


# ------------------------------------------------------------------------------------------------------------------------ keys


def keys(folder: Path, arguments: argparse.Namespace, report: Report) -> None:
    file = folder / "keys.yaml"
    file.write_text(f"keys:\n  - name: alpha\n    key: {PLAIN_KEY}\n  - name: beta\n    sha256: {HASH}\n")
    authority = Authority(folder)
    certificate, key = authority.issue("server")
    tls = {"certificate": str(certificate), "key": str(key)}
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    trusting.check_hostname = False
    known = trusting_with(authority, folder)
    plain = {"api_keys": str(file), "reflection": False}
    for name, settings, context in (
        ("plaintext", plain, None),
        ("tls", {"api_keys": str(file), "tls": tls}, trusting),
        ("mtls", {"api_keys": str(file), "tls": {**tls, "client_ca": str(authority.certificate)}}, known),
    ):
        with Front(folder, arguments, f"keys-{name}", settings) as front:
            codes = Counter()
            for (path, body), (kind, headers) in itertools.product(ROUTES.items(), {**RIGHT, **WRONG}.items()):
                codes[(kind in RIGHT, front.ask(path, body, dict(headers), context)[0])] += 1
            report.bar(f"{name}: right keys get in, others get 401", set(codes) == {(True, 200), (False, 401)}, str(dict(codes)))
            report.bar(f"{name}: health needs no key", front.ask("/health", tls=context)[0] == 200)
            log = front.replica.log.read_text()
            report.bar(f"{name}: no key is in the log", not any(secret in log for secret in (PLAIN_KEY, HASHED_KEY, HASH)))
            if name == "mtls":
                report.bar("mtls: a client without a certificate is refused", refused(front, trusting))
            if name != "plaintext":
                report.bar(f"{name}: plaintext is refused", not rest_of(front.connect(request_bytes(b"{}"))).startswith(b"HTTP/1.1 2"))


def trusting_with(authority: Authority, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.check_hostname = False
    certificate, key = authority.issue("client")
    context.load_cert_chain(certificate, key)
    return context


def refused(front: Front, context: ssl.SSLContext) -> bool:
    try:
        front.ask("/v1/models", tls=context, seconds=5)
    except OSError:
        return True
    return False


# -------------------------------------------------------------------------------------------------------------------- overload


def overload(folder: Path, arguments: argparse.Namespace, report: Report) -> None:
    """Runs many more callers than there is room for. Each must get a correct answer, or a refusal with a retry delay."""
    texts = [text_of(400, random.Random(seed)) for seed in range(8)]
    with Front(folder, arguments, "overload", {"limits": {"max_queue_wait": "1s"}}) as front:
        alone = [front.embed(text, headers={})[1]["data"][0]["embedding"] for text in texts]
        codes, wrong, without_retry_delay, lock = Counter(), [], [], threading.Lock()
        end = time.monotonic() + arguments.seconds

        def caller(own: int) -> None:
            for turn in itertools.count(own):
                if time.monotonic() > end:
                    return
                which = turn % len(texts)
                status, answer, headers = front.embed(texts[which], seconds=60)
                with lock:
                    codes[status] += 1
                    if status == 200 and np.dot(answer["data"][0]["embedding"], alone[which]) < 0.99999:
                        wrong.append(which)
                    if status == 429 and not (int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) > 0):
                        without_retry_delay.append(headers)
                if status == 429:
                    time.sleep(0.05)

        callers = [threading.Thread(target=caller, args=(i,), daemon=True) for i in range(64)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(arguments.seconds + 90)
        report.bar("overload: every call is answered, or refused with a retry delay", set(codes) <= {200, 429} and codes[200] > 0 and not without_retry_delay, str(dict(codes)))
        report.bar("overload: every vector is the one of a lone call", not wrong)
        counted = front.replica.metrics().total("longembed_requests_total", method="openai.Embeddings")
        report.bar("overload: metrics count the calls", counted == sum(codes.values()) + len(alone), f"{counted:.0f} of {sum(codes.values()) + len(alone)}")
        at_rest(front, report, "overload")


# --------------------------------------------------------------------------------------------------------------------- hostile


def flood(front: Front, arguments: argparse.Namespace) -> list[socket.socket]:
    """connections that say nothing, or begin a request"""
    held = []
    for i in range(arguments.connections):
        connection = front.connect(b"POST /v1/emb" if i % 2 else b"")
        if connection is not None:
            held.append(connection)
        if len(held) > 3 * MAX_CONNECTIONS:
            held.pop(0).close()
    return held


def trickle(front: Front, arguments: argparse.Namespace) -> list[socket.socket]:
    """a byte every tenth of a second, of headers and of bodies"""
    whole = request_bytes(b'{"input": "' + b"a" * 5000 + b'"}')
    held = [connection for i in range(50) if (connection := front.connect(whole[: 20 if i % 2 else 150])) is not None]
    end = time.monotonic() + 2 * HEADER_SECONDS
    while time.monotonic() < end:
        for connection in held:
            with contextlib.suppress(OSError):
                connection.sendall(b"a")
        time.sleep(0.1)
    return held


def garbage(front: Front, arguments: argparse.Namespace) -> list[socket.socket]:
    """bytes that are no HTTP, no JSON, or too much of either"""
    rng = np.random.default_rng(2)
    bodies = [b"", b"[" * 100000, b'{"input":' * 50000, b'{"input": "\\ud800"}', b'{"input": ["' + b'a","' * 200000 + b'"]}', b"\xff" * 1000, b"1e999999", b"null"]
    firsts = [rng.bytes(int(size)) for size in rng.integers(1, 5000, size=100)] + [request_bytes(body) for body in bodies]
    firsts += [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"]
    firsts += [request_bytes(b"{}", "Content-Length: 999999999999\r\n"), b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
    firsts += [b"POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"]
    for first in firsts:
        connection = front.connect(first)
        if connection is None:
            continue
        connection.settimeout(0.05)
        assert b"HTTP/1.1 200" not in rest_of(connection), first[:100]
        connection.close()
    return []


def unread(front: Front, arguments: argparse.Namespace) -> list[socket.socket]:
    """clients that never read their answers"""
    body = json.dumps({"inputs": ["a b c d"] * 500}).encode()
    return [c for _ in range(20) if (c := front.connect(request_bytes(body, path="/embed_all"))) is not None]


def pipelined(front: Front, arguments: argparse.Namespace) -> list[socket.socket]:
    """a thousand requests at once on a connection"""
    connection = front.connect(request_bytes(b'{"input": "a"}') * 1000)
    answers = rest_of(connection).count(b"HTTP/1.1 ")
    assert answers <= 2, f"{answers} answers"
    return [connection] if connection else []


def hostile(folder: Path, arguments: argparse.Namespace, report: Report) -> None:
    with Front(folder, arguments, "hostile") as front:
        assert front.embed("a")[0] == 200
        before = front.replica.rss()
        for attack in (flood, trickle, garbage, unread, pipelined):
            stop, served = threading.Event(), []

            def bystander(stop=stop, served=served) -> None:
                # From an address of its own: clients of one address share what one client may hold, so the attack may use up its share.
                connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60, source_address=("127.0.0.2", 0))
                while not stop.is_set():
                    begun = time.monotonic()
                    connection.request("POST", "/v1/embeddings", '{"input": "a"}', JSON)
                    answer = connection.getresponse()
                    answer.read()
                    served.append((answer.status, time.monotonic() - begun))
                    time.sleep(0.02)

            thread = threading.Thread(target=bystander, daemon=True)
            thread.start()
            held = attack(front, arguments)
            until(lambda served=served: len(served) >= 5, 30)
            stop.set()
            thread.join(60)
            for connection in held:
                connection.close()
            fine = len(served) >= 5 and all(status == 200 for status, _ in served)
            slowest = max((seconds for _, seconds in served), default=0)
            report.bar(f"hostile, {attack.__doc__}: a client that was connected before is served", fine, f"{dict(Counter(status for status, _ in served))}, slowest {slowest:.2f} s")
            report.bar(f"hostile, {attack.__doc__}: a new client is served within 5 s", until(lambda: fresh(front), 5))
        at_rest(front, report, "hostile")
        grown = (front.replica.rss() - before) / 2**20
        report.bar("hostile: memory is given back", grown <= 64 + arguments.beyond_mib, f"{grown:.0f} MiB above the start")


def fresh(front: Front) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return front.embed("a", seconds=5)[0] == 200
    return False


# --------------------------------------------------------------------------------------------------------------------- endings


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


ENDINGS: dict[str, Callable[[socket.socket], None]] = {
    "closes": socket.socket.close,
    "resets": reset,
    "half-closes": lambda connection: connection.shutdown(socket.SHUT_WR),
    "waits": lambda connection: None,
}


def endings(folder: Path, arguments: argparse.Namespace, report: Report) -> None:
    """Tests every stage of a request with every way in which its client leaves."""
    long = json.dumps({"input": [text_of(400, random.Random(i)) for i in range(16)]}).encode()
    whole = request_bytes(long)
    stages = {"in its header": whole[:40], "in its body": whole[:2000], "in work": whole, "in work, with a deadline": request_bytes(long, "X-Request-Timeout: 0.05\r\n")}
    with Front(folder, arguments, "endings") as front:
        front.embed("a")
        until(front.replica.at_rest, 10)
        descriptors = front.replica.descriptors()
        for (stage, first), (ending, leave) in itertools.product(stages.items(), ENDINGS.items()):
            connections = [connection for _ in range(3) if (connection := front.connect(first)) is not None]
            time.sleep(0.1)
            for connection in connections:
                leave(connection)
            if ending == "waits":
                for connection in connections:
                    connection.settimeout(30)
                    with contextlib.suppress(OSError):
                        connection.recv(1 << 16)
                    connection.close()
            report.bar(f"{stage}, its client {ending}: every gauge is 0", until(front.replica.at_rest, 30), str(front.replica.gauges()))
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.close()
        gone = until(lambda: front.replica.descriptors() <= descriptors, 10)
        report.bar("no descriptor is left", gone, f"{front.replica.descriptors()} of {descriptors}")


# ----------------------------------------------------------------------------------------------------------------------- drain


def drain(folder: Path, arguments: argparse.Namespace, report: Report) -> None:
    """Sends SIGTERM under load. Requests that have begun are answered, and their answers announce the end of the connection. New connections are
    refused."""
    front = Front(folder, arguments, "drain", {"drain": {"delay": "500ms", "timeout": "30s"}})
    with front:
        codes, lost, lock, stop = Counter(), [], threading.Lock(), threading.Event()

        def caller() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
            while not stop.is_set():
                try:
                    connection.request("POST", "/v1/embeddings", '{"input": "a b c d e f"}', JSON)
                    answer = connection.getresponse()
                    answer.read()
                except ConnectionRefusedError:
                    return
                except (OSError, http.client.HTTPException) as error:
                    # The server closed an idle connection, so the request never began.
                    if not isinstance(error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError):
                        with lock:
                            lost.append(repr(error))
                    connection.close()
                    continue
                with lock:
                    codes[answer.status] += 1

        callers = [threading.Thread(target=caller, daemon=True) for _ in range(8)]
        for thread in callers:
            thread.start()
        time.sleep(1)
        healthy = front.ask("/health")[0]
        front.replica.process.terminate()
        unhealthy = until(lambda: front.ask("/health")[0] == 503, 0.4)
        status = front.replica.process.wait(60)
        stop.set()
        for thread in callers:
            thread.join(60)
        report.bar("drain: health reports the drain before connections are refused", healthy == 200 and unhealthy)
        report.bar("drain: every call is answered", set(codes) == {200} and not lost, f"{dict(codes)} {lost[:3]}")
        report.bar("drain: the server ends drained, with exit status 0", status == 0 and "drained" in front.replica.log.read_text(), str(status))


PARTS = {"keys": keys, "overload": overload, "hostile": hostile, "endings": endings, "drain": drain}


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    for name in arguments.only or PARTS:
        PARTS[name](folder, arguments, report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of overload")
    parser.add_argument("--connections", type=int, default=10000, help="of the flood")
    parser.add_argument("--beyond-mib", type=float, default=0, help="MiB that memory may have grown by, in addition to 64")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    run("http_front", parser, body)
