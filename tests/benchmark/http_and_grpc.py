"""Compares HTTP with gRPC, on texts of 128 tokens and 32 clients with one persistent connection each. gRPC, and OpenAI's JSON with floats and with base64, are interleaved.

    build/venv/bin/python tests/benchmark/http_and_grpc.py [--precision fp32] [--rounds 4] [--seconds 6]

Besides calls per second, it prints processor time per call, of the server and of the client. Other load on the machine affects processor time less.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/integration"), str(ROOT / "tests/operations")]
import harness  # noqa: E402
from running_server import BUILD, start_server  # noqa: E402

# With these limits no call is refused, however busy the machine is.
CONFIG = "http_listen: 127.0.0.1:0\nlimits: {max_queue_wait: 10m}\n"
BARS = {"HTTP, float": 0.85, "HTTP, base64": 0.90}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, server, folder: Path, options: argparse.Namespace):
        self.server, self.options = server, options
        self.http_port = int(re.search(r"serving HTTP on port (\d+)", server.log.read_text())[1])
        self.texts = harness.write_texts(folder / "texts", 512, options.tokens)
        self.bodies = {form: self.write_bodies(folder / form, form) for form in ("float", "base64")}

    def write_bodies(self, path: Path, form: str) -> Path:
        lines = self.texts.read_text().splitlines()
        path.write_text("".join(json.dumps({"model": "e5-small-v2", "input": line, "encoding_format": form}) + "\n" for line in lines))
        return path

    def client(self, kind: str) -> list:
        seconds, clients = str(self.options.seconds), str(self.options.clients)
        if kind == "gRPC":
            address = f"127.0.0.1:{self.server.port}"
            return [harness.load_client(), "--server", address, "--texts", self.texts, "--concurrency", clients, "--connections", clients, "--seconds", seconds]
        load = ["--port", str(self.http_port), "--bodies", self.bodies[kind.removeprefix("HTTP, ")], "--concurrency", clients, "--seconds", seconds]
        return [BUILD / "benchmark/http_load", *load, "--warm-up", "0"]

    def measure(self, kind: str) -> dict:
        before, own = cpu_seconds(self.server.process.pid), os.times()
        done = subprocess.run([str(part) for part in self.client(kind)], check=True, capture_output=True, text=True)
        spent, after = cpu_seconds(self.server.process.pid) - before, os.times()
        said = json.loads(done.stdout)
        # Calls that were in progress at the end are included. They cost as much as the others.
        calls = said["codes"].get("OK", 0) if kind == "gRPC" else said["answers_in_all"]
        failed = said["calls"] - calls if kind == "gRPC" else said["failures"]
        if failed:
            raise SystemExit(f"{kind}: {failed} calls failed: {done.stdout[:500]}")
        client = after.children_user + after.children_system - own.children_user - own.children_system
        rate = said["goodput_per_second"] if kind == "gRPC" else said["per_second"]
        return {"rate": rate, "server_ms": 1000 * spent / calls, "client_ms": 1000 * client / calls}


def table(results: dict) -> None:
    middle = {kind: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for kind, runs in results.items()}
    print("| | calls a second | fraction of gRPC's (median of rounds) | bar | server ms a call | client ms a call |\n|---|---:|---:|---:|---:|---:|")
    for kind, figures in middle.items():
        ratio = statistics.median(run["rate"] / grpc["rate"] for run, grpc in zip(results[kind], results["gRPC"], strict=True))
        bar = f"{BARS[kind]:.2f}" if kind in BARS else ""
        print(f"| {kind} | {figures['rate']:.1f} | {ratio:.3f} | {bar} | {figures['server_ms']:.2f} | {figures['client_ms']:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    options = parser.parse_args()
    results: dict[str, list[dict]] = {kind: [] for kind in ("gRPC", "HTTP, float", "HTTP, base64")}
    with tempfile.TemporaryDirectory() as scratch:
        server = start_server(Path(scratch), ["e5-small-v2"], CONFIG, model_options=f"precision: {options.precision}")
        try:
            bench = Bench(server, Path(scratch), options)
            bench.measure("gRPC")  # Warm-up.
            for number in range(options.rounds):
                for kind, runs in results.items():
                    runs.append(bench.measure(kind))
                said = ", ".join(f"{kind} {runs[-1]['rate']:.0f}" for kind, runs in results.items())
                print(f"round {number + 1}: {said}; load average {os.getloadavg()[0]:.1f}", flush=True)
            table(results)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
