"""Fixtures: a real server with the default model, and a client generated from the protos, which shares no code with the package under test."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

from running_server import start_server  # noqa: E402

# Tests are skipped where the package is not installed. A package that is there and lacks a module is an error instead.
if importlib.util.find_spec("longembed") is not None:
    import longembed  # noqa: F401

# Adapters must neither access the model hub nor report usage.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HAYSTACK_TELEMETRY_ENABLED="False", LANGSMITH_TRACING="false")

LICENSES = Path("/usr/share/common-licenses")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts one server with the default model. It is shared by all tests that do not change its state."""
    running = start_server(tmp_path_factory.mktemp("python-client"), ["e5-small-v2"])
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def address(server) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def example_address(tmp_path_factory) -> str:
    """Starts a server for the documentation's examples. They embed 150,000 tokens, which takes half as long in int8."""
    running = start_server(tmp_path_factory.mktemp("python-client-examples"), ["e5-small-v2"], model_options="precision: int8")
    yield f"127.0.0.1:{running.port}"
    assert running.stop() == 0


@pytest.fixture(scope="session")
def keyed_address(tmp_path_factory) -> str:
    """Starts a server that requires the API key "correct-key"."""
    folder = tmp_path_factory.mktemp("python-client-keys")
    (folder / "keys.yaml").write_text("keys:\n  - name: tests\n    key: correct-key\n")
    running = start_server(folder, ["e5-small-v2"], extra=f"api_keys: {folder / 'keys.yaml'}\nreflection: false\n")
    yield f"127.0.0.1:{running.port}"
    assert running.stop() == 0


@pytest.fixture(scope="session")
def long_text() -> str:
    """Returns a text of about 1,200 tokens. The model's window is 512."""
    path = LICENSES / "Artistic"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Returns the modules (messages, stubs) that protoc generates from our proto."""
    from generated_client import generate_client

    return generate_client(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="session")
def expected_windows(address, generated) -> Callable[..., list[np.ndarray]]:
    """Returns a function expected_windows(texts, prompt, tokens). It uses the generated client and returns float64 [k, d] per text, with one
    vector per window.

    tokens None: no extension, and therefore one vector."""
    import grpc

    messages, stubs = generated

    def embed(texts: Sequence[str], prompt: str, tokens: int | None, output: str = "WINDOW_VECTORS") -> list[np.ndarray]:
        request = messages.EmbedRequest(inputs=[messages.Input(text=text) for text in texts])
        request.options.prompt = prompt
        if tokens is not None:
            request.options.output = messages.EmbedOptions.Output.Value(output)
            request.options.extension.windows.tokens = tokens
        with grpc.insecure_channel(address) as channel:
            response = stubs.EmbeddingServiceStub(channel).Embed(request, timeout=300)
        return [np.array([embedding.values for embedding in result.embeddings]) for result in response.results]

    return embed


@pytest.fixture(scope="session")
def expected(expected_windows) -> Callable[..., np.ndarray]:
    """Returns a function expected(texts, prompt, windows=None). It returns float64 [n, d], one vector per text. `windows`: the mean of windows of
    this many tokens."""

    def embed(texts: Sequence[str], prompt: str, windows: int | None = None) -> np.ndarray:
        return np.concatenate(expected_windows(texts, prompt, windows, output="ONE_VECTOR"))

    return embed
