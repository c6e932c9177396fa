"""Starts real servers on free loopback ports."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
MODELS = ROOT / "models"


def await_log(log: Path, text: str) -> None:
    """Waits until `text` is in the log. A call is logged after its answer, and another thread writes the log."""
    deadline = time.monotonic() + 30
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{text} is not in the log: {log.read_text()}"
        time.sleep(0.05)


@dataclass
class Server:
    process: subprocess.Popen
    log: Path
    port: int
    metrics_port: int
    http_port: int = 0  # 0: the server does not serve HTTP.

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start_server(folder: Path, models: list[str], extra: str = "", models_folder: Path = MODELS, model_options: str = "") -> Server:
    """Serves models/NAME for every name. `extra` is YAML for the top of the configuration. `model_options` is a line of YAML for every model."""
    binary = BUILD / "longembed-server"
    if not binary.exists():
        pytest.skip(f"{binary.name} has not been built; run tests/run.sh")
    for name in models:
        if not (models_folder / name).exists():
            pytest.skip(f"models/{name} has not been exported; run tests/run.sh")
    entries = "".join(f"  - path: {models_folder / name}\n" + (f"    {model_options}\n" if model_options else "") for name in models)
    config = folder / "config.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\n{extra}models:\n{entries}")
    log = folder / "server.log"
    process = subprocess.Popen([binary, "--config", config], stderr=log.open("w"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = log.read_text()
        serving = re.search(r"serving gRPC on port (\d+)", text)
        if serving:
            http = re.search(r"serving HTTP on port (\d+)", text)
            return Server(process, log, int(serving[1]), int(re.search(r"metrics on port (\d+)", text)[1]), int(http[1]) if http else 0)
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {text}")
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the server was not ready in time: {log.read_text()}")
