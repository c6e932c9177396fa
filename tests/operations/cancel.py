"""Tests deadlines and cancellations of queued work. Such work must not reach the model, and it must leave the queue within 100 ms. The same
applies to the windows of a running call."""

import argparse
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from harness import Metrics, Replica, Report, python_client, run, until

LONG = "river stone house water " * 200  # More than 512 tokens, so that truncation makes it exactly 512: a batch without room for anything else.
SHORT = "light night green table " * 8


class Bench:
    """A server whose workers are kept busy by one call, the blocker. Other calls wait behind it."""

    def __init__(self, replica: Replica, pb, stub, blocker_seconds: float):
        self.replica, self.pb, self.stub = replica, pb, stub
        self.blocker_inputs = self.inputs_in(blocker_seconds)

    def inputs_in(self, seconds: float) -> int:
        """Returns the number of inputs LONG that this machine embeds in `seconds` seconds."""
        tried = 16
        began = time.monotonic()
        self.stub.Embed(self.request(LONG, tried), timeout=120)
        return max(tried, round(tried * seconds / (time.monotonic() - began)))

    def request(self, text: str, inputs: int, bulk: bool = False, windows: int = 0):
        pb = self.pb
        options = pb.EmbedOptions(truncate=pb.EmbedOptions.END, priority=pb.EmbedOptions.BULK if bulk else pb.EmbedOptions.INTERACTIVE)
        if windows:
            options.truncate = pb.EmbedOptions.NONE
            options.extension.windows.tokens = windows
        return pb.EmbedRequest(options=options, inputs=[pb.Input(text=text)] * inputs)

    def block(self) -> grpc.Future:
        """Starts the blocker. It is interactive, and its deadline is earlier than those of all calls that are to wait."""
        before = self.queue()[0]
        blocker = self.stub.Embed.future(self.request(LONG, self.blocker_inputs), timeout=120)
        if not until(lambda: self.queue()[0] > before, 10, 0.005):
            raise RuntimeError("the blocker does not wait in the queue")
        return blocker

    def queue(self) -> tuple[float, float]:
        """Returns the numbers of waiting calls and waiting tokens."""
        metrics = self.replica.metrics()
        return metrics.total("longembed_queue_jobs"), metrics.total("longembed_queue_tokens")

    def run_so_far(self) -> tuple[float, float]:
        metrics: Metrics = self.replica.metrics()
        return metrics.total("longembed_batch_tokens_sum"), metrics.total("longembed_inputs_total")

    def freed_after(self, since: float, jobs: float, tokens: float, timeout: float = 5) -> float:
        """Returns the milliseconds from `since` until a later scrape shows at most `jobs` jobs and `tokens` tokens in the queue."""
        while time.monotonic() < since + timeout:
            waiting = self.queue()
            if waiting[0] <= jobs and waiting[1] <= tokens:
                return 1000 * max(0.0, time.monotonic() - since)
        return float("inf")


def settle(bench: Bench) -> tuple[float, float]:
    """Returns the model's totals, after nothing waits or runs any more."""
    if not until(bench.replica.at_rest, 60):
        raise RuntimeError("the server does not come to rest")
    return bench.run_so_far()


def queued_work(bench: Bench, arguments: argparse.Namespace, how: str, bulk: bool, report: Report) -> tuple[float, int]:
    """Runs one round: calls wait behind the blocker and are cancelled. Returns the milliseconds until the queue was empty, and how many of their
    tokens reached the model."""
    tokens_before, inputs_before = settle(bench)
    blocker = bench.block()
    alone = bench.queue()
    request = bench.request(SHORT, 16, bulk)
    gives_up = time.monotonic() + 1.0
    # Waiting calls are bulk, or have a later deadline than the blocker. More urgent work would run before it.
    timeout = (lambda: gives_up - time.monotonic()) if how == "deadline" else (lambda: 600)
    waiting = [bench.stub.Embed.future(request, timeout=timeout()) for _ in range(arguments.calls)]
    queued = until(lambda: bench.queue()[0] >= alone[0] + arguments.calls, 0.9, 0.01)
    if how == "cancel":
        for call in waiting:
            call.cancel()
        gives_up = time.monotonic()
    else:
        time.sleep(max(0.0, gives_up - time.monotonic()))
    freed = bench.freed_after(gives_up, *alone)
    still_blocked = not blocker.done()
    # Admission may predict that the deadline passes behind the blocker, and refuse the call at once.
    late = [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED]
    codes = Counter(call.code() for call in waiting)
    right = sum(codes[code] for code in (late if how == "deadline" else [grpc.StatusCode.CANCELLED]))
    queued = queued or how == "deadline" and codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0
    blocker_tokens = sum(result.tokens for result in blocker.result(timeout=120).results)
    tokens_after, inputs_after = settle(bench)
    reached = int(tokens_after - tokens_before - blocker_tokens) + int(inputs_after - inputs_before - bench.blocker_inputs)
    if not (queued and still_blocked and right == arguments.calls):
        report.bar(f"{how}, {'bulk' if bulk else 'interactive'}: the calls waited and were given up behind the blocker", False,
                   f"all queued: {queued}, blocker still at work: {still_blocked}, given up: {right} of {arguments.calls}")  # fmt: skip
    return freed, reached


def running_call(bench: Bench, arguments: argparse.Namespace) -> tuple[float, int]:
    """Cancels a running call with many windows. Returns the milliseconds until its windows had left the queue, and how many of its inputs were
    finished."""
    _, inputs_before = settle(bench)
    call = bench.stub.Embed.future(bench.request(LONG * 8, 8, windows=256), timeout=600)
    until(lambda: bench.queue()[0] > 0, 10, 0.005)
    time.sleep(0.2)
    call.cancel()
    freed = bench.freed_after(time.monotonic(), 0, 0)
    _, inputs_after = settle(bench)
    return freed, int(inputs_after - inputs_before)


def dead_on_arrival(bench: Bench, calls: int) -> int:
    """Sends calls whose deadlines are too short for anything. Returns the tokens of failed calls that reached the model nevertheless."""
    tokens_before, _ = settle(bench)
    blocker = bench.block()
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: bench.stub.Embed.future(bench.request(SHORT, 4, bulk=True), timeout=0.002).code(), range(calls)))
    blocker_tokens = sum(result.tokens for result in blocker.result(timeout=120).results)
    tokens_after, _ = settle(bench)
    return int(tokens_after - tokens_before - blocker_tokens) + sum(code == grpc.StatusCode.OK for code in codes)


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    settings = {"limits": {"max_queue_wait": "300s", "max_bulk_queue_wait": "300s"}}
    messages, stubs = python_client(folder)
    with Replica(folder, arguments, settings) as replica, grpc.insecure_channel(replica.address) as channel:
        bench = Bench(replica, messages, stubs.EmbeddingServiceStub(channel), arguments.blocker_seconds)
        for how, bulk in (("cancel", True), ("deadline", True), ("cancel", False)):
            results = [queued_work(bench, arguments, how, bulk, report) for _ in range(arguments.rounds)]
            judge(
                report,
                f"{how} of {'bulk' if bulk else 'interactive'} calls that wait",
                [freed for freed, _ in results],
                sum(reached for _, reached in results),
                arguments,
            )
        results = [running_call(bench, arguments) for _ in range(arguments.rounds)]
        judge(report, "cancel of a call that runs, its other windows", [freed for freed, _ in results], sum(finished for _, finished in results), arguments)
        reached = dead_on_arrival(bench, arguments.calls)
        report.bar("deadlines of 2 ms behind a queue: 0 reach the model", reached == 0, f"{reached} tokens")
        report.bar("exit status 0", replica.terminate() == 0)


def judge(report: Report, what: str, freed: list[float], reached: int, arguments: argparse.Namespace) -> None:
    report.figure(f"{what}: queue free after, ms", " ".join(f"{ms:.0f}" for ms in freed))
    report.bar(f"{what}: 0 reach the model", reached == 0, f"{reached} tokens and inputs")
    said = f"{max(freed):.0f} ms" + ("" if arguments.slack == 1 else f" (relaxed: {100 * arguments.slack:.0f} ms)")
    report.bar(f"{what}: queue freed < 100 ms", max(freed) < 100 * arguments.slack, said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--calls", type=int, default=32, help="that wait in a round, with 16 inputs each")
    parser.add_argument("--blocker-seconds", type=float, default=6, help="how long the blocker keeps the workers busy; more than 2")
    parser.add_argument("--slack", type=float, default=1.0, help="factor on the 100 ms, for machines that are shared")
    run("cancel", parser, body)
