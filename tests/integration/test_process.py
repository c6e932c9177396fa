"""Tests the life cycle of the server process: its start, signals at any time, and a log without a reader. Most tests need no model, because they
end before one is loaded."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from running_server import BUILD, start_server

SERVER = BUILD / "longembed-server"
LONG = "river stone house water " * 100
STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGRTMIN, signal.SIGRTMAX)


def await_text(path: Path, text: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while text not in path.read_text():
        assert time.monotonic() < deadline, f"no {text!r} in: {path.read_text()}"
        time.sleep(0.02)


def await_signals(process: subprocess.Popen, seconds: float = 60) -> None:
    """Waits until the process handles signals. Its last step of setup is to ignore SIGRTMAX, and that stays so. Signal masks cannot be
    used, since they also change earlier, while libraries start threads."""
    deadline = time.monotonic() + seconds
    while not int(re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1], 16) >> (signal.SIGRTMAX - 1) & 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def stuck(tmp_path):
    """Returns a function that starts servers whose only model is on storage that does not respond. `stuck(extra)` returns process and log.
    `through` is a command that runs the rest of the command line."""
    if not SERVER.exists():
        pytest.skip("longembed-server has not been built; run tests/run.sh")
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model/longembed-model.yaml")
    started = []

    def start(extra: str = "", through: tuple[str, ...] = (), **options):
        config, log = tmp_path / "config.yaml", tmp_path / "server.log"
        config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\n{extra}models: [{{path: {tmp_path / 'model'}}}]\n")
        process = subprocess.Popen([*through, SERVER, "--config", config], **{"stderr": log.open("w"), "stdout": subprocess.DEVNULL, **options})
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("megabytes", [90, 100])
def test_a_process_without_memory_or_threads_ends_with_a_readable_error(stuck, megabytes):
    limit = megabytes * 1_000_000
    process, log = stuck(through=("prlimit", f"--data={limit}"))
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        pytest.skip(f"on this machine {megabytes} MB are enough until a model is read")
    last = log.read_text().splitlines()[-1]
    assert process.returncode == 1, log.read_text()
    why = json.loads(last)["why"]
    assert "out of memory" in why or "refuses a thread" in why


@pytest.mark.parametrize("which", STOP, ids=lambda number: number.name)
def test_a_stop_while_a_load_hangs_ends_the_process(stuck, which):
    process, log = stuck()
    await_text(log, "metrics on port")
    process.send_signal(which)
    assert process.wait(timeout=20) == 0
    assert f'"event":"stopped before serving","signal":"{which.name}"' in log.read_text()


def test_a_stop_while_the_config_itself_hangs_ends_the_process(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    process = subprocess.Popen([SERVER, "--config", tmp_path / "config.yaml"], stderr=subprocess.PIPE, text=True)
    await_signals(process)
    process.send_signal(signal.SIGTERM)
    assert "stopped before serving" in process.communicate(timeout=20)[1]
    assert process.returncode == 0


def test_no_other_signal_ends_a_load(stuck):
    process, log = stuck("health_listen: 127.0.0.1:0\n")
    await_text(log, "metrics on port")
    for which in (*IGNORED, signal.SIGHUP):
        process.send_signal(which)
    port = int(re.search(r"health on port (\d+)", log.read_text())[1])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(service="longembed.liveness"), timeout=20).status == health_pb2.HealthCheckResponse.SERVING
    assert process.poll() is None


def test_every_problem_is_reported_before_a_model_is_opened(stuck, tmp_path):
    """Loading the model would hang, so the problems must be reported without waiting for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "keys.yaml").write_text("keys: []\n")
        process, log = stuck(f"health_listen: 127.0.0.1:{port}\nreflection: false\napi_keys: {tmp_path}/keys.yaml\ncompute_threads: 1024\nprofiles: {{p: {{nonsense: {{}}}}}}\n")
        config = tmp_path / "config.yaml"
        process.kill()
        process.wait()
        config.write_text(config.read_text().replace("listen: 127.0.0.1:0", "listen: nonsense", 1))
        process = subprocess.run([SERVER, "--config", config], stderr=subprocess.PIPE, text=True, timeout=60)
    assert process.returncode == 1
    told = [line["why"] for line in map(json.loads, process.stderr.splitlines()) if line["event"] == "start failed"]
    for said in ('listen: "nonsense"', f"health_listen: cannot listen on 127.0.0.1:{port}", "api_keys: ", "nonsense"):
        assert any(said in line for line in told), said


def test_too_few_descriptors_are_reported_before_a_model_is_opened(stuck, tmp_path):
    stuck()[0].kill()
    process = subprocess.run(["sh", "-c", f"ulimit -n 300; exec {SERVER} --config {tmp_path}/config.yaml"], stderr=subprocess.PIPE, text=True, timeout=60)
    assert process.returncode == 1
    assert "connections.max is 1000, but this process may open 300 descriptors; lower it to 44" in process.stderr


def test_the_limits_are_logged_by_name(stuck):
    log = stuck()[1]
    await_text(log, '"event":"limits"')
    for name in ("cores", "cgroup_cores", "cgroup_memory_bytes", "cgroup_tasks", "descriptors", "user_threads"):
        assert f'"{name}":' in log.read_text()


def test_the_port_is_bound_while_models_load(stuck):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _, log = stuck()
    config = log.parent / "config.yaml"
    config.write_text(config.read_text().replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}", 1))
    own = log.with_name("first.log")  # The server that `stuck` started still writes the other log.
    first = subprocess.Popen([SERVER, "--config", config], stderr=own.open("w"))
    try:
        await_text(own, "metrics on port")
        second = subprocess.run([SERVER, "--config", config], stderr=subprocess.PIPE, text=True, timeout=60)
        assert second.returncode == 1
        assert f"listen: cannot listen on 127.0.0.1:{port}: Address already in use" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_standard_error_may_be_closed(stuck):
    process, log = stuck("health_listen: 127.0.0.1:0\n", through=("sh", "-c", 'exec "$@" 2>&-', "sh"))
    deadline = time.monotonic() + 60
    while not (Path(f"/proc/{process.pid}/fd/2").exists() and len(os.listdir(f"/proc/{process.pid}/fd")) > 8):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.readlink(f"/proc/{process.pid}/fd/2") == "/dev/null"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def full_pipe() -> tuple[int, int]:
    """Returns a pipe that is full, because its reader has stopped."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def test_a_stalled_log_holds_up_neither_start_nor_signals(stuck):
    reader, writer = full_pipe()
    process, _ = stuck(stderr=writer)
    await_signals(process)
    time.sleep(2)  # By then the server has had lines to write.
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    os.close(reader), os.close(writer)


# ------------------------------------------------------------------------------------------------------------ with a model


def embed(pb, port: int, text: str = "a", **options):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return pb[1].EmbeddingServiceStub(channel).Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text=text)]), timeout=20, **options)


def test_a_stalled_log_holds_up_no_call_and_no_drain(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"], "log: {level: info}\n")
    config = (tmp_path / "config.yaml").read_text()
    assert running.stop() == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config.yaml").write_text(config.replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}", 1).replace("level: info", "level: debug"))
    reader, writer = full_pipe()
    process = subprocess.Popen([SERVER, "--config", tmp_path / "config.yaml"], stderr=writer)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                embed(pb, port)
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
        for _ in range(100):  # Each call writes a log line.
            embed(pb, port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(reader), os.close(writer)


def test_sigquit_drains_and_other_signals_are_ignored(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 40)
        call = pb[1].EmbeddingServiceStub(channel).Embed.future(crowd, timeout=60)
        time.sleep(0.3)
        for which in IGNORED:
            running.process.send_signal(which)
        running.process.send_signal(signal.SIGQUIT)
        assert len(call.result().results) == 40
    assert running.process.wait(timeout=60) == 0
    assert '"event":"draining","signal":"SIGQUIT"' in running.log.read_text()


def test_sighup_reloads_and_names_keys_that_need_a_restart(tmp_path, pb):
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: [{name: a, key: first}]\n")
    running = start_server(tmp_path, ["e5-small-v2"], f"reflection: false\napi_keys: {keys}\nlog: {{level: info}}\n")
    running.process.send_signal(signal.SIGHUP)
    await_text(running.log, '"event":"reloaded","what":"api_keys"')
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("level: info", "level: warning") + "limits: {max_queue_wait: 3s}\n")
    running.process.send_signal(signal.SIGHUP)
    await_text(running.log, '"in_force":"log.level","after_a_restart":"limits.max_queue_wait"')
    embed(pb, running.port, metadata=[("x-api-key", "first")])
    assert running.stop() == 0


def test_metrics_are_served_over_ipv6(tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback here")
    config, log = tmp_path / "config.yaml", tmp_path / "server.log"
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model/longembed-model.yaml")
    config.write_text(f'listen: 127.0.0.1:0\nmetrics_listen: "[::1]:0"\nmodels: [{{path: {tmp_path}/model}}]\n')
    process = subprocess.Popen([SERVER, "--config", config], stderr=log.open("w"))
    try:
        await_text(log, "metrics on port")
        port = int(re.search(r"metrics on port (\d+)", log.read_text())[1])
        assert b"longembed_serving 0" in urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=20).read()
    finally:
        process.kill()
        process.wait()
