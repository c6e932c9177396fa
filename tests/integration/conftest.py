"""Fixtures: a running server with the default model, and a Python client generated from our protos."""

import importlib
import sys
from pathlib import Path

import grpc
import pytest

from running_server import ROOT, start_server


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
