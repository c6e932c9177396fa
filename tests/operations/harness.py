"""Fixtures of the operational tests: replicas on free loopback ports, a load balancer in front of them, metrics, certificates, and the load
client."""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Silences gRPC's log, because some tests cause failed handshakes on purpose.
import grpc  # noqa: E402
import yaml  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

import http2_frames as h2  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
RETRY_CONFIG = ROOT / "deploy/client/retry_service_config.json"
STARTED: list[subprocess.Popen] = []  # None of these processes may outlive the script, whatever happens.
# The gauge of the bytes that the server's ledger holds, by kind.
HELD_BYTES = "longembed_held_bytes"
# These gauges are all 0 when no client has a call and no work is in progress.
STATE = ("longembed_requests_in_flight", "longembed_queue_jobs", "longembed_queue_tokens", "longembed_batches_running", HELD_BYTES)
SKIPPED = 77  # The exit status of a script that lacks a dependency. It prints the reason.

sys.path.insert(0, str(ROOT / "tests/integration"))


class Missing(Exception):
    """Something that the test needs is missing."""


# ---------------------------------------------------------------------------------------------------------- running a script


class Report:
    """Prints figures as they are measured, and one line for each pass/fail check."""

    def __init__(self, name: str):
        self.name, self.failed = name, 0
        self.started = time.monotonic()

    def figure(self, name: str, value) -> None:
        print(f"      {name}: {value:.4g}" if isinstance(value, float) else f"      {name}: {value}", flush=True)

    def bar(self, name: str, passed: bool, said: str = "") -> bool:
        self.failed += not passed
        print(f"{'PASS' if passed else 'FAIL'}  {name}{': ' if said else ''}{said}", flush=True)
        return bool(passed)

    def end(self) -> int:
        print(f"{self.name}: {'FAILED, ' + str(self.failed) + ' bars' if self.failed else 'passed'} in {time.monotonic() - self.started:.0f} s", flush=True)
        return 1 if self.failed else 0


def run(name: str, parser: argparse.ArgumentParser, body: Callable[[argparse.Namespace, Path, Report], None]) -> None:
    """Runs a script in its own temporary folder, which is kept if a check fails."""
    parser.add_argument("--model", default="e5-small-v2", help="a folder of models/")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--folder", type=Path, help="keeps configs, logs and outputs here; without it they are deleted if all bars passed")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix=f"longembed-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(name)
    status = 1
    try:
        if not (ROOT / "models" / arguments.model).exists():
            raise Missing(f"models/{arguments.model} has not been exported; run tests/run.sh")
        body(arguments, folder.resolve(), report)
        status = report.end()
    except Missing as missing:
        print(f"SKIPPED {name}: {missing}")
        status = SKIPPED
    finally:
        for process in STARTED:
            if process.poll() is None:
                process.kill()
        if arguments.folder is None and status != 1:
            shutil.rmtree(folder)
        elif status == 1:
            print(f"logs and outputs: {folder}")
    sys.exit(status)


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def built(name: str) -> Path:
    path = BUILD / name
    if not path.exists():
        raise Missing(f"{name} has not been built; run tests/run.sh")
    return path


def load_client() -> Path:
    path = Path(os.environ.get("LONGEMBED_LOAD_CLIENT", BUILD / "tests/operations_load_client"))
    if not path.exists():
        raise Missing(f"{path.name} has not been built; run tests/run.sh")
    return path


def free_port() -> int:
    """Returns a free port below the range of outgoing connections, so that a replica that restarts finds its port free."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


def until(true: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


# ---------------------------------------------------------------------------------------------------------------- a replica


def merged(base: dict, more: dict) -> dict:
    out = dict(base)
    for key, value in more.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


class Replica:
    """A server process. It keeps its ports over restarts. `settings` override the defaults of the tests."""

    def __init__(
        self, folder: Path, arguments: argparse.Namespace, settings: dict | None = None, name: str = "replica", open_files: int = 0,
        environment: dict[str, str] | None = None,
    ):  # fmt: skip
        self.name, self.folder, self.open_files, self.environment = name, folder, open_files, environment or {}
        self.port, self.health_port, self.metrics_port = free_port(), free_port(), free_port()
        self.log = folder / f"{name}.log"
        self.config = folder / f"{name}.yaml"
        self.process: subprocess.Popen | None = None
        self.model = arguments.model
        base = {
            "listen": f"127.0.0.1:{self.port}", "health_listen": f"127.0.0.1:{self.health_port}", "metrics_listen": f"127.0.0.1:{self.metrics_port}",
            "models": [{"path": str(ROOT / "models" / arguments.model), "precision": arguments.precision}],
        }  # fmt: skip
        self.settings = merged(base, settings or {})
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        self.log.write_text("")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, wait: bool = True) -> "Replica":
        command = [str(built("longembed-server")), "--config", str(self.config)]
        if self.open_files:
            command = ["prlimit", f"--nofile={self.open_files}", *command]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.environment})
        STARTED.append(self.process)
        if wait:
            self.wait_serving()
        return self

    def health(self, service: str = "", timeout: float = 1.0) -> str:
        """Returns the name of the health status, or UNREACHABLE if there is no answer."""
        with grpc.insecure_channel(f"127.0.0.1:{self.health_port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
            except grpc.RpcError:
                return "UNREACHABLE"
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def wait_serving(self, seconds: float = 120) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            return self.health() == "SERVING"

        if not until(ready, seconds, 0.05):
            raise RuntimeError(f"{self.name} was not ready in {seconds:.0f} s: {self.log.read_text()[-2000:]}")

    def terminate(self, seconds: float = 60) -> int:
        """Sends SIGTERM and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def alive(self) -> bool:
        return self.process.poll() is None

    def metrics_text(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metrics(self) -> "Metrics":
        return Metrics(self.metrics_text())

    def at_rest(self) -> bool:
        """Returns true if no call lacks an answer, the queue is empty, no batch runs on for cancelled calls, and no bytes are held for any call."""
        return not self.gauges()

    def gauges(self) -> dict[str, float]:
        """Returns the gauges of STATE that are not 0."""
        metrics = self.metrics()
        return {name: total for name in STATE if (total := metrics.total(name))}

    def rss(self) -> int:
        return self._status("VmRSS")

    def peak_rss(self) -> int:
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def __enter__(self) -> "Replica":
        return self if self.process is not None else self.start()

    def __exit__(self, *_) -> None:
        if self.process is not None:
            self.terminate()


class Metrics:
    """The samples of one scrape."""

    def __init__(self, text: str):
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            found = re.match(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
            if found and not line.startswith("#"):
                self.samples.append((found[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")), float(found[3])))

    def has(self, name: str) -> bool:
        return any(sample[0] == name for sample in self.samples)

    def total(self, name: str, **labels: str) -> float:
        """Returns the sum over all label values that are not given. Returns 0 if there is no sample, since a counter without events has none."""
        return sum(value for found, has, value in self.samples if found == name and labels.items() <= has.items())


class PeakRss(threading.Thread):
    """Samples resident memory, because VmHWM cannot be reset between phases."""

    def __init__(self, replica: Replica):
        super().__init__(daemon=True)
        self.replica, self.peak, self.stopped = replica, replica.rss(), threading.Event()
        self.start()

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            if self.replica.alive():
                self.peak = max(self.peak, self.replica.rss())

    def stop(self) -> int:
        self.stopped.set()
        self.join()
        return self.peak


# -------------------------------------------------------------------------------------------------------------- the balancer


HEALTH_CHECK = h2.PREFACE + h2.settings() + h2.unary_call(1, "/grpc.health.v1.Health/Check", b"")
HEALTHY = h2.grpc_message(b"\x08\x01")  # HealthCheckResponse{status: SERVING}.


def haproxy_config(port: int, replicas: list[Replica], through: dict[str, int]) -> str:
    """Returns a configuration with HTTP/2 on both sides. haproxy 2.6 has no gRPC health check, so it sends the frames of one as raw bytes, and
    searches the answer for the message."""
    servers = "\n".join(
        f"    server {r.name} 127.0.0.1:{through.get(r.name, r.port)} proto h2 check port {r.health_port} inter 200ms fall 1 rise 1" for r in replicas
    )
    return f"""global
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 120s
    timeout server 120s
    timeout check 400ms
    retries 5
    option redispatch 1
    retry-on conn-failure empty-response 503
frontend grpc
    bind 127.0.0.1:{port} proto h2
    default_backend replicas
backend replicas
    balance leastconn
    option tcp-check
    tcp-check connect proto none
    tcp-check send-binary {HEALTH_CHECK.hex()}
    tcp-check expect binary {HEALTHY.hex()}
{servers}
"""


class Balancer:
    """haproxy in front of replicas. `through` maps names of replicas to ports that lead to them, for replicas that are not reached directly."""

    def __init__(self, folder: Path, replicas: list[Replica], through: dict[str, int] | None = None):
        self.port = free_port()
        self.config, self.log = folder / "haproxy.cfg", folder / "haproxy.log"
        self.config.write_text(haproxy_config(self.port, replicas, through or {}))
        with self.log.open("w") as log:
            self.process = subprocess.Popen([program("haproxy"), "-db", "-f", str(self.config)], stdout=log, stderr=log)
        STARTED.append(self.process)

        def listening() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"haproxy ended: {self.log.read_text()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        if not until(listening, 10):
            raise RuntimeError(f"haproxy does not listen: {self.log.read_text()}")
        time.sleep(0.5)  # Waits for the first health checks.

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()


# ------------------------------------------------------------------------------------------------------------------ the load

# Each word is one token of BERT's vocabulary.
WORDS = (
    "river stone house water light night green table paper horse window garden market letter winter summer music story plant bridge "
    "school doctor engine island forest"
).split()


def text_of(words: int, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def write_texts(path: Path, count: int, tokens: int, seed: int = 7) -> Path:
    """Writes `count` texts of `tokens` tokens each, including [CLS] and [SEP]."""
    rng = random.Random(seed)
    path.write_text("".join(text_of(tokens - 2, rng) + "\n" for _ in range(count)))
    return path


class LoadClient:
    """A running operations_load_client. Keyword arguments are its options."""

    def __init__(self, server: str, texts: Path, **options):
        command = [str(load_client()), "--server", server, "--texts", str(texts)]
        for name, value in options.items():
            if value is not None and value is not False:
                command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        STARTED.append(self.process)

    def result(self) -> dict:
        out, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(f"the load client ended with {self.process.returncode}")
        return json.loads(out)

    def stop(self) -> dict:
        """Stops new calls, and waits for those in progress."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.result()


def load(server: str, texts: Path, **options) -> dict:
    return LoadClient(server, texts, **options).result()


def failures(result: dict) -> int:
    return result["calls"] - result["codes"].get("OK", 0) + result["unsent"]


def latency(result: dict, code: str, quantile: str) -> float:
    """Returns milliseconds, or infinity if no call ended with `code`, so that a check without data fails."""
    found = result["latency_ms"].get(code)
    return found[quantile] if found else float("inf")


def python_client(folder: Path):
    """Returns the modules (messages, stubs) of longembed.v1."""
    from generated_client import generate_client

    out = folder / "generated"
    out.mkdir(exist_ok=True)
    return generate_client(out)


def fresh_call(address: str, pb, seconds: float, credentials=None, metadata=None) -> float:
    """Returns the seconds until a new client has its first vector, or infinity if it has none in time."""
    started = time.monotonic()
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
    channel = grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    with channel:
        request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="who is there?")])
        try:
            pb[1].EmbeddingServiceStub(channel).Embed(request, timeout=seconds, wait_for_ready=True, metadata=metadata)
        except grpc.RpcError:
            return float("inf")
    return time.monotonic() - started


# -------------------------------------------------------------------------------------------------------------- certificates


class Authority:
    """A certificate authority, made with the openssl command."""

    def __init__(self, folder: Path, name: str = "ca", issuer: "Authority | None" = None):
        """Without an issuer the authority is a root."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.certificate, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        signed = [] if issuer is None else ["-CA", str(issuer.certificate), "-CAkey", str(issuer.key)]
        self._openssl(
            self.key, self.certificate, name, *signed, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"
        )

    def issue(self, name: str, days: int = 30) -> tuple[Path, Path]:
        """Returns a certificate and a key for a server or client named `name` on the loopback address. Each has a new serial number."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._openssl(
            key, certificate, name, "-CA", str(self.certificate), "-CAkey", str(self.key), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth", days=days,
        )  # fmt: skip
        return certificate, key

    def _openssl(self, key: Path, certificate: Path, name: str, *more: str, days: int = 30) -> None:
        command = [
            program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256", "-days", str(days),
            "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}", *more,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
