"""Compares our HTTP port with another server's, by the same calls of OpenAI's route: texts of mixed lengths, 32 clients with one persistent connection each. Servers run one at a time
and are interleaved.

    build/venv/bin/python tests/benchmark/http_peers.py --texts TEXTS.json \
        --peer "infinity_emb v2 --model-id CHECKPOINT --served-model-name e5-small-v2 --url-prefix /v1 --port {port}"

--texts is a JSON file of texts, or of sets of texts by name, each as [[text, tokens], ...] (as of tests/benchmark/compare.py); `.xz` is unpacked.
"""

import argparse
import json
import lzma
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/integration"), str(ROOT / "tests/operations")]
from harness import free_port  # noqa: E402
from running_server import BUILD, start_server  # noqa: E402

MODEL = "e5-small-v2"
ROUTE = "/v1/embeddings"
CONFIG = "http_listen: 127.0.0.1:0\nlimits: {max_queue_wait: 10m}\n"  # No call is refused, however busy the machine is.


def texts_of(options: argparse.Namespace) -> list[str]:
    content = options.texts.read_bytes()
    sets = json.loads(lzma.decompress(content) if options.texts.suffix == ".xz" else content)
    return [text for text, _ in (sets[options.set] if isinstance(sets, dict) else sets)]


def embed(port: int, text: str) -> np.ndarray:
    body = json.dumps({"model": MODEL, "input": text}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{ROUTE}", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return np.array(json.load(answer)["data"][0]["embedding"])


def load(port: int, bodies: Path, options: argparse.Namespace) -> float:
    """Returns the answers per second."""
    command = [BUILD / "benchmark/http_load", "--port", port, "--path", ROUTE, "--bodies", bodies, "--concurrency", options.clients]
    command += ["--seconds", options.seconds, "--warm-up", 2]
    said = json.loads(subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout)
    if said["failures"]:
        raise SystemExit(f"{said['failures']} calls failed: {said}")
    return said["per_second"]


def measure_ours(precision: str, bodies: Path, options: argparse.Namespace) -> tuple[float, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder), [MODEL], CONFIG, model_options=f"precision: {precision}")
        try:
            return load(server.http_port, bodies, options), embed(server.http_port, options.sample)
        finally:
            server.stop()


def measure_peer(bodies: Path, options: argparse.Namespace) -> tuple[float, np.ndarray]:
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(shlex.split(options.peer.format(port=port)), stdout=log, stderr=log)
        try:
            wait_until_answered(port, process)
            return load(port, bodies, options), embed(port, options.sample)
        finally:
            process.terminate()
            process.wait(60)


def wait_until_answered(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"the peer ended with {process.returncode}")
        try:
            embed(port, "a")
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the peer does not answer after 180 s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--set", default="mixed")
    parser.add_argument("--peer", required=True, help="command that serves the same checkpoint; {port} is replaced")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    options = parser.parse_args()
    texts = texts_of(options)
    options.sample = texts[0]
    rates: dict[str, list[float]] = {"peer": [], **{precision: [] for precision in options.precisions}}
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text("".join(json.dumps({"model": MODEL, "input": text}) + "\n" for text in texts))
        for number in range(options.rounds):
            vectors = {}
            for kind, own in rates.items():
                rate, vectors[kind] = measure_peer(bodies, options) if kind == "peer" else measure_ours(kind, bodies, options)
                own.append(rate)
            said = ", ".join(f"{kind} {own[-1]:.1f}" for kind, own in rates.items())
            print(f"round {number + 1}: {said} answers a second; load average {os.getloadavg()[0]:.1f}", flush=True)
    print("| | answers a second | times the peer's: median (each round) | cosine to the peer's vector |\n|---|---:|---|---:|")
    for kind, own in rates.items():
        ratios = [rate / peer for rate, peer in zip(own, rates["peer"], strict=True)]
        cosine = vectors[kind] @ vectors["peer"] / np.linalg.norm(vectors[kind]) / np.linalg.norm(vectors["peer"])
        print(f"| {kind} | {statistics.median(own):.1f} | {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)}) | {cosine:.6f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
