"""Simulates network faults between client and load balancer, and between balancer and server: latency, low bandwidth, sliced data, and
half-closed, reset and silent connections. No call may be lost without an error or answered twice, a bystander on a healthy path must hardly be
affected, and the server must hold nothing afterwards."""

import argparse
import asyncio
import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness import RETRY_CONFIG, Balancer, LoadClient, Replica, Report, failures, free_port, fresh_call, latency, python_client, run, until, write_texts
from history import History, ask_alone, judge


@dataclass(frozen=True)
class Toxic:
    """The faults of a link, in both directions. The default forwards all bytes."""

    latency: float = 0.0  # Seconds before bytes are forwarded.
    bandwidth: float = float("inf")  # Bytes per second.
    slice: int = 1 << 16  # Bytes that are forwarded at a time.
    blackhole: bool = False  # Bytes disappear, but connections stay open.


class Link:
    """Forwards TCP connections to the loopback port `target`. They arrive there from the address `source`."""

    def __init__(self, target: int, source: str = "127.0.0.1"):
        self.target, self.source, self.port, self.toxic = target, source, free_port(), Toxic()
        self.writers: set[asyncio.StreamWriter] = set()
        self.half_closed: set[asyncio.StreamWriter] = set()  # Bytes sent in these directions are dropped.
        self.loop = asyncio.new_event_loop()
        listening = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self.thread.start()
        listening.wait(10)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> int:
        """Resets every connection on both sides with RST. Returns the number of sides."""
        return asyncio.run_coroutine_threadsafe(self._end(abort=True), self.loop).result(10)

    def half_close(self) -> int:
        """Ends the sending direction of connections, but not the receiving one."""
        return asyncio.run_coroutine_threadsafe(self._end(abort=False), self.loop).result(10)

    def close(self) -> None:
        self.reset()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        listening.set()
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target, local_addr=(self.source, 0))
        except OSError:
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self.writers |= both
        await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        self.writers -= both
        self.half_closed -= both
        for one in both:
            one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(self.toxic.slice):
                toxic = self.toxic
                if pause := toxic.latency + len(content) / toxic.bandwidth:
                    await asyncio.sleep(pause)
                if not toxic.blackhole and writer not in self.half_closed:
                    writer.write(content)
                    await writer.drain()
            if not writer.is_closing():
                self._half_close(writer)

    def _half_close(self, writer: asyncio.StreamWriter) -> None:
        if writer not in self.half_closed:
            self.half_closed.add(writer)
            writer.write_eof()

    async def _end(self, abort: bool) -> int:
        writers = list(self.writers)
        for writer in writers:
            with contextlib.suppress(OSError):
                if abort:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                else:
                    self._half_close(writer)
        return len(writers)


TOXICS = {
    "latency": Toxic(latency=0.05),
    "little bandwidth": Toxic(bandwidth=64 << 10, slice=4096),
    "slices": Toxic(slice=7),
    "silence": Toxic(blackhole=True),
}


def disturb(link: Link, kind: str, seconds: float) -> None:
    """Makes the link faulty for two thirds of the time, and then good."""
    end = time.monotonic() + seconds * 2 / 3
    if kind in TOXICS:
        link.toxic = TOXICS[kind]
        time.sleep(max(0.0, end - time.monotonic()))
    while time.monotonic() < end:
        link.reset() if kind == "resets" else link.half_close()
        time.sleep(0.5)
    link.toxic = Toxic()
    if kind == "silence":  # TCP would resend lost bytes, but this link has acknowledged them. Its connections must therefore be new.
        link.reset()
    time.sleep(seconds / 3)


def round_of(arguments: argparse.Namespace, bench: "Bench", where: str, link: Link, kind: str, report: Report) -> None:
    name, path = f"{kind} between {where}", bench.folder / f"{kind}-{where}.jsonl".replace(" ", "-")
    bystander_path = path.with_suffix(".bystander")
    before = bench.replica.metrics()
    # A deadline longer than the silence would hide calls that hang. An expired deadline is an error, so such calls are not lost.
    client = LoadClient(
        bench.front, bench.texts, concurrency=4, connections=2, seconds=36000, timeout=arguments.seconds, service_config=RETRY_CONFIG, history=path
    )
    bystander = LoadClient(bench.replica.address, bench.texts, rate=5, seconds=36000, timeout=30, history=bystander_path)
    time.sleep(0.5)
    disturb(link, kind, arguments.seconds)
    result, beside = client.stop(), bystander.stop()
    report.figure(f"{name}, codes", result["codes"])
    report.bar(f"{name}: calls are answered", result["codes"].get("OK", 0) > 0, f"{result['codes']}")
    allowed = max(2 * latency(bench.calm, "OK", "p99"), arguments.floor_ms)
    now = latency(beside, "OK", "p99")
    report.bar(f"{name}: bystander p99", failures(beside) == 0 and now <= allowed, f"{now:.0f} ms of {allowed:.0f}, {failures(beside)} failures")
    history, seen = History.read(path), History.read(bystander_path)
    judge(report, name, history, bench.alone)
    judge(report, f"{name}, bystander", seen, bench.alone, bench.replica.metrics, before, alone=False)
    report.bar(f"{name}: the server comes to rest", until(bench.replica.at_rest, 15, 0.1), str(bench.replica.gauges()))
    served = fresh_call(bench.front, bench.pb, 10)
    report.bar(f"{name}: a fresh client is served within 5 s afterwards", served <= 5, f"{served:.2f} s")


@dataclass
class Bench:
    replica: Replica
    front: str
    texts: Path
    alone: History
    calm: dict
    folder: Path
    pb: tuple


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    pb = python_client(folder)
    texts = write_texts(folder / "texts.txt", 20, 32)
    with Replica(folder, arguments) as replica, Link(replica.port) as inner:
        alone = ask_alone(replica.address, texts, folder)
        calm = LoadClient(replica.address, texts, rate=5, seconds=arguments.seconds).result()
        with Balancer(folder, [replica], {replica.name: inner.port}) as balancer, Link(balancer.port) as outer:
            bench = Bench(replica, outer.address, texts, alone, calm, folder, pb)
            for where, link in {"client and balancer": outer, "balancer and server": inner}.items():
                for kind in [*TOXICS, "resets", "half-closed"]:
                    if any(part in f"{kind} between {where}" for part in arguments.only):
                        round_of(arguments, bench, where, link, kind, report)
        report.bar("exit status 0", replica.terminate() == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=9, help="of each kind: two thirds bad, one third good")
    parser.add_argument("--only", nargs="+", default=[""], help='rounds whose name has one of these in it, as in "silence between client and balancer"')
    parser.add_argument("--floor-ms", type=float, default=500, help="a bystander's p99 up to this passes; for shared machines, where 2x a low p99 is noise")
    run("link", parser, body)
