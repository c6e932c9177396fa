"""Measures short requests next to oversized ones: the p99 latency of 16-token requests of 4 clients, on an idle server and while two 16,384-token inputs run with full attention.

    build/venv/bin/python tests/benchmark/beside_oversized.py --peers DIR [--precision fp32] [--requests 1500]

DIR holds bin/gload and texts.json, the load client and the texts of the peers' setup (see compare.py). The two measurements alternate --rounds times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
from generated_client import generate_client  # noqa: E402
from running_server import start_server  # noqa: E402

OVERSIZED_TOKENS = 16384


class OversizedRequests:
    """Keeps `count` oversized requests in progress from enter to exit. The last ones are cancelled."""

    def __init__(self, stub, pb, count: int):
        self.stub, self.count = stub, count
        self.request = pb.EmbedRequest(inputs=[pb.Input(text="word " * (OVERSIZED_TOKENS - 2))])
        self.request.options.extension.interpolation.SetInParent()
        self.stopping, self.finished, self.calls, self.threads = threading.Event(), 0, {}, []

    def run(self, index: int) -> None:
        while not self.stopping.is_set():
            self.calls[index] = self.stub.Embed.future(self.request, timeout=3600)
            try:
                self.calls[index].result()
                self.finished += 1
            except (grpc.RpcError, grpc.FutureCancelledError):
                if not self.stopping.is_set():
                    raise

    def __enter__(self):
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(self.count)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for call in self.calls.values():
            call.cancel()
        for thread in self.threads:
            thread.join()


def short_requests(peers: Path, port: int, seconds: float) -> dict:
    command = [peers / "bin/gload", "-url", f"127.0.0.1:{port}", "-set", "16", "-c", "4", "-t", str(seconds), "-warm", "1", "-texts", peers / "texts.json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--requests", type=int, default=1500, help="minimum number in each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pb, pb_grpc = generate_client(Path(scratch))
        server = start_server(Path(scratch), ["e5-small-v2"], model_options=f"precision: {options.precision}")
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = pb_grpc.EmbeddingServiceStub(channel)
                rate = short_requests(options.peers, server.port, 3)["rps"]
                seconds = options.requests / rate * 1.2
                print("| round | idle p50 | idle p99 | beside oversized p50 | p99 | p99 ratio | requests | oversized finished |\n|---|---|---|---|---|---|---|---|")
                for round_number in range(1, options.rounds + 1):
                    idle = short_requests(options.peers, server.port, seconds)
                    with OversizedRequests(stub, pb, 2) as oversized:
                        threading.Event().wait(1)
                        busy = short_requests(options.peers, server.port, 2.5 * seconds)
                    ratio = busy["p99"] / idle["p99"]
                    print(f"| {round_number} | {idle['p50']} | {idle['p99']} | {busy['p50']} | {busy['p99']} | {ratio:.2f} | {idle['n']}, {busy['n']} | {oversized.finished} |", flush=True)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
