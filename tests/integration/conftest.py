"""Starts real servers on free ports of the loopback, and generates a Python client from our protos."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
MODELS = ROOT / "models"


@pytest.fixture(scope="session")
def pb(tmp_path_factory):
    """The modules (messages, stubs) that protoc makes of longembed/v1/embedding.proto."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("generated")
    include = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = [f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *arguments, str(ROOT / "proto/longembed/v1/embedding.proto")]) == 0
    sys.path.insert(0, str(out))
    return importlib.import_module("longembed.v1.embedding_pb2"), importlib.import_module("longembed.v1.embedding_pb2_grpc")


@dataclass
class Server:
    process: subprocess.Popen
    log: Path
    port: int
    metrics_port: int

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start_server(folder: Path, models: list[str], extra: str = "") -> Server:
    """Serves models/NAME for every name. `extra` is YAML for the top of the config."""
    binary = BUILD / "longembed-server"
    if not binary.exists():
        pytest.skip(f"{binary.name} has not been built; run tests/run.sh")
    for name in models:
        if not (MODELS / name).exists():
            pytest.skip(f"models/{name} has not been exported; run tests/run.sh")
    entries = "".join(f"  - path: {MODELS / name}\n" for name in models)
    config = folder / "config.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\n{extra}models:\n{entries}")
    log = folder / "server.log"
    process = subprocess.Popen([binary, "--config", config], stderr=log.open("w"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = log.read_text()
        serving = re.search(r"serving gRPC on port (\d+)", text)
        if serving:
            return Server(process, log, int(serving[1]), int(re.search(r"metrics on port (\d+)", text)[1]))
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {text}")
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the server was not ready in time: {log.read_text()}")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server with the default model, for every test that leaves it as it was."""
    running = start_server(tmp_path_factory.mktemp("server"), ["e5-small-v2"])
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as open_channel:
        yield open_channel


@pytest.fixture(scope="session")
def stub(channel, pb):
    return pb[1].EmbeddingServiceStub(channel)
