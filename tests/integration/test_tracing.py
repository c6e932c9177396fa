"""Tests exported spans with a small OpenTelemetry collector, whose service is generated from OTLP's protos."""

import importlib
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent import futures

import grpc
import pytest

from running_server import ROOT, start_server

PARENT = "b7ad6b7169203331"
EMBED_PHASES = ["receive", "admission", "tokenize.wait", "tokenize", "queue", "inference", "finish"]


@pytest.fixture(scope="session")
def otlp(tmp_path_factory):
    """Returns the modules of OTLP's trace service: messages and service."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("otlp")
    files = sorted(str(file.relative_to(ROOT / "proto")) for file in (ROOT / "proto/opentelemetry").rglob("*.proto"))
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, str(out))
    service = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
    return importlib.import_module(service), importlib.import_module(f"{service}_grpc")


class Collector:
    """A collector that stores spans. It uses the given port, or a free one."""

    def __init__(self, otlp, port: int = 0):
        messages, services = otlp
        self.spans, self.resource, self.metadata, self.lock = [], {}, {}, threading.Lock()

        class Service(services.TraceServiceServicer):
            def Export(inner, request, context):  # noqa: N802, N805
                with self.lock:
                    self.metadata = dict(context.invocation_metadata())
                    for resource in request.resource_spans:
                        self.resource = attributes(resource.resource)
                        self.spans += [span for scope in resource.scope_spans for span in scope.spans]
                return messages.ExportTraceServiceResponse()

        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        services.add_TraceServiceServicer_to_server(Service(), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def trace(self, trace: str, name: str) -> tuple:
        """Waits for the span `name`. Returns it and all spans of its trace."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with self.lock:
                spans = [span for span in self.spans if span.trace_id.hex() == trace or not trace]
            found = [span for span in spans if span.name == name]
            if found:
                return found[0], spans
            time.sleep(0.05)
        raise AssertionError(f"no span {name} of trace {trace or '(any)'} came")


def attributes(holder) -> dict:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


def children(span, spans) -> list:
    return [child for child in spans if child.parent_span_id == span.span_id]


def assert_adds_up(parent, phases):
    assert parent.start_time_unix_nano <= phases[0].start_time_unix_nano
    for one, next_one in zip(phases, phases[1:]):
        assert one.start_time_unix_nano <= one.end_time_unix_nano == next_one.start_time_unix_nano
    assert phases[-1].end_time_unix_nano == parent.end_time_unix_nano


@pytest.fixture(scope="module")
def collector(otlp):
    running = Collector(otlp)
    yield running
    running.server.stop(None)


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector):
    """Starts a server that exports only the spans that its callers sample."""
    extra = f"http_listen: 127.0.0.1:0\ntracing: {{endpoint: 'http://127.0.0.1:{collector.port}', sample_ratio: 0, service_name: embed-test}}\n"
    running = start_server(tmp_path_factory.mktemp("traced"), ["e5-small-v2"], extra)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def traced_stub(traced, pb):
    with grpc.insecure_channel(f"127.0.0.1:{traced.port}") as channel:
        yield pb[1].EmbeddingServiceStub(channel)


def new_trace(number: int) -> tuple[str, list]:
    trace = f"{number:032x}"
    return trace, [("traceparent", f"00-{trace}-{PARENT}-01")]


def test_embed_has_its_phases_below_its_callers_span(traced, traced_stub, collector, pb):
    trace, metadata = new_trace(1)
    secret = "a text that nobody shall read"
    answer = traced_stub.Embed(pb[0].EmbedRequest(inputs=[{"text": secret}, {"text": "b"}]), metadata=metadata)
    span, spans = collector.trace(trace, "Embed")
    assert span.kind == 2 and span.parent_span_id.hex() == PARENT and span.status.code == 0
    found = attributes(span)
    tokens = sum(result.tokens for result in answer.results)
    assert found == {
        "rpc.system": "grpc", "rpc.method": "Embed", "rpc.grpc.status_code": 0, "gen_ai.request.model": answer.model, "gen_ai.usage.input_tokens": tokens,
        "longembed.inputs": 2, "longembed.sequences": 2, "longembed.truncated_tokens": 0, "longembed.method": "plain",
    }  # fmt: skip
    phases = children(span, spans)
    assert [phase.name for phase in phases] == EMBED_PHASES
    assert_adds_up(span, phases)
    assert abs(span.start_time_unix_nano / 1e9 - time.time()) < 60
    assert collector.resource["service.name"] == "embed-test" and collector.resource["service.version"]
    assert secret not in str(spans)


def test_a_caller_that_does_not_sample_gets_no_spans(traced_stub, collector, pb):
    unsampled, sampled = f"{2:032x}", f"{3:032x}"
    traced_stub.Embed(pb[0].EmbedRequest(inputs=[{"text": "a"}]), metadata=[("traceparent", f"00-{unsampled}-{PARENT}-00")])
    traced_stub.Embed(pb[0].EmbedRequest(inputs=[{"text": "a"}]))  # sample_ratio is 0.
    traced_stub.Embed(pb[0].EmbedRequest(inputs=[{"text": "a"}]), metadata=new_trace(3)[1])
    collector.trace(sampled, "Embed")
    assert all(span.trace_id.hex() != unsampled and span.parent_span_id for span in collector.spans)


def test_the_span_of_an_error_has_its_reason_alone(traced_stub, collector, pb):
    trace, metadata = new_trace(4)
    with pytest.raises(grpc.RpcError):
        traced_stub.Embed(pb[0].EmbedRequest(options={"model": "nobody's"}, inputs=[{"text": "a"}]), metadata=metadata)
    span, spans = collector.trace(trace, "Embed")
    found = attributes(span)
    assert span.status.code == 2 and span.status.message == "UNKNOWN_MODEL"
    assert found["rpc.grpc.status_code"] == 5 and found["error.type"] == "NOT_FOUND" and found["longembed.reason"] == "UNKNOWN_MODEL"
    assert [phase.name for phase in children(span, spans)] == ["receive"] and "nobody's" not in str(spans)


def test_a_stream_is_a_span_with_its_messages_below(traced_stub, collector, pb):
    trace, metadata = new_trace(5)
    requests = [pb[0].EmbedStreamRequest(id=str(i), input={"text": "a" if i != 1 else ""}) for i in range(3)]
    assert len(list(traced_stub.EmbedStream(iter(requests), metadata=metadata))) == 3
    stream, spans = collector.trace(trace, "EmbedStream")
    assert stream.parent_span_id.hex() == PARENT and attributes(stream)["longembed.messages"] == 3
    messages = children(stream, spans)
    assert [message.name for message in messages] == ["message"] * 3
    assert sum([phase.name for phase in children(message, spans)] == EMBED_PHASES for message in messages) == 2
    (failed,) = [message for message in messages if message.status.code == 2]  # The error is in the answer to the message, and the stream continues.
    assert failed.status.message == "EMPTY_INPUT" and stream.status.code == 0
    for message in messages:
        assert_adds_up(message, children(message, spans))


def test_explain_and_tokenize_only_tokenize(traced_stub, collector, pb):
    for number, name, call in [
        (6, "Explain", lambda metadata: traced_stub.Explain(pb[0].ExplainRequest(inputs=[{"text": "a"}]), metadata=metadata)),
        (7, "Tokenize", lambda metadata: traced_stub.Tokenize(pb[0].TokenizeRequest(texts=["a"]), metadata=metadata)),
    ]:
        trace, metadata = new_trace(number)
        call(metadata)
        span, spans = collector.trace(trace, name)
        assert [phase.name for phase in children(span, spans)] == ["receive", "tokenize.wait", "tokenize"]


def test_http_calls_are_spans(traced, collector):
    port = re.search(r"serving HTTP on port (\d+)", traced.log.read_text())[1]

    def post(trace: str, body: dict) -> int:
        headers = {"content-type": "application/json", "traceparent": f"00-{trace}-{PARENT}-01"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    good, bad = f"{8:032x}", f"{9:032x}"
    assert post(good, {"model": "e5-small-v2", "input": "a"}) == 200
    assert post(bad, {"model": "nobody's", "input": "a"}) == 404
    span, spans = collector.trace(good, "openai.Embeddings")
    found = attributes(span)
    assert span.parent_span_id.hex() == PARENT and found["http.request.method"] == "POST" and found["http.route"] == "/v1/embeddings"
    assert "rpc.system" not in found and [phase.name for phase in children(span, spans)] == EMBED_PHASES
    span, spans = collector.trace(bad, "openai.Embeddings")
    assert span.status.code == 2 and attributes(span)["longembed.reason"] == "UNKNOWN_MODEL"


def test_environment_variables_are_read_and_spans_are_flushed_at_the_end(tmp_path, otlp, pb, monkeypatch):
    collector = Collector(otlp)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc")
    server = start_server(tmp_path, ["e5-small-v2"], "log: {level: debug}\n")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        pb[1].EmbeddingServiceStub(channel).ListModels(pb[0].ListModelsRequest())
    assert server.stop() == 0
    (span,) = [span for span in collector.spans if span.name == "ListModels"]  # No wait is needed, because the server has ended.
    assert not span.parent_span_id and len(span.trace_id) == 16
    assert collector.resource["service.name"] == "from-the-environment" and collector.metadata["api-key"] == "abc"
    assert f'"trace_id":"{span.trace_id.hex()}"' in server.log.read_text()
    collector.server.stop(None)


def test_a_silent_collector_holds_up_neither_calls_nor_the_end(tmp_path, pb, monkeypatch):
    """The collector's port accepts connections but never answers. Its time limit is longer than that of the test."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = start_server(tmp_path, ["e5-small-v2"], f"tracing: {{endpoint: 127.0.0.1:{silent.getsockname()[1]}}}\n")
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = pb[1].EmbeddingServiceStub(channel)
            for _ in range(50):
                assert stub.Embed(pb[0].EmbedRequest(inputs=[{"text": "a"}]), timeout=30).results
        assert server.stop() == 0


def test_spans_that_no_collector_accepts_are_counted(tmp_path, pb, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = start_server(tmp_path, ["e5-small-v2"], f"tracing: {{endpoint: 127.0.0.1:{silent.getsockname()[1]}}}\n")
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            pb[1].EmbeddingServiceStub(channel).ListModels(pb[0].ListModelsRequest())
        deadline = time.monotonic() + 30
        dropped = "0"
        while dropped == "0" and time.monotonic() < deadline:
            time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as answer:
                dropped = re.search(r'longembed_spans_dropped_total{reason="export_failed"} (\d+)', answer.read().decode())[1]
        assert int(dropped) >= 2  # The call and its phase are dropped.
        assert server.stop() == 0
    assert "the collector did not accept them" in server.log.read_text()
