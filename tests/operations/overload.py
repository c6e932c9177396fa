"""Creates open-loop overload at ten times the capacity that the same client measures. Admitted calls must be answered in time. The others must be
refused at once, with a retry delay."""

import argparse
from pathlib import Path

from harness import PeakRss, Replica, Report, latency, load, run, write_texts
from history import History, ask_alone, judge

TOKENS = 128
# A connection carries 100 calls at a time (connections.max_streams). More calls would wait in the client, and their wait would be counted as the
# server's latency.
CONNECTIONS = 64


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    settings = {"limits": {"max_queue_wait": f"{arguments.queue_budget}s", "max_pending_bytes": arguments.pending_mib << 20}}
    texts = write_texts(folder / "texts.txt", arguments.texts, TOKENS)
    with Replica(folder, arguments, settings) as replica:
        alone, path = ask_alone(replica.address, texts, folder), folder / "history.jsonl"

        def measure(**options) -> dict:
            return load(replica.address, texts, warm_up=min(2.0, arguments.measure_seconds / 4), connections=CONNECTIONS, **options)

        unloaded = latency(measure(concurrency=1, seconds=arguments.measure_seconds), "OK", "p99")
        peak = measure(concurrency=arguments.concurrency, seconds=arguments.measure_seconds)["goodput_per_second"]
        rss = PeakRss(replica)
        rate = arguments.factor * peak
        before = replica.metrics()
        storm = measure(rate=rate, seconds=arguments.seconds, poisson=True, timeout=30, history=path)
        judge(report, "overload", History.read(path), alone, replica.metrics, before)
        most = rss.stop()
        refused = replica.metrics().total("longembed_rejected_total")
        after = measure(concurrency=arguments.concurrency, seconds=arguments.measure_seconds)
        print_figures(report, storm, unloaded, peak, rate, after)
        check(arguments, report, storm, unloaded, peak, replica.settings, most)
        rejects = storm["codes"].get("RESOURCE_EXHAUSTED", 0)
        report.bar(
            "the server counted its refusals", refused >= rejects > 0, f"longembed_rejected_total {refused:.0f}, seen by the client {rejects} of those counted"
        )
        report.bar("exit status 0", replica.terminate() == 0)


def print_figures(report: Report, storm: dict, unloaded: float, peak: float, rate: float, after: dict) -> None:
    report.figure("unloaded p99, ms", unloaded)
    report.figure("peak, calls/s", peak)
    report.figure("offered, calls/s", rate)
    report.figure("goodput in overload, calls/s", storm["goodput_per_second"])
    report.figure("peak afterwards, calls/s", after["goodput_per_second"])
    report.figure("answers by code", storm["codes"])
    report.figure("not OK and not RESOURCE_EXHAUSTED", {words: n for words, n in storm["errors"].items() if not words.startswith("RESOURCE_EXHAUSTED")})
    for code in ("OK", "RESOURCE_EXHAUSTED"):
        report.figure(f"{code}, p50 p99 max, ms", " ".join(f"{latency(storm, code, q):.1f}" for q in ("p50", "p99", "max")))
    report.figure("client late in sending, p99, ms", storm["send_lateness_ms"]["p99"])


def check(arguments: argparse.Namespace, report: Report, storm: dict, unloaded: float, peak: float, settings: dict, most_rss: int) -> None:
    share = storm["goodput_per_second"] / peak
    report.bar("goodput >= 90 % of peak", share >= arguments.goodput, f"{share:.1%}" + relaxed(arguments.goodput, 0.9))
    allowed = 1000 * arguments.queue_budget + 2 * unloaded
    report.bar(
        "admitted p99 <= queue budget + 2x unloaded p99",
        latency(storm, "OK", "p99") <= allowed * arguments.slack,
        f"{latency(storm, 'OK', 'p99'):.0f} ms of {allowed:.0f}" + relaxed(arguments.slack, 1),
    )
    report.bar(
        "rejects p99 <= 50 ms",
        latency(storm, "RESOURCE_EXHAUSTED", "p99") <= 50 * arguments.slack,
        f"{latency(storm, 'RESOURCE_EXHAUSTED', 'p99'):.1f} ms" + relaxed(arguments.slack, 1),
    )
    rejects = storm["codes"].get("RESOURCE_EXHAUSTED", 0)
    report.bar(
        "every reject carries grpc-retry-pushback-ms and RetryInfo",
        storm["rejected"]["with_both"] == rejects > 0,
        f"{storm['rejected']['with_both']} of {rejects}",
    )
    others = storm["calls"] - rejects - storm["codes"].get("OK", 0)
    report.bar("no other answer than a vector or RESOURCE_EXHAUSTED", others == 0 == storm["unsent"], f"{others} others, {storm['unsent']} unsent")
    # Beyond the server's idle memory, allow for the requests that it may keep, and the same again for buffers and connections.
    cap = arguments.base_rss_mib + 2 * (settings["limits"]["max_pending_bytes"] >> 20)
    report.bar("RSS under the cap", most_rss >> 20 <= cap, f"{most_rss >> 20} MiB of {cap}")


def relaxed(value: float, bar: float) -> str:
    return "" if value == bar else f" (relaxed: {value:g})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--texts", type=int, default=300, help="different ones; each is first asked for alone")
    parser.add_argument("--measure-seconds", type=float, default=15, help="for unloaded latency, and for the peak before and after")
    parser.add_argument("--factor", type=float, default=10, help="offered load over the peak")
    parser.add_argument("--concurrency", type=int, default=32, help="calls at a time when the peak is measured")
    parser.add_argument("--queue-budget", type=float, default=1.0, help="limits.max_queue_wait, seconds")
    parser.add_argument("--pending-mib", type=int, default=64, help="limits.max_pending_bytes")
    parser.add_argument("--base-rss-mib", type=int, default=512, help="part of the cap for the model, threads and arenas")
    parser.add_argument("--goodput", type=float, default=0.9, help="lowest share of the peak; lower where the machine is shared")
    parser.add_argument("--slack", type=float, default=1.0, help="factor on the latency bars, for machines that are shared")
    run("overload", parser, body)
