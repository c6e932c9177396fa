"""Suspends one of two replicas behind haproxy with SIGSTOP, and resumes it with SIGCONT, as when a machine swaps or a virtual machine is migrated.
Calls that the replica held are answered when it resumes, new calls go to the other replica, and none is lost or answered twice."""

import argparse
import signal
import time
from pathlib import Path

from harness import RETRY_CONFIG, Balancer, LoadClient, Replica, Report, failures, latency, run, until, write_texts
from history import History, ask_alone, judge


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    texts = write_texts(folder / "texts.txt", 30, 32)
    path, held_path, bystander_path = folder / "history.jsonl", folder / "held.jsonl", folder / "bystander.jsonl"
    with Replica(folder, arguments, name="r0") as r0, Replica(folder, arguments, name="r1") as r1, Balancer(folder, [r0, r1]) as balancer:
        alone = ask_alone(r1.address, texts, folder)
        client = LoadClient(balancer.address, texts, concurrency=4, connections=2, seconds=36000, timeout=60, service_config=RETRY_CONFIG, history=path)
        # Calls of the suspended replica are not retried. It finishes what it has begun, however long it was suspended.
        held = LoadClient(r0.address, texts, concurrency=2, seconds=36000, timeout=60, history=held_path)
        bystander = LoadClient(r1.address, texts, rate=5, seconds=36000, timeout=30, history=bystander_path)
        time.sleep(1)
        during = [stand_still(r0, r1, arguments, report) for _ in range(arguments.rounds)]
        result, beside, kept = client.stop(), bystander.stop(), held.stop()
        report.figure("codes", result["codes"])
        report.figure("latency p50 p99 max, ms", " ".join(f"{latency(result, 'OK', q):.0f}" for q in ("p50", "p99", "max")))
        report.bar("the other replica serves meanwhile", min(during) > 0, f"{[int(n) for n in during]} calls in each stop")
        report.bar("no failed call", failures(result) == 0 and result["calls"] > 0, f"{failures(result)} of {result['calls']} {result['errors'] or ''}")
        # The longest wait of a call is that for the suspended replica.
        longest = latency(result, "OK", "max") / 1000
        report.bar("no call waits longer than the stop", longest <= arguments.stop + 10, f"{longest:.1f} s")
        report.bar("the bystander of the other replica has no failure", failures(beside) == 0, f"{failures(beside)} of {beside['calls']}")
        report.bar("calls that the stopped replica held are answered", failures(kept) == 0, f"{failures(kept)} of {kept['calls']} {kept['errors'] or ''}")
        judge(report, "held", History.read(held_path), alone)
        judge(report, "stops", History.read(path), alone)
        judge(report, "bystander", History.read(bystander_path), alone)
        for replica in (r0, r1):
            report.bar(f"{replica.name} comes to rest", until(replica.at_rest, 15, 0.1), str(replica.gauges()))
        report.bar("exit statuses are 0", [r0.terminate(), r1.terminate()] == [0, 0])


def stand_still(stopped: Replica, other: Replica, arguments: argparse.Namespace, report: Report) -> float:
    """Suspends a replica. Returns the number of calls that the other replica answered in the meantime."""

    def answered() -> float:
        return other.metrics().total("longembed_requests_total", code="OK", method="Embed")

    stopped.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(1)  # Waits for the load balancer to notice.
        before = answered()
        time.sleep(max(0.0, arguments.stop - 1))
        during = answered() - before
    finally:
        stopped.process.send_signal(signal.SIGCONT)
    report.bar("the suspended replica serves again within 5 s", until(lambda: stopped.health() == "SERVING", 5))
    time.sleep(arguments.pause)
    return during


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stop", type=float, default=10, help="seconds that the replica stands still; more than 1")
    parser.add_argument("--pause", type=float, default=3, help="seconds between stops")
    run("suspend", parser, body)
