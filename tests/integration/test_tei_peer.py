"""Compares our tei.v1 with TEI itself, with the same client, request by request. Needs TEI, which ../shared/peers/setup.sh DIR sets up, and
LONGEMBED_PEERS=DIR."""

import os
import socket
import subprocess

import grpc
import numpy as np
import pytest
from generated_client import generate_tei_client
from running_server import ROOT, start_server

PEERS = os.environ.get("LONGEMBED_PEERS", "")
RUN_TEI = ROOT.parent / "shared/peers/run_tei.sh"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    if not PEERS or not RUN_TEI.exists():
        pytest.skip("TEI is not installed here (LONGEMBED_PEERS names no folder)")
    folder = tmp_path_factory.mktemp("peer")
    pb, pb_grpc = generate_tei_client(folder)
    port = free_port()
    process = subprocess.Popen(["bash", RUN_TEI, PEERS, "e5-small-v2", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = start_server(folder, ["e5-small-v2"])
    channels = [grpc.insecure_channel(f"127.0.0.1:{p}") for p in (server.port, port)]
    grpc.channel_ready_future(channels[1]).result(timeout=60)
    yield pb, pb_grpc, channels
    for channel in channels:
        channel.close()
    process.terminate()
    process.wait(timeout=30)
    server.stop()


def both(channels, call):
    """Returns the answers of our server and of TEI, or the codes of their errors."""
    results = []
    for channel in channels:
        try:
            results.append(call(channel))
        except grpc.RpcError as error:
            results.append(error.code())
    return results


LONG = " ".join(f"word{i}" for i in range(700))
EMBEDS = [
    dict(inputs="query: how to cook rice"),
    dict(inputs="query: how to cook rice", normalize=False),
    dict(inputs="query: how to cook rice", normalize=True, dimensions=100),
    dict(inputs="Ünïcode — 東京 and 🎉  [SEP] inside"),
    dict(inputs=LONG, truncate=True),
    dict(inputs=LONG, truncate=True, truncation_direction=1),
    dict(inputs=LONG),
    dict(inputs=""),
    dict(inputs="x", dimensions=0),
    dict(inputs="x", dimensions=385),
    dict(inputs="x", prompt_name="nobody"),
    dict(inputs=" "),
]


@pytest.mark.parametrize("fields", EMBEDS, ids=lambda fields: str(fields)[:60])
def test_embed(servers, fields):
    pb, pb_grpc, channels = servers
    ours, theirs = both(channels, lambda channel: pb_grpc.EmbedStub(channel).Embed(pb.EmbedRequest(**fields)))
    if isinstance(theirs, grpc.StatusCode) or isinstance(ours, grpc.StatusCode):
        assert ours == theirs
        return
    np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=5e-4 if fields.get("normalize") is False else 2e-5)
    assert (ours.metadata.compute_chars, ours.metadata.compute_tokens) == (theirs.metadata.compute_chars, theirs.metadata.compute_tokens)


@pytest.mark.parametrize("fields", [dict(inputs="a small text"), dict(inputs=LONG, truncate=True), dict(inputs="")], ids=lambda fields: str(fields)[:60])
def test_embed_all(servers, fields):
    pb, pb_grpc, channels = servers
    ours, theirs = both(channels, lambda channel: pb_grpc.EmbedStub(channel).EmbedAll(pb.EmbedAllRequest(**fields)))
    if isinstance(theirs, grpc.StatusCode) or isinstance(ours, grpc.StatusCode):
        assert ours == theirs
        return
    assert len(ours.token_embeddings) == len(theirs.token_embeddings)
    for a, b in zip(ours.token_embeddings, theirs.token_embeddings):
        np.testing.assert_allclose(a.embeddings, b.embeddings, atol=1e-3)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("text", ["a small text", "Ünïcode — 東京 and 🎉", "tokenization [SEP] of [MASK]", "", " "])
def test_tokenize_and_decode(servers, text, special):
    pb, pb_grpc, channels = servers
    ours, theirs = both(channels, lambda channel: pb_grpc.TokenizeStub(channel).Tokenize(pb.EncodeRequest(inputs=text, add_special_tokens=special)))
    assert ours == theirs
    if isinstance(ours, grpc.StatusCode) or not ours.tokens:
        return
    ids = [token.id for token in ours.tokens]
    assert len(set(text.text for text in both(channels, lambda channel: pb_grpc.TokenizeStub(channel).Decode(pb.DecodeRequest(ids=ids, skip_special_tokens=special))))) == 1


def test_streams(servers):
    pb, pb_grpc, channels = servers
    requests = [pb.EmbedRequest(inputs=f"text {i}") for i in range(20)]
    ours, theirs = both(channels, lambda channel: list(pb_grpc.EmbedStub(channel).EmbedStream(iter(requests))))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.embeddings, b.embeddings, atol=2e-5)


def test_info(servers):
    pb, pb_grpc, channels = servers
    ours, theirs = both(channels, lambda channel: pb_grpc.InfoStub(channel).Info(pb.InfoRequest()))
    assert (ours.model_type, ours.model_dtype, ours.max_input_length) == (theirs.model_type, theirs.model_dtype, theirs.max_input_length)
    print(ours, theirs)


def test_not_offered(servers):
    """TEI answers FAILED_PRECONDITION for what the model cannot do. Our server answers UNIMPLEMENTED for what it does not offer."""
    pb, pb_grpc, channels = servers
    ours, theirs = both(channels, lambda channel: pb_grpc.EmbedStub(channel).EmbedSparse(pb.EmbedSparseRequest(inputs="x")))
    assert ours == grpc.StatusCode.UNIMPLEMENTED
    assert isinstance(theirs, grpc.StatusCode)
