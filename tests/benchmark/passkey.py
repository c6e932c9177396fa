"""Passkey retrieval of the LongEmbed paper (arXiv 2404.12096): which method finds a sentence in texts longer than the model's window.

    build/venv/bin/python tests/benchmark/passkey.py --models e5-small-v2 --out build/passkey

Every document is filler with one sentence that gives a person's pass key, at a random depth; every query asks for one person's. Accuracy at 1: the right document is the
nearest. Everything goes through a server (its own on a free port, or --server) with the client that protoc makes. Writes OUT/passkey-MODEL.md and .png, and keeps the
vectors in OUT/vectors, so that a run that was stopped goes on where it was; more candidates or methods add to what is there.
"""

import argparse
import hashlib
import json
import math
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
from generated_client import generate_client  # noqa: E402
from running_server import start_server  # noqa: E402

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
QUERIES = 50
# Documents a length: full attention over 32k tokens takes minutes on two cores, so that from 8,192 on there are fewer, and beyond it windows only.
CANDIDATES = {256: 100, 512: 100, 1024: 100, 2048: 100, 4096: 100, 8192: 24, 16384: 12, 32768: 12}
LONGEST_FULL_ATTENTION = 8192

SCALED = {"attention_log_scaling": True}
APE_METHODS = {
    "truncated": None,
    "windows (PCW)": {"windows": {}},
    "grouped (GP)": {"grouped": {}},
    "recurrent (RP)": {"recurrent": {}},
    "interpolation (PI)": {"interpolation": {}},
    "PI, log-scaled": {"interpolation": {}, **SCALED},
}
ROPE_METHODS = {
    **APE_METHODS,
    "just longer": {"ntk": {"base": "the model's"}},
    "NTK, base x 1.25 s": {"ntk": {"base": "by length"}},
    "NTK dynamic": {"ntk_dynamic": {}},
    "NTK by parts": {"ntk_by_parts": {}},
    "YaRN": {"yarn": {}},
    "YaRN, Resonance": {"yarn": {}, "resonance": True},
    "SelfExtend": {"self_extend": {}},
    "SelfExtend, log-scaled": {"self_extend": {}, **SCALED},
}

TASK = "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you about the important information there. "
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
FIRST = ("Ada Ben Cleo Dora Emil Finn Greta Hugo Ines Jonas Klara Luca Mira Nils Olga Paul Quinn Rosa Sven Tara Ugo Vera Wanda Xenia Yara Zeno").split()
LAST = ("Adler Berg Clark Dahl Ekman Frost Gray Holm Ivers Jensen Kern Lund Moss Noble Orr Park Quist Reed Stone Thorn Urban Vance Wolf York Zander").split()


@dataclass
class Set:
    """Documents of one length: document i gives person i's key, query i asks for it."""

    documents: list[str]
    queries: list[str]


def generate(length: int, count: int, seed: int, tokens: dict[str, int]) -> Set:
    """`tokens` counts the tokens of the parts; documents come out at most `length` tokens long, prompt and special tokens included, and at most a filler shorter."""
    people = random.Random(f"{seed} people {length}").sample([f"{first} {last}" for first in FIRST for last in LAST], 100)
    documents, queries = [], []
    for i in range(count):
        draw = random.Random(f"{seed} document {length} {i}")  # Its own, so that more candidates leave the first ones as they are.
        key, name = draw.randrange(10000, 100000), people[i]
        needle = f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}. "
        fillers = (length - tokens["overhead"] - tokens[TASK] - tokens["needle"]) // tokens[FILLER]
        before = draw.randint(0, fillers)
        documents.append(TASK + FILLER * before + needle + FILLER * (fillers - before))
        queries.append(f"What is the pass key for {name}?")
    return Set(documents, queries[:QUERIES])


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a share."""
    z, share = 1.96, hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


class Bench:
    def __init__(self, stub, pb, model: str, out: Path, seed: int):
        self.stub, self.pb, self.model, self.seed = stub, pb, model, seed
        self.vectors = out / "vectors" / model
        self.vectors.mkdir(parents=True, exist_ok=True)
        self.description = stub.GetModel(pb.GetModelRequest(model=model))
        counted = self.count_tokens([TASK, FILLER, "Cleo Holm's pass key is 83746. Remember it. 83746 is the pass key for Cleo Holm. "])
        self.tokens = {TASK: counted[0], FILLER: counted[1], "needle": counted[2] + 8, "overhead": 2 + self.count_tokens(["passage: "])[0]}

    def methods(self) -> dict:
        return ROPE_METHODS if self.description.family == self.pb.Model.ROPE else APE_METHODS

    def count_tokens(self, texts: list[str]) -> list[int]:
        request = self.pb.TokenizeRequest(model=self.model, texts=texts, add_special_tokens=False)
        return [len(result.tokens) for result in self.stub.Tokenize(request).results]

    def options(self, prompt: str, method: str | None, length: int):
        options = self.pb.EmbedOptions(model=self.model, priority=self.pb.EmbedOptions.BULK)
        if prompt in self.description.prompts:
            options.prompt_name = prompt
        extension = self.methods()[method] if method else None
        if extension is None:
            options.truncate = self.pb.EmbedOptions.END
        else:
            ParseDict(self.with_base(extension, length), options.extension)
        return options

    def with_base(self, extension: dict, length: int) -> dict:
        """LongEmbed's bases are a little above the model's own times the factor."""
        base = self.description.rotary_base
        bases = {"the model's": base, "by length": base * 1.25 * length / self.description.trained_window}
        return {**extension, "ntk": {"base": bases[extension["ntk"]["base"]]}} if "ntk" in extension else extension

    def embed(self, texts: list[str], options) -> np.ndarray:
        request = self.pb.EmbedRequest(options=options, inputs=[self.pb.Input(text=text) for text in texts])
        return np.array([result.embeddings[0].values for result in self.stub.Embed(request, timeout=3600).results], dtype=np.float32)

    def document_vectors(self, method: str, length: int, documents: list[str]) -> np.ndarray:
        """From the store as far as it goes; the rest is embedded, a few at a time, and stored. Texts within the window are plain whatever the method."""
        short = length <= self.description.trained_window
        options = self.options("passage", None if short else method, length)
        made_of = json.dumps([sorted(self.description.file_sha256.items()), MessageToDict(options)], sort_keys=True)
        file = self.vectors / f"{length}-{self.seed}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.npy"
        vectors = np.load(file) if file.exists() else np.zeros((0, self.description.dimensions), np.float32)
        batch = max(2, 8192 // length)
        while len(vectors) < len(documents):
            more = self.embed(documents[len(vectors) : len(vectors) + batch], options)
            vectors = np.concatenate([vectors, more])
            with tempfile.NamedTemporaryFile(dir=self.vectors, suffix=".npy", delete=False) as scratch:
                np.save(scratch, vectors)
            os.replace(scratch.name, file)
        return vectors[: len(documents)]

    def accuracy(self, method: str, length: int, candidates: int) -> tuple[int, int]:
        passkeys = generate(length, candidates, self.seed, self.tokens)
        documents = self.document_vectors(method, length, passkeys.documents)
        queries = self.embed(passkeys.queries, self.options("query", None, length))
        nearest = (queries @ documents.T).argmax(axis=1)
        return int((nearest == np.arange(len(queries))).sum()), len(queries)


def reaches(method: str, length: int) -> bool:
    return length <= LONGEST_FULL_ATTENTION or method in ("truncated", "windows (PCW)")


def run(bench: Bench, lengths: list[int], candidates: dict[int, int], only: list[str]) -> dict:
    """{(method, length): (hits, queries)}, shortest lengths first, so that a stopped run has whole columns."""
    results = {}
    for length in lengths:
        for method in bench.methods():
            if (only and method not in only) or not reaches(method, length):
                continue
            started = time.monotonic()
            results[method, length] = bench.accuracy(method, length, candidates[length])
            hits, queries = results[method, length]
            low, high = wilson(hits, queries)
            print(f"{bench.model}  {length:6}  {method:24} {hits / queries:.2f}  [{low:.2f}, {high:.2f}]  {time.monotonic() - started:.0f} s", flush=True)
    return results


def table(results: dict, lengths: list[int], candidates: dict[int, int]) -> str:
    methods = list(dict.fromkeys(method for method, _ in results))
    header = "| method | " + " | ".join(f"{length} ({candidates[length]})" for length in lengths) + " |"
    rows = [header, "|---" * (len(lengths) + 1) + "|"]
    for method in methods:
        cells = []
        for length in lengths:
            if (method, length) not in results:
                cells.append("")
                continue
            hits, queries = results[method, length]
            low, high = wilson(hits, queries)
            cells.append(f"{hits / queries:.2f} [{low:.2f}, {high:.2f}]")
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def heatmap(results: dict, lengths: list[int], title: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(dict.fromkeys(method for method, _ in results))
    grid = np.full((len(methods), len(lengths)), np.nan)
    for (method, length), (hits, queries) in results.items():
        grid[methods.index(method), lengths.index(length)] = 100 * hits / queries
    figure, axes = pyplot.subplots(figsize=(1.6 + 0.95 * len(lengths), 1.2 + 0.42 * len(methods)), layout="constrained")
    image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xlabel("tokens a document")
    axes.set_title(title)
    for (row, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 60 else "black")
    figure.colorbar(image, ax=axes, label="accuracy at 1, %")
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def report(bench: Bench, results: dict, candidates: dict[int, int], out: Path) -> None:
    lengths = sorted({length for _, length in results})
    name = f"passkey-{bench.model}"
    head = f"Passkey, {bench.model}, accuracy at 1 with its 95 % interval; tokens a document (candidates); at most {QUERIES} queries; seed {bench.seed}\n\n"
    text = table(results, lengths, candidates)
    (out / f"{name}.md").write_text(head + text, encoding="utf-8")
    heatmap(results, lengths, f"Passkey, {bench.model}", out / f"{name}.png")
    print(f"\n{head}{text}\nwritten: {out / name}.md, {out / name}.png")


def parse_candidates(text: str) -> dict[int, int]:
    """LENGTH:COUNT,... over the defaults."""
    given = dict(map(int, item.split(":")) for item in text.split(",") if item)
    return {**CANDIDATES, **given}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["e5-small-v2"], metavar="NAME", help="folders below models/, or models of --server")
    parser.add_argument("--server", metavar="HOST:PORT", help="a running server; without it one is started")
    parser.add_argument("--out", type=Path, default=ROOT / "build/passkey")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--candidates", type=parse_candidates, default=CANDIDATES, metavar="LENGTH:COUNT,...")
    parser.add_argument("--methods", nargs="+", default=[], help="only these, by their names in the table")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pb, pb_grpc = generate_client(Path(scratch))
        server = None if options.server else start_server(Path(scratch), options.models)
        address = options.server or f"127.0.0.1:{server.port}"
        try:
            with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 1 << 30)]) as channel:
                for model in options.models:
                    bench = Bench(pb_grpc.EmbeddingServiceStub(channel), pb, model, options.out, options.seed)
                    report(bench, run(bench, options.lengths, options.candidates, options.methods), options.candidates, options.out)
        finally:
            if server:
                server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
