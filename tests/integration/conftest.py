"""Fixtures: a running server with the default model, and a Python client generated from our protos."""

import grpc
import pytest

from generated_client import generate_client
from http_client import LISTENS, MODEL, Http
from running_server import start_server


@pytest.fixture(scope="session")
def pb(tmp_path_factory):
    return generate_client(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts one server with the default model. It is shared by all tests that do not change its state."""
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


@pytest.fixture(scope="module")
def http_server(request, tmp_path_factory):
    """Starts a server that also serves HTTP, without TLS and keys. A module's HTTP_CONFIG is YAML that is put at the top of its configuration."""
    running = start_server(tmp_path_factory.mktemp("http"), [MODEL], extra=LISTENS + request.module.HTTP_CONFIG)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def web(http_server):
    return Http(http_server.http_port)


@pytest.fixture(scope="module")
def http_channel(http_server):
    with grpc.insecure_channel(f"127.0.0.1:{http_server.port}") as open_channel:
        yield open_channel


@pytest.fixture(scope="module")
def embed(http_channel, pb):
    """Returns a function that gets vectors from that server over gRPC. Keyword arguments are fields of EmbedOptions."""
    stub = pb[1].EmbeddingServiceStub(http_channel)

    def call(texts: list[str], **options):
        request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(**options), inputs=[pb[0].Input(text=text) for text in texts])
        return stub.Embed(request)

    call.stub = stub
    return call
