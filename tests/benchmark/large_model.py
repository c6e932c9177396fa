"""Measures a random Mistral with the shape of E5-Mistral on one machine: it is written, exported, loaded, served and cancelled. Prints peaks and times as a table.

    build/venv/bin/python tests/benchmark/large_model.py FOLDER [--small] [--precisions int8,bf16]

FOLDER needs 30 GB (14.5 for the checkpoint, 14.5 for the archive), which are removed at the end. No access to the hub is needed. --small does the same with a model of a few megabytes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/testing"), str(ROOT / "tests/integration")]
import mistral_checkpoint  # noqa: E402
from generated_client import generate_client  # noqa: E402

BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
NAME = "e5-mistral-7b-instruct"  # The name of the known checkpoint whose prompts, window and EOS are used, because the folder has this name.
GIB = 1 << 30


@dataclass
class Peak:
    """Sampled peak memory of a process and its children, in bytes. `resident` includes pages of files, which the kernel can drop. `anonymous` does
    not."""

    resident: int = 0
    anonymous: int = 0


class Watch:
    """Samples a process's memory until the context exits."""

    def __init__(self, pid: int):
        self._pid, self.peak, self._ended = pid, Peak(), threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            found = [memory for pid in _tree(self._pid) if (memory := _memory(pid))]
            self.peak.resident = max(self.peak.resident, sum(resident for resident, _ in found))
            self.peak.anonymous = max(self.peak.anonymous, sum(anonymous for _, anonymous in found))


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid] + [own for child in children for own in _tree(int(child))]


def _memory(pid: int) -> tuple[int, int] | None:
    try:
        fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M))
    except OSError:
        return None
    return (int(fields["VmRSS"]) * 1024, int(fields["RssAnon"]) * 1024) if len(fields) == 2 else None


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget(file: Path) -> None:
    """Drops a file from the page cache."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(file: Path) -> float:
    """Returns the seconds that the disk takes to read a file."""
    forget(file)
    began = time.monotonic()
    with file.open("rb", buffering=0) as stream:
        buffer = bytearray(8 << 20)
        while stream.readinto(buffer):
            pass
    return time.monotonic() - began


class Table:
    def __init__(self):
        self.rows: list[tuple[str, str, str]] = []

    def add(self, what: str, figure: str, bar: str = "") -> None:
        self.rows.append((what, figure, bar))
        print(f"  {what}: {figure}" + (f" (bar: {bar})" if bar else ""), file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return "\n".join(["| what | measured | bar |", "|---|---|---|"] + [f"| {what} | {figure} | {bar} |" for what, figure, bar in self.rows])


def export(checkpoint: Path, out: Path, table: Table, check: str = "layers") -> float:
    """Exports the checkpoint. Returns the cosine that the exporter's own check found."""
    began = time.monotonic()
    command = [sys.executable, "-m", "model.export", str(checkpoint), "--out", str(out), "--check", check, "--embed-texts", str(BUILD / "longembed-embed-texts")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with Watch(process.pid) as watch:
        said = process.communicate()[1]
    if process.returncode != 0:
        raise RuntimeError(f"the export failed: {said}")
    print(said, file=sys.stderr)
    peak = watch.peak
    table.add(f"export of {checkpoint.name}, seconds", f"{time.monotonic() - began:.0f}")
    table.add(f"export of {checkpoint.name}, RSS of all its processes", f"{peak.resident / GIB:.2f} GiB, {peak.anonymous / GIB:.2f} of it anonymous", "4 GiB")
    return float(re.search(r"cosine to .* >= ([\d.]+)", said)[1])


class Server:
    """Serves one model directory at a precision, and measures its start."""

    def __init__(self, folder: Path, model: Path, precision: str, cold: bool, table: Table):
        config = folder / f"{precision}.yaml"
        config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\nhealth_listen: 127.0.0.1:0\nmodels:\n  - {{path: {model}, precision: {precision}}}\n")
        self.log = folder / f"{precision}.log"
        disk = read_seconds(model / "encoder.pt") if cold else 0.0
        forget(model / "encoder.pt")
        began = time.monotonic()
        self.process = subprocess.Popen([BUILD / "longembed-server", "--config", config], stderr=self.log.open("w"))
        with Watch(self.process.pid) as watch:
            while not (port := re.search(r"serving gRPC on port (\d+)", self.log.read_text())):
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended: {self.log.read_text()}")
                time.sleep(0.02)
        seconds, peak = time.monotonic() - began, watch.peak
        self.port = int(port[1])
        bar = "10 GiB" if precision == "int8" else "17 GiB"
        table.add(f"{precision}: load, anonymous memory at the peak", f"{peak.anonymous / GIB:.2f} GiB (RSS with pages of the file {peak.resident / GIB:.2f})", bar)
        table.add(f"{precision}: load, seconds", f"{seconds:.1f}, of which the disk takes {disk:.1f}", "disk + 120")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


class Client:
    def __init__(self, port: int, protos):
        self.pb = protos[0]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = protos[1].EmbeddingServiceStub(self._channel)
        self.model = self.stub.GetModel(self.pb.GetModelRequest())

    def request(self, tokens: int):
        """Returns a request with `tokens` tokens, including BOS and EOS."""
        rng = np.random.default_rng(tokens)
        request = self.pb.EmbedRequest()
        request.inputs.add().token_ids.ids.extend(rng.integers(300, 3000, tokens - 2).tolist())
        return request

    def embed(self, tokens: int) -> tuple[np.ndarray, float]:
        began = time.monotonic()
        response = self.stub.Embed(self.request(tokens), timeout=3600)
        return np.array(response.results[0].embeddings[0].values), time.monotonic() - began


def products_seconds(model: Path, precision: str, shape: mistral_checkpoint.Shape, tokens: int) -> float | None:
    """Returns the seconds that the linear layers' products of one text take on all cores, at the rate that kernels_benchmark measures. None if our
    kernels do not support the precision."""
    done = subprocess.run([BUILD / "benchmark/kernels_benchmark", model, "--products", precision], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    keys = shape.key_value_heads * shape.head_dim
    weights = shape.layers * (2 * shape.hidden * (shape.hidden + keys) + 3 * shape.hidden * shape.inner)
    return 2 * weights * tokens / float(done.stdout) / 1e9


def cancel(server: Server, client: Client, tokens: int, seconds: float) -> float:
    """Cancels a call after half of its time. Returns the milliseconds until the last work of the server."""
    call = client.stub.Embed.future(client.request(tokens), timeout=3600)
    time.sleep(seconds / 2)
    used = cpu_seconds(server.process.pid)
    call.cancel()
    began = worked = time.monotonic()
    while time.monotonic() - began < 3:
        now = cpu_seconds(server.process.pid)
        if now - used >= 0.02:  # This is two ticks, which is more than idle threads and this measurement use.
            used, worked = now, time.monotonic()
        time.sleep(0.005)
    return 1000 * (worked - began)


def serve(folder: Path, model: Path, precision: str, shape: mistral_checkpoint.Shape, protos, table: Table) -> None:
    products = products_seconds(model, precision, shape, 512)
    server = Server(folder, model, precision, cold=True, table=table)
    try:
        client = Client(server.port, protos)
        check = client.model.precision_check
        table.add(f"{precision}: engine; precision check", f"{client.model.engine}; cosine to fp32 >= {check.lowest_cosine:.5f}")
        seconds = min(client.embed(512)[1] for _ in range(2))
        against = f", {seconds / products:.2f} times the {products:.2f} of its products" if products else ""
        table.add(f"{precision}: a text of 512 tokens, seconds", f"{seconds:.2f}{against}", "1.3 times")
        longest = shape.window
        vector, seconds = client.embed(longest)
        table.add(f"{precision}: a text of {longest} tokens, seconds", f"{seconds:.1f}; norm {np.linalg.norm(vector):.4f}")
        table.add(f"{precision}: cancelled half-way, ms to the last work", f"{cancel(server, client, longest, seconds):.0f}", "100")
    finally:
        server.stop()


def transformers_vectors(checkpoint: Path, sequences: list[list[int]]) -> np.ndarray:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        vectors = [model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].double().numpy() for ids in sequences]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def compare(folder: Path, checkpoint: Path, model: Path, precisions: list[str], protos, table: Table) -> None:
    """Compares a model with few layers with transformers."""
    lengths = (64, 300, 1000)
    expected = None
    for precision in precisions:
        server = Server(folder, model, precision, cold=False, table=Table())
        try:
            client = Client(server.port, protos)
            sequences = [[1, *client.request(length).inputs[0].token_ids.ids, 2] for length in lengths]
            expected = transformers_vectors(checkpoint, sequences) if expected is None else expected
            cosines = [float(client.embed(length)[0] @ vector) for length, vector in zip(lengths, expected)]
        finally:
            server.stop()
        bar = {"fp32": ">= 0.9999", "bf16": ">= 0.9999"}.get(precision, "")
        table.add(f"{precision}, {client.model.engine}: a few layers, cosine to transformers (fp32) at {', '.join(map(str, lengths))} tokens",
                  ", ".join(f"{cosine:.6f}" for cosine in cosines), bar)  # fmt: skip


def make(folder: Path, shape: mistral_checkpoint.Shape, table: Table) -> tuple[Path, Path]:
    """Returns (checkpoint, model directory)."""
    began = time.monotonic()
    checkpoint = mistral_checkpoint.save(folder / NAME, shape)
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    table.add(f"checkpoint of {shape.layers} layers written, seconds", f"{time.monotonic() - began:.0f} ({size / 1e9:.2f} GB)")
    cosine = export(checkpoint, folder / "model", table)
    table.add("export's own check, cosine to transformers in fp32", f"{cosine:.8f}", ">= 0.99999")
    return checkpoint, folder / "model"


def measure(folder: Path, shape: mistral_checkpoint.Shape, precisions: list[str]) -> Table:
    table = Table()
    whole, few = folder / "whole", folder / "few"
    for part in (whole, few):
        part.mkdir(parents=True)
    protos = generate_client(folder)
    try:
        _, model = made = make(whole, shape, table)
        for precision in precisions:
            serve(folder, model, precision, shape, protos, table)
        made = make(few, replace(shape, layers=4), table) if shape.layers > 4 else made
        compare(folder, *made, [*precisions, "fp32"], protos, table)
    finally:
        shutil.rmtree(whole)
        shutil.rmtree(few)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a model of a few megabytes, to try the script")
    parser.add_argument("--precisions", default="int8,bf16", help="precisions to serve the whole model in, separated by commas (default: %(default)s)")
    options = parser.parse_args()
    shape = mistral_checkpoint.SMALL if options.small else mistral_checkpoint.E5_MISTRAL
    print(measure(options.folder, shape, options.precisions.split(",")))


if __name__ == "__main__":
    main()
