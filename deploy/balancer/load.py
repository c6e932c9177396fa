"""A bounded load of mixed calls through a balancer, for watch.sh. Prints one line of figures; exit status 1 when a call ended as it should not.
SIGTERM and Ctrl-C end it early, and in order.

    build/venv/bin/python deploy/balancer/load.py --server 127.0.0.1:50050 --seconds 20
"""

import argparse
import importlib
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the river rises in the highlands and flows north through many countries into the sea where ships wait for the tide".split()
EXPECTED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")  # Slow machines are overloaded while a replica restarts.
LONGEST = 400  # Words; some 450 tokens, within the window of any model.


def generate_client(folder: str):
    """Generates the messages and stubs of longembed.v1 into `folder`, and returns both modules."""
    from grpc_tools import protoc

    include = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = [f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *arguments, str(ROOT / "proto/longembed/v1/embedding.proto")]) != 0:
        sys.exit("error: protoc failed")
    sys.path.insert(0, folder)
    return importlib.import_module("longembed.v1.embedding_pb2"), importlib.import_module("longembed.v1.embedding_pb2_grpc")


class Load:
    def __init__(self, messages, stubs, arguments: argparse.Namespace):
        self.messages, self.stubs, self.arguments = messages, stubs, arguments
        self.metadata = [("authorization", f"Bearer {arguments.api_key_file.read_text().strip()}")] if arguments.api_key_file else []
        self.ended: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.tokens = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def text(self, rng: random.Random, words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    def one_call(self, stub, rng: random.Random) -> tuple[str, int]:
        """Makes one call of a random kind. Returns its status and the number of tokens that were embedded."""
        m, kind, timeout = self.messages, rng.random(), self.arguments.timeout
        if kind < 0.05:
            stub.Tokenize(m.TokenizeRequest(texts=[self.text(rng, 20)]), timeout=timeout, metadata=self.metadata)
        elif kind < 0.1:
            stub.Explain(m.ExplainRequest(inputs=[m.Input(text=self.text(rng, 20))]), timeout=timeout, metadata=self.metadata)
        elif kind < 0.15:
            options = m.EmbedOptions(truncate=m.EmbedOptions.END)
            response = stub.Embed(m.EmbedRequest(options=options, inputs=[m.Input(text=self.text(rng, 2 * LONGEST))]), timeout=timeout, metadata=self.metadata)
            return "OK", sum(result.tokens for result in response.results)
        elif kind < 0.17:
            stub.Embed(m.EmbedRequest(), timeout=timeout, metadata=self.metadata)  # No inputs: INVALID_ARGUMENT.
        else:
            inputs = [m.Input(text=self.text(rng, rng.choice([8, 30, 100, LONGEST]))) for _ in range(rng.randint(1, 4))]
            response = stub.Embed(m.EmbedRequest(inputs=inputs), timeout=timeout, metadata=self.metadata)
            return "OK", sum(result.tokens for result in response.results)
        return "OK", 0

    def run(self, seed: int) -> None:
        rng, until = random.Random(seed), time.monotonic() + self.arguments.seconds
        # A connection of its own, as a client process would have.
        with grpc.insecure_channel(self.arguments.server, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = self.stubs.EmbeddingServiceStub(channel)
            while time.monotonic() < until and not self.stop.is_set():
                tokens, unexpected, pause = 0, None, self.arguments.pause
                try:
                    code, tokens = self.one_call(stub, rng)
                except grpc.RpcError as error:
                    code, pause = error.code().name, max(pause, retry_delay(error))
                    if code not in EXPECTED:
                        unexpected = f"{code}: {error.details()}"
                with self.lock:
                    self.ended[code] += 1
                    self.tokens += tokens
                    if unexpected:
                        self.unexpected.append(unexpected)
                self.stop.wait(pause)


def retry_delay(error: grpc.RpcError) -> float:
    """Returns the seconds after which a refused call may be tried again, or 0."""
    return next((int(value) / 1000 for key, value in error.trailing_metadata() or () if key == "grpc-retry-pushback-ms"), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="A bounded load of mixed calls.")
    parser.add_argument("--server", required=True, help="HOST:PORT")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=4, help="connections, each with one call at a time")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that each client waits between calls")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for one call")
    parser.add_argument("--api-key-file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = Load(*generate_client(folder), arguments)
        threads = [threading.Thread(target=load.run, args=(seed,)) for seed in range(arguments.clients)]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: load.stop.set())
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = time.monotonic() - began
    counts = ", ".join(f"{count} {code}" for code, count in load.ended.most_common())
    print(f"{sum(load.ended.values())} calls in {seconds:.1f} s by {arguments.clients} clients: {counts}; {load.tokens / seconds:.0f} tokens/s; "
          f"{len(load.unexpected)} not as expected {load.unexpected[:3] if load.unexpected else ''}")
    return 1 if load.unexpected or not load.ended["OK"] else 0


if __name__ == "__main__":
    sys.exit(main())
