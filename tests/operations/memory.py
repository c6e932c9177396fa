"""Tests memory that the server's ledger does not count. Hostile requests of every kind have messages, answers and streams that take more memory
than their bytes on the wire. The process may hold at most 64 MiB and a tenth of the ledger's total beyond the ledger. Afterwards the ledger is at
0."""

import argparse
import contextlib
import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

from harness import HELD_BYTES, Replica, Report, free_port, python_client, run, until  # isort: skip. Imported before grpc, because it silences grpc's log.
import grpc
import http2_frames as h2
from raw_client import RawClient, Stuck

SERVICE, TEI, WATCH = "/longembed.v1.EmbeddingService/", "/tei.v1.", "/grpc.health.v1.Health/Watch"
MIB = 1 << 20
SHARE = 0.1
# Seconds until jemalloc has returned the pages of freed memory: dirty_decay_ms, which is 10 s, and the sleep of its background thread.
DECAY = 15


class Watcher(threading.Thread):
    """Compares the resident memory above the idle server's with the most that the ledger has held recently, within the time for which the
    allocator keeps pages."""

    def __init__(self, replica: Replica, base: int, beyond: int):
        super().__init__(daemon=True)
        self.replica, self.base, self.beyond, self.stopped = replica, base, beyond, threading.Event()
        self.held: deque[tuple[float, float]] = deque()
        self.excess, self.worst, self.known = 0.0, (0.0, 0.0), True  # Bytes above the limit, and the resident and held bytes at that time.
        self.start()

    def run(self) -> None:
        while not self.stopped.wait(0.03) and self.replica.alive():
            metrics, now = self.replica.metrics(), time.monotonic()
            self.known &= metrics.has(HELD_BYTES)
            self.held.append((now, metrics.total(HELD_BYTES)))
            while self.held[0][0] < now - DECAY:
                self.held.popleft()
            held = max(bytes_held for _, bytes_held in self.held)
            grown = self.replica.rss() - self.base
            excess = grown - held - self.beyond - SHARE * held
            if excess > self.excess or self.excess <= 0 and grown > self.worst[0]:
                self.excess, self.worst = excess, (grown, held)

    def stop(self) -> None:
        self.stopped.set()
        self.join(10)


class Attacker:
    """Creates clients, and closes them all at the end."""

    def __init__(self, replica: Replica, http_port: int, pb, tei, scale: float):
        self.replica, self.http_port, self.pb, self.tei, self.scale = replica, http_port, pb, tei, scale
        self.clients: list[RawClient] = []
        self.channels: list[grpc.Channel] = []

    def raw(self, port: int | None = None) -> RawClient:
        client = RawClient(port or self.replica.port)
        self.clients.append(client)
        return client

    def times(self, count: int) -> range:
        return range(max(1, round(count * self.scale)))

    def unread(self, path: str, payload: bytes, count: int) -> str:
        """Makes calls on separate connections, and does not read their answers."""
        stuck = 0
        for _ in self.times(count):
            try:
                self.raw().call(path, payload)
            except Stuck:
                stuck += 1
        return f"{len(self.clients)} calls of {len(payload) >> 10} KiB, {stuck} not read by the server"

    def together(self, path: str, payload: bytes, count: int) -> str:
        """Makes calls at the same time, and reads their answers."""
        channel = grpc.insecure_channel(
            self.replica.address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        self.channels.append(channel)
        calls = [channel.unary_unary(path).future(payload, timeout=60) for _ in self.times(count)]
        codes = [call.code().name for call in calls]
        return f"{len(calls)} calls of {len(payload) >> 10} KiB: {({code: codes.count(code) for code in set(codes)})}"

    def posts(self, path: str, body: bytes, count: int) -> str:
        """Makes HTTP calls at the same time, and reads their answers."""

        def post(_) -> str:
            connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                return str(answer.status)
            except OSError as error:
                return type(error).__name__
            finally:
                connection.close()

        with futures.ThreadPoolExecutor(count) as pool:
            statuses = list(pool.map(post, self.times(count)))
        return f"{len(statuses)} posts of {len(body) >> 10} KiB: {({status: statuses.count(status) for status in set(statuses)})}"

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for channel in self.channels:
            channel.close()
        self.clients.clear()
        self.channels.clear()


# Each attack returns a description of what it did. Its docstring is its title.


def unknown_fields(attack: Attacker) -> str:
    """unknown fields: 15 MiB of two bytes each"""
    return attack.together(SERVICE + "Embed", b"\x7a\x00" * (15 * MIB // 2) + attack.pb.EmbedRequest(inputs=[attack.pb.Input(text="x")]).SerializeToString(), 6)


def unknown_fields_inside(attack: Attacker) -> str:
    """unknown fields within an input"""
    inner = b"\x7a\x00" * (7 * MIB // 2) + attack.pb.Input(text="x").SerializeToString()
    return attack.together(SERVICE + "Embed", b"\x12" + h2.varint(len(inner)) + inner, 6)


def unknown_fields_unread(attack: Attacker) -> str:
    """unknown fields, and the answer is not taken"""
    return attack.unread(SERVICE + "Embed", b"\x7a\x00" * (4 * MIB) + attack.pb.EmbedRequest(inputs=[attack.pb.Input(text="x")]).SerializeToString(), 4)


def empty_strings(attack: Attacker) -> str:
    """empty strings by the ten thousands"""
    texts = attack.pb.TokenizeRequest(texts=[""] * 60_000).SerializeToString()
    inputs = attack.pb.EmbedRequest(inputs=[attack.pb.Input(text="")] * 60_000).SerializeToString()
    return attack.together(SERVICE + "Tokenize", texts, 8) + "; " + attack.together(SERVICE + "Embed", inputs, 8)


def unread_embed(attack: Attacker) -> str:
    """unread answers of Embed"""
    request = attack.pb.EmbedRequest(inputs=[attack.pb.Input(text="mill " * 500)] * 2)
    request.options.output = attack.pb.EmbedOptions.SPAN_VECTORS
    request.options.spans.every_tokens.tokens = 1
    return attack.unread(SERVICE + "Embed", request.SerializeToString(), 10)


def unread_tokenize(attack: Attacker) -> str:
    """unread answers of Tokenize"""
    return attack.unread(SERVICE + "Tokenize", attack.pb.TokenizeRequest(texts=["a " * 450_000]).SerializeToString(), 4)


def unread_explain(attack: Attacker) -> str:
    """unread answers of Explain"""
    request = attack.pb.ExplainRequest(inputs=[attack.pb.Input(text="a " * 400_000)])
    request.options.extension.windows.tokens = 18
    return attack.unread(SERVICE + "Explain", request.SerializeToString(), 4)


def unread_decode(attack: Attacker) -> str:
    """unread answers of tei's Decode and Tokenize"""
    decode = attack.unread(TEI + "Tokenize/Decode", attack.tei.DecodeRequest(ids=[2000] * 300_000).SerializeToString(), 4)
    return decode + "; " + attack.unread(TEI + "Tokenize/Tokenize", attack.tei.EncodeRequest(inputs="a " * 300_000).SerializeToString(), 4)


def unread_streams(attack: Attacker) -> str:
    """streams whose client sends and does not read"""
    sent = 0
    for _ in attack.times(6):
        client = attack.raw()
        stream = client.open(SERVICE + "EmbedStream")
        message = attack.pb.EmbedStreamRequest(id="x", input=attack.pb.Input(text="mill " * 400)).SerializeToString()
        try:
            for _ in range(2000):
                client.send(stream, message, seconds=1)
                sent += len(message)
        except Stuck:
            continue
    return f"{len(attack.clients)} streams, {sent >> 10} KiB sent until the server read no further"


def watch_streams(attack: Attacker) -> str:
    """20,000 Health.Watch on one connection of the health port"""
    return watch(attack, attack.replica.health_port)


def watch_streams_on_main_port(attack: Attacker) -> str:
    """20,000 Health.Watch on one connection of the main port"""
    return watch(attack, attack.replica.port)


def watch(attack: Attacker, port: int) -> str:
    client, streams = attack.raw(port), 20_000
    call = h2.grpc_headers(WATCH), h2.grpc_message(b"\x0a\x05hello")
    for begin in range(0, streams, 500):
        client.write(
            b"".join(
                h2.frame(h2.HEADERS, h2.END_HEADERS, 1 + 2 * i, call[0]) + h2.frame(h2.DATA, h2.END_STREAM, 1 + 2 * i, call[1])
                for i in range(begin, begin + 500)
            )
        )
        if client.closed:
            break
    until(lambda: len(client.ended) >= streams or client.closed, 3, 0.1)
    return f"{len(client.ended)} streams ended by the server, connection {'closed' if client.closed else 'open'}"


def uncuttable_texts(attack: Attacker) -> str:
    """texts that the tokenizer cannot cut"""
    # Nothing but digits and line feeds: no piece of it may be tokenized alone.
    embed = attack.pb.EmbedRequest(inputs=[attack.pb.Input(text="1\n" * 150_000)] * 4)
    embed.options.truncate = attack.pb.EmbedOptions.END
    tokenize = attack.pb.TokenizeRequest(texts=["1\n" * 150_000] * 4)
    return "; ".join(attack.together(SERVICE + method, request.SerializeToString(), 6) for method, request in (("Embed", embed), ("Tokenize", tokenize)))


def reflection_messages(attack: Attacker) -> str:
    """unknown fields in streams of reflection, which stay open"""
    message, sent = b"\x7a\x00" * (4 * MIB), 0
    for version in ["v1", "v1alpha"] * len(attack.times(2)):
        client = attack.raw()
        stream = client.open(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        with contextlib.suppress(Stuck):
            client.send(stream, message, seconds=2)
            sent += 1
    return f"{sent} of {len(attack.clients)} messages of {len(message) >> 20} MiB sent"


def http_answers(attack: Attacker) -> str:
    """large answers as JSON"""
    texts = [{"text": "mill " * 250}] * 20
    body = json.dumps({"inputs": texts, "options": {"output": "SPAN_VECTORS", "spans": {"every_tokens": {"tokens": 1}}}}).encode()
    return attack.posts("/longembed/v1/embed", body, 6)


def http_texts(attack: Attacker) -> str:
    """long strings and many inputs as JSON"""
    long, many = json.dumps({"input": "mill " * 800_000}).encode(), json.dumps({"inputs": [{"text": ""}] * 64_000}).encode()
    return attack.posts("/v1/embeddings", long, 4) + "; " + attack.posts("/longembed/v1/embed", many, 4)


ATTACKS: list[Callable[[Attacker], str]] = [
    unknown_fields, unknown_fields_inside, unknown_fields_unread, empty_strings, unread_embed, unread_tokenize, unread_explain, unread_decode,
    unread_streams, watch_streams, watch_streams_on_main_port, uncuttable_texts, reflection_messages, http_answers, http_texts,
]  # fmt: skip


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    from generated_client import generate_tei_client

    pb, tei = python_client(folder), generate_tei_client(folder / "generated")[0]
    http_port = free_port()
    settings = {"limits": {"max_pending_bytes": arguments.limit_mib * MIB}, "http_listen": f"127.0.0.1:{http_port}"}
    with Replica(folder, arguments, settings) as replica:
        attack = Attacker(replica, http_port, pb[0], tei, arguments.scale)
        warm_up(attack)
        base = replica.rss()
        report.figure("RSS at rest, MiB", base / MIB)
        chosen = [method for method in ATTACKS if arguments.only in method.__name__]
        for method in [] if arguments.together else chosen:
            bear(method, attack, base, arguments, report)
        if len(chosen) > 1:
            together(chosen, attack, base, arguments, report)
        report.bar("exit status 0", replica.terminate() == 0)


def warm_up(attack: Attacker) -> None:
    """Runs large batches and texts first: memory that threads keep for them does not belong to a request."""
    pb = attack.pb
    attack.together(SERVICE + "Embed", pb.EmbedRequest(inputs=[pb.Input(text="mill " * 500)] * 8).SerializeToString(), 2)
    attack.together(SERVICE + "Tokenize", pb.TokenizeRequest(texts=["a " * 100_000]).SerializeToString(), 4)
    attack.close()


def settle(replica: Replica, seconds: float) -> None:
    """Waits until the server has finished processing the requests, and has little or no work left."""

    def idle() -> bool:
        before = replica.metrics().total("process_cpu_seconds_total")
        time.sleep(0.5)
        return replica.metrics().total("process_cpu_seconds_total") - before < 0.1

    until(idle, 20)
    time.sleep(seconds)


def bear(method: Callable[[Attacker], str], attack: Attacker, base: int, arguments: argparse.Namespace, report: Report) -> None:
    watcher = Watcher(attack.replica, base, arguments.beyond_mib * MIB)
    said = method(attack)
    settle(attack.replica, arguments.seconds)
    conclude(method.__doc__, watcher, attack, said, report)


def together(methods: list, attack: Attacker, base: int, arguments: argparse.Namespace, report: Report) -> None:
    watcher, said = Watcher(attack.replica, base, arguments.beyond_mib * MIB), []
    threads = [threading.Thread(target=lambda method=method: said.append(method(attack)), daemon=True) for method in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    settle(attack.replica, arguments.seconds)
    conclude("all at once", watcher, attack, f"{len(said)} of {len(methods)} ended", report)


def conclude(name: str, watcher: Watcher, attack: Attacker, said: str, report: Report) -> None:
    watcher.stop()
    replica = watcher.replica
    grown, held = watcher.worst
    report.figure(name, said)
    report.bar(f"{name}: alive", replica.alive())
    report.bar(f"{name}: the server exports {HELD_BYTES}", watcher.known)
    report.bar(f"{name}: RSS <= ledger + {watcher.beyond // MIB} MiB + 10 %", watcher.excess <= 0, f"RSS {grown / MIB:+.0f} MiB, ledger {held / MIB:.0f} MiB")
    attack.close()
    report.bar(f"{name}: everything is released when its clients are gone", until(replica.at_rest, 20, 0.1), str(replica.gauges()))
    fallen = until(lambda: replica.rss() - watcher.base <= watcher.beyond + SHARE * max(grown, 0), 2 * DECAY, 0.25)
    report.bar(f"{name}: RSS falls back", fallen, f"{(replica.rss() - watcher.base) / MIB:+.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="seconds that each attack keeps its connections after everything is sent")
    parser.add_argument("--scale", type=float, default=1, help="factor on the number of calls of an attack")
    parser.add_argument("--limit-mib", type=int, default=256, help="limits.max_pending_bytes")
    # Allows for connections, threads, and the allocator's rounding.
    parser.add_argument("--beyond-mib", type=int, default=64, help="resident memory that no ledger can know; more on machines that are shared")
    parser.add_argument("--together", action="store_true", help="run the attacks all at once, without first running each by itself")
    parser.add_argument("--only", default="", help="attacks whose function has this in its name")
    run("memory", parser, body)
