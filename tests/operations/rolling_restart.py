"""Sends SIGTERM under load. Two replicas behind haproxy are restarted in turn, while a client with the shipped retry configuration makes calls
without a pause. No call may fail."""

import argparse
import time
from pathlib import Path

from harness import RETRY_CONFIG, Balancer, LoadClient, Replica, Report, failures, latency, run, write_texts
from history import History, ask_alone, judge


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    # The load balancer checks health every 200 ms. It must have noticed the drain before new calls are refused.
    settings = {"drain": {"delay": "1s", "timeout": "30s"}}
    texts, path = write_texts(folder / "texts.txt", 40, 64), folder / "history.jsonl"
    with Replica(folder, arguments, settings, "r0") as r0, Replica(folder, arguments, settings, "r1") as r1, Balancer(folder, [r0, r1]) as balancer:
        alone = ask_alone(r0.address, texts, folder)
        client = LoadClient(
            balancer.address, texts, concurrency=arguments.concurrency, connections=4, seconds=36000, timeout=60, service_config=RETRY_CONFIG, history=path
        )
        time.sleep(2)
        statuses, stops, starts, served = [], [], [], []
        for i in range(arguments.rounds):
            replica = (r0, r1)[i % 2]
            served.append(replica.metrics().total("longembed_requests_total", code="OK", method="Embed"))
            began = time.monotonic()
            statuses.append(replica.terminate())
            stopped = time.monotonic()
            replica.start()
            stops.append(stopped - began)
            starts.append(time.monotonic() - stopped)
            time.sleep(arguments.pause)
        result = client.stop()
        logs = r0.log.read_text() + r1.log.read_text()
    judge(report, "restarts", History.read(path), alone)  # Counters are not compared, because a replica loses them when it restarts.
    report.figure("restarts", arguments.rounds)
    report.figure("SIGTERM to exit, longest, s", max(stops))
    report.figure("start to SERVING, longest, s", max(starts))
    report.figure("calls", result["calls"])
    report.figure("calls that each replica had answered when it was stopped", [int(n) for n in served])
    report.figure("latency p50 p99 max, ms", " ".join(f"{latency(result, 'OK', q):.0f}" for q in ("p50", "p99", "max")))
    report.figure("errors", result["errors"])
    report.bar("no failed call", failures(result) == 0 and result["calls"] > arguments.rounds, f"{failures(result)} of {result['calls']}")
    report.bar("every replica had load when it was stopped", min(served) > 0, f"at least {min(served):.0f} calls")
    report.bar("every exit status is 0", statuses == [0] * arguments.rounds, f"{statuses.count(0)} of {arguments.rounds}")
    report.bar("every exit drained", logs.count("drained") >= arguments.rounds, f"the logs say so {logs.count('drained')} times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="restarts, of the two replicas in turn")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between a replica's being ready and the next SIGTERM")
    run("rolling_restart", parser, body)
