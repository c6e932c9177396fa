"""Tests HTTP against gRPC. Every route must return what the same server's gRPC returns for the same text. Also tests TLS, keys, drain and metrics."""

import base64
import functools
import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
from generated_client import generate_tei_client
from http_client import LISTENS, LONG, MODEL, TEXT, Answer, Http, close, vectors
from running_server import BUILD, ROOT, await_log, start_server

sys.path.append(str(ROOT / "tests/operations"))
from harness import Authority, Metrics, Missing  # noqa: E402

KEY = "http-Key-4711"
TEXTS = [TEXT, "a", "Ünïcode — 東京 and 🎉", "The quick brown fox jumps over the lazy dog. " * 20]
HTTP_CONFIG = "profiles: {long: {windows: {tokens: 128}}}\n"


def scrape(server) -> Metrics:
    return Metrics(Http(server.metrics_port).get("/metrics").body.decode())


@pytest.fixture(scope="module")
def tei(tmp_path_factory, http_channel):
    pb, stubs = generate_tei_client(tmp_path_factory.mktemp("http-tei"))

    class Client:
        info, embed, tokenize = stubs.InfoStub(http_channel), stubs.EmbedStub(http_channel), stubs.TokenizeStub(http_channel)

    Client.pb = pb
    return Client


# ------------------------------------------------------------------------------------------------------------------------ OpenAI


def test_openai_answers_a_list_as_embed_does(web, embed):
    expected = embed(TEXTS)
    answer = web.ok("/v1/embeddings", {"input": TEXTS, "model": MODEL})
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    assert {item["object"] for item in answer["data"]} == {"embedding"} and answer["object"] == "list"
    close([item["embedding"] for item in answer["data"]], vectors(expected))
    tokens = sum(result.tokens for result in expected.results)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer["model"], answer["recipe"]) == (MODEL, expected.recipe)


def test_openai_base64_is_float32_and_floats_are_the_same(web, embed):
    [expected] = vectors(embed([TEXT]))
    encoded = web.ok("/v1/embeddings", {"input": TEXT, "model": MODEL, "encoding_format": "base64"})["data"][0]["embedding"]
    close(np.frombuffer(base64.b64decode(encoded), "<f4"), expected)
    floats = web.ok("/v1/embeddings", {"input": TEXT, "model": MODEL, "encoding_format": "float"})["data"][0]["embedding"]
    close(floats, expected)


def test_openai_takes_the_models_own_tokens_and_no_others(web, embed):
    ids = [[token["id"] for token in text] for text in web.ok("/tokenize", {"inputs": TEXTS})]
    answer = web.ok("/v1/embeddings", {"input": ids, "model": MODEL})
    close([item["embedding"] for item in answer["data"]], vectors(embed(TEXTS)))
    close(web.ok("/v1/embeddings", {"input": ids[0], "model": MODEL})["data"][0]["embedding"], vectors(embed(TEXTS[:1]))[0])
    error = web.refused("/v1/embeddings", {"input": [ids[0], [9906, 1917]], "model": MODEL}, 400)["error"]
    assert (error["code"], error["param"]) == ("FOREIGN_TOKENS", "input[1]") and "check_embedding_ctx_length=False" in error["message"]


def test_openai_options(web, embed):
    asked = {"input": TEXT, "model": MODEL}
    close(web.ok("/v1/embeddings", {**asked, "dimensions": 100, "force_dimensions": True})["data"][0]["embedding"],
          vectors(embed([TEXT], dimensions=100, force_dimensions=True))[0])  # fmt: skip
    assert web.refused("/v1/embeddings", {**asked, "dimensions": 100}, 400)["error"]["param"] == "dimensions"
    close(web.ok("/v1/embeddings", {**asked, "prompt_name": "query", "normalize": False})["data"][0]["embedding"],
          vectors(embed([TEXT], prompt_name="query", normalize=False))[0])  # fmt: skip
    assert web.ok("/v1/embeddings", {**asked, "user": "somebody", "encoding_format": None, "dimensions": None})["data"]
    error = web.refused("/v1/embeddings", {**asked, "inptu": "x"}, 400)["error"]
    assert (error["code"], error["param"]) == ("UNKNOWN_FIELD", "inptu") and "encoding_format" in error["message"]


@pytest.mark.parametrize("prompt", [{"prompt_name": "query"}, {"input_type": "QUERY"}, {"prompt": "query: "}], ids=str)
def test_a_prompt_beside_token_ids_is_refused(web, prompt):
    """Token ids hold their prompt already, so that this one would be ignored."""
    ids = [token["id"] for token in web.ok("/tokenize", {"inputs": TEXT})[0]]
    [field] = prompt
    error = web.refused("/v1/embeddings", {"input": [TEXT, ids], "model": MODEL, **prompt}, 400)["error"]
    assert (error["code"], error["param"]) == ("MISPLACED_FIELD", field)
    close(web.ok("/v1/embeddings", {"input": ids, "prompt": ""})["data"][0]["embedding"], web.ok("/embed", {"inputs": ids})[0])
    if field == "input_type":
        error = web.refused("/v2/embed", {"texts": [TEXT, ids], "model": MODEL, "input_type": "search_query"}, 400)
        assert (error["reason"], error["field"]) == ("MISPLACED_FIELD", field)
    if field == "prompt_name":
        error = web.refused("/embed", {"inputs": ids, **prompt}, 422)
        assert (error["reason"], error["field"]) == ("MISPLACED_FIELD", field)


def test_openai_models(web):
    answer = web.get("/v1/models").json
    assert [model["id"] for model in answer["data"]] == [MODEL, f"{MODEL}:long"]
    assert web.get(f"/v1/models/{MODEL}").json == answer["data"][0]
    missing = web.get("/v1/models/gpt-5")
    assert missing.status == 404 and missing.json["error"]["code"] == "UNKNOWN_MODEL"


# --------------------------------------------------------------------------------------------------------------------------- TEI


def test_tei_embed_is_tei_v1(web, tei):
    expected = [list(tei.embed.Embed(tei.pb.EmbedRequest(inputs=text)).embeddings) for text in TEXTS]
    close(web.ok("/embed", {"inputs": TEXTS}), expected)
    close(web.ok("/embed", {"inputs": TEXT}), expected[:1])
    options = {"normalize": False, "truncate": True, "truncation_direction": "Left", "prompt_name": "query"}
    request = tei.pb.EmbedRequest(
        inputs=LONG, normalize=False, truncate=True, truncation_direction=tei.pb.TRUNCATION_DIRECTION_LEFT, prompt_name="query"
    )
    for direction in ("Left", "left"):
        close(web.ok("/embed", {"inputs": LONG, **options, "truncation_direction": direction}), [list(tei.embed.Embed(request).embeddings)])
    short = tei.embed.Embed(tei.pb.EmbedRequest(inputs=TEXT, dimensions=64))
    close(web.ok("/embed", {"inputs": TEXT, "dimensions": 64}), [list(short.embeddings)])


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_tei_embeds_at_its_other_paths_too(web, path):
    """Hugging Face's InferenceClient calls the server's root path, and SageMaker calls /invocations."""
    assert web.ok(path, {"inputs": TEXT}) == web.ok("/embed", {"inputs": TEXT})
    assert web.get("/nothing").status == web.post("/nothing", {"inputs": TEXT}).status == 404


def test_openai_answers_without_the_version_too(web):
    """Clients of Infinity and llama.cpp, and those whose base URL lacks "/v1", call these paths."""
    asked = {"input": TEXT, "model": MODEL}
    assert web.ok("/embeddings", asked)["data"] == web.ok("/v1/embeddings", asked)["data"]
    assert web.refused("/embeddings", {**asked, "inptu": "x"}, 400)["error"]["type"] == "invalid_request_error"
    for path in ("/models", f"/models/{MODEL}"):
        assert web.get(path).json == web.get(f"/v1{path}").json


@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
def test_tei_headers_carry_what_was_computed(web, tei, path):
    answers = [tei.embed.Embed(tei.pb.EmbedRequest(inputs=text)).metadata for text in TEXTS]
    sent = web.post(path, {"inputs": TEXTS})
    assert sent.status == 200 and sent.headers["x-compute-type"] == "cpu"
    assert int(sent.headers["x-compute-tokens"]) == sum(answer.compute_tokens for answer in answers)
    assert int(sent.headers["x-compute-characters"]) == sum(map(len, TEXTS))
    prompted = web.post(path, {"inputs": TEXT, "prompt_name": "query"})
    assert int(prompted.headers["x-compute-characters"]) == len(TEXT)
    names = [f"x-{name}-time" for name in ("compute", "total", "tokenization", "queue", "inference")]
    compute, total, *parts = (int(prompted.headers[name]) for name in names)
    assert 0 <= max(parts) <= total == compute < 60_000


def test_tei_embed_all_is_tei_v1(web, tei):
    answer = web.ok("/embed_all", {"inputs": [TEXT, "a"]})
    for text, found in zip([TEXT, "a"], answer, strict=True):
        expected = tei.embed.EmbedAll(tei.pb.EmbedAllRequest(inputs=text)).token_embeddings
        close(found, [list(token.embeddings) for token in expected])


def test_tei_embed_all_does_not_take_normalize(web):
    """TEI's own request has no such field, and its vectors of tokens are not normalized."""
    for normalize in (True, False, None):
        error = web.refused("/embed_all", {"inputs": TEXT, "normalize": normalize}, 422)
        assert (error["reason"], error["field"]) == ("UNKNOWN_FIELD", "normalize")


def test_tei_tokens_are_tei_v1(web, tei):
    for special in (True, False):
        answer = web.ok("/tokenize", {"inputs": TEXTS[:3], "add_special_tokens": special})
        for text, found in zip(TEXTS[:3], answer, strict=True):
            expected = tei.tokenize.Tokenize(tei.pb.EncodeRequest(inputs=text, add_special_tokens=special)).tokens
            assert [(t["id"], t["special"]) for t in found] == [(t.id, t.special) for t in expected]
            assert [(t["start"], t["stop"]) for t in found if not t["special"]] == [(t.start, t.stop) for t in expected if not t.special]
            assert all(t["start"] is None and t["stop"] is None for t in found if t["special"])
    ids = [token["id"] for token in web.ok("/tokenize", {"inputs": TEXT})[0]]
    for skip in (True, False):
        expected = tei.tokenize.Decode(tei.pb.DecodeRequest(ids=ids, skip_special_tokens=skip)).text
        assert web.ok("/decode", {"ids": ids, "skip_special_tokens": skip}) == [expected]
    assert web.ok("/decode", {"ids": [ids, ids]}) == [TEXT, TEXT]


def test_tei_decode_names_an_unknown_id(web):
    error = web.refused("/decode", {"ids": [101, 10**9, 102]}, 422)
    assert (error["reason"], error["field"]) == ("TOKEN_ID_OUT_OF_RANGE", "ids") and str(10**9) in error["error"]
    assert web.refused("/decode", {"ids": [[101], [10**9]]}, 422)["field"] == "ids[1]"


def test_tei_info_is_tei_v1(web, tei):
    info, expected = web.get("/info").json, tei.info.Info(tei.pb.InfoRequest())
    for name in ("model_id", "model_dtype", "max_input_length", "max_batch_tokens", "max_client_batch_size", "version"):
        assert info[name] == getattr(expected, name), name
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}


@pytest.mark.parametrize("path, body", [("/embed", {"inputs": []}), ("/embed_all", {"inputs": []}), ("/tokenize", {"inputs": []}), ("/decode", {"ids": []})])
def test_an_empty_list_has_teis_error(web, path, body):
    error = web.refused(path, body, 400)
    assert (error["error_type"], error["reason"]) == ("Empty", "NO_INPUTS")


def test_tei_sparse_needs_a_sparse_model(web):
    answer = web.post("/embed_sparse", {"inputs": TEXT})
    assert answer.status == 424, answer.body
    assert (answer.json["error_type"], answer.json["reason"]) == ("Backend", "OUTPUT_NOT_AVAILABLE")


# ------------------------------------------------------------------------------------------------------------------------ Cohere


def test_cohere_types_are_converted_from_the_floats_of_embed(web, embed):
    for kind, name in (("search_query", "query"), ("search_document", "passage")):
        expected = np.array(vectors(embed(TEXTS, prompt_name=name)), "f4")
        types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
        answer = web.ok("/v2/embed", {"texts": TEXTS, "model": MODEL, "input_type": kind, "embedding_types": types})
        found = answer["embeddings"]
        assert list(found) == types and answer["texts"] == TEXTS and answer["response_type"] == "embeddings_by_type"
        close(found["float"], expected)
        close([np.frombuffer(base64.b64decode(text), "<f4") for text in found["base64"]], expected)
        scaled = 127 * expected / abs(expected).max(axis=1, keepdims=True)
        assert abs(np.array(found["int8"]) - scaled).max() < 0.51
        assert (np.array(found["uint8"]) == np.array(found["int8"]) + 128).all()
        assert (np.array(found["ubinary"]) == np.packbits(np.array(found["float"]) > 0, axis=1)).all()
        assert (np.array(found["binary"]) == np.array(found["ubinary"]) - 128).all()
        assert str(uuid.UUID(answer["id"])) == answer["id"]
        assert answer["meta"]["api_version"]["version"] == "2" and answer["meta"]["billed_units"]["input_tokens"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status", "place"),
    [
        ("/v1/embeddings", {"input": TEXT, "model": MODEL, "dimensions": 0}, 400, ("error", "param")),
        ("/embed", {"inputs": TEXT, "dimensions": 0}, 422, ("field",)),
        ("/v2/embed", {"texts": [TEXT], "model": MODEL, "input_type": "clustering", "output_dimension": 0}, 400, ("field",)),
        ("/v2/embed", {"texts": [TEXT], "model": MODEL, "input_type": "clustering", "max_tokens": 0}, 400, ("field",)),
    ],
)
def test_zero_is_not_the_default(web, path, body, status, place):
    """A count of 0 was once treated as an absent field."""
    error = web.refused(path, body, status)
    assert functools.reduce(dict.get, place, error) == next(name for name in body if body[name] == 0), error


def test_cohere_priorities_are_numbers(web):
    asked = {"texts": [TEXT], "model": MODEL, "input_type": "clustering"}
    for priority in (0, 1, 999, "BULK", "INTERACTIVE", None):
        assert web.ok("/v2/embed", {**asked, "priority": priority})["embeddings"]
    for priority in (-1, 1000, 0.5, 1 << 40):
        error = web.refused("/v2/embed", {**asked, "priority": priority}, 400)
        assert error["field"] == "priority" and "from 0 to 999" in error["message"]
    assert web.refused("/v2/embed", {**asked, "priority": "LOW"}, 400)["field"] == "priority"


def test_cohere_truncates_as_cohere_does(web, embed):
    asked = {"texts": [LONG], "model": MODEL, "input_type": "clustering"}
    close(web.ok("/v2/embed", asked)["embeddings"]["float"], vectors(embed([LONG], truncate="END")))
    close(web.ok("/v2/embed", {**asked, "truncate": "START"})["embeddings"]["float"], vectors(embed([LONG], truncate="START")))
    assert web.refused("/v2/embed", {**asked, "truncate": "NONE"}, 400)["reason"] == "INPUT_TOO_LONG"


# ------------------------------------------------------------------------------------------------------------------ longembed.v1


def test_longembed_json_has_the_messages_of_grpc(web, embed, pb):
    body = {"options": {"extension": {"windows": {"tokens": 128}}, "output": "WINDOW_VECTORS"}, "inputs": [{"text": LONG}]}
    answer = web.ok("/longembed/v1/embed", body)
    windows = pb[0].Extension.Windows(tokens=128)
    expected = embed([LONG], extension=pb[0].Extension(windows=windows), output="WINDOW_VECTORS")
    close([e["values"] for e in answer["results"][0]["embeddings"]], [list(e.values) for e in expected.results[0].embeddings])
    assert (answer["recipe"], answer["model"]) == (expected.recipe, MODEL)
    assert len(answer["results"][0]["sequences"]) == len(expected.results[0].sequences) > 5
    explained = web.ok("/longembed/v1/explain", body)
    assert explained["recipe"] == expected.recipe
    assert [s["tokens"] for s in explained["results"][0]["sequences"]] == [s.tokens for s in expected.results[0].sequences]
    tokens = web.ok("/longembed/v1/tokenize", {"texts": [TEXT]})["results"][0]["tokens"]
    assert [token["id"] for token in tokens] == [t.id for t in embed.stub.Tokenize(pb[0].TokenizeRequest(texts=[TEXT])).results[0].tokens]
    [model] = web.get("/longembed/v1/models").json["models"]
    assert web.get(f"/longembed/v1/models/{MODEL}").json == model and model["profiles"] == ["long"] and model["dimensions"] == 384


@pytest.mark.parametrize(
    "path, body, field",
    [
        ("embed", {"inputs": [{"text": TEXT}, None, {"text": TEXT}]}, "inputs[1]"),
        ("embed", {"inputs": [{"token_ids": {"ids": [101, None, 102]}}]}, "inputs[0].token_ids.ids[1]"),
        ("embed", {"inputs": [{"text": TEXT, "ranges": [None]}]}, "inputs[0].ranges[0]"),
        ("explain", {"inputs": [None]}, "inputs[0]"),
        ("tokenize", {"texts": [TEXT, None]}, "texts[1]"),
    ],
)
def test_null_in_a_list_is_refused(web, path, body, field):
    """Protobuf's reader drops it, so that answers would belong to other inputs."""
    error = web.refused(f"/longembed/v1/{path}", body, 400)
    details = {detail["@type"].rsplit(".", 1)[1]: detail for detail in error["details"]}
    assert details["ErrorInfo"]["reason"] == "WRONG_TYPE" and details["BadRequest"]["field_violations"][0]["field"] == field


@pytest.mark.parametrize(
    "body, field",
    [
        ({"inputs": [{"text": TEXT}], "partialResults": True, "partial_results": False}, "partialResults"),
        ({"inputs": [{"text": TEXT}], "options": {"max_tokens": 8, "maxTokens": 9}}, "options.maxTokens"),
    ],
)
def test_a_field_under_both_of_its_names_is_refused(web, body, field):
    error = web.refused("/longembed/v1/embed", body, 400)
    assert error["message"] == f"{field}: appears twice in one object"


@pytest.mark.parametrize("value", ["query", "", True], ids=repr)
def test_the_values_of_an_enum_are_listed(web, value):
    error = web.refused("/v1/embeddings", {"input": TEXT, "input_type": value}, 400)["error"]
    assert error["param"] == "input_type" and "QUERY" in error["message"] and json.dumps(value) in error["message"], error


def test_two_fields_of_which_at_most_one_may_be_set_are_named(web):
    error = web.refused("/v1/embeddings", {"input": TEXT, "prompt_name": "query", "prompt": "query: "}, 400)["error"]
    assert (error["param"], error["message"]) == ("prompt", "prompt: cannot be set beside prompt_name")
    error = web.refused("/longembed/v1/embed", {"inputs": [{"text": TEXT, "token_ids": {"ids": [7]}}]}, 400)
    assert error["message"] == "inputs[0].text: cannot be set beside token_ids"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "path, fields",
    [
        ("/longembed/v1/embed", {"inputs": [{"text": TEXT}]}),
        ("/v1/embeddings", {"input": TEXT}),
        ("/embed", {"inputs": TEXT}),
        ("/v2/embed", {"texts": [TEXT], "model": MODEL, "input_type": "search_query"}),
    ],
)
def test_a_key_of_any_length_has_a_short_error(web, path, fields, times):
    """The error names an unknown or repeated key several times, in memory that no limit counts."""
    key = "é" * 100_000
    answer = web.post(path, (json.dumps(fields)[:-1] + f', "{key}": 1' * times + "}").encode())
    assert 400 <= answer.status < 500 and len(answer.body) < 5000, answer.body[:1000]
    assert "éé..." in answer.body.decode()


# --------------------------------------------------------------------------------------------------------- over every dialect


ROUTES = {
    "/v1/embeddings": lambda text: {"input": text, "model": MODEL},
    "/embed": lambda text: {"inputs": text},
    "/v2/embed": lambda text: {"texts": [text], "model": MODEL, "truncate": "NONE"},
}


def vector_of(path: str, answer):
    return {"/v1/embeddings": lambda: answer["data"][0]["embedding"], "/embed": lambda: answer[0], "/v2/embed": lambda: answer["embeddings"]["float"][0]}[path]()


@pytest.mark.parametrize("path", ROUTES)
def test_an_extension_is_one_more_field(web, embed, pb, path):
    [expected] = vectors(embed([LONG], extension=pb[0].Extension(windows=pb[0].Extension.Windows(tokens=128))))
    for extension in ({"windows": {"tokens": 128}}, {"profile": "long"}):
        close(vector_of(path, web.ok(path, {**ROUTES[path](LONG), "extension": extension})), expected)


@pytest.mark.parametrize(
    "path, body, field",
    [
        ("/v1/embeddings", {"input": LONG, "model": MODEL}, ("error", "param", "input")),
        ("/v1/embeddings", {"input": ["x", LONG], "model": MODEL}, ("error", "param", "input[1]")),
        ("/embed", {"inputs": ["x", LONG]}, (None, "field", "inputs[1]")),
        ("/v2/embed", {"texts": [LONG], "model": MODEL, "truncate": "NONE"}, (None, "field", "texts[0]")),
        ("/v2/embed", {"texts": LONG, "model": MODEL, "truncate": "NONE"}, (None, "field", "texts")),
    ],
)
def test_a_long_input_is_named_as_the_dialect_names_it(web, path, body, field):
    error = web.refused(path, body, 422 if path == "/embed" else 400)
    outer, key, name = field
    inner = error[outer] if outer else error
    assert inner[key] == name and inner["code" if outer else "reason"] == "INPUT_TOO_LONG"
    said = inner["error" if path == "/embed" else "message"]
    assert "752" in said and "512" in said and said.startswith(name) and "options." not in said


def test_a_long_input_of_longembed_is_a_status_with_details(web):
    error = web.refused("/longembed/v1/embed", {"inputs": [{"text": LONG}]}, 400)
    details = {detail["@type"].rsplit(".", 1)[1]: detail for detail in error["details"]}
    assert error["code"] == 3 and details["ErrorInfo"]["reason"] == "INPUT_TOO_LONG"
    assert details["BadRequest"]["field_violations"][0]["field"] == "inputs[0]"


@pytest.mark.parametrize("text", ["a\0b", "é\u0301 \u200d \ufeff", "🎉" * 40, '"\\/\b\f\n\r\t', "\ud83c\udf89"], ids=repr)
def test_texts_arrive_as_they_are(web, embed, text):
    """json.dumps writes characters beyond ASCII as \\uXXXX, including surrogate pairs. The other form is UTF-8."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    [expected] = vectors(embed([text]))
    for path, body in ROUTES.items():
        close(vector_of(path, web.ok(path, body(text))), expected)
        close(vector_of(path, web.ok(path, json.dumps(body(text), ensure_ascii=False).encode())), expected)


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udc00\ud800", b"\xff", b"\xed\xa0\x80", b"\n", rb"\x41"], ids=repr)
def test_invalid_json_is_refused(web, text):
    body = b'{"input": "a ' + text + b'", "model": "e5-small-v2"}'
    error = web.refused("/v1/embeddings", body, 400)["error"]
    assert error["code"] == "MALFORMED_JSON" and re.search(r"at byte \d+ of", error["message"])


@pytest.mark.parametrize("header", ["content-type", "content-encoding", "x-request-timeout"])
@pytest.mark.parametrize("path", [*ROUTES, "/longembed/v1/embed"])
def test_headers_that_are_not_utf8_are_refused(web, path, header):
    answer = web.post(path, {}, **{header: "\xff"})
    assert 400 <= answer.status < 500 and answer.json


@pytest.mark.parametrize("path", ["/%ff", "/v1/models/%ff", "/longembed/v1/models/%c3"])
def test_paths_that_are_not_utf8_are_unknown(web, path):
    answer = web.get(path)
    assert answer.status == 404 and "\ufffd" in answer.body.decode() and web.get("/health").status == 200


def test_an_answer_beyond_the_limit_is_refused_before_the_model_runs(web):
    """Requests 90 texts of 502 tokens, with a vector of 384 floats per token. The vectors alone are 69 MB."""
    error = web.refused("/embed_all", {"inputs": [" ".join(["word"] * 500)] * 90}, 422)
    assert error["reason"] == "RESPONSE_TOO_LARGE" and str(64 << 20) in error["error"], error


def test_a_timeout_ends_a_call(web):
    answer = web.post("/v1/embeddings", {"input": [TEXT], "model": MODEL}, x_request_timeout="0.000001")
    assert answer.status in (429, 504) and answer.json["error"]["code"] in ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
    refused = web.post("/v1/embeddings", {"input": [TEXT], "model": MODEL}, x_request_timeout="soon")
    assert refused.status == 400 and refused.json["error"]["code"] == "BAD_TIMEOUT"


def test_the_kernel_pings_an_idle_connection(http_server):
    """Otherwise a client that vanished would hold its connection until max_idle."""
    with socket.create_connection(("127.0.0.1", http_server.http_port)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        ends = [f":{port:04X}" for port in (http_server.http_port, client.getsockname()[1])]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        [timer] = [line[5] for line in lines if line[1].endswith(ends[0]) and line[2].endswith(ends[1])]
    assert timer.startswith("02:"), timer  # A keepalive timer is pending.


def test_metrics_count_calls_by_method(web, http_server):
    def counts(metrics: Metrics) -> dict:
        return {
            name: metrics.total("longembed_requests_total", method=name, code="OK")
            for name in ("openai.Embeddings", "openai.ListModels", "cohere.Embed", "tei.http.Embed", "tei.http.Info", "Embed", "http.Health")
        }

    before = counts(scrape(http_server))
    for path, body in ROUTES.items():
        web.ok(path, body(TEXT))
    web.ok("/longembed/v1/embed", {"inputs": [{"text": TEXT}]})
    for path in ("/v1/models", "/info", "/health"):
        assert web.get(path).status == 200
    after = counts(scrape(http_server))
    assert {name: after[name] - before[name] for name in after} == dict.fromkeys(after, 1)
    assert scrape(http_server).total("longembed_requests_total", method="openai.Embeddings", code="INVALID_ARGUMENT") > 0


def test_a_taken_port_is_reported_under_its_config_key(tmp_path, http_server):
    config = tmp_path / "config.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nhttp_listen: 127.0.0.1:{http_server.http_port}\nmetrics_listen: 127.0.0.1:0\nmodels: [{{path: nowhere}}]\n")
    ended = subprocess.run([BUILD / "longembed-server", "--config", config], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0 and re.search(rf"http_listen: .*{http_server.http_port}", ended.stderr), ended.stderr


@pytest.mark.parametrize("command", [["health"], ["models", "--timeout", "1"], ["embed", "--text", "a", "--timeout", "3"]])
def test_the_command_line_names_an_http_port(http_server, command):
    server = f"127.0.0.1:{http_server.http_port}"
    ended = subprocess.run([BUILD / "longembed", *command, "--server", server], capture_output=True, text=True, timeout=120)
    why = f"longembed: the server {server} speaks HTTP/1.1, not gRPC: give the port of gRPC, which is `listen` in the server's config\n"
    assert (ended.returncode, ended.stderr) == (1, why)


@pytest.mark.parametrize("page", ["README.md", "docs/calling.md", "server/api/http/README.md"])
def test_the_pages_curl_commands_run(web, page):
    commands = re.findall(r"^(curl http://127\.0\.0\.1:8080/.*?')$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for command in commands:
        printed = subprocess.check_output(command.replace(":8080", f":{web.port}"), shell=True, stderr=subprocess.DEVNULL)
        assert len(re.findall(rb"-?0\.\d+", printed)) >= 384, printed
    assert commands


# ------------------------------------------------------------------------------------------------------------------ TLS and keys


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    try:
        made = Authority(tmp_path_factory.mktemp("authority"))
        made.issue("server")
    except Missing as missing:
        pytest.skip(str(missing))
    return made


def tls_of(authority: Authority, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client:
        context.load_cert_chain(*authority.issue(client))
    return context


@pytest.fixture(scope="module")
def secured(tmp_path_factory, authority):
    """Starts a server with TLS and keys. The key "small" allows one call at a time."""
    folder = tmp_path_factory.mktemp("http-secured")
    (folder / "keys.yaml").write_text(f"keys:\n  - {{name: tests, key: {KEY}}}\n  - {{name: small, key: small-{KEY}, max_concurrent_calls: 1}}\n")
    tls = f"tls: {{certificate: {authority.folder / 'server.pem'}, key: {authority.folder / 'server.key'}}}\n"
    running = start_server(folder, [MODEL], extra=f"{LISTENS}{tls}api_keys: {folder / 'keys.yaml'}\nreflection: false\n")
    yield running
    assert running.stop() == 0


def test_each_dialect_asks_for_a_key_in_its_form(secured, authority):
    web = Http(secured.http_port, tls_of(authority))
    assert web.get("/health").status == web.get("/ping").status == 200
    for wrong, reason in (({}, "MISSING_API_KEY"), ({"authorization": "Bearer other"}, "UNKNOWN_API_KEY"), ({"x_api_key": "other"}, "UNKNOWN_API_KEY")):
        answers = {path: web.post(path, body(TEXT), **wrong) for path, body in ROUTES.items()}
        answers["/longembed/v1/embed"] = web.post("/longembed/v1/embed", {"inputs": [{"text": TEXT}]}, **wrong)
        answers |= {path: web.get(path, **wrong) for path in ("/v1/models", "/info", "/longembed/v1/models")}
        assert {answer.status for answer in answers.values()} == {401}, answers
        assert {answer.headers["WWW-Authenticate"] for answer in answers.values()} == {"Bearer"}
        error = answers["/v1/embeddings"].json["error"]
        assert (error["type"], error["code"]) == ("authentication_error", reason)
        assert answers["/embed"].json["reason"] == reason and answers["/embed"].json["error"]
        assert answers["/v2/embed"].json["reason"] == reason and answers["/v2/embed"].json["message"]
        assert answers["/longembed/v1/embed"].json["code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
    for right in ({"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x_api_key": KEY}):
        for path, body in ROUTES.items():
            assert web.post(path, body(TEXT), **right).status == 200
    await_log(secured.log, '"client":"tests"')
    assert KEY not in secured.log.read_text() and "other" not in secured.log.read_text()


def begin_long_call(server, web: Http, key: str) -> tuple[threading.Thread, list[Answer]]:
    """Starts a long call, and returns when it has reached the server. The list gets the answer as its only element when the thread has ended."""
    answers = []
    body = {"input": [LONG * 8], "model": MODEL, "extension": {"windows": {"tokens": 512}}}
    thread = threading.Thread(target=lambda: answers.append(web.post("/v1/embeddings", body, x_api_key=key)))
    thread.start()
    deadline = time.monotonic() + 30
    while not scrape(server).total("longembed_requests_in_flight", method="openai.Embeddings"):
        assert time.monotonic() < deadline and not answers
        time.sleep(0.01)
    return thread, answers


def test_refusals_for_overload_carry_a_retry_delay(secured, authority):
    web = Http(secured.http_port, tls_of(authority))
    thread, answers = begin_long_call(secured, web, f"small-{KEY}")
    refused = [web.post(path, body(TEXT), x_api_key=f"small-{KEY}") for path, body in ROUTES.items()]
    thread.join()
    assert [answer.status for answer in answers] == [200]
    for answer in refused:
        assert answer.status == 429 and "CONCURRENT_CALLS" in answer.body.decode(), answer.body
        assert (answer.headers["Retry-After"], answer.headers["retry-after-ms"]) == ("1", "200")


def test_plaintext_and_foreign_authorities_are_shut_out(secured, tmp_path):
    with pytest.raises((http.client.HTTPException, OSError)):
        Http(secured.http_port).get("/health")
    with pytest.raises(ssl.SSLError):
        Http(secured.http_port, tls_of(Authority(tmp_path, "other"))).get("/health")


def test_the_certificate_identifies_the_client_as_in_grpc(tmp_path, authority, pb):
    tls = f"tls: {{certificate: {authority.folder / 'server.pem'}, key: {authority.folder / 'server.key'}, client_ca: {authority.certificate}}}\n"
    running = start_server(tmp_path, [MODEL], extra=LISTENS + tls)
    try:
        web = Http(running.http_port, tls_of(authority, "client"))
        assert web.post("/v1/embeddings", {"input": TEXT, "model": MODEL}).status == 200
        with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
            Http(running.http_port, tls_of(authority)).get("/health")
        certificate, key = authority.issue("client")
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{running.port}", credentials) as channel:
            pb[1].EmbeddingServiceStub(channel).Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text=TEXT)]))
        await_log(running.log, '"method":"Embed"')
        calls = [json.loads(line) for line in running.log.read_text().splitlines() if '"event":"call"' in line]
        names = {call["method"]: call["client"] for call in calls}
        assert names["Embed"] == names["openai.Embeddings"] and names["Embed"].startswith("certificate:")
    finally:
        assert running.stop() == 0


def health_over(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession, bool]:
    """Asks for /health on a connection of its own. Returns the connection's session, and whether it resumed `session`."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
            return connection.session, connection.session_reused


@pytest.fixture(scope="module")
def mutual(tmp_path_factory, authority):
    """Starts a server that wants certificates of the authority "middle", which is not a root. Returns it and middle."""
    folder = tmp_path_factory.mktemp("http-mutual")
    middle = Authority(folder, "middle", issuer=Authority(folder, "root"))
    tls = f"tls: {{certificate: {authority.folder / 'server.pem'}, key: {authority.folder / 'server.key'}, client_ca: {middle.certificate}}}\n"
    running = start_server(folder, [MODEL], extra=LISTENS + tls)
    yield running, middle
    assert running.stop() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_client_with_a_certificate_may_resume_its_session(mutual, authority, version):
    """Node and Java do so on every connection but the first."""
    server, middle = mutual
    context = tls_of(authority)
    context.load_cert_chain(*middle.issue("client"))
    context.minimum_version = context.maximum_version = version
    session, reused = health_over(server.http_port, context)
    assert not reused
    assert health_over(server.http_port, context, session)[1]


def test_an_authority_of_clients_need_not_be_a_root(mutual, authority, pb):
    server, middle = mutual
    certificate, key = middle.issue("client")
    context = tls_of(authority)
    context.load_cert_chain(certificate, key)
    assert health_over(server.http_port, context)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
        pb[1].EmbeddingServiceStub(channel).Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text=TEXT)]))
    with pytest.raises((ssl.SSLError, OSError)):
        health_over(server.http_port, tls_of(authority, "client"))


# ------------------------------------------------------------------------------------------------------------------------- drain


def test_a_client_that_pipelines_gets_its_first_answer_whole(http_server):
    """The second request is not read. A connection that is closed with unread bytes is reset, and what the client has not received is lost."""
    first = json.dumps({"input": ["a"] * 300}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", http_server.http_port))
        client.sendall(head % len(first) + first + head % 150_000 + b"x" * 150_000)
        time.sleep(0.5)
        received = b""
        while part := client.recv(1 << 16):
            received += part
    answered, body = received.split(b"\r\n\r\n", 1)
    assert answered.startswith(b"HTTP/1.1 200 ") and len(body) == int(re.search(rb"Content-Length: (\d+)", answered)[1]) > 1_000_000


def test_sigterm_finishes_what_has_begun(secured, authority):
    """Must be the last test that uses this server."""
    web = Http(secured.http_port, tls_of(authority))
    idle = socket.create_connection(("127.0.0.1", secured.http_port))
    thread, answers = begin_long_call(secured, web, KEY)
    secured.process.send_signal(signal.SIGTERM)
    assert secured.process.wait(timeout=120) == 0
    thread.join(timeout=10)
    idle.close()
    [answer] = answers
    assert answer.status == 200 and len(answer.json["data"]) == 1
    assert answer.headers["Connection"] == "close"
    with pytest.raises(OSError):
        web.get("/health")
