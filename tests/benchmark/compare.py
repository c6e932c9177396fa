"""Compares our server with widely used embedding servers, with the same model, texts, client and machine. Writes a table of tokens per second, ratios with their
spread, and a plot.

    build/venv/bin/python tests/benchmark/compare.py --peers DIR [--out DIR] [--rounds 3] [--seconds 20]

DIR holds what a peers' setup script wrote: bin/gload (the load client, which speaks tei.v1), texts.json, and the peers. Each system that is found is started,
measured on every set, and stopped, one after the other. Then the next round begins, so that other load on the machine affects all systems alike. A ratio compares two
systems of one round. The table shows the median of the rounds and, in brackets, the least and the greatest.

Each round measures each system with texts of 16, 128 and 512 tokens and of mixed lengths from 32 clients, and then with 16 tokens from one client. Peak memory (VmHWM) is
read after the mixed set. Our server is also measured in process. `client` is the load client's share of all cores during the 16-token set, since it runs on the same
machine.
"""

import argparse
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
from running_server import start_server  # noqa: E402

MODEL = "e5-small-v2"
SETS = ["16", "128", "512", "mixed"]
BATCH = 1.6  # 512-token texts are measured this much longer, because so few batches end in a short interval that its rate is coarse.


@dataclass
class System:
    name: str
    start: callable  # Maps a folder to (process, port).
    in_process: list[str] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            sys.exit(f"a server ended with {process.returncode} instead of listening")
        time.sleep(0.1)
    sys.exit("a server did not listen within two minutes")


def ours(precision: str) -> System:
    def start(folder: Path):
        server = start_server(folder, [MODEL], model_options=f"precision: {precision}")
        return server.process, server.port

    return System(f"ours {precision}", start, ["--precision", precision])


def tei(peers: Path, run: Path, model: str, name: str, **environment: str) -> System:
    def start(_: Path):
        port = free_port()
        command = ["bash", run, peers, model, str(port)]
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(port, process)
        return process, port

    return System(name, start)


def find_systems(peers: Path, run_tei: Path, tei_batch_tokens: list[int]) -> list[System]:
    systems = [ours("fp32"), ours("bf16"), ours("int8")]
    if run_tei.exists() and (peers / "bin/tei-grpc").exists():
        systems.append(tei(peers, run_tei, "e5-small-v2", "TEI fp32"))
        systems += [tei(peers, run_tei, "e5-small-v2", f"TEI fp32, {n} batch tokens", MAX_BATCH_TOKENS=str(n)) for n in tei_batch_tokens]
        if (peers / "models/e5-small-v2-q").exists():
            systems.append(tei(peers, run_tei, "e5-small-v2-q", "TEI int8"))
    else:
        print(f"TEI is not installed in {peers}: ours alone")
    return systems


def load(peers: Path, port: int, texts: str, clients: int, seconds: float) -> dict:
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
    command = [peers / "bin/gload", "-url", f"127.0.0.1:{port}", "-set", texts, "-c", str(clients), "-t", str(seconds), "-warm", "2", "-texts", peers / "texts.json"]
    before = used()
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if result["errs"]:
        sys.exit(f"the load client saw errors: {result}")
    return {**result, "client_share": (used() - before) / (seconds + 2) / os.cpu_count()}


def peak(process: subprocess.Popen) -> float:
    """Returns the peak memory in MB of the started process. (A shell replaces itself by the server.)"""
    return int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024 / 1e6


def measure(system: System, peers: Path, seconds: float) -> dict:
    values = {}
    with tempfile.TemporaryDirectory() as folder:
        process, port = system.start(Path(folder))
        try:
            for texts in ["mixed", "16", "128", "512"]:
                result = load(peers, port, texts, 32, seconds * (BATCH if texts == "512" else 1))
                values[texts] = result["tok_s"]
                if texts == "mixed":
                    values["peak MB"] = peak(process)
                if texts == "16":
                    values["client"] = result["client_share"]
            values["p50 ms"] = load(peers, port, "16", 1, seconds / 2)["p50"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    if system.in_process:
        binary = ROOT / "build/release/benchmark/encoder_benchmark"
        command = [binary, ROOT / "models" / MODEL, "--texts", peers / "texts.json", "--seconds", str(seconds / 2), *system.in_process]
        for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]:
            name, rate = line.split()
            values[f"in process {name}"] = float(rate)
    return values


def spread(values: list[float], form: str) -> str:
    middle = f"{statistics.median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} [{min(values):{form}}, {max(values):{form}}]"


def table(rounds: list[dict]) -> str:
    columns = [*SETS, "p50 ms", "peak MB", "client"]
    lines = ["| system | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in rounds[0]:
        cells = [spread([one[name][c] for one in rounds], ",.0f" if c not in ("p50 ms", "client") else ".2f") for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(rounds: list[dict]) -> str:
    pairs = [(ours, theirs) for ours in rounds[0] if ours.startswith("ours") for theirs in rounds[0] if not theirs.startswith("ours")]
    columns = [*SETS, "p50 ms", "peak MB"]
    lines = ["| ratio | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for ours, theirs in pairs:
        cells = [spread([one[ours][c] / one[theirs][c] for one in rounds], ".2f") for c in columns]
        lines.append(f"| {ours} / {theirs} | " + " | ".join(cells) + " |")
    for ours in (name for name in rounds[0] if name.startswith("ours")):
        cells = [spread([one[ours][c] / one[ours][f"in process {c}"] for one in rounds], ".2f") for c in SETS]
        lines.append(f"| {ours}: served / in process | " + " | ".join(cells) + " | | |")
    return "\n".join(lines)


def plot(rounds: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, width = list(rounds[0]), 0.8 / len(rounds[0])
    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    for i, name in enumerate(names):
        values = [statistics.median(one[name][s] for one in rounds) for s in SETS]
        errors = [[value - min(one[name][s] for one in rounds) for value, s in zip(values, SETS)], [max(one[name][s] for one in rounds) - value for value, s in zip(values, SETS)]]
        axes.bar([x + i * width for x in range(len(SETS))], values, width, yerr=errors, label=name, capsize=2)
    axes.set_xticks([x + 0.4 - width / 2 for x in range(len(SETS))], [f"{s} tokens" if s != "mixed" else "mixed, 8-512" for s in SETS])
    axes.set_ylabel("tokens a second")
    axes.set_title(f"{MODEL}, {os.cpu_count()} cores, 32 clients over loopback gRPC")
    figure.legend(loc="outside lower center", ncol=len(names))
    figure.savefig(file, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--run-tei", type=Path, default=ROOT.parent / "shared/peers/run_tei.sh", help="script that starts TEI: run_tei.sh PEERS MODEL PORT")
    parser.add_argument("--tei-batch-tokens", type=int, nargs="*", default=[2048], help="values of TEI's --max-batch-tokens that are measured in addition to its default")
    parser.add_argument("--out", type=Path, default=ROOT / "build/compare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    systems, rounds = find_systems(options.peers, options.run_tei, options.tei_batch_tokens), []
    for number in range(1, options.rounds + 1):
        rounds.append({})
        for system in systems:
            rounds[-1][system.name] = values = measure(system, options.peers, options.seconds)
            print(f"round {number}  {system.name:28} " + "  ".join(f"{key} {value:,.2f}" for key, value in values.items()), flush=True)
        (options.out / "compare.json").write_text(json.dumps(rounds, indent=1))
    text = f"Tokens a second, {MODEL}, {options.rounds} rounds of {options.seconds:.0f} s, median [least, greatest].\n\n{table(rounds)}\n\n{ratios(rounds)}\n"
    (options.out / "compare.md").write_text(text)
    plot(rounds, options.out / "compare.png")
    print(f"\n{text}\nwritten: {options.out}/compare.md, .json, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
