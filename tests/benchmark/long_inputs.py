"""Measures long inputs: time and memory of one document by its length, for windows, interpolation and SelfExtend, and tokens per second of 8,192-token documents in
windows compared with 512-token texts. Writes a table and a plot.

    build/venv/bin/python tests/benchmark/long_inputs.py [--out DIR] [--precision fp32] [--seconds 20]

Each document runs alone on an idle server and may use all cores. Memory is the growth of the server's peak above its idle memory (VmHWM, reset before each document).
Interpolation runs e5-small-v2, and SelfExtend runs e5-small-rope (left out if it has not been exported). Both were trained on 512 tokens. Beyond a few thousand tokens
their vectors mean little, and the results show only the cost.
"""

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
from generated_client import generate_client  # noqa: E402
from running_server import MODELS, start_server  # noqa: E402

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]
LONGEST_FULL_ATTENTION = 16384
METHODS = {
    "windows of 512": ("e5-small-v2", lambda extension: extension.windows.SetInParent()),
    "full attention, interpolation": ("e5-small-v2", lambda extension: extension.interpolation.SetInParent()),
    "full attention, SelfExtend": ("e5-small-rope", lambda extension: extension.self_extend.SetInParent()),
}


class Server:
    def __init__(self, scratch: Path, precision: str):
        self.pb, pb_grpc = generate_client(scratch)
        self.models = [name for name in ("e5-small-v2", "e5-small-rope") if (MODELS / name).exists()]
        self.server = start_server(scratch, self.models, model_options=f"precision: {precision}")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}", options=[("grpc.max_receive_message_length", 1 << 30)])
        self.stub = pb_grpc.EmbeddingServiceStub(self.channel)

    def stop(self) -> None:
        self.channel.close()
        self.server.stop()

    def request(self, method: str, tokens: int):
        """Returns a request with a text of exactly `tokens` tokens, special tokens included."""
        model, set_extension = METHODS[method]
        request = self.pb.EmbedRequest(inputs=[self.pb.Input(text="word " * (tokens - 2))])
        request.options.model = model
        if tokens > 512:
            set_extension(request.options.extension)
        return request

    def memory(self, key: str) -> float:
        """Returns a value in MiB."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s*(\d+)", status)[1]) / 1024

    def reset_peak(self) -> None:
        Path(f"/proc/{self.server.process.pid}/clear_refs").write_text("5")


def measure(server: Server, method: str, tokens: int) -> tuple[float, float, float]:
    """Returns the seconds, and the growth and peak of memory in MiB. If a run is short, it is repeated and the faster one counts."""
    best = float("inf")
    server.reset_peak()
    before = server.memory("VmRSS")
    for _ in range(2):
        started = time.monotonic()
        server.stub.Embed(server.request(method, tokens), timeout=3600)
        best = min(best, time.monotonic() - started)
        if best > 5:
            break
    return best, server.memory("VmHWM") - before, server.memory("VmHWM")


def throughput(server: Server, tokens: int, clients: int, seconds: float) -> float:
    """Returns the tokens per second of `clients` in a closed loop. Only calls that finish within the time count."""
    request, done, end = server.request("windows of 512", tokens), [], time.monotonic() + seconds + 2

    def client() -> None:
        while time.monotonic() < end:
            server.stub.Embed(request, timeout=600)
            done.append(time.monotonic())

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(end - seconds < at <= end for at in done) * tokens / seconds


def plot(results: dict, file: Path, precision: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for method in METHODS:
        points = sorted((n, *values) for (name, n), values in results.items() if name == method)
        if not points:
            continue
        style = dict(marker="o", label=method + ("" if method.startswith("windows") else " (extrapolated beyond 512)"))
        left.plot([p[0] for p in points], [p[1] for p in points], **style)
        right.plot([p[0] for p in points], [max(p[2], 0.1) for p in points], **style)
    for axes, label in ((left, "seconds"), (right, "growth of peak memory, MiB")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("tokens of one document")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3)
    figure.suptitle(f"One document on an idle server, {precision}")
    figure.savefig(file, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/long_inputs")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of tokens a second")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results, lines = {}, ["| method | tokens | seconds | tokens/s | memory, MiB | peak, MiB |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Path(scratch), options.precision)
        try:
            print("\n".join(lines))
            for method, (model, _) in METHODS.items():
                for tokens in options.lengths:
                    if model not in server.models or (tokens > LONGEST_FULL_ATTENTION and not method.startswith("windows")):
                        continue
                    seconds, growth, peak = results[method, tokens] = measure(server, method, tokens)
                    lines.append(f"| {method} | {tokens:,} | {seconds:.3f} | {tokens / seconds:,.0f} | {growth:.0f} | {peak:.0f} |")
                    print(lines[-1], flush=True)
            rates = {"8,192 through windows, 4 clients": [], "512, 32 clients": []}
            for _ in range(2):
                rates["8,192 through windows, 4 clients"].append(throughput(server, 8192, 4, options.seconds))
                rates["512, 32 clients"].append(throughput(server, 512, 32, options.seconds))
            ratios = [a / b for a, b in zip(*rates.values())]
            lines.append("\nTokens a second: " + "; ".join(f"{name}: {', '.join(f'{v:,.0f}' for v in values)}" for name, values in rates.items()))
            lines.append("Ratio: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))
            print("\n".join(lines[-2:]))
        finally:
            server.stop()
    (options.out / "long_inputs.md").write_text("\n".join(lines) + "\n")
    (options.out / "long_inputs.json").write_text(json.dumps([[*key, *values] for key, values in results.items()]))
    plot(results, options.out / "long_inputs.png", options.precision)
    print(f"written: {options.out}/long_inputs.md, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
