"""Fixtures: a running server with the default model, and a Python client generated from our protos."""

import grpc
import pytest

from generated_client import generate_client
from running_server import start_server


@pytest.fixture(scope="session")
def pb(tmp_path_factory):
    return generate_client(tmp_path_factory.mktemp("generated"))


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
