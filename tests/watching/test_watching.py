"""Tests alert rules, dashboard and load balancers of deploy/: against the server's metrics, with the tools that read them, and in operation."""

import http.server
import importlib.util
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests/integration")]
from generated_client import generate_client  # noqa: E402
from promql import uses  # noqa: E402
from running_server import BUILD, MODELS, start_server  # noqa: E402

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = ROOT / "helm/longembed-server/files/alerts.yaml"
UNIT_TESTS = PROMETHEUS / "alerts_test.yaml"
DASHBOARD = json.loads((ROOT / "helm/longembed-server/files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
HAPROXY = ROOT / "deploy/balancer/haproxy.cfg"
ENVOY = ROOT / "deploy/balancer/envoy.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
ALERT_NAMES = [rule["alert"] for rule in RULES if "alert" in rule]
FROM_PROMETHEUS = {"job", "instance", "namespace"}  # Labels that scraping adds.


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if not found:
        pytest.skip(f"{name} is not installed; tests/run.sh installs it")
    return found


def run(*command: str | Path, seconds: int = 120, **options) -> subprocess.CompletedProcess:
    """Runs a command. `timeout` also ends all processes that the command has started."""
    return subprocess.run(["timeout", "-k", "40", str(seconds), *command], capture_output=True, text=True, **options)


# -------------------------------------------------------------------------------------------------------------- metrics and their labels


def metric_labels() -> dict[str, set[str]]:
    """Returns every series of the server with its labels, from the table in server/telemetry/README.md."""
    series = {"up": set()}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?)\s*\|", (ROOT / "server/telemetry/README.md").read_text(), re.MULTILINE):
        own = {label for label in labels.split(", ") if label}
        if kind == "histogram":
            series |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            series[name] = own
    return series


def header_names() -> set[str]:
    return set(re.findall(r'constexpr Name k\w+\{\s*"(\w+)"', (ROOT / "server/telemetry/metric_names.h").read_text()))


def records() -> dict[str, set[str]]:
    """Returns the recorded series and their labels."""
    labels: dict[str, set[str]] = {}
    for rule in RULES:
        if "record" in rule:
            found = uses(rule["expr"])
            labels[rule["record"]] = set().union(*((use.kept if use.kept is not None else labels.get(use.metric, set())) for use in found)) - {"le"}
    return labels


def dashboard_expressions() -> dict[str, str]:
    named = {f"panel {panel['title']}, query {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            named[f"variable {variable['name']}"] = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]
    return {name: re.sub(r"\$__rate_interval", "1m", expression) for name, expression in named.items()}


def rule_expressions() -> dict[str, str]:
    return {f"rule {rule.get('alert') or rule['record']}": rule["expr"] for rule in RULES}


EXPRESSIONS = dashboard_expressions() | rule_expressions()


def base_name(series: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", series)


def test_every_metric_that_is_queried_exists():
    known = header_names() | set(records()) | {"up"}
    asked = {(use.metric, name) for name, expression in EXPRESSIONS.items() for use in uses(expression)}
    missing = {f"{metric} ({name})" for metric, name in asked if not {metric, base_name(metric)} & known}
    assert not missing, "not in server/telemetry/metric_names.h: " + ", ".join(sorted(missing))


def test_every_metric_is_queried():
    """Each metric of the server is on the dashboard or in a rule, except for those that add nothing there."""
    used = {base_name(use.metric) for expression in EXPRESSIONS.values() for use in uses(expression)}
    assert header_names() - used == {"process_virtual_memory_bytes"}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_labels_exist_on_their_metrics(name):
    known = metric_labels() | records()
    for use in uses(EXPRESSIONS[name]):
        assert use.metric in known, f"{use.metric} is not in the table of server/telemetry/README.md"
        assert use.labels <= known[use.metric] | FROM_PROMETHEUS, f"{use.metric} has no label {', '.join(use.labels - known[use.metric] - FROM_PROMETHEUS)}"


def test_the_parser_of_expressions():
    found = uses('sum by (a, b) (rate(m_total{c=~"x{}()",d!="y"}[5m])) / on (a) group_left (e) max(n) > 2 * 1e3 and up == 1 unless p offset 5m')
    assert [(use.metric, use.labels, use.kept) for use in found] == [
        ("m_total", {"a", "b", "c", "d"}, {"a", "b"}), ("n", set(), None), ("up", set(), None), ("p", set(), None)
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------------------- rules


def test_promtool_accepts_the_rules():
    checked = run(program("promtool"), "check", "rules", ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_unit_tests_of_the_rules_pass():
    tested = run(program("promtool"), "test", "rules", UNIT_TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(("expression", "side"), [("vector(1) == 0", "exp"), ("up == up", "got")])
def test_unit_tests_notice_alerts_that_never_or_always_fire(expression, side, tmp_path):
    groups = yaml.safe_load(ALERTS.read_text())
    for rule in itertools.chain(*(group["rules"] for group in groups["groups"])):
        if "alert" in rule:
            rule["expr"] = expression
    (tmp_path / ALERTS.name).write_text(yaml.safe_dump(groups))
    (tmp_path / UNIT_TESTS.name).write_text(re.sub(r"rule_files: .*", f"rule_files: [{ALERTS.name}]", UNIT_TESTS.read_text()))
    tested = run(program("promtool"), "test", "rules", tmp_path / UNIT_TESTS.name)
    assert tested.returncode != 0
    lines = [line for line in (tested.stdout + tested.stderr).splitlines() if line.strip().startswith(f"{side}:")]
    assert set(re.findall(r'alertname="(\w+)"', "".join(lines))) == set(ALERT_NAMES)


def test_every_alert_fires_in_a_test_and_then_does_not():
    fires, silent = set(), set()
    for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        samples = [{sample["labels"] for sample in query.get("exp_samples", [])} for query in test["promql_expr_test"] if query["expr"].startswith("ALERTS")]
        fired = set().union(*samples)
        fires |= {re.search(r'alertname="(\w+)"', labels)[1] for labels in fired}
        silent |= {re.search(r'alertname="(\w+)"', labels)[1] for labels in fired if any(labels not in at_that_time for at_that_time in samples)}
    assert fires == silent == set(ALERT_NAMES)


@pytest.mark.parametrize("name", ALERT_NAMES)
def test_alerts_say_what_to_do(name):
    rule = next(rule for rule in RULES if rule.get("alert") == name)
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert all(len(text) > 20 for text in rule["annotations"].values())
    titles = {panel["title"] for panel in PANELS}
    runbook = rule["annotations"]["runbook"]
    assert set(re.findall(r'"([^"]+)"', runbook)) <= titles
    assert set(re.findall(r"Longembed\w+", runbook)) <= set(ALERT_NAMES)
    assert f"| `{name}` | {rule['labels']['severity']} |" in (PROMETHEUS / "README.md").read_text()


# ------------------------------------------------------------------------------------------------------------------------------- dashboard


def test_panels_have_ids_and_places_of_their_own():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= 24, panel["title"]
        for cell in itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_are_complete(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] and len(panel["description"]) > 10 and panel["targets"]
    assert {str(place["datasource"]["uid"]) for place in (panel, *panel["targets"])} == {"${datasource}"}
    known = metric_labels() | records()
    for target in panel["targets"]:
        found = uses(target["expr"].replace("$__rate_interval", "1m"))
        kept = set().union(*(use.kept if use.kept is not None else known.get(use.metric, set()) | FROM_PROMETHEUS for use in found))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, f"the legend names a label that {target['expr']} does not have"
        for use in found:
            if use.metric not in records():
                assert {"namespace", "job", "instance"} <= use.labels, f"{use.metric} does not filter by the variables"
                assert "model" not in known.get(use.metric, set()) or "model" in use.labels, f"{use.metric} does not filter by $model"


def test_failed_calls_are_those_of_the_rules():
    def matchers(expression: str) -> set[str]:
        return set(re.findall(r'(?:code|method)(?:=|!=|=~|!~)"[^"]*"', expression))

    record = next(rule["expr"] for rule in RULES if rule.get("record") == "longembed:server_errors:rate5m")
    panel = next(panel for panel in PANELS if panel["title"] == "Failed calls")
    assert len(matchers(record)) == 4 and matchers(record) == matchers(panel["targets"][0]["expr"])


def test_health_checks_are_left_out():
    """The names of their methods come from the source, which a rule cannot read."""
    sources = "".join((ROOT / name).read_text() for name in ("server/rpc/health.cc", "server/api/http/health_route.cc"))
    checks = set(re.findall(r'"((?:health|http)\.\w+)"', sources))
    assert checks == {"health.Check", "health.Watch", "http.Health"}
    titles = {"Calls a second", "Failed calls", "p99 of a call", "Duration of a call", "p99 by method", "Calls in flight"}
    panels = [target["expr"] for panel in PANELS for target in panel["targets"] if panel["title"] in titles]
    rules = [rule["expr"] for rule in RULES if "longembed_request" in rule["expr"]]
    for expression in panels + rules:
        patterns = re.findall(r'longembed_request\w+\{[^}]*method!~"([^"]+)"', expression)
        assert len(patterns) == len(re.findall(r"longembed_request\w+\{", expression))
        assert all(re.fullmatch(pattern, check) for pattern in patterns for check in checks), expression


def test_variables_are_declared():
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used - {"__rate_interval"} == declared == {"datasource", "namespace", "job", "instance", "model"}
    assert DASHBOARD["schemaVersion"] >= 36


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path):
    file = tmp_path / "queries.yaml"
    rules = [{"record": f"query:{i}", "expr": expression.replace("$", "x")} for i, expression in enumerate(dashboard_expressions().values())]
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    checked = run(program("promtool"), "check", "rules", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# -------------------------------------------------------------------------------------------------------------------------------- evaluate.py


class FakePrometheus(http.server.BaseHTTPRequestHandler):
    """Answers every query with one series of value 1, except queries that contain `empty` or `broken`."""

    empty = broken = "nothing"
    state = "inactive"

    def do_GET(self):
        status, answer = 200, {"data": {"result": [{"metric": {}, "value": [0, "1"]}]}}
        if self.path.startswith("/api/v1/rules"):
            rules = [{"name": "A", "type": "alerting", "health": "ok", "state": self.state, "query": 'up{job="longembed"} == 0'}]
            answer = {"data": {"groups": [{"name": "longembed.test", "rules": rules}]}}
        elif self.empty in self.path:
            answer = {"data": {"result": [{"metric": {}, "value": [0, "NaN"]}]}}
        elif self.broken in self.path:
            status, answer = 400, {"error": "parse error"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("settings", "arguments", "says"),
    [
        ({}, [], None),
        ({"empty": "longembed_tls"}, [], None),
        ({"empty": "longembed_memory_limit_bytes"}, [], None),
        ({"empty": "longembed_tls"}, ["--expect", "longembed_tls_reloads_total"], "Certificate reloads"),
        ({"empty": "longembed_tokens_total"}, [], "Tokens a second"),
        ({"broken": "process_threads"}, [], "Threads"),
        ({"state": "firing"}, [], "failed: A"),
    ],
)
def test_evaluate_fails_on_queries_without_data(settings, arguments, says, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # Nothing listens there, and a proxy could not reach this machine.
    handler = type("Handler", (FakePrometheus,), settings)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as prometheus:
        threading.Thread(target=prometheus.serve_forever, daemon=True).start()
        done = run(sys.executable, PROMETHEUS / "evaluate.py", "--prometheus", f"http://127.0.0.1:{prometheus.server_port}", *arguments)
        prometheus.shutdown()
    assert done.returncode == (1 if says else 0), done.stdout + done.stderr
    assert (says or "; 0 failed") in done.stdout.splitlines()[-1]


class NoPrometheus(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("answer", [b"\0\0\x06\x04\0\0\0\0\0\0\5\0\0@\0\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", None])
def test_evaluate_names_a_server_of_another_protocol(answer):
    """The first answer is that of gRPC's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection = listener.accept()[0]
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1] if answer else 'port'}"
        done = run(sys.executable, PROMETHEUS / "evaluate.py", "--prometheus", url)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {url} does not answer as Prometheus does: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("status", [200, 404, None])
def test_evaluate_names_a_server_that_is_not_prometheus(status):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (NoPrometheus,), {"status": status})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}" if status else "127.0.0.1:9"
        done = run(sys.executable, PROMETHEUS / "evaluate.py", "--prometheus", url)
        server.shutdown()
    assert done.returncode == 1 and done.stderr.startswith(f"error: {url} does not answer as Prometheus does: ") and done.stderr.count("\n") == 1, done.stderr


def test_evaluate_knows_only_metrics_that_exist():
    spec = importlib.util.spec_from_file_location("evaluate", PROMETHEUS / "evaluate.py")
    evaluate = importlib.util.module_from_spec(spec)
    sys.modules["evaluate"] = evaluate
    spec.loader.exec_module(evaluate)
    assert set(evaluate.MAY_BE_EMPTY) <= header_names()


# ------------------------------------------------------------------------------------------------------------------------------- balancers


def test_haproxy_accepts_its_config_without_a_warning():
    checked = run(program("haproxy"), "-c", "-f", HAPROXY)
    assert checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr


def test_envoy_config_has_the_same_addresses():
    cluster = yaml.safe_load(ENVOY.read_text())["static_resources"]["clusters"][0]
    endpoints = [entry["endpoint"] for entry in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    envoy = [(endpoint["address"]["socket_address"]["port_value"], endpoint["health_check_config"]["port_value"]) for endpoint in endpoints]
    haproxy = [(int(a), int(b)) for a, b in re.findall(r"REPLICA_\d-127.0.0.1:(\d+)\}\" port \"\$\{REPLICA_\d_HEALTH_PORT-(\d+)\}", HAPROXY.read_text())]
    assert envoy == haproxy and len(envoy) == 2


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Balancer:
    """HAProxy with our configuration in front of one server. The second replica does not exist."""

    def __init__(self, server, folder: Path):
        self.port, self.metrics_port, nobody = free_ports(3)
        health = re.search(r"health on port (\d+)", server.log.read_text())[1]
        variables = {"LISTEN": f"127.0.0.1:{self.port}", "METRICS_LISTEN": f"127.0.0.1:{self.metrics_port}", "REPLICA_1": f"127.0.0.1:{server.port}"}
        variables |= {"REPLICA_1_HEALTH_PORT": health, "REPLICA_2": f"127.0.0.1:{nobody}", "REPLICA_2_HEALTH_PORT": str(nobody)}
        self.log = folder / "haproxy.log"
        self.process = subprocess.Popen([program("haproxy"), "-f", HAPROXY], env=os.environ | variables, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def states(self) -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return dict(re.findall(r'^haproxy_server_status\{proxy="replicas",server="(.+?)",state="(\w+)"\} 1$', answer.read().decode(), re.MULTILINE))

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.states() == {"replica-1": "UP", "replica-2": "DOWN"}:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"HAProxy did not find the server: {self.log.read_text()}")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return generate_client(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def balancer(tmp_path_factory):
    program("haproxy")
    folder = tmp_path_factory.mktemp("balancer")
    server = start_server(folder, ["e5-small-v2"], extra="health_listen: 127.0.0.1:0\nchannelz: true\n")
    balancer = Balancer(server, folder)
    try:
        balancer.wait_until_ready()
        yield balancer
    finally:
        balancer.process.terminate()
        balancer.process.wait(timeout=30)
        assert server.stop() == 0


@pytest.fixture
def stub(balancer, client):
    with grpc.insecure_channel(f"127.0.0.1:{balancer.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield client[1].EmbeddingServiceStub(channel)


def embed(stub, client, metadata=()):
    return stub.Embed(client[0].EmbedRequest(inputs=[client[0].Input(text="hello")]), timeout=20, metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ([("x-note", "a" * 7000)], None),
        ([("x-note", "a" * 9000)], grpc.StatusCode.INVALID_ARGUMENT),
        ([("x-note", "a" * 40_000)], grpc.StatusCode.UNAVAILABLE),
        ([("x-note", "a" * 4_000_000)], grpc.StatusCode.UNAVAILABLE),
        ([(f"x-note-{i}", "a") for i in range(100)], grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["7 kB", "9 kB", "40 kB", "4 MB", "100 fields"],
)
def test_haproxy_keeps_huge_headers_away(stub, client, metadata, code):
    if code is None:
        assert embed(stub, client, metadata).results
    else:
        with pytest.raises(grpc.RpcError) as refused:
            embed(stub, client, metadata)
        assert refused.value.code() == code
    assert embed(stub, client).results


def test_haproxy_does_not_pass_on_channelz(balancer):
    with grpc.insecure_channel(f"127.0.0.1:{balancer.port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=10)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "not served here")


def test_haproxy_passes_on_nothing_but_grpc(balancer):
    request = urllib.request.Request(f"http://127.0.0.1:{balancer.port}/longembed.v1.EmbeddingService/Embed", data=b"0" * 5)
    for kind in ("application/json", "application/grpc"):  # Over HTTP/1.
        request.add_header("content-type", kind)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403


def test_streams_pass_haproxy_message_by_message(stub, client):
    """Each message is sent when the answer to the previous one has arrived, so HAProxy must not hold messages back to combine them."""
    answered = threading.Semaphore(0)

    def requests():
        for i in range(5):
            yield client[0].EmbedStreamRequest(id=str(i), input=client[0].Input(text="hello"))
            assert answered.acquire(timeout=20)

    ids = []
    for response in stub.EmbedStream(requests(), timeout=60):
        ids.append(response.id)
        answered.release()
    assert ids == ["0", "1", "2", "3", "4"]


def test_haproxy_refuses_a_call_whose_body_trickles_in(balancer):
    path, headers = b"/longembed.v1.EmbeddingService/Embed", b"\x01\x06health\x0f\x10\x10application/grpc\x00\x02te\x08trailers"
    block = b"\x83\x86\x04" + bytes([len(path)]) + path + headers
    with socket.create_connection(("127.0.0.1", balancer.port), timeout=30) as connection:
        connection.sendall(PREFACE + len(block).to_bytes(3, "big") + b"\1\4\0\0\0\1" + block)
        began, received = time.monotonic(), b""
        while b"408" not in received:
            part = connection.recv(65536)
            assert part, "the connection was closed without an answer"
            received += part
    assert 9 < time.monotonic() - began < 14


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")


def seconds_until_closed(port: int, *parts: bytes) -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        began = time.monotonic()
        for part in parts:
            connection.sendall(part)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return time.monotonic() - began


HALF_A_HEADER = bytes.fromhex("000048010400000001") + b"\x83"


@pytest.mark.parametrize("parts", [[], [PREFACE[:10]], [PREFACE, HALF_A_HEADER]], ids=["nothing", "half a preface", "half a header"])
def test_haproxy_closes_slow_connections(balancer, parts):
    assert 4 < seconds_until_closed(balancer.port, *parts) < 9


def test_haproxy_limits_connections_of_one_address(balancer, stub, client):
    refused, opened = 0, []
    try:
        for _ in range(130):
            try:
                connection = socket.create_connection(("127.0.0.1", balancer.port), timeout=10)
                opened.append(connection)
                connection.settimeout(0.02)
                refused += connection.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionResetError:
                refused += 1
    finally:
        for connection in opened:
            connection.close()
    assert 25 <= refused <= 70, f"{refused} of 130 connections were refused"
    # The limit on new connections covers the last 10 s. After that the address is accepted again.
    deadline = time.monotonic() + 25
    while True:
        try:
            assert embed(stub, client).results
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline, "an address is refused for longer than its flood"
            time.sleep(1)


# ---------------------------------------------------------------------------------------------------------------------------------- watch.sh


def test_watch_shows_data_in_every_panel():
    """Runs two replicas, HAProxy and Prometheus. See deploy/watch.sh."""
    for name in ("haproxy", "prometheus", "curl"):
        program(name)
    for built in (BUILD / "longembed-server", BUILD / "longembed", MODELS / "e5-small-v2"):
        if not built.exists():
            pytest.skip(f"{built.name} has not been built; run tests/run.sh")
    path = ":".join(folder for folder in os.environ["PATH"].split(":") if not folder.endswith("/sbin"))  # That of a user who is not root.
    environment = os.environ | {"LONGEMBED_BUILD": str(BUILD), "PATH": path}
    watched = run(ROOT / "deploy/watch.sh", "--seconds", "10", seconds=300, env=environment)
    print(watched.stdout, watched.stderr)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    asked, rules = re.search(r"^(\d+) queries of panels, .*; (\d+) rules; 0 failed$", watched.stdout, re.MULTILINE).groups()
    assert int(asked) == sum(len(panel["targets"]) for panel in PANELS) and int(rules) == len(RULES)
    noticed = float(re.search(r"the balancer noticed after ([\d.]+) s", watched.stderr)[1])
    assert noticed <= 5, "a drain.delay of 5 s would be too short"
    assert watched.stderr.count("; 0 not as expected") == 2
