"""Tests that calls leave nothing behind: every kind of call, ended in every way, at every stage. Afterwards all gauges of work in progress and of
held resources are 0, and no file descriptor is left open.

A drain ends the process. It must then exit with 0 as soon as `drain.timeout` allows. Work that was left behind would delay it."""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import Replica, Report, python_client, run, until  # isort: skip. Imported before grpc, because it silences grpc's log.
import grpc
from raw_client import RawClient, Stuck

KINDS = ("Embed", "EmbedStream", "tei unary", "tei stream", "health watch")
ENDINGS = ("cancel", "deadline", "reset", "server error", "drain")
STAGES = ("queued", "tokenizing", "in a batch", "answering")
PATHS = {
    "Embed": "/longembed.v1.EmbeddingService/Embed",
    "EmbedStream": "/longembed.v1.EmbeddingService/EmbedStream",
    "tei unary": "/tei.v1.Embed/Embed",
    "tei stream": "/tei.v1.Embed/EmbedStream",
    "health watch": "/grpc.health.v1.Health/Watch",
}
DRAIN_ORDER = ("answering", "in a batch", "queued", "tokenizing")
DEADLINE, DRAIN_TIMEOUT = 0.8, 1
LONG = "river stone house water " * 200  # More than 512 tokens.
# No message of our protos begins with this byte: field 15, group end.
MALFORMED = b"\x7c"


@dataclass(frozen=True)
class Cell:
    kind: str
    ending: str
    stage: str

    def __str__(self) -> str:
        return f"{self.kind} x {self.ending} x {self.stage}"

    @property
    def stream(self) -> bool:
        return "tream" in self.kind

    def impossible(self) -> str:
        """Returns why this cell cannot exist, or "" if it can."""
        if self.kind == "health watch" and self.stage != "answering":
            return "health does no work"
        if self.kind == "health watch" and self.ending == "server error":
            return "a watch has no error: it answers that a service is not served"
        if self.kind.startswith("tei") and self.stage == "tokenizing":
            return "tokenizing stops at one window of tokens, in less than a scrape takes"
        if self.ending == "server error" and not self.stream:
            if self.stage == "queued":
                return "a queued unary call fails only through its client or through the encoder"
            if self.stage == "in a batch":
                return "needs an encoder that fails: the C++ tests have one"
            if self.stage == "answering":
                return "an error is sent instead of an answer, in headers that no window holds back"
        return ""


def cells() -> list[Cell]:
    return [Cell(*names) for names in itertools.product(KINDS, ENDINGS, STAGES)]


class Bench:
    """A server, with one client per cell."""

    def __init__(self, replica: Replica, pb, tei):
        self.replica, self.pb, self.tei = replica, pb, tei
        self.channel = grpc.insecure_channel(replica.address, [("grpc.use_local_subchannel_pool", 1)])
        self.embed = self.channel.unary_unary(PATHS["Embed"])
        self.embed(self.long(1), timeout=60)
        self.descriptors = replica.descriptors()

    def long(self, inputs: int) -> bytes:
        request = self.pb.EmbedRequest(inputs=[self.pb.Input(text=LONG)] * inputs)
        request.options.truncate = self.pb.EmbedOptions.END
        return request.SerializeToString()

    def message(self, cell: Cell, windows: bool) -> bytes:
        """With `windows`, the text takes long to tokenize. If a unary call must end with an error, the text is also too long for the server."""
        if cell.kind.startswith("tei"):
            return self.tei.EmbedRequest(inputs=LONG, truncate=True).SerializeToString()
        if cell.kind == "health watch":
            return b""
        text = LONG
        options = self.pb.EmbedOptions(truncate=self.pb.EmbedOptions.END)
        if windows:
            text = "a " * (1_100_000 if cell.ending == "server error" and not cell.stream else 700_000)
            options = self.pb.EmbedOptions(extension=self.pb.Extension(windows=self.pb.Extension.Windows(tokens=512)))
        if cell.stream:
            return self.pb.EmbedStreamRequest(id="1", options=options, input=self.pb.Input(text=text)).SerializeToString()
        copies = 8 if cell.stage == "in a batch" else 1
        return self.pb.EmbedRequest(options=options, inputs=[self.pb.Input(text=text)] * copies).SerializeToString()

    def block(self) -> grpc.Future | None:
        """Starts a call that keeps the worker busy for several seconds."""
        blocker = self.embed.future(self.long(32), timeout=60)
        if not until(lambda: self.gauge("longembed_batches_running") > 0, 10, 0.01):
            raise RuntimeError("the call that is to keep the worker busy does not run")
        return blocker

    def gauge(self, name: str) -> float:
        return self.replica.metrics().total(name)

    def begin(self, cell: Cell) -> tuple[RawClient, int]:
        # A window of 0 keeps the answer in the server. At other stages it has no effect.
        client = RawClient(self.replica.port, 0 if cell.stage == "answering" else 1 << 20)
        stream = client.open(PATHS[cell.kind], {"grpc-timeout": f"{round(DEADLINE * 1000)}m"} if cell.ending == "deadline" else None)
        client.send(stream, self.message(cell, cell.stage == "tokenizing"), end=not cell.stream)
        return client, stream

    def reached(self, cell: Cell, seconds: float = 5) -> bool:
        """Returns true once the call is seen at its stage. No gauge shows answers that wait in the server, so they get a short time instead."""

        def there() -> bool:
            metrics = self.replica.metrics()
            calls, waiting, running = (metrics.total(f"longembed_{name}") for name in ("requests_in_flight", "queue_jobs", "batches_running"))
            if cell.stage == "queued":
                return calls > 1 and waiting > 0
            if cell.stage == "tokenizing":
                return calls > 0 and waiting == running == 0
            if cell.stage == "in a batch":
                return running > 0
            return running == waiting == 0

        if cell.stage == "answering":
            time.sleep(0.1)
        found = until(there, seconds, 0.005)
        if cell.stage == "answering":
            time.sleep(0.1)
        return found


def end(cell: Cell, client: RawClient, stream: int) -> None:
    if cell.ending == "cancel":
        client.reset(stream)
    elif cell.ending == "reset":
        client.abort()
    elif cell.ending == "server error" and cell.stream:
        # The server first answers messages that it has already read. At the stages below, this takes long (a long text) or never
        # ends (a client that does not read), so the client closes its connection.
        try:
            client.send(stream, MALFORMED, end=True, seconds=2)
        except Stuck:
            pass
        if cell.stage in ("answering", "tokenizing"):
            time.sleep(0.3)
            client.close()


def run_cells(bench: Bench, some: list[Cell], name: str, report: Report) -> int:
    """Runs cells with the same stage and the same ending at the same time. Returns how many were seen at their stage."""
    blocker = bench.block() if some[0].stage == "queued" else None
    begun = [(cell, *bench.begin(cell)) for cell in some]
    seen = sum(bench.reached(cell, 1.5) for cell in some)
    for cell, client, stream in begun:
        end(cell, client, stream)
    if some[0].ending == "deadline":
        time.sleep(DEADLINE)
    if blocker is not None:
        blocker.cancel()
    rests = until(bench.replica.at_rest, 20, 0.05)
    left = bench.replica.gauges()
    for _, client, _ in begun:
        client.close()
    report.bar(f"{name}: every gauge is 0", rests and bench.replica.alive(), str(left))
    few = until(lambda: bench.replica.descriptors() <= bench.descriptors, 10, 0.1)
    report.bar(f"{name}: no descriptor is left", few, f"{bench.descriptors} before, {bench.replica.descriptors()} after")
    return seen


def drain(start: Callable[[], Bench], some: list[Cell], name: str, report: Report) -> int:
    bench, blocker, begun, seen = start(), None, [], 0
    # Calls that must be in progress when the drain begins are started last.
    for cell in sorted(some, key=lambda cell: DRAIN_ORDER.index(cell.stage)):
        if cell.stage == "queued" and blocker is None:
            blocker = bench.block()
        begun.append((cell, *bench.begin(cell)))
        seen += bench.reached(cell, 0.5)
    began = time.monotonic()
    status = bench.replica.terminate(DRAIN_TIMEOUT + 20)
    took = time.monotonic() - began
    report.bar(f"{name}: exit status 0 within drain.timeout and 5 s", status == 0 and took <= DRAIN_TIMEOUT + 5, f"status {status} after {took:.1f} s")
    if blocker is not None:
        blocker.cancel()
    for _, client, _ in begun:
        client.close()
    return seen


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    from generated_client import generate_tei_client

    pb, tei = python_client(folder)[0], generate_tei_client(folder / "generated")[0]
    settings = {"drain": {"timeout": f"{DRAIN_TIMEOUT}s"}, "limits": {"max_queue_wait": "300s"}, "compute_threads": 1}
    skipped = {cell: why for cell in cells() if (why := cell.impossible())}
    for cell, why in skipped.items():
        print(f"SKIP  {cell}: {why}", flush=True)
    chosen = [cell for cell in cells() if cell not in skipped and arguments.only in str(cell)]
    groups: dict[str, list[Cell]] = {}
    for cell in chosen:
        together = "drain" if cell.ending == "drain" else f"{cell.ending} x {cell.stage}"
        groups.setdefault(str(cell) if arguments.apart else together, []).append(cell)
    starts = itertools.count()

    def start() -> Bench:
        return Bench(Replica(folder, arguments, settings, f"replica-{next(starts)}").start(), pb, tei)

    seen, bench = 0, start()
    for name, some in groups.items():
        if some[0].ending != "drain":
            seen += run_cells(bench, some, name, report)
    report.bar("exit status 0", bench.replica.terminate() == 0)
    for name, some in groups.items():
        if some[0].ending == "drain":
            seen += drain(start, some, name, report)
    report.figure("cells", f"{len(chosen)}, {len(skipped)} cannot exist; {seen} were seen at their stage")
    report.bar("most cells were seen at their stage", seen >= 0.6 * len(chosen), f"{seen} of {len(chosen)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apart", action="store_true", help="run each cell alone; otherwise cells of one ending and stage, or of a drain, together")
    parser.add_argument("--only", default="", help='cells whose name has this in it, as in "Embed x cancel x queued"')
    run("cleanup", parser, body)
