"""Tests tei.v1 with a client generated from the proto: the behavior that TEI's clients rely on."""

import json
import subprocess

import grpc
import numpy as np
import pytest
from generated_client import generate_client, generate_tei_client
from running_server import BUILD, MODELS, start_server

MODEL = "e5-small-v2"


@pytest.fixture(scope="module")
def tei(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tei")
    pb, pb_grpc = generate_tei_client(folder)
    server = start_server(folder, [MODEL, "bge-small-en-v1.5"], extra=f"tei: {{model: {MODEL}}}\n")
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")

    class Client:
        info, embed, tokenize = pb_grpc.InfoStub(channel), pb_grpc.EmbedStub(channel), pb_grpc.TokenizeStub(channel)
        predict, rerank = pb_grpc.PredictStub(channel), pb_grpc.RerankStub(channel)

    Client.pb = pb
    yield Client
    channel.close()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def reference():
    """Returns a function that computes token vectors with transformers."""
    import torch
    from tokenizers import Tokenizer

    from model.export import bert, sources

    checkpoint = sources.find(MODEL).load()
    model = bert.reference(checkpoint.config, checkpoint.tensors)
    tokenizer = Tokenizer.from_file(str(MODELS / MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def vectors(text: str, limit: int = 512, keep_end: bool = False) -> np.ndarray:
        ids = tokenizer.encode(text).ids
        if len(ids) > limit:
            inner = ids[1:-1]
            ids = [ids[0], *(inner[-(limit - 2) :] if keep_end else inner[: limit - 2]), ids[-1]]
        with torch.inference_mode():
            return model(torch.tensor([ids])).last_hidden_state[0].numpy()

    vectors.tokenizer = tokenizer
    return vectors


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


TEXTS = ["query: how to cook rice", "a", "Ünïcode — 東京 and 🎉", "passage: " + "The quick brown fox jumps over the lazy dog. " * 20]


@pytest.mark.parametrize("text", TEXTS)
def test_embed_is_the_normalized_mean(tei, reference, text):
    answer = tei.embed.Embed(tei.pb.EmbedRequest(inputs=text))
    hidden = reference(text)
    assert np.dot(answer.embeddings, unit(hidden.mean(axis=0))) >= 0.99999
    assert answer.metadata.compute_chars == len(text)
    assert answer.metadata.compute_tokens == len(hidden)
    assert answer.metadata.total_time_ns >= answer.metadata.inference_time_ns > 0


def test_options(tei, reference):
    text = TEXTS[0]
    mean = reference(text).mean(axis=0)
    raw = tei.embed.Embed(tei.pb.EmbedRequest(inputs=text, normalize=False)).embeddings
    np.testing.assert_allclose(raw, mean, atol=1e-4)
    short = tei.embed.Embed(tei.pb.EmbedRequest(inputs=text, dimensions=100)).embeddings
    np.testing.assert_allclose(short, unit(mean[:100]), atol=1e-5)
    prompted = tei.embed.Embed(tei.pb.EmbedRequest(inputs="how to cook rice", prompt_name="query"))
    assert np.dot(prompted.embeddings, unit(mean)) >= 0.99999
    assert prompted.metadata.compute_chars == len("how to cook rice")


def test_truncation_keeps_either_end(tei, reference):
    text = " ".join(f"word{i}" for i in range(600))
    for direction, keep_end in ((tei.pb.TRUNCATION_DIRECTION_RIGHT, False), (tei.pb.TRUNCATION_DIRECTION_LEFT, True)):
        answer = tei.embed.Embed(tei.pb.EmbedRequest(inputs=text, truncate=True, truncation_direction=direction))
        assert answer.metadata.compute_tokens == 512
        assert np.dot(answer.embeddings, unit(reference(text, keep_end=keep_end).mean(axis=0))) >= 0.99999


def test_headers_carry_the_metadata(tei):
    answer, call = tei.embed.Embed.with_call(tei.pb.EmbedRequest(inputs="headers"))
    headers = dict(call.initial_metadata())
    assert headers["x-compute-tokens"] == str(answer.metadata.compute_tokens)
    assert headers["x-compute-characters"] == "7"
    assert {"x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"} <= headers.keys()


def test_embed_all_gives_every_token(tei, reference):
    answer = tei.embed.EmbedAll(tei.pb.EmbedAllRequest(inputs=TEXTS[0]))
    expected = reference(TEXTS[0])
    assert len(answer.token_embeddings) == len(expected)
    for token, row in zip(answer.token_embeddings, expected):
        np.testing.assert_allclose(token.embeddings, row, atol=2e-4)


def test_streams_answer_in_order(tei):
    texts = [("long " * (400 if i % 7 == 0 else 3)) + f"text {i}" for i in range(60)]
    streamed = list(tei.embed.EmbedStream(iter([tei.pb.EmbedRequest(inputs=text) for text in texts])))
    assert len(streamed) == len(texts)
    for text, answer in list(zip(texts, streamed))[::7]:
        assert np.dot(answer.embeddings, tei.embed.Embed(tei.pb.EmbedRequest(inputs=text)).embeddings) >= 0.99999
    tokens = list(tei.tokenize.TokenizeStream(iter([tei.pb.EncodeRequest(inputs=f"number {i}") for i in range(20)])))
    assert [t.tokens[-1].text for t in tokens] == [str(i) for i in range(20)]
    assert len(list(tei.embed.EmbedAllStream(iter([tei.pb.EmbedAllRequest(inputs="x")] * 3)))) == 3
    assert list(tei.embed.EmbedStream(iter([]))) == []


def test_an_error_ends_the_stream_after_what_came_before(tei):
    requests = [tei.pb.EmbedRequest(inputs="good"), tei.pb.EmbedRequest(inputs=""), tei.pb.EmbedRequest(inputs="never seen")]
    received = []
    with pytest.raises(grpc.RpcError) as error:
        for answer in tei.embed.EmbedStream(iter(requests)):
            received.append(answer)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(received) == 1


def test_the_server_works_after_a_cancelled_stream(tei):
    def endless():
        while True:
            yield tei.pb.EmbedRequest(inputs="again " * 100)

    stream = tei.embed.EmbedStream(endless())
    next(stream)
    stream.cancel()
    with pytest.raises(grpc.RpcError):
        list(stream)
    assert tei.embed.Embed(tei.pb.EmbedRequest(inputs="still here"), timeout=30).embeddings


@pytest.mark.parametrize(
    "request_fields, code, said",
    [
        (dict(inputs=""), grpc.StatusCode.INVALID_ARGUMENT, "inputs"),
        (dict(inputs="word " * 600), grpc.StatusCode.INVALID_ARGUMENT, "602"),
        (dict(inputs="x", prompt_name="nobody"), grpc.StatusCode.INVALID_ARGUMENT, "nobody"),
        (dict(inputs="x", dimensions=0), grpc.StatusCode.INVALID_ARGUMENT, "dimensions"),
        (dict(inputs="x", dimensions=385), grpc.StatusCode.INVALID_ARGUMENT, "384"),
        (dict(inputs="x", truncate=True, truncation_direction=7), grpc.StatusCode.INVALID_ARGUMENT, "truncation_direction"),
    ],
)
def test_bad_requests(tei, request_fields, code, said):
    with pytest.raises(grpc.RpcError) as error:
        tei.embed.Embed(tei.pb.EmbedRequest(**request_fields))
    assert error.value.code() == code
    assert said in error.value.details()


def test_tokens(tei, reference):
    text = "Ünïcode — 東京 tokenization"
    answer = tei.tokenize.Tokenize(tei.pb.EncodeRequest(inputs=text, add_special_tokens=True))
    encoding = reference.tokenizer.encode(text)
    assert [token.id for token in answer.tokens] == encoding.ids
    assert [token.special for token in answer.tokens] == [bool(mask) for mask in encoding.special_tokens_mask]
    assert answer.tokens[0].text == "[CLS]" and not answer.tokens[0].HasField("start")
    raw = text.encode()
    for token in answer.tokens[1:-1]:
        assert raw[token.start : token.stop].decode(errors="replace") == token.text
    bare = tei.tokenize.Tokenize(tei.pb.EncodeRequest(inputs=text))
    assert [token.id for token in bare.tokens] == encoding.ids[1:-1]
    for skip in (False, True):
        decoded = tei.tokenize.Decode(tei.pb.DecodeRequest(ids=encoding.ids, skip_special_tokens=skip)).text
        assert decoded == reference.tokenizer.decode(encoding.ids, skip_special_tokens=skip)
    with pytest.raises(grpc.RpcError) as error:
        tei.tokenize.Decode(tei.pb.DecodeRequest(ids=[10**9]))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_info(tei):
    info = tei.info.Info(tei.pb.InfoRequest())
    assert (info.model_id, info.model_dtype, info.model_type) == (MODEL, "float32", tei.pb.MODEL_TYPE_EMBEDDING)
    assert info.max_input_length == 512 and info.max_batch_tokens > 0 and info.tokenization_workers > 0 and info.version


def test_errors_name_the_fields_of_tei(tei):
    """Those of longembed.v1, such as inputs[0] and options.dimensions, are not in TEI's requests."""
    pb, long = tei.pb, "word " * 600
    calls = [
        ("inputs: has 602 tokens", lambda: tei.embed.Embed(pb.EmbedRequest(inputs=long))),
        ("inputs: has 602 tokens", lambda: tei.embed.EmbedAll(pb.EmbedAllRequest(inputs=long))),
        ("inputs: has 602 tokens", lambda: list(tei.embed.EmbedStream(iter([pb.EmbedRequest(inputs=long)])))),
        ("dimensions: is 0", lambda: tei.embed.Embed(pb.EmbedRequest(inputs="x", dimensions=0))),
        ("inputs: has 10", lambda: tei.tokenize.Tokenize(pb.EncodeRequest(inputs="a " * 1_100_000))),
    ]
    for message, call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details().startswith(message) and "options." not in error.value.details()


def test_unimplemented_methods_have_an_error(tei):
    pb = tei.pb
    calls = [
        lambda: tei.embed.EmbedSparse(pb.EmbedSparseRequest(inputs="x")),
        lambda: list(tei.embed.EmbedSparseStream(iter([]))),
        lambda: tei.predict.Predict(pb.PredictRequest(inputs="x")),
        lambda: tei.predict.PredictPair(pb.PredictPairRequest(inputs=["x", "y"])),
        lambda: list(tei.predict.PredictStream(iter([]))),
        lambda: tei.rerank.Rerank(pb.RerankRequest(query="x", texts=["y"])),
        lambda: tei.rerank.RerankStream(iter([])),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "this server embeds texts" in error.value.details()


def test_several_models_and_none_named_serve_no_tei(tmp_path):
    pb, pb_grpc = generate_tei_client(tmp_path)
    server = start_server(tmp_path, [MODEL, "bge-small-en-v1.5"])
    try:
        assert "tei.v1 needs tei.model" in server.log.read_text()
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, pytest.raises(grpc.RpcError) as error:
            pb_grpc.InfoStub(channel).Info(pb.InfoRequest())
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED and "/tei.v1.Info/Info" in error.value.details()
    finally:
        server.stop()


def test_a_profile_embeds_long_texts(tmp_path):
    """Vectors equal those of longembed.v1 under the same profile, requested by its alias. The truncate flag that Haystack sets cuts nothing."""
    pb, pb_grpc = generate_tei_client(tmp_path / "tei")
    ours, ours_grpc = generate_client(tmp_path / "ours")
    text = "The quick brown fox jumps over the lazy dog. " * 100
    server = start_server(tmp_path, [MODEL], extra="profiles: {long: {windows: {tokens: 128}}}\ntei: {profile: long}\n")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            embed = pb_grpc.EmbedStub(channel)
            answer = embed.Embed(pb.EmbedRequest(inputs=text, prompt_name="query", truncate=True))
            options = ours.EmbedOptions(model=f"{MODEL}:long", prompt_name="query")
            expected = ours_grpc.EmbeddingServiceStub(channel).Embed(ours.EmbedRequest(options=options, inputs=[ours.Input(text=text)])).results[0]
            assert answer.metadata.compute_tokens == expected.tokens > 1000
            np.testing.assert_allclose(answer.embeddings, expected.embeddings[0].values, atol=1e-6)
            every = embed.EmbedAll(pb.EmbedAllRequest(inputs=text, prompt_name="query"))
            assert len(every.token_embeddings) == expected.tokens
            assert pb_grpc.InfoStub(channel).Info(pb.InfoRequest()).max_input_length == 1048576
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    "tei, said",
    [
        ("{extension: {windoes: {}}}", "tei.extension: "),
        ("{profile: nobody}", 'tei has the profile "nobody"'),
        ("{profile: long, extension: {windows: {}}}", "tei has both profile and extension"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(tmp_path, tei, said):
    binary = BUILD / "longembed-server"
    if not binary.exists():
        pytest.skip(f"{binary.name} has not been built; run tests/run.sh")
    config = tmp_path / "config.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\nprofiles: {{long: {{windows: {{}}}}}}\ntei: {tei}\nmodels: [{{path: {tmp_path}}}]\n")
    ended = subprocess.run([binary, "--config", config], capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and any(said in json.loads(line).get("why", "") for line in ended.stderr.splitlines()), ended.stderr
