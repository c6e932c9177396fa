"""Tests Client and AsyncClient against a real server. Results are compared with those of a client that protoc generates, in the same process."""

import asyncio
import hashlib
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests/integration"), str(ROOT / "tests/operations")]

from generated_client import generate_client  # noqa: E402
from longembed import TLS, AsyncClient, Client, Input, InvalidArgument, LongEmbedError, NotFound, Options, Unauthenticated  # noqa: E402
from longembed.channel import is_local  # noqa: E402
from running_server import start_server  # noqa: E402

LONG = " ".join(f"Sentence number {i} tells of the {word}." for i in range(60) for word in ("river", "mountain", "harbor"))
TEXTS = ["how long is the Nile?", "Grüße aus 東京 🙂", LONG]
WINDOWS = {"windows": {"tokens": 128}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = start_server(tmp_path_factory.mktemp("client"), ["e5-small-v2"], extra="profiles: {archive: {windows: {tokens: 64}}}\n")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with Client(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture(scope="module")
def generated(server, tmp_path_factory):
    """Returns protoc's (messages, stub), in the default descriptor pool."""
    pb, pb_grpc = generate_client(tmp_path_factory.mktemp("generated"))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield pb, pb_grpc.EmbeddingServiceStub(channel)


def plain_answer(generated, **options):
    pb, stub = generated
    extension = {"windows": pb.Extension.Windows(tokens=128)}
    request = pb.EmbedRequest(options=pb.EmbedOptions(extension=pb.Extension(**extension), **options), inputs=[pb.Input(text=text) for text in TEXTS])
    return stub.Embed(request, timeout=60)


def test_one_vector_a_text(client, generated):
    expected = plain_answer(generated, prompt_name="query")
    found = client.embed(TEXTS, prompt_name="query", extension=WINDOWS)
    np.testing.assert_allclose(found.matrix(), [result.embeddings[0].values for result in expected.results], atol=1e-6)
    assert (found.model, found.prompt, found.recipe) == (expected.model, "query: ", expected.recipe)
    assert [e.tokens for e in found] == [result.tokens for result in expected.results]
    assert [len(e.sequences) for e in found] == [1, 1, len(expected.results[2].sequences)] and len(found[2].sequences) > 5
    assert found.timing.total > 0 and found.timing.inference > 0
    assert found.matrix().dtype == np.float32 and found[0].vector.shape == (384,)


def test_the_extension_may_be_json_text_and_the_default_options_an_object(client):
    options = Options(prompt_name="query", extension='{"windows": {"tokens": 128}}')
    assert client.embed([LONG], options).recipe == client.embed([LONG], prompt_name="query", extension=WINDOWS).recipe
    assert client.embed([LONG], options, prompt_name="passage").prompt == "passage: "


def test_window_vectors_come_with_their_ranges(client, generated):
    pb, _ = generated
    expected = plain_answer(generated, output=pb.EmbedOptions.WINDOW_VECTORS).results[2]
    found = client.embed(TEXTS, extension=WINDOWS, output="WINDOW_VECTORS")[2]
    np.testing.assert_allclose(found.vectors, [e.values for e in expected.embeddings], atol=1e-6)
    assert found.ranges.tolist() == [[e.range.start, e.range.end] for e in expected.embeddings]
    with pytest.raises(ValueError, match="has .* vectors"):
        found.vector  # noqa: B018


def test_spans_of_code_points(client):
    text = "東京 is large. Paris is not."
    found = client.embed([Input(text, ranges=[(0, 2), (13, 26)])], output="SPAN_VECTORS", spans={"ranges": {}})[0]
    tokens = client.tokenize([text], add_special_tokens=False)[0]
    first = [i for i, (start, end) in enumerate(tokens.ranges) if start < 2 and end > 0]
    assert found.ranges.tolist()[0] == [first[0], first[-1] + 1]
    assert len(found.vectors) == 2


@pytest.mark.parametrize("encoding", ["FLOAT16", "BFLOAT16", "INT8", "BINARY"])
def test_every_encoding_becomes_numpy(client, encoding):
    exact = client.embed(TEXTS, extension=WINDOWS, output="WINDOW_VECTORS")
    found = client.embed(TEXTS, extension=WINDOWS, output="WINDOW_VECTORS", encoding=encoding)
    for e, x in zip(found, exact):
        if encoding == "FLOAT16":
            assert e.vectors.dtype == np.float16
            np.testing.assert_array_equal(e.vectors, x.vectors.astype(np.float16))
        elif encoding == "BFLOAT16":
            assert e.vectors.dtype == np.float32
            np.testing.assert_allclose(e.vectors, x.vectors, rtol=2**-8)
            assert (e.vectors.view(np.uint32) & 0xFFFF == 0).all()
        elif encoding == "INT8":
            assert e.vectors.dtype == np.int8 and e.scales.shape == (len(e.vectors),)
            np.testing.assert_allclose(e.scales, np.abs(x.vectors).max(axis=1) / 127, rtol=1e-5)
            np.testing.assert_allclose(e.float32(), x.vectors, atol=float(e.scales.max()) * 0.51)
        else:
            assert e.vectors.dtype == np.uint8 and e.vectors.shape == (len(x.vectors), 48)
            np.testing.assert_array_equal(e.float32(), np.where(x.vectors > 0, 1, -1))


def test_dimensions_and_normalization_arrive(client):
    found = client.embed(["a text"], dimensions=100, force_dimensions=True, normalize=False)[0]
    whole = client.embed(["a text"], normalize=False)[0]
    np.testing.assert_allclose(found.vector, whole.vector[:100], atol=1e-6)
    assert abs(float(np.linalg.norm(whole.vector)) - 1) > 1e-3


def test_token_ids(client):
    tokens = client.tokenize(["query: how long is the Nile?"])[0]
    assert tokens.texts[0] == "[CLS]" and tokens.special.tolist() == [True, *[False] * (len(tokens.ids) - 2), True]
    as_text = client.embed(["how long is the Nile?"], prompt_name="query").matrix()
    ids = tokens.ids.tolist()
    np.testing.assert_allclose(client.embed([Input(token_ids=ids, complete=True)]).matrix(), as_text, atol=1e-6)
    for content in (ids[1:-1], tokens.ids[1:-1], list(tokens.ids[1:-1])):
        np.testing.assert_allclose(client.embed([content]).matrix(), as_text, atol=1e-6)


def test_truncation_is_reported(client):
    found = client.embed([LONG], truncate="END")[0]
    assert found.tokens == 512 and found.truncated_tokens == len(client.tokenize([LONG])[0].ids) - 512


def test_models_and_explain(client):
    model = client.model()
    assert [m.name for m in client.models()] == ["e5-small-v2"] and dict(model.prompts)["query"] == "query: " and list(model.profiles) == ["archive"]
    explained = client.explain([LONG], extension={"profile": "archive"})
    assert explained.results[0].sequences[0].tokens == 64
    assert explained.recipe == client.embed([LONG], extension={"windows": {"tokens": 64}}).recipe


def test_errors_say_code_reason_and_field(client):
    with pytest.raises(InvalidArgument, match="the limit is 512") as raised:
        client.embed(["short", LONG])
    assert (raised.value.code, raised.value.reason, raised.value.field, raised.value.retry_delay) == ("INVALID_ARGUMENT", "INPUT_TOO_LONG", "inputs[1]", None)
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy), copy.field) == (InvalidArgument, str(raised.value), "inputs[1]")
    with pytest.raises(NotFound) as raised:
        client.embed(["a"], model="other")
    assert raised.value.field == "options.model"


def test_a_text_that_is_not_unicode_has_a_readable_error(client):
    with pytest.raises(InvalidArgument, match=r"inputs\[1\]: a text has the lone surrogate U.D800 at character 2") as raised:
        client.embed(["good", "ab\ud800"])
    assert raised.value.field == "inputs[1]"
    with pytest.raises(InvalidArgument, match="lone surrogate"):
        client.tokenize(["ab\ud800"])


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_every_implementation_of_protobuf_refuses_it_alike(implementation):
    """PyPy and machines without a wheel have the one in Python. A stream answers such a text by an error of its own."""
    code = """if True:
        from google.protobuf.internal import api_implementation
        from longembed import InvalidArgument, options
        try:
            options.to_input("ab\\ud800")
        except InvalidArgument as error:
            print(api_implementation.Type(), error)
    """
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{implementation} a text has the lone surrogate U+D800 at character 2\n"


def test_partial_results_keep_each_error_with_its_text(client):
    found = client.embed(["a", "", LONG], partial=True)
    assert [e.error and e.error.field for e in found] == [None, "inputs[1]", "inputs[2]"]
    for read in (lambda: found[2].vector, lambda: found[2].float32(), found.matrix):
        with pytest.raises(InvalidArgument):
            read()


def test_a_stream_keeps_each_error_with_its_text(client):
    found = {e.id: e for e in client.embed_stream([("good", "a"), ("bad", ""), ("long", LONG)], extension=WINDOWS)}
    assert found["bad"].error.code == "INVALID_ARGUMENT" and found["good"].error is None
    np.testing.assert_allclose(found["long"].vectors, client.embed([LONG], extension=WINDOWS).matrix(), atol=1e-6)


def test_answers_beyond_grpcs_default_limit_arrive(client):
    found = client.embed(["word " * 5600], extension={"windows": {"tokens": 4}}, output="WINDOW_VECTORS")[0]
    assert found.vectors.nbytes > 4 << 20
    with Client(client.server, max_receive_bytes=1000) as small, pytest.raises(LongEmbedError, match="larger than max"):
        small.embed(["a text"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.embed("one text"), "list of texts"),
        (lambda c: c.tokenize("one text"), "list of texts"),
        (lambda c: c.embed([3.5]), "not float"),
        (lambda c: c.embed([b"bytes"]), "not bytes"),
        (lambda c: c.embed([bytearray(b"bytes")]), "not bytearray"),
        (lambda c: c.embed([memoryview(b"bytes")]), "not memoryview"),
        (lambda c: c.tokenize([[101, 102]]), "text 0 is of type list"),
        (lambda c: c.embed({"id": "text"}), "not a mapping"),
        (lambda c: c.embed_stream({"id": "text"}), "not a mapping"),
        (lambda c: c.embed(["a"], encoding=3), "options.encoding is 3; it must be one of FLOAT32"),
        (lambda c: c.embed(["a"], output=1), "options.output is 1"),
        (lambda c: c.embed(["a"], truncate=None), "options.truncate is None"),
        (lambda c: c.embed([[-1]]), "token id is -1"),
        (lambda c: c.embed([[2**32]]), "token id is 4294967296"),
        (lambda c: Client(c.server, api_key="key of a file\n"), "printable ASCII"),
        (lambda c: c.embed([Input()]), "either text or token_ids"),
        (lambda c: c.embed([Input("a", complete=True)]), "complete is for an Input of token_ids"),
        (lambda c: c.embed(["a"], promt_name="query"), "unknown option promt_name"),
        (lambda c: c.embed(["a"], prompt_name="query", prompt="x"), "exclude each other"),
        (lambda c: c.embed(["a"], extension="{windows"), "options.extension: not JSON"),
        (lambda c: c.embed(["a"], extension='{"windows": {}, "windows": {"tokens": 8}}'), "keys windows, windows are not distinct"),
        (lambda c: c.embed(["a"], extension="[]"), "options.extension is '\\[\\]'; it must be a dict"),
        (lambda c: c.embed(["a"], extension=[]), "options.extension is .*; it must be a dict"),
        (lambda c: c.embed(["a"], spans="null"), "options.spans is .*; it must be a dict"),
        (lambda c: c.embed(["a"], output="TOKENS"), "TOKENS"),
        (lambda c: c.embed(["a"], spans={"paragraphs": {}}), "paragraphs"),
        (lambda c: c.embed(["a"], timeout=math.nan), "timeout is nan"),
        (lambda c: c.embed_stream(["a"], timeout=math.nan), "timeout is nan"),
    ],
)
def test_calls_that_cannot_be_sent_have_a_readable_error(client, call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call(client)


def test_calls_of_a_closed_client_are_value_errors(client):
    closed = Client(client.server)
    closed.close()
    for call in (lambda: closed.embed(["a"]), lambda: list(closed.embed_stream(["a"]))):
        with pytest.raises(ValueError, match="Cannot invoke RPC"):
            call()

    async def call_closed():
        other = AsyncClient(client.server)
        await other.close()
        with pytest.raises(ValueError, match="Cannot invoke RPC"):
            await other.embed(["a"])
        with pytest.raises(ValueError, match="Cannot invoke RPC"):
            [answer async for answer in other.embed_stream(["a"])]

    asyncio.run(call_closed())


def test_an_async_client_may_be_made_before_its_event_loop(client):
    """Web applications make clients when they are imported. A channel of grpc.aio that is opened there never answers a stream."""
    made = AsyncClient(client.server)

    async def call():
        return len(await made.embed(["a"])), len([answer async for answer in made.embed_stream(["a", "b"], timeout=10)])

    assert [asyncio.run(call()) for _ in range(2)] == [(1, 2)] * 2  # The second loop after the end of the first.

    async def call_from_another_thread():
        await made.embed(["a"])
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await asyncio.to_thread(asyncio.run, call())
        await made.close()

    asyncio.run(call_from_another_thread())
    with pytest.raises(FileNotFoundError):
        AsyncClient(client.server, tls=TLS(root_certificates="no/such/file.pem"))


@pytest.mark.parametrize("seconds", [1e10, 1e300, math.inf])
def test_a_timeout_beyond_grpcs_clock_is_no_limit(client, seconds):
    """gRPC itself takes it for a time in the past."""
    assert len(client.embed(["a"], timeout=seconds)) == len(list(client.embed_stream(["a"], timeout=seconds))) == 1

    async def call():
        async with AsyncClient(client.server, timeout=seconds) as other:
            return await other.embed(["a"]), [e async for e in other.embed_stream(["a"])]

    assert [len(answers) for answers in asyncio.run(call())] == [1, 1]


def test_texts_to_tokenize_may_come_from_a_generator(client):
    assert [list(tokens.ids) for tokens in client.tokenize(text for text in ("a", "b"))] == [list(tokens.ids) for tokens in client.tokenize(["a", "b"])]


def test_every_option_reaches_the_server(client):
    """Each field of the proto is an option of the client, and must reach the message."""
    from dataclasses import fields

    values = dict(
        model="m", prompt_name="n", extension=WINDOWS, output="SPAN_VECTORS", spans={"sentences": {}}, truncate="START", dimensions=8, force_dimensions=True,
        normalize=False, encoding="INT8", priority="BULK",
    )  # fmt: skip
    message = Options(**values).message()
    assert {field.name for field, _ in message.ListFields()} == set(values)
    assert {option.name for option in fields(Options)} == {field.name for field in message.DESCRIPTOR.fields}
    assert Options(input_type="QUERY").message().input_type == 1 and Options(prompt="{x").message().prompt == "{x"


def test_the_async_client_gives_the_same(client):
    async def run():
        async with AsyncClient(client.server) as opened:
            embedded = await opened.embed(TEXTS, prompt_name="passage", extension=WINDOWS)
            streamed = {e.id: e async for e in opened.embed_stream(TEXTS, prompt_name="passage", extension=WINDOWS)}
            tokens, model, models = await opened.tokenize(["a b"]), await opened.model(), await opened.models()
            explained = await opened.explain(TEXTS, extension=WINDOWS)
            with pytest.raises(InvalidArgument):
                await opened.embed([LONG])
        return embedded, streamed, tokens, model, models, explained

    embedded, streamed, tokens, model, models, explained = asyncio.run(run())
    expected = client.embed(TEXTS, prompt_name="passage", extension=WINDOWS)
    np.testing.assert_allclose(embedded.matrix(), expected.matrix(), atol=1e-6)
    np.testing.assert_allclose([streamed[i].vector for i in range(3)], expected.matrix(), atol=1e-6)
    assert tokens[0].texts == ["[CLS]", "a", "b", "[SEP]"]
    assert model.name == "e5-small-v2" and len(models) == 1 and len(explained.results) == 3


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """Starts a server with TLS that requires client certificates and a key."""
    from harness import Authority

    folder = tmp_path_factory.mktemp("locked")
    authority = Authority(folder, "authority")
    (folder / "keys.yaml").write_text(f"keys:\n  - {{name: test, sha256: {hashlib.sha256(b'a secret key').hexdigest()}}}\n")
    certificate, key = authority.issue("server")
    extra = f"tls: {{certificate: {certificate}, key: {key}, client_ca: {authority.certificate}}}\napi_keys: keys.yaml\n"
    running = start_server(folder, ["e5-small-v2"], extra=extra)
    yield f"localhost:{running.port}", authority
    assert running.stop() == 0


def test_tls_client_certificates_and_keys(locked):
    address, authority = locked
    certificate, key = authority.issue("client")
    tls = TLS(root_certificates=authority.certificate, client_certificate=certificate, client_key=Path(key).read_bytes())
    with Client(address, tls=tls, api_key="a secret key") as client:
        assert client.embed(["a"]).matrix().shape == (1, 384)
        assert len(list(client.embed_stream(["a", "b"]))) == 2
    with Client(address, tls=tls, timeout=20) as client, pytest.raises(Unauthenticated) as raised:
        client.embed(["a"])
    assert raised.value.reason
    with Client(address, tls=TLS(root_certificates=authority.certificate), api_key="a secret key", timeout=2) as client, pytest.raises(LongEmbedError):
        client.embed(["a"])  # There is no client certificate.

    async def run():
        async with AsyncClient(address, tls=tls, api_key="a secret key") as client:
            return (await client.embed(["a"])).matrix().shape

    assert asyncio.run(run()) == (1, 384)
    with pytest.raises(ValueError, match="belong together"):
        TLS(client_key=key).credentials()


@pytest.mark.parametrize(
    "server, local",
    [
        ("127.0.0.1:50051", True),
        ("127.8.8.8:1", True),
        ("0.0.0.0:1", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:1", True),
        ("::1", True),
        ("ipv6:[::1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("dns:///localhost:1", True),
        ("unix:/run/longembed.sock", True),
        ("10.0.0.1:1", False),
        ("embed.example:1", False),
        ("127.0.0.1.example:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_loopback_addresses_and_sockets_are_local(server, local):
    assert is_local(server) == local


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_is_not_an_address(kind, monkeypatch):
    with pytest.raises(ValueError, match="server is 'http://127.0.0.1:8080'; give HOST:PORT of gRPC"):
        kind("http://127.0.0.1:8080")
    monkeypatch.setenv("LONGEMBED_SERVER", "HTTPS://embed.example")
    with pytest.raises(ValueError, match="LONGEMBED_SERVER is 'HTTPS://embed.example'; give HOST:PORT of gRPC, and tls=TLS"):
        kind()


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(client, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with Client(client.server) as behind:
        assert behind.models()
