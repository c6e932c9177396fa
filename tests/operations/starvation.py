"""Runs one client's flood of Tokenize and Explain calls next to another client's calls with long texts. The other client's calls
must be nearly as fast as without the flood, whether clients are identified by key or by address. Waiting work must show in the metrics and in the
timing of an answer."""

import argparse
import threading
import time
from pathlib import Path

from harness import Replica, Report, python_client, run, until  # isort: skip. Imported before grpc, because it silences grpc's log.
import grpc
import yaml
from link import Link

KEYS = {"flood": "starvation-key-of-flood", "victim": "starvation-key-of-victim"}
# Any of these metrics tells an operator that calls wait. Sums are counted from before the flood.
WAITING = (
    "longembed_expected_wait_seconds",
    "longembed_queue_jobs",
    "longembed_queue_oldest_seconds",
    "longembed_tokenization_queue_tasks",
    "longembed_tokenization_wait_seconds_sum",
)
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Flood(threading.Thread):
    """Keeps `calls` calls in progress, without waiting for any of them."""

    def __init__(self, address: str, pb, metadata: list, calls: int):
        super().__init__(daemon=True)
        self.channel, self.metadata, self.stopped, self.sent = grpc.insecure_channel(address, OPTIONS), metadata, threading.Event(), 0
        self.room = threading.Semaphore(calls)
        text = "a " * 900_000
        explain = pb.ExplainRequest(inputs=[pb.Input(text=text)])
        explain.options.extension.windows.tokens = 512
        self.payloads = [("Tokenize", pb.TokenizeRequest(texts=[text]).SerializeToString()), ("Explain", explain.SerializeToString())]
        self.codes: list[str] = []

    def run(self) -> None:
        while not self.stopped.is_set():
            if not self.room.acquire(timeout=0.1):
                continue
            method, payload = self.payloads[self.sent % 2]
            call = self.channel.unary_unary(f"/longembed.v1.EmbeddingService/{method}").future(payload, timeout=120, metadata=self.metadata)
            self.sent += 1
            call.add_done_callback(self.done)

    def done(self, call: grpc.Future) -> None:
        self.codes.append(call.code().name)
        if call.code() != grpc.StatusCode.OK:
            time.sleep(0.05)  # A refused client tries again, but not in a loop that would take the cores.
        self.room.release()

    def stop(self) -> None:
        self.stopped.set()
        self.join(10)
        self.channel.close()  # Cancels the calls in progress.


def ask(stub, request, metadata: list, count: int, most: float, report: Report) -> list[tuple[float, object]]:
    """Returns the duration in seconds and the answer of each of `count` calls. The duration of a call without an answer is infinite."""
    out = []
    for _ in range(count):
        began = time.monotonic()
        try:
            answer = stub.Embed(request, timeout=most, metadata=metadata)
            out.append((time.monotonic() - began, answer))
        except grpc.RpcError as error:
            report.figure("a call of the victim's failed", f"{error.code().name}: {(error.details() or '')[:100]}")
            out.append((float("inf"), None))
    return out


def seconds_of(duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def compare(arguments: argparse.Namespace, name: str, replica: Replica, addresses: tuple[str, str], keys: tuple[list, list], pb, report: Report) -> None:
    messages, stubs = pb
    (victim, flooder), (victim_key, flood_key) = addresses, keys
    request = messages.EmbedRequest(inputs=[messages.Input(text="some words of a long text " * 4000)])  # 100 KB.
    request.options.truncate = messages.EmbedOptions.END
    with grpc.insecure_channel(victim, OPTIONS) as channel:
        stub = stubs.EmbeddingServiceStub(channel)
        ask(stub, request, victim_key, 2, 60, report)  # The first calls are slower.
        alone = [seconds for seconds, _ in ask(stub, request, victim_key, arguments.calls, 60, report)]
        before = replica.metrics()
        flood = Flood(flooder, messages, flood_key, arguments.flood)
        flood.start()
        seen: dict[str, float] = {}

        def look() -> bool:
            metrics = replica.metrics()
            seen.update({metric: value for metric in WAITING if (value := metrics.total(metric) - before.total(metric)) > 0.1})
            return bool(seen)

        time.sleep(1.5)
        waits_are_seen = until(look, 10, 0.1)
        answers = ask(stub, request, victim_key, arguments.calls, arguments.most, report)
        flood.stop()
    beside = sorted(seconds for seconds, _ in answers)
    p99, p99_alone = beside[min(len(beside) - 1, int(0.99 * len(beside)))], sorted(alone)[min(len(alone) - 1, int(0.99 * len(alone)))]
    report.figure(f"{name}: flood", f"{flood.sent} calls sent, {({code: flood.codes.count(code) for code in set(flood.codes)})}")
    report.bar(
        f"{name}: p99 beside the flood <= {arguments.ratio:g}x alone",
        p99 <= max(arguments.ratio * p99_alone, arguments.floor),
        f"{p99_alone:.2f} -> {p99:.2f} s ({p99 / p99_alone:.1f}x)",
    )
    report.bar(f"{name}: the flood's wait shows in the metrics", waits_are_seen, str(seen))
    told, total = 0.0, 0.0
    for _, answer in (answer for answer in answers if answer[1] is not None):
        parts = (answer.timing.tokenization, answer.timing.queue, answer.timing.inference)
        told, total = told + sum(map(seconds_of, parts)), total + seconds_of(answer.timing.total)
    report.bar(f"{name}: timing says where the time went", 0 < 0.8 * total <= told, f"{told:.2f} s of {total:.2f} are in a named phase")
    report.bar(f"{name}: the server comes to rest", until(replica.at_rest, 60, 0.1), str(replica.gauges()))


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    pb, keys = python_client(folder), folder / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [{"name": name, "key": key} for name, key in KEYS.items()]}))
    metadata = tuple([("authorization", f"Bearer {KEYS[name]}")] for name in ("victim", "flood"))
    with Replica(folder, arguments, {"api_keys": str(keys), "reflection": False}, "by-key") as replica:
        compare(arguments, "two keys", replica, (replica.address, replica.address), metadata, pb, report)
        report.bar("exit status 0", replica.terminate() == 0)
    with Replica(folder, arguments, name="by-address") as replica, Link(replica.port, "127.0.0.2") as elsewhere:
        compare(arguments, "two addresses", replica, (replica.address, elsewhere.address), ([], []), pb, report)
        report.bar("exit status 0", replica.terminate() == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=30, help="of the victim, alone and beside the flood")
    parser.add_argument("--flood", type=int, default=50, help="calls of the other client in progress")
    parser.add_argument("--ratio", type=float, default=3, help="highest p99 beside the flood, as a multiple of the p99 alone")
    parser.add_argument("--floor", type=float, default=0, help="seconds; a p99 below is fine: for short runs and shared machines")
    parser.add_argument("--most", type=float, default=60, help="seconds after which a call of the victim's has failed")
    run("starvation", parser, body)
