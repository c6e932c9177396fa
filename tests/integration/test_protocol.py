"""What a client that we did not write sees: health, reflection, errors with details, deadlines, metrics, draining."""

import re
import signal
import threading
import time
import urllib.request

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from running_server import MODELS, start_server

LONG = "the mill stands by the river " * 70  # About 420 tokens.


def details(error: grpc.RpcError) -> dict:
    """The google.rpc details of an error, by type."""
    status = status_pb2.Status()
    status.ParseFromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    found = {}
    for any_detail in status.details:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            message = kind()
            if any_detail.Unpack(message):
                found[kind] = message
    return found


def metrics(server) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10) as response:
        return response.read().decode()


def test_health_answers_for_the_server_and_the_service(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "longembed.v1.EmbeddingService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="longembed.v1.Nothing"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_every_service(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert {"longembed.v1.EmbeddingService", "grpc.health.v1.Health"} <= services
    described = database.FindFileContainingSymbol("longembed.v1.EmbeddingService").service[0]
    methods = {method.name for method in described.method}
    assert methods == {"Embed", "EmbedStream", "Explain", "Tokenize", "ListModels", "GetModel"}
    assert database.FindFileContainingSymbol("grpc.health.v1.Health").service[0].name == "Health"


def test_errors_carry_details(stub, pb):
    request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="fine"), pb[0].Input(text=LONG * 3)])
    with pytest.raises(grpc.RpcError) as error:
        stub.Embed(request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs[1]" in error.value.details() and "512" in error.value.details()
    found = details(error.value)
    assert found[error_details_pb2.BadRequest].field_violations[0].field == "inputs[1]"
    assert found[error_details_pb2.ErrorInfo].reason == "INPUT_TOO_LONG"


@pytest.mark.parametrize(
    ("payload", "reason", "said"),
    [
        (b"\x12\x05\x0a\x03ab\xff", "INVALID_UTF8", "inputs[0].text"),
        (b"\xff\xff\xff\xff", "MALFORMED_REQUEST", "EmbedRequest"),
        (b"\x12\x7f", "MALFORMED_REQUEST", "EmbedRequest"),
        (b"", "NO_INPUTS", "inputs"),
    ],
)
def test_raw_bytes_get_an_answer_with_words(channel, payload, reason, said):
    call = channel.unary_unary("/longembed.v1.EmbeddingService/Embed")
    with pytest.raises(grpc.RpcError) as error:
        call(payload)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in error.value.details()
    assert details(error.value)[error_details_pb2.ErrorInfo].reason == reason


def test_a_million_empty_strings_are_refused(stub, pb):
    request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="")] * 1_000_000)
    with pytest.raises(grpc.RpcError) as error:
        stub.Embed(request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "1000000" in error.value.details()


def test_unknown_model_is_not_found(stub, pb):
    with pytest.raises(grpc.RpcError) as error:
        stub.GetModel(pb[0].GetModelRequest(model="e6"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert "e5-small-v2" in error.value.details()


def embedded_inputs(server) -> float:
    return float(next(line.split()[-1] for line in metrics(server).splitlines() if line.startswith("longembed_inputs_total{")))


def test_a_deadline_on_a_long_queue_never_reaches_the_model(server, stub, pb):
    before = embedded_inputs(server)
    crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 16)
    waiting = [stub.Embed.future(crowd) for _ in range(3)]
    time.sleep(0.3)
    with pytest.raises(grpc.RpcError) as error:
        stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="hurry")] * 7), timeout=0.001)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for future in waiting:
        future.result(timeout=300)
    assert embedded_inputs(server) - before == 48


def test_cancelled_calls_leave_the_queue(server, stub, pb):
    before = embedded_inputs(server)
    crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 32)
    waiting = [stub.Embed.future(crowd) for _ in range(4)]
    time.sleep(0.3)
    for future in waiting:
        future.cancel()
    stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="next")]))
    # Of the crowd, well over ten seconds of work, nothing was finished: not what waited, nor what ran.
    assert embedded_inputs(server) - before == 1
    deadline = time.monotonic() + 30
    while 'longembed_queue_tokens{model="e5-small-v2"} 0' not in metrics(server):
        assert time.monotonic() < deadline, "cancelled work is still in the queue"
        time.sleep(0.05)


def test_metrics_count_calls_by_method_and_status(server, stub, pb):
    stub.Tokenize(pb[0].TokenizeRequest(texts=["hello"]))
    text = metrics(server)
    assert 'longembed_requests_total{code="OK",method="Tokenize",model="e5-small-v2"}' in text
    assert "longembed_batch_tokens_bucket" in text
    assert "process_resident_memory_bytes" in text


def test_tokenize_matches_the_tokenizers_library(stub, pb):
    from tokenizers import Tokenizer

    texts = ["Grüße aus 東京 🙂!", "unbelievable", ""]
    tokenizer = Tokenizer.from_file(str(MODELS / "e5-small-v2" / "tokenizer.json"))
    results = stub.Tokenize(pb[0].TokenizeRequest(texts=texts)).results
    for text, result in zip(texts, results, strict=True):
        expected = tokenizer.encode(text)
        assert [token.id for token in result.tokens] == expected.ids
        assert [token.text for token in result.tokens] == expected.tokens
        ranges = [(token.range.start, token.range.end) for token in result.tokens if not token.special]
        assert ranges == [offset for offset, special in zip(expected.offsets, expected.special_tokens_mask) if not special]


def test_explain_says_what_embed_does(stub, pb):
    options = pb[0].EmbedOptions(prompt_name="passage", truncate=pb[0].EmbedOptions.END)
    inputs = [pb[0].Input(text="short"), pb[0].Input(text=LONG * 2)]
    explained = stub.Explain(pb[0].ExplainRequest(options=options, inputs=inputs))
    embedded = stub.Embed(pb[0].EmbedRequest(options=options, inputs=inputs))
    assert explained.recipe == embedded.recipe and explained.prompt == embedded.prompt == "passage: "
    for plan, result in zip(explained.results, embedded.results, strict=True):
        assert (plan.tokens, plan.truncated_tokens) == (result.tokens, result.truncated_tokens)
        assert list(plan.sequences) == list(result.sequences)
        # 21.3 M weights in linear layers, two operations each, and attention over n * n pairs.
        n = plan.tokens
        expected = 2 * 21_233_664 * n + 12 * 4 * 384 * n * n
        assert plan.cost.gflop == pytest.approx(expected * 1e-9)


def test_several_models_in_one_server(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2", "bge-small-en-v1.5"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="which of the two?")])
        with pytest.raises(grpc.RpcError) as error:
            stub.Embed(request)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        vectors = {}
        for name in ("e5-small-v2", "bge-small-en-v1.5"):
            request.options.model = name
            vectors[name] = tuple(stub.Embed(request).results[0].embeddings[0].values)
        assert len(set(vectors.values())) == 2
    assert running.stop() == 0


def test_sigterm_finishes_what_was_admitted(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        admitted = stub.Embed.future(pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 24))
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        assert len(admitted.result(timeout=120).results) == 24
    assert running.process.wait(timeout=60) == 0
    assert "drained" in running.log.read_text()


def test_many_clients_at_once(server, pb):
    texts = [f"client {i} asks about {i * 37 % 11} things" for i in range(8)]
    failures = []

    def client(text):
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = pb[1].EmbeddingServiceStub(channel)
            request = pb[0].EmbedRequest(inputs=[pb[0].Input(text=text)])
            first = list(stub.Embed(request).results[0].embeddings[0].values)
            for _ in range(10):
                again = list(stub.Embed(request).results[0].embeddings[0].values)
                if max(abs(a - b) for a, b in zip(first, again)) > 1e-5:
                    failures.append(text)

    threads = [threading.Thread(target=client, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_embed_stream_answers_what_embed_does(stub, pb):
    texts = {f"id {i}": f"text number {i} of a corpus, " * (1 + i % 40) for i in range(120)}
    options = pb[0].EmbedOptions(prompt_name="passage", truncate=pb[0].EmbedOptions.END)

    def messages():
        for i, (id_, text) in enumerate(texts.items()):
            yield pb[0].EmbedStreamRequest(id=id_, input=pb[0].Input(text=text), options=options if i == 0 else None)

    answers = {answer.id: answer for answer in stub.EmbedStream(messages())}
    assert set(answers) == set(texts)
    unary = stub.Embed(pb[0].EmbedRequest(options=options, inputs=[pb[0].Input(text=text) for text in texts.values()]))
    for id_, expected in zip(texts, unary.results, strict=True):
        result = answers[id_].result
        cosine = sum(a * b for a, b in zip(result.embeddings[0].values, expected.embeddings[0].values, strict=True))
        assert cosine > 0.999999
        assert (result.tokens, list(result.sequences)) == (expected.tokens, list(expected.sequences))
        assert answers[id_].recipe == unary.recipe and answers[id_].prompt == "passage: "


def test_a_stream_is_told_to_go_elsewhere_when_the_server_drains(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        more = threading.Event()

        def messages():
            for i in range(40):
                yield pb[0].EmbedStreamRequest(id=str(i), input=pb[0].Input(text=LONG))
            more.wait(60)  # An open stream with nothing to do.

        answers = pb[1].EmbeddingServiceStub(channel).EmbedStream(messages())
        first = next(answers).id
        running.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        rest = []
        with pytest.raises(grpc.RpcError) as error:
            rest.extend(answer.id for answer in answers)
        more.set()
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len({first, *rest}) == 1 + len(rest)
    assert running.process.wait(timeout=60) == 0
    assert time.monotonic() - started < 25  # Not drain.timeout, which is 30 s.


def test_the_log_level_changes_while_the_server_runs(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"], "log: {level: info}\n")
    config = tmp_path / "config.yaml"
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="a secret of the client's")])
        stub.Embed(request)
        assert '"event":"call"' not in running.log.read_text()
        config.write_text(config.read_text().replace("level: info", "level: debug"))
        trace = "0af7651916cd43dd8448eb211c80319c"
        deadline = time.monotonic() + 20
        while '"event":"call"' not in running.log.read_text():
            assert time.monotonic() < deadline, running.log.read_text()
            stub.Embed(request, metadata=[("traceparent", f"00-{trace}-b7ad6b7169203331-01")])
            time.sleep(0.1)
    assert running.stop() == 0
    assert f'"trace_id":"{trace}"' in running.log.read_text()
    assert "secret" not in running.log.read_text()


def test_health_has_a_port_of_its_own(tmp_path):
    running = start_server(tmp_path, ["e5-small-v2"], "health_listen: 127.0.0.1:0\n")
    port = int(re.search(r"health on port (\d+)", running.log.read_text())[1])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "longembed.v1.EmbeddingService", "longembed.liveness"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/longembed.v1.EmbeddingService/ListModels")(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert running.stop() == 0
