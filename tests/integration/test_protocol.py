"""Tests the server with a generic gRPC client: health, reflection, errors with details, deadlines, metrics and draining."""

import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from running_server import BUILD, MODELS, ROOT, await_log, start_server

sys.path.append(str(ROOT / "tests/operations"))
import http2_frames as h2  # noqa: E402

LONG = "the mill stands by the river " * 70  # About 420 tokens.


def details(error: grpc.RpcError) -> dict:
    """Returns the google.rpc details of an error, by type."""
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


def resident_bytes(server) -> float:
    return float(re.search(r"^process_resident_memory_bytes (\S+)", metrics(server), re.M)[1])


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


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection_answer_every_question(channel, version):
    ask = channel.stream_stream(  # The versions have the same messages.
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    type_ = "google.protobuf.MethodOptions"
    questions = {
        "list_services": {"list_services": ""},
        "file": {"file_by_filename": "longembed/v1/embedding.proto"},
        "symbol": {"file_containing_symbol": "longembed.v1.EmbeddingService.Embed"},
        "extension": {"file_containing_extension": {"containing_type": type_, "extension_number": 1}},
        "extensions": {"all_extension_numbers_of_type": type_},
        "no file": {"file_by_filename": "none.proto"},
        "no type": {"all_extension_numbers_of_type": "none.Type"},
        "nothing": {},
    }
    answers = list(ask(reflection_pb2.ServerReflectionRequest(host="h", **question) for question in questions.values()))
    found = dict(zip(questions, answers, strict=True))
    assert all(answer.valid_host == answer.original_request.host == "h" for answer in answers)
    services = {service.name for service in found["list_services"].list_services_response.service}
    assert services == {f"grpc.reflection.{v}.ServerReflection" for v in ("v1", "v1alpha")} | {
        "grpc.health.v1.Health", "longembed.v1.EmbeddingService", "tei.v1.Info", "tei.v1.Embed", "tei.v1.Tokenize", "tei.v1.Predict", "tei.v1.Rerank"
    }  # fmt: skip
    for name in ("file", "symbol"):
        files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in found[name].file_descriptor_response.file_descriptor_proto]
        assert files[0].name == "longembed/v1/embedding.proto"
        assert {imported for file in files for imported in file.dependency} <= {file.name for file in files}
    assert list(found["extensions"].all_extension_numbers_response.extension_number) == []
    codes = {name: found[name].error_response.error_code for name in ("extension", "no file", "no type", "nothing")}
    assert codes == {"extension": 5, "no file": 5, "no type": 5, "nothing": 3}
    assert "none.proto" in found["no file"].error_response.error_message


def test_reflection_takes_no_large_or_unknown_fields(channel):
    call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    for message, words in ((b"\x7a\x00" * (4 << 20), "limit"), (b"\x7a\x00", "15"), (b"\x1a\x85\x27" + b"x" * 5000, "limit")):
        with pytest.raises(grpc.RpcError) as error:
            list(call(iter([message]), timeout=20))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and words in error.value.details(), error.value


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
def test_invalid_raw_bytes_are_refused_with_a_reason(channel, payload, reason, said):
    call = channel.unary_unary("/longembed.v1.EmbeddingService/Embed")
    with pytest.raises(grpc.RpcError) as error:
        call(payload)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in error.value.details()
    assert details(error.value)[error_details_pb2.ErrorInfo].reason == reason


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_refused_before_they_are_inflated(server, channel, stub, pb, compression):
    before = resident_bytes(server)
    for method in ("/longembed.v1.EmbeddingService/Embed", "/grpc.health.v1.Health/Check", "/tei.v1.Embed/Embed"):
        with pytest.raises(grpc.RpcError) as error:
            # The client's own limit applies to the compressed length, like the server's.
            channel.unary_unary(method)(bytes(200 << 20), timeout=120, compression=compression)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "disabled" in error.value.details()
    assert resident_bytes(server) - before < 100 << 20
    assert stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="as it is")])).results


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


def test_a_call_that_is_late_in_a_long_queue_never_reaches_the_model(server, stub, pb):
    before = embedded_inputs(server)
    crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 8)
    waiting = [stub.Embed.future(crowd) for _ in range(3)]
    time.sleep(0.3)
    with pytest.raises(grpc.RpcError) as error:
        stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="late")] * 7), timeout=0.001)
    # The deadline expires by the client's own clock, or the server refuses the call before, because it would be late.
    assert error.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    for future in waiting:
        future.result(timeout=300)
    assert embedded_inputs(server) - before == 24


def test_calls_beyond_their_deadline_are_not_counted_as_cancelled(server, stub, pb):
    def count(code: str) -> float:
        lines = (line for line in metrics(server).splitlines() if line.startswith("longembed_requests_total{"))
        return sum(float(line.split()[-1]) for line in lines if f'code="{code}",method="Embed"' in line)

    before = {code: count(code) for code in ("CANCELLED", "DEADLINE_EXCEEDED")}
    new = lambda code: count(code) - before[code]  # noqa: E731
    for _ in range(40):
        # Each is alone in the queue, so it is admitted whatever its size. On a busy machine a call may end before the server has read it.
        with pytest.raises(grpc.RpcError) as error:
            stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 64), timeout=0.3)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        while 'longembed_queue_tokens{model="e5-small-v2"} 0' not in metrics(server):
            time.sleep(0.05)
        if new("DEADLINE_EXCEEDED") + new("CANCELLED") >= 5:
            break
    # The client's reset may arrive long before the server's own deadline if the request was on its way for long.
    assert new("DEADLINE_EXCEEDED") >= 4 and new("CANCELLED") <= 1, (new("DEADLINE_EXCEEDED"), new("CANCELLED"))


def test_cancelled_calls_leave_the_queue(server, stub, pb):
    before = embedded_inputs(server)
    crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 32)
    waiting = [stub.Embed.future(crowd) for _ in range(4)]
    time.sleep(0.3)
    for future in waiting:
        future.cancel()
    stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="next")]))
    # The calls were well over ten seconds of work. None of it was finished, neither of waiting calls nor of running ones.
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


@pytest.mark.parametrize("name", ["e5-small-v2", "SmolLM2-135M-Instruct"])
def test_long_texts_are_cut_where_it_changes_no_token(tmp_path, pb, name):
    from tokenizers import Tokenizer

    rng = random.Random(3)
    words = (ROOT / "model/export/texts.txt").read_text(encoding="utf-8").split()
    words += ["3.14", "1234567", "it's", "[SEP]", "[MASK]", "<|im_start|>", "e\u0301", "\ufdfa", "\U0001f600", "don't", "x" * 300]
    seams = [" "] * 20 + ["  ", "\n", " \n", "\t", "\u00a0", "\u3000", ""]
    text = "".join(rng.choice(words) + rng.choice(seams) for _ in range(60_000))
    assert len(text.encode()) > 5 * 65536  # The text spans several pieces.
    server = start_server(tmp_path, [name])
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.max_receive_message_length", -1)]) as channel:
        request = pb[0].TokenizeRequest(texts=[text], add_special_tokens=False)
        tokens = pb[1].EmbeddingServiceStub(channel).Tokenize(request, timeout=60).results[0].tokens
    assert server.stop() == 0
    expected = Tokenizer.from_file(str(MODELS / name / "tokenizer.json")).encode(text, add_special_tokens=False)
    assert [token.id for token in tokens] == expected.ids
    assert [(token.range.start, token.range.end) for token in tokens] == expected.offsets


def test_explain_says_what_embed_does(stub, pb):
    options = pb[0].EmbedOptions(prompt_name="passage", truncate=pb[0].EmbedOptions.END)
    inputs = [pb[0].Input(text="short"), pb[0].Input(text=LONG * 2)]
    explained = stub.Explain(pb[0].ExplainRequest(options=options, inputs=inputs))
    embedded = stub.Embed(pb[0].EmbedRequest(options=options, inputs=inputs))
    assert explained.recipe == embedded.recipe and explained.prompt == embedded.prompt == "passage: "
    for plan, result in zip(explained.results, embedded.results, strict=True):
        assert (plan.tokens, plan.truncated_tokens) == (result.tokens, result.truncated_tokens)
        assert list(plan.sequences) == list(result.sequences)
        # Linear layers have 21.3 M weights with two operations each. Attention covers n * n pairs.
        n = plan.tokens
        expected = 2 * 21_233_664 * n + 12 * 4 * 384 * n * n
        assert plan.cost.gflop == pytest.approx(expected * 1e-9)


def test_a_prompt_counts_for_every_input(stub, pb):
    """A call of 17 KB that tokenizes 16 MB is known to take seconds, before it takes them."""
    options = pb[0].EmbedOptions(prompt="a " * 8192)
    request = pb[0].ExplainRequest(options=options, inputs=[pb[0].Input(text="a")] * 1024)
    with pytest.raises(grpc.RpcError) as error:
        stub.Explain(request, timeout=0.3)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error.value)[error_details_pb2.ErrorInfo].reason == "DEADLINE_TOO_SHORT"


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
    texts = {f"id {i}": f"text number {i} of a corpus, " * (1 + i % 20) for i in range(60)}
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


def test_a_stream_ends_with_unavailable_when_the_server_drains(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        more = threading.Event()

        def messages():
            for i in range(16):
                yield pb[0].EmbedStreamRequest(id=str(i), input=pb[0].Input(text=LONG))
            more.wait(60)  # The stream stays open, with nothing to do.

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
    assert time.monotonic() - started < 60  # Less than drain.timeout, which is 75 s.


@pytest.mark.parametrize("what", ["Health.Watch", "reflection"])
def test_idle_streams_of_grpcs_packages_do_not_hold_up_the_end(tmp_path, what):
    running = start_server(tmp_path, ["e5-small-v2"])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        end = threading.Event()

        def questions():
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            end.wait(60)

        if what == "reflection":
            stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(questions())
        else:
            stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(stream)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 60  # Less than drain.timeout, which is 75 s.
        end.set()


def test_a_second_signal_ends_the_drain(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"], "drain: {timeout: 10m}\n")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        crowd = pb[0].EmbedRequest(inputs=[pb[0].Input(text=LONG)] * 1000)
        admitted = stub.Embed.future(crowd)
        time.sleep(1)
        running.process.send_signal(signal.SIGTERM)
        await_log(running.log, "draining")
        time.sleep(1)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == 0
        assert admitted.exception(timeout=10).code() == grpc.StatusCode.UNAVAILABLE
    assert "by a second signal" in running.log.read_text()


def test_a_second_signal_ends_the_delay(tmp_path):
    running = start_server(tmp_path, ["e5-small-v2"], "drain: {delay: 10m}\n")
    running.process.send_signal(signal.SIGINT)
    await_log(running.log, "draining")
    assert running.stop() == 0


def test_a_signal_while_models_load_is_obeyed(tmp_path):
    config = tmp_path / "config.yaml"
    models = "".join(f"  - {{path: {MODELS / 'e5-small-v2'}, name: number {i}}}\n" for i in range(20))
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\nmodels:\n{models}")
    log = tmp_path / "server.log"
    process = subprocess.Popen([BUILD / "longembed-server", "--config", config], stderr=log.open("w"))
    await_log(log, "model ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert "stopped before serving" in log.read_text()
    assert log.read_text().count("model ready") < 20


# Scrapes metrics while models are loaded and, since the last one cannot be loaded, are removed again.
def test_scrapes_do_no_harm_while_models_load(tmp_path):
    config = tmp_path / "config.yaml"
    models = "".join(f"  - {{path: {MODELS / 'e5-small-v2'}, name: number {i}}}\n" for i in range(4))
    (tmp_path / "longembed-model.yaml").write_bytes((MODELS / "e5-small-v2/longembed-model.yaml").read_bytes())  # Without the other files.
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\nmodels:\n{models}  - {{path: {tmp_path}}}\n")
    log = tmp_path / "server.log"
    process = subprocess.Popen([BUILD / "longembed-server", "--config", config], stderr=log.open("w"))
    await_log(log, "metrics on port")
    server, seen = SimpleNamespace(metrics_port=int(re.search(r"metrics on port (\d+)", log.read_text())[1])), set()
    while process.poll() is None:
        try:
            seen.update(re.findall(r'longembed_queue_jobs{model="(number \d)"}', metrics(server)))
        except OSError:
            break  # The server ends.
    assert process.wait(timeout=60) == 1
    assert str(tmp_path) in log.read_text()
    assert seen == {f"number {i}" for i in range(4)}


def test_the_server_needs_no_reader_of_its_log(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: ''\nmodels: [{{path: {MODELS / 'e5-small-v2'}}}]\n")
    process = subprocess.Popen([BUILD / "longembed-server", "--config", config], stderr=subprocess.PIPE)
    process.stderr.close()
    time.sleep(5)  # By then the server has written a line or two.
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def test_keys_are_reloaded_without_calls(tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: [{name: a, key: first}]")
    running = start_server(tmp_path, ["e5-small-v2"], f"api_keys: {keys}\n")
    keys.write_text("keys: [{name: a, key: second}]")
    await_log(running.log, '"event":"reloaded","what":"api_keys"')
    keys.write_text("keys: [")
    await_log(running.log, '"event":"reload failed')
    assert 'longembed_api_key_reloads_total{result="refused"} 1' in metrics(running)
    assert 'longembed_queue_wait_limit_seconds{model="e5-small-v2"} 10' in metrics(running)
    assert running.stop() == 0


def test_a_broken_config_is_reported_and_changes_nothing(tmp_path, pb):
    running = start_server(tmp_path, ["e5-small-v2"], "log: {level: info}\n")
    config = tmp_path / "config.yaml"
    good = config.read_text()
    config.write_text(good.replace("level: info", "level: loud"))
    await_log(running.log, "config reload failed")
    assert "log.level must be one of" in running.log.read_text()
    assert "config reloaded" not in running.log.read_text()
    # The last message at the old level announces the change.
    config.write_text(good.replace("level: info", "level: error"))
    await_log(running.log, '"in_force":"log.level"')
    assert running.stop() == 0
    assert "draining" not in running.log.read_text()


def test_a_number_beyond_its_type_is_refused(channel, pb):
    """Protobuf would cut 2^32 + 4 to 4."""
    beyond = b"\x84\x80\x80\x80\x10"
    max_tokens, ids = b"\x0a\x06\x78" + beyond + b"\x12\x05\x0a\x03a b", b"\x12\x09\x12\x07\x0a\x05" + beyond
    assert pb[0].EmbedRequest.FromString(max_tokens).options.max_tokens == pb[0].EmbedRequest.FromString(ids).inputs[0].token_ids.ids[0] == 4
    for request, field in ((max_tokens, "options: "), (ids, "inputs[0].token_ids: ")):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/longembed.v1.EmbeddingService/Embed")(request)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and error.value.details().startswith(field)
        assert details(error.value)[error_details_pb2.ErrorInfo].reason == "UNKNOWN_FIELD"


def test_a_streamed_answer_that_is_too_large_fails_alone(tmp_path, pb):
    """Its 680 vectors of 1,536 bytes are within the limit, and the message around them is not."""
    messages, stubs = pb
    running = start_server(tmp_path, ["e5-small-v2"], "limits: {max_response_bytes: 1048576}\n")
    options = {"output": "SPAN_VECTORS", "spans": {"every_tokens": {"tokens": 1}}, "extension": {"windows": {"tokens": 64}}}
    texts = {"before": "hi", "large": "a " * 680, "after": "hi"}
    requests = [messages.EmbedStreamRequest(id=name, input=messages.Input(text=text)) for name, text in texts.items()]
    requests[0].options.CopyFrom(messages.EmbedOptions(**options))
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        answers = {answer.id: answer.result for answer in stubs.EmbeddingServiceStub(channel).EmbedStream(iter(requests), timeout=60)}
    assert running.stop() == 0
    assert "the limit per answer is 1048576" in answers.pop("large").error.message
    assert [len(answer.embeddings) for answer in answers.values()] == [1, 1]


def test_an_unknown_method_is_named(channel):
    """gRPC itself would say nothing."""
    for path in ("/longembed.v1.EmbeddingService/EmbedAll", "/longembed.v2.EmbeddingService/Embed", "/grpc.health.v1.Health/List"):
        calls = [lambda path=path: channel.unary_unary(path)(b""), lambda path=path: list(channel.stream_stream(path)(iter([b""] * 3)))]
        for call in calls:
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED and path in error.value.details()
            assert details(error.value)[error_details_pb2.ErrorInfo].reason == "UNKNOWN_METHOD"


def test_unimplemented_calls_are_counted(server, channel):
    for method in ("Predict/PredictPair", "Rerank/Rerank", "Embed/EmbedSparse"):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/tei.v1.{method}")(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert details(error.value)[error_details_pb2.ErrorInfo].reason == "NOT_OFFERED"
    with pytest.raises(grpc.RpcError):
        channel.stream_unary("/tei.v1.Rerank/RerankStream")(iter([]))
    for method in ("PredictPair", "Rerank", "RerankStream", "EmbedSparse"):
        assert f'longembed_requests_total{{code="UNIMPLEMENTED",method="tei.{method}",model=""}}' in metrics(server)


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
        assert "no method /longembed.v1.EmbeddingService/ListModels" in error.value.details()
    assert running.stop() == 0


def open_idle_stream(channel: grpc.Channel, ended: threading.Event):
    """Opens an EmbedStream that sends nothing until `ended` is set."""

    def messages():
        ended.wait(timeout=60)
        yield from ()

    plain = {"request_serializer": bytes, "response_deserializer": bytes}
    return channel.stream_stream("/longembed.v1.EmbeddingService/EmbedStream", **plain)(messages())


def held_bytes(server, kind: str) -> float:
    return float(re.search(rf'^longembed_held_bytes{{kind="{kind}"}} (\S+)', metrics(server), re.M)[1])


def test_a_health_check_is_answered_though_memory_is_full(tmp_path):
    """Otherwise the kubelet would restart a server because it is busy."""
    limits = "limits: {max_pending_bytes: 20000}\nhttp_listen: 127.0.0.1:0\n"
    server, ended = start_server(tmp_path, ["e5-small-v2"], limits), threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stream = open_idle_stream(channel, ended)  # Holds more than the limit.
        deadline = time.monotonic() + 30
        while held_bytes(server, "calls") < 20000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/health", timeout=30) as answer:
            assert answer.status == 200
        stream.cancel()
        ended.set()
    assert server.stop() == 0


def test_a_body_for_the_health_route_counts_as_memory(tmp_path):
    """The route needs no key, and it is answered even if memory is full. So the largest body that it takes must not be free."""
    server = start_server(tmp_path, ["e5-small-v2"], "http_listen: 127.0.0.1:0\n")
    size = 16 << 10
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(size // 2))
        deadline = time.monotonic() + 4  # The server waits for each piece of the body for 5 s.
        while held_bytes(server, "requests") < size and time.monotonic() < deadline:
            time.sleep(0.05)
        assert held_bytes(server, "requests") >= size
    assert server.stop() == 0


def test_an_idle_stream_ends_at_its_age(tmp_path):
    """Otherwise a key that was revoked would work on idle streams as long as their clients like."""
    server, ended = start_server(tmp_path, ["e5-small-v2"], "connections: {max_age: 1s}\n"), threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stream = open_idle_stream(channel, ended)
        threading.Timer(10, ended.set).start()
        with pytest.raises(grpc.RpcError) as error:
            next(stream)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE, error.value
    assert details(error.value)[error_details_pb2.ErrorInfo].reason == "STREAM_TOO_OLD"
    assert server.stop() == 0


@pytest.mark.parametrize("timeout", ["1H", "2562048H", "3000000H", "99999999H"])
def test_a_timeout_of_centuries_is_no_limit(server, pb, timeout):
    """Clients send the longest timeout for "never"; gRPC's headers allow eight digits."""
    request = pb[0].EmbedRequest(inputs=[pb[0].Input(text="a")]).SerializeToString()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(h2.PREFACE + h2.settings() + h2.unary_call(1, "/longembed.v1.EmbeddingService/Embed", request, {"grpc-timeout": timeout}))
        received = b""
        while b"e5-small-v2" not in received:  # The model's name in the answer.
            more = plain.recv(1 << 16)
            received += more
            assert more and len(received) < 1 << 16, received
