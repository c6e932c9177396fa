"""Runs hostile clients: floods of connections, slow readers, oversized messages, a million empty strings, garbage at every layer, and trickles.
Each must get a correct answer or a refusal. A fresh client must be served within 5 s, and a bystander that connected before must hardly be
affected."""

import argparse
import contextlib
import gzip
import random
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import http2_frames as h2
from google.rpc import code_pb2
from harness import HELD_BYTES, Authority, LoadClient, PeakRss, Replica, Report, failures, fresh_call, latency, python_client, run, write_texts
from history import History, ask_alone, judge

EMBED = "/longembed.v1.EmbeddingService/Embed"
MAX_CONNECTIONS = 200
RIGHT_REFUSALS = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


class Attack:
    """One kind of attack. `sockets` stay open until it ends."""

    def __init__(self, replica: Replica, pb, arguments: argparse.Namespace, report: Report):
        self.replica, self.pb, self.arguments, self.report = replica, pb, arguments, report
        self.sockets: list[socket.socket] = []
        self.rng = random.Random(1)

    def connect(self, first: bytes = b"") -> socket.socket | None:
        """Returns None if the server or the system refuses the connection."""
        plain = socket.socket()
        plain.settimeout(2)
        try:
            plain.connect(("127.0.0.1", self.replica.port))
            if first:
                plain.sendall(first)
        except OSError:
            plain.close()
            return None
        self.sockets.append(plain)
        return plain

    def close(self) -> None:
        for plain in self.sockets:
            plain.close()
        self.sockets.clear()

    def say(self, plain: socket.socket | None, content: bytes) -> bool:
        """Sends bytes. Returns False if the server has closed the connection, which counts as a refusal."""
        with contextlib.suppress(OSError):
            if plain is not None:
                plain.sendall(content)
                return True
        return False

    def code(self, payload: bytes) -> str:
        """Returns the status code of one call whose message consists of these bytes."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(self.replica.address, options) as channel:
            try:
                channel.unary_unary(EMBED)(payload, timeout=60)
            except grpc.RpcError as error:
                return error.code().name
        return "OK"


# Each attack runs for about `seconds` seconds. It returns whether the server's answers were correct, and a description of what happened. Its
# docstring is its title.


def idle_flood(attack: Attack, seconds: float) -> tuple[bool, str]:
    """fd flood: idle connections"""
    end, opened, most = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        opened += sum(attack.connect() is not None for _ in range(100))
        while len(attack.sockets) > 10 * MAX_CONNECTIONS:
            attack.sockets.pop(0).close()
        most = max(most, attack.replica.descriptors())
        time.sleep(0.05)
    return most <= MAX_CONNECTIONS + 100, f"{opened} opened, the server held {most} descriptors at most"


def talking_flood(attack: Attack, seconds: float) -> tuple[bool, str]:
    """fd flood: connections that speak HTTP/2 and stay"""
    end, kept = time.monotonic() + seconds, 0
    for _ in range(3 * MAX_CONNECTIONS):
        kept += attack.connect(h2.PREFACE + h2.settings()) is not None
        if time.monotonic() > end:
            break
    time.sleep(max(0.0, end - time.monotonic()))
    descriptors = attack.replica.descriptors()
    refused = {reason: attack.replica.metrics().total("longembed_connections_refused_total", reason=reason) for reason in ("limit", "client_share", "idle")}
    return descriptors <= MAX_CONNECTIONS + 100 and sum(
        refused.values()
    ) > 0, f"{kept} opened, the server holds {descriptors} descriptors; refused so far {refused}"


def half_open_tls(attack: Attack, seconds: float) -> tuple[bool, str]:
    """half-open TLS: the beginning of a ClientHello, then nothing"""
    hello = bytes.fromhex("16030100f8010000f40303") + bytes(20)
    end, opened = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if len(attack.sockets) < 150:
            opened += attack.connect(hello) is not None
        else:
            time.sleep(0.1)
    return True, f"{opened} handshakes begun"


def slow_headers(attack: Attack, seconds: float) -> tuple[bool, str]:
    """slowloris: headers that come a byte at a time"""
    header = h2.frame(h2.HEADERS, 0, 1, h2.grpc_headers(EMBED))
    for _ in range(100):
        attack.connect(h2.PREFACE + h2.settings())
    return trickle(attack, header, seconds)


def slow_bodies(attack: Attack, seconds: float) -> tuple[bool, str]:
    """slowloris: messages that come a byte at a time"""
    body = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers(EMBED)) + struct.pack(">BI", 0, 1 << 20)[:5]
    for _ in range(100):
        attack.connect(h2.PREFACE + h2.settings() + body[:-5] + h2.frame(h2.DATA, 0, 1, body[-5:]))
    return trickle(attack, h2.frame(h2.DATA, 0, 1, b"x") * 1000, seconds)


def trickle(attack: Attack, content: bytes, seconds: float) -> tuple[bool, str]:
    end, at = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        heard = sum(attack.say(plain, content[at : at + 1]) for plain in attack.sockets)
        at = (at + 1) % len(content)
        time.sleep(0.1)
    return True, f"{len(attack.sockets)} connections, {heard} still open at the end"


def slow_readers(attack: Attack, seconds: float) -> tuple[bool, str]:
    """slow readers: calls whose answers are not read"""
    pb = attack.pb[0]
    # Each of 128 tokens gets a vector: an answer of 200 kB for little work. More work would itself slow down the bystander.
    request = pb.EmbedRequest(inputs=[pb.Input(text="mill " * 126)])
    request.options.output = pb.EmbedOptions.SPAN_VECTORS
    request.options.spans.every_tokens.tokens = 1
    payload, end, sent = request.SerializeToString(), time.monotonic() + seconds, 0
    before = attack.replica.rss()
    while time.monotonic() < end:
        if len(attack.sockets) < 40:
            calls = b"".join(h2.unary_call(stream, EMBED, payload) for stream in (1, 3))
            if attack.connect(h2.PREFACE + h2.settings({h2.INITIAL_WINDOW_SIZE: 0}) + calls) is not None:
                sent += 2
        else:
            time.sleep(0.1)
    grown = (attack.replica.rss() - before) >> 20
    held = attack.replica.metrics().total(HELD_BYTES)
    return grown < 256, f"{sent} calls, RSS {grown:+d} MiB, {HELD_BYTES} {held / 2**20:.1f} MiB"


def slow_stream_readers(attack: Attack, seconds: float) -> tuple[bool, str]:
    """slow readers: streams that send without end and never read"""
    pb = attack.pb[0]
    message = h2.grpc_message(pb.EmbedStreamRequest(id="x", input=pb.Input(text="mill")).SerializeToString())
    piece = h2.frame(h2.DATA, 0, 1, message * 200)
    opening = h2.PREFACE + h2.settings({h2.INITIAL_WINDOW_SIZE: 0}) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers(EMBED + "Stream"))
    readers = [attack.connect(opening) for _ in range(8)]
    before, end, sent = attack.replica.rss(), time.monotonic() + seconds, 0
    inputs = attack.replica.metrics().total("longembed_inputs_total")
    for plain in readers:
        if plain is not None:
            plain.settimeout(0.05)
    while time.monotonic() < end:
        sent += sum(attack.say(plain, piece) for plain in readers)  # Times out once the server stops reading.
        time.sleep(0.1)
    grown = (attack.replica.rss() - before) >> 20
    inputs = attack.replica.metrics().total("longembed_inputs_total") - inputs
    return grown < 256, f"{sent * len(piece) >> 10} KiB sent, {inputs:.0f} inputs embedded, RSS {grown:+d} MiB"


def oversized_messages(attack: Attack, seconds: float) -> tuple[bool, str]:
    """oversized messages: texts and messages beyond every limit"""
    pb = attack.pb[0]
    codes, end = Counter(), time.monotonic() + seconds
    bodies = [pb.EmbedRequest(inputs=[pb.Input(text="mill " * (size // 5))]).SerializeToString() for size in (8 << 20, 17 << 20, 60 << 20)]
    while time.monotonic() < end:
        for payload in bodies:
            codes[attack.code(payload)] += 1
        # Announces a length of 4 GiB, but sends little.
        attack.connect(
            h2.PREFACE
            + h2.settings()
            + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers(EMBED))
            + h2.frame(h2.DATA, 0, 1, b"\0\xff\xff\xff\xff" + bytes(1000))
        )
        time.sleep(0.2)
    return set(codes) <= RIGHT_REFUSALS, str(dict(codes))


def oversized_streamed_texts(attack: Attack, seconds: float) -> tuple[bool, str]:
    """oversized messages: texts of 60 MiB, in parts"""
    pb, stubs = attack.pb
    part, parts = "mill " * (1 << 18), 48
    outcomes, end = Counter(), time.monotonic() + seconds

    def messages():
        for i in range(parts):
            yield pb.EmbedStreamRequest(id="oversized", input=pb.Input(text=part), more_parts=i + 1 < parts)

    while time.monotonic() < end:
        with grpc.insecure_channel(attack.replica.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                for answer in stubs.EmbeddingServiceStub(channel).EmbedStream(messages(), timeout=60):
                    outcomes[code_pb2.Code.Name(answer.result.error.code)] += 1
            except grpc.RpcError as error:
                outcomes[error.code().name] += 1
    return set(outcomes) <= RIGHT_REFUSALS, str(dict(outcomes))


def compressed_bomb(attack: Attack, seconds: float) -> tuple[bool, str]:
    """compressed bombs: messages of 60 MiB in 60 kB"""
    bomb = gzip.compress(bytes(60 << 20))
    body = struct.pack(">BI", 1, len(bomb)) + bomb
    frames = b"".join(h2.frame(h2.DATA, 0, 1, body[at : at + 16384]) for at in range(0, len(body), 16384))
    peak, before = PeakRss(attack.replica), attack.replica.rss()
    codes, bombs, end = Counter(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        # The last two break the protocol: the message is marked as compressed, but there is no encoding.
        for encoding in ({"grpc-encoding": "gzip"}, {"grpc-encoding": "deflate"}, {"grpc-encoding": "identity"}, {}):
            bombs += attack.connect(h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers(EMBED, encoding)) + frames) is not None
        with grpc.insecure_channel(attack.replica.address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]) as channel:
            try:
                channel.unary_unary(EMBED)(bytes(20 << 20), timeout=60, compression=grpc.Compression.Gzip)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
        time.sleep(0.5)
        attack.close()
    grown = (peak.stop() - before) >> 20
    return set(codes) == {"UNIMPLEMENTED"} and grown < 64, f"{bombs} bombs, {dict(codes)}, RSS {grown:+d} MiB at its peak"


def million_empty_strings(attack: Attack, seconds: float) -> tuple[bool, str]:
    """a million empty strings in one message"""
    payload = attack.pb[0].EmbedRequest(inputs=[attack.pb[0].Input(text="")] * 1_000_000).SerializeToString()
    codes, longest, end = Counter(), 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        codes[attack.code(payload)] += 1
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.1)
    return set(codes) == {"INVALID_ARGUMENT"}, f"{dict(codes)}, longest answer {longest:.2f} s"


def garbage_protobuf(attack: Attack, seconds: float) -> tuple[bool, str]:
    """garbage protobuf: random bytes, and good messages with bytes changed"""
    good = attack.pb[0].EmbedRequest(inputs=[attack.pb[0].Input(text="the mill stands by the river")]).SerializeToString()
    codes, end = Counter(), time.monotonic() + seconds
    with grpc.insecure_channel(attack.replica.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(EMBED)
        while time.monotonic() < end:
            payload = attack.rng.randbytes(attack.rng.randrange(1, 5000))
            if attack.rng.random() < 0.5:
                changed = bytearray(good)
                for _ in range(attack.rng.randrange(1, 4)):
                    changed[attack.rng.randrange(len(changed))] = attack.rng.randrange(256)
                payload = bytes(changed)
            try:
                call(payload, timeout=30)
                codes["OK"] += 1  # If the change is within the text, the message is still valid.
            except grpc.RpcError as error:
                codes[error.code().name] += 1
            time.sleep(0.005)
    return set(codes) <= {"OK", "NOT_FOUND"} | RIGHT_REFUSALS and codes["INVALID_ARGUMENT"] > 0, str(dict(codes))


def random_frame(rng: random.Random) -> bytes:
    return h2.frame(rng.randrange(12), rng.randrange(256), rng.randrange(4), rng.randbytes(rng.randrange(60)))


def garbage_http2(attack: Attack, seconds: float) -> tuple[bool, str]:
    """garbage HTTP/2: random bytes, HTTP/1, random frames"""
    end, connections = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for first in (
            attack.rng.randbytes(500),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            h2.PREFACE + attack.rng.randbytes(2000),
            h2.PREFACE + h2.settings() + b"".join(random_frame(attack.rng) for _ in range(30)),
        ):  # fmt: skip
            connections += attack.connect(first) is not None
        time.sleep(0.05)
        attack.close()
    return True, f"{connections} connections"


def control_frames(attack: Attack, seconds: float) -> tuple[bool, str]:
    """floods of control frames: PING, SETTINGS, and calls that are reset at once"""
    end, frames = time.monotonic() + seconds, 0
    for _ in range(3):
        attack.connect(h2.PREFACE + h2.settings())
    stream = 1
    while time.monotonic() < end:
        resets = b""
        for _ in range(20):
            resets += h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.grpc_headers(EMBED)) + h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8))
            stream += 2
        for i, piece in enumerate((h2.frame(h2.PING, payload=bytes(8)) * 40, h2.settings({h2.INITIAL_WINDOW_SIZE: 65535}) * 40, resets)):
            if i >= len(attack.sockets):
                break
            frames += 40
            if not attack.say(attack.sockets[i], piece):  # The server hung up, which is a refusal. Connect again.
                attack.sockets.pop(i).close()
                attack.connect(h2.PREFACE + h2.settings())
                stream = 1
        time.sleep(0.02)
    return True, f"{frames} frames"


def endless_headers(attack: Attack, seconds: float) -> tuple[bool, str]:
    """headers without end: CONTINUATION after CONTINUATION"""
    end, sent, before = time.monotonic() + seconds, 0, attack.replica.rss()
    field = h2.literal(b"x-filler", b"y" * 4000)
    while time.monotonic() < end:
        plain = attack.connect(h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, 0, 1, h2.grpc_headers(EMBED)))
        for _ in range(200):
            if not attack.say(plain, h2.frame(h2.CONTINUATION, 0, 1, field)):
                break
            sent += 4000
        attack.close()
        time.sleep(0.3)
    grown = (attack.replica.rss() - before) >> 20
    return grown < 128, f"{sent >> 20} MiB of headers, RSS {grown:+d} MiB"


PLAINTEXT = [
    idle_flood, talking_flood, slow_headers, slow_bodies, slow_readers, slow_stream_readers, oversized_messages, oversized_streamed_texts,
    compressed_bomb, million_empty_strings, garbage_protobuf, garbage_http2, control_frames, endless_headers,
]  # fmt: skip
# These attacks cause ordinary work, and then hold up the answers. Only the latter must not affect a bystander, so only that is measured.
WORK_FIRST = {slow_readers, slow_stream_readers}
# In this flood, well-behaved clients hold all connections. Others are accepted only when they leave.
FRESH_AFTERWARDS_ONLY = {talking_flood}


class Bystander:
    """A client with its own connection and a low rate of calls."""

    def __init__(self, replica: Replica, texts: Path, arguments: argparse.Namespace, secure: dict):
        self.options = {"rate": 20, "timeout": 30, **secure}
        self.path = texts.with_suffix(".jsonl")
        self.alone = ask_alone(replica.address, texts, texts.parent, **secure)
        self.replica, self.texts = replica, texts
        self.calm = LoadClient(replica.address, texts, seconds=arguments.seconds, warm_up=1, **self.options).result()

    def beside(self, seconds: float, warm_up: float) -> LoadClient:
        return LoadClient(self.replica.address, self.texts, seconds=seconds, warm_up=warm_up, history=self.path, **self.options)


def assault(method, replica: Replica, pb, arguments: argparse.Namespace, report: Report, bystander: Bystander, credentials) -> None:
    attack, name = Attack(replica, pb, arguments, report), method.__doc__
    warm_up, before = 10 if method in WORK_FIRST else 1, replica.metrics()
    client = bystander.beside(arguments.seconds, warm_up)
    time.sleep(1)  # Lets the bystander connect first.
    outcome: list = []
    thread = threading.Thread(target=lambda: outcome.append(method(attack, arguments.seconds + warm_up - 1.5)), daemon=True)
    thread.start()
    time.sleep(warm_up - 1 + arguments.seconds / 3)
    during = None if method in FRESH_AFTERWARDS_ONLY else fresh_call(replica.address, pb, 10, credentials)
    thread.join(arguments.seconds + 120)
    seen = client.result()
    attack.close()
    after = fresh_call(replica.address, pb, 10, credentials)
    right, said = outcome[0] if outcome else (False, "the attack did not end")
    report.bar(f"{name}: right answers or refusals", right and replica.alive(), said)
    report.bar(
        f"{name}: a fresh client is served within 5 s",
        max(during or 0.0, after) <= 5,
        f"{'not asked' if during is None else f'{during:.2f} s'} during, {after:.2f} s after",
    )
    calm, now = latency(bystander.calm, "OK", "p99"), latency(seen, "OK", "p99")
    allowed = max(2 * calm, arguments.floor_ms)
    said = f"{calm:.0f} -> {now:.0f} ms ({now / calm:.1f}x), {failures(seen)} failures of {seen['calls']} {list(seen['errors'])[:2] or ''}"
    said += f" (relaxed: {allowed:.0f} ms)" if allowed > 2 * calm else ""
    report.bar(f"{name}: bystander p99 <= 2x", now <= allowed and failures(seen) == 0, said)
    judge(report, f"{name}, bystander", History.read(bystander.path), bystander.alone, replica.metrics, before, alone=False)


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    pb = python_client(folder)
    texts = write_texts(folder / "texts.txt", 40, 16)
    settings = {"connections": {"max": MAX_CONNECTIONS, "handshake_timeout": "2s"}}
    chosen = [method for method in PLAINTEXT if arguments.only in method.__name__]
    # There are fewer descriptors than connections in the flood. gRPC's own acceptor would stop for good.
    with Replica(folder, arguments, settings, open_files=512) as replica:
        bystander = Bystander(replica, texts, arguments, {})
        for method in chosen:
            assault(method, replica, pb, arguments, report, bystander, None)
        # The limit is the memory of the idle server, plus max_pending_bytes twice: once for requests as bytes, and once for parsed messages.
        report.bar("peak RSS <= 1 GiB", replica.peak_rss() <= 1 << 30, f"{replica.peak_rss() >> 20} MiB")
        report.bar("exit status 0", replica.terminate() == 0)
    if arguments.only not in half_open_tls.__name__:
        return
    authority = Authority(folder / "authority")
    certificate, key = authority.issue("server")
    settings["tls"] = {"certificate": str(certificate), "key": str(key)}
    with Replica(folder, arguments, settings, "secure", open_files=512) as replica:
        bystander = Bystander(replica, texts, arguments, {"tls_root": authority.certificate})
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        for method in (half_open_tls, garbage_http2):
            assault(method, replica, pb, arguments, report, bystander, credentials)
        report.bar("exit status 0, with TLS", replica.terminate() == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose function has this in its name")
    parser.add_argument(
        "--floor-ms", type=float, default=0, help="a bystander's p99 up to this passes; for short runs and shared machines, where 2x a low p99 is noise"
    )
    run("hostile", parser, body)
