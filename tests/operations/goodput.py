"""Tests goodput under deadlines. Together the callers request several times what the machine can do, and each call has a deadline of a few times
the duration of a lone call. The number of answers in time must be close to what one call after the other would reach. Interleaving all calls would
make all of them late."""

import argparse
from pathlib import Path

from harness import Replica, Report, latency, load, run, write_texts
from history import History, ask_alone, judge

TOKENS = 512


def size_call(arguments: argparse.Namespace, replica: Replica, texts: Path) -> int:
    """Returns the number of texts per call: the requested one, or as many as a lone call embeds in --lone-seconds."""
    if not arguments.lone_seconds:
        return arguments.texts
    load(replica.address, texts, concurrency=1, seconds=60, calls=2)  # The first batches of a process are slower.
    each = latency(load(replica.address, texts, concurrency=1, seconds=60, calls=4), "OK", "p50") / 1000
    return max(1, min(arguments.texts, round(arguments.lone_seconds / each)))


def compete(arguments: argparse.Namespace, replica: Replica, texts: Path, each: int, factor: float, lone: float, alone: History, report: Report) -> None:
    name, path, before = f"deadline {factor:g}x a lone call", texts.with_suffix(f".{factor:g}.jsonl"), replica.metrics()
    result = load(
        replica.address, texts, concurrency=arguments.callers, connections=arguments.callers, texts_per_call=each, seconds=arguments.seconds,
        timeout=factor * lone, wait_for_hint=True, history=path,
    )  # fmt: skip
    history = History.read(path)
    # Includes the answers after sending ends, because that time counts, too.
    ok = [outcome.at for _, outcome in history.finals() if outcome.code == "OK"]
    began = min(call.sent for call in history.calls.values())
    elapsed = max(arguments.seconds, max(ok, default=0) - began)
    in_sequence = elapsed / lone
    report.figure(f"{name}, answers by code", result["codes"])
    report.figure(f"{name}, calls that one caller would make", in_sequence)
    report.bar(
        f"{name}: answered in time >= {arguments.goodput:.0%} of the calls of one caller",
        len(ok) >= arguments.goodput * in_sequence,
        f"{len(ok)} of {in_sequence:.1f} in {elapsed:.0f} s, {result['codes'].get('DEADLINE_EXCEEDED', 0)} late",
    )
    judge(report, name, history, alone, replica.metrics, before)


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    with Replica(folder, arguments) as replica:
        each = size_call(arguments, replica, write_texts(folder / "sizing.txt", 4, TOKENS))
        texts = write_texts(folder / "texts.txt", 3 * each, TOKENS)
        alone = ask_alone(replica.address, texts, folder, each)
        lone_calls = load(replica.address, texts, concurrency=1, texts_per_call=each, calls=arguments.lone_calls, seconds=600)
        lone = lone_calls["latency_ms"]["OK"]["mean"] / 1000
        report.figure("texts of 512 tokens a call", each)
        report.figure("a lone call, s", lone)
        for factor in arguments.factors:
            compete(arguments, replica, texts, each, factor, lone, alone, report)
        report.bar("exit status 0", replica.terminate() == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each round")
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--texts", type=int, default=16, help="texts of 512 tokens in each call")
    parser.add_argument("--lone-seconds", type=float, default=0, help="texts in a call that takes so long alone, at most --texts; 0 = --texts")
    parser.add_argument("--lone-calls", type=int, default=5, help="lone calls whose mean duration counts")
    parser.add_argument("--factors", type=float, nargs="+", default=[5, 8], help="deadline as a multiple of a lone call's duration; one round for each")
    parser.add_argument("--goodput", type=float, default=0.85, help="least share of the calls of one caller; lower where the machine is shared")
    run("goodput", parser, body)
