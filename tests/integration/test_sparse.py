"""Tests sparse vectors from checkpoint to client. Models are exported with the exporter's own check, served, and compared with transformers and
with the published formulas in float64."""

import json
import subprocess
import sys

import grpc
import numpy as np
import pytest
import torch
from google.protobuf.json_format import ParseDict
from transformers import AutoModel, AutoModelForMaskedLM

from generated_client import generate_tei_client
from http_client import LISTENS, Http
from running_server import BUILD, ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_sparse  # noqa: E402

from model.export import check  # noqa: E402
from model.export.__main__ import main  # noqa: E402

SIZE = 300  # The size of the vocabulary.
TEXTS = ["The quick brown fox jumps", "a", "no two are alike, 1 2 3"]
LONG = "one two three four five six seven eight nine ten eleven twelve"


@pytest.fixture(scope="module")
def served(tmp_path_factory, pb):
    """Returns the stub, the channel, the folder of each checkpoint, and a client of the HTTP port."""
    checkpoints, exported = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("models")
    folders = {
        "splade": tiny_sparse.save_splade("distilbert", checkpoints / "splade", "max", "relu"),
        "summed": tiny_sparse.save_splade("bert", checkpoints / "summed", "sum", "log1p_relu"),
        "modern": tiny_sparse.save_splade("modernbert", checkpoints / "modern"),
        "both": tiny_sparse.save_bge_m3(checkpoints / "both"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "lines", lambda lines=check.lines()[:3]: lines)
        for name, folder in folders.items():
            assert main([str(folder), "--out", str(exported / name)]) == 0
    running = start_server(tmp_path_factory.mktemp("sparse"), list(folders), models_folder=exported, extra=f"{LISTENS}tei: {{model: splade}}\n")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield pb[1].EmbeddingServiceStub(channel), channel, folders, Http(running.http_port)
    assert running.stop() == 0


def embed(served, pb, texts, **options):
    request = pb[0].EmbedRequest(options=ParseDict(options, pb[0].EmbedOptions()))
    for text in texts:
        request.inputs.add().text = text
    return served[0].Embed(request)


def weights_of(result) -> np.ndarray:
    (embedding,) = result.embeddings
    ids = list(embedding.indices.ids)
    assert ids == sorted(set(ids)) and embedding.dimensions == SIZE
    weights = np.zeros(SIZE)
    weights[ids] = embedding.values
    return weights


@torch.no_grad()
def expected(folder, kind: str, ids: list[int]) -> np.ndarray:
    if kind == "both":
        hidden = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
        linear = torch.load(folder / "sparse_linear.pt", weights_only=True)
        weights = np.zeros(SIZE)
        for id, weight in zip(ids, hidden @ linear["weight"][0].double().numpy() + linear["bias"].item()):
            weights[id] = max(weights[id], weight if id > 3 else 0)  # Tokens 0 to 3 are special.
        return weights
    logits = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    weights = np.log(1 + np.maximum(logits, 0))
    return np.log(1 + weights).sum(0) if kind == "summed" else weights.max(0)


def sequences_of(served, pb, name: str, text: str, prompt: str = "") -> list[int]:
    answer = served[0].Tokenize(pb[0].TokenizeRequest(model=name, texts=[prompt + text], add_special_tokens=False))
    return [token.id for token in answer.results[0].tokens]


def assert_close(found: np.ndarray, wanted: np.ndarray):
    assert np.abs(found - wanted).max() <= 2e-5 * max(1, wanted.max())
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) >= 0.99999


@pytest.mark.parametrize("name", ["splade", "summed", "modern", "both"])
def test_weights_are_those_of_the_formula_alone_and_batched(served, pb, name):
    texts = TEXTS + [TEXTS[0]]
    answers = embed(served, pb, texts, model=name, output="SPARSE").results
    for text, answer in zip(texts, answers):
        wanted = expected(served[2][name], name, [3, *sequences_of(served, pb, name, text), 2])
        assert_close(weights_of(answer), wanted)
        assert_close(weights_of(embed(served, pb, [text], model=name, output="SPARSE").results[0]), wanted)


@pytest.mark.parametrize("name", ["splade", "summed", "both"])
def test_windows_become_one_by_their_maximum(served, pb, name):
    answer = embed(served, pb, [LONG], model=name, output="SPARSE", extension={"windows": {"tokens": 12}, "when": "ALWAYS"}).results[0]
    content = sequences_of(served, pb, name, LONG)
    windows = [content[s.content.start : s.content.end] for s in answer.sequences]
    assert len(windows) > 3
    assert_close(weights_of(answer), np.max([expected(served[2][name], name, [3, *window, 2]) for window in windows], axis=0))


def test_prompts_go_before_the_text(served, pb):
    answer = embed(served, pb, [TEXTS[1]], model="splade", input_type="QUERY")
    assert answer.prompt == "q: "
    wanted = expected(served[2]["splade"], "splade", [3, *sequences_of(served, pb, "splade", TEXTS[1], "q: "), 2])
    assert_close(weights_of(answer.results[0]), wanted)


def test_a_model_says_which_outputs_it_has(served, pb):
    outputs = {name: served[0].GetModel(pb[0].GetModelRequest(model=name)).outputs for name in served[2]}
    kinds = pb[0].EmbedOptions
    assert list(outputs["splade"]) == [kinds.SPARSE]
    assert list(outputs["both"]) == [kinds.ONE_VECTOR, kinds.WINDOW_VECTORS, kinds.SPAN_VECTORS, kinds.SPARSE]
    dense = embed(served, pb, TEXTS, model="both").results[0].embeddings[0]
    assert not dense.HasField("indices") and len(dense.values) == 64
    with pytest.raises(grpc.RpcError) as refused:
        embed(served, pb, TEXTS, model="splade", output="ONE_VECTOR")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "it supports: SPARSE" in refused.value.details()


def test_the_largest_weights_and_smaller_encodings(served, pb):
    whole = weights_of(embed(served, pb, TEXTS[:1], model="splade").results[0])
    few = weights_of(embed(served, pb, TEXTS[:1], model="splade", max_terms=5).results[0])
    assert (few > 0).sum() == 5 and np.allclose(np.sort(few)[-5:], np.sort(whole)[-5:])
    packed = embed(served, pb, TEXTS[:1], model="splade", encoding="FLOAT16").results[0].embeddings[0]
    values = np.frombuffer(packed.packed, "<f2").astype(np.float32)
    assert np.allclose(values, whole[list(packed.indices.ids)], rtol=1e-3)


def test_teis_embed_sparse_is_the_same(served, pb, tmp_path):
    tei_pb, tei_grpc = generate_tei_client(tmp_path)
    stub = tei_grpc.EmbedStub(served[1])
    ours = embed(served, pb, TEXTS, model="splade").results
    streamed = list(stub.EmbedSparseStream(iter([tei_pb.EmbedSparseRequest(inputs=text) for text in TEXTS])))
    for text, result, from_stream in zip(TEXTS, ours, streamed, strict=True):
        answer = stub.EmbedSparse(tei_pb.EmbedSparseRequest(inputs=text))
        for weights in (answer.sparse_embeddings, from_stream.sparse_embeddings):  # A batch may change LibTorch's last bits.
            assert [weight.index for weight in weights] == list(result.embeddings[0].indices.ids)
            np.testing.assert_allclose([weight.value for weight in weights], list(result.embeddings[0].values), rtol=1e-5, atol=1e-6)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Embed(tei_pb.EmbedRequest(inputs="x"))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED and "dense vectors" in refused.value.details()


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_teis_other_paths_give_weights_where_the_model_gives_no_vectors(served, path):
    web = served[3]
    answers = zip(web.ok(path, {"inputs": TEXTS}), web.ok("/embed_sparse", {"inputs": TEXTS}), strict=True)
    for found, expected in answers:  # A batch may change LibTorch's last bits.
        assert [weight["index"] for weight in found] == [weight["index"] for weight in expected]
        np.testing.assert_allclose([weight["value"] for weight in found], [weight["value"] for weight in expected], rtol=1e-5, atol=1e-6)
    assert web.get("/info").json["model_type"] == {"embedding": {"pooling": "splade"}}
    assert web.post("/embed", {"inputs": TEXTS}).status == 424


def test_the_command_line_writes_indices_and_values(served, pb):
    target = served[1]._channel.target().decode().removeprefix("dns:///")
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))
    done = subprocess.run(
        [BUILD / "longembed", "embed", "--server", target, "--model", "both", "--vectors", "sparse", "--max-terms", "4"], input=lines, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["embedding"] for line in done.stdout.splitlines()]
    expected_answers = embed(served, pb, TEXTS, model="both", output="SPARSE", max_terms=4).results
    for answer, result in zip(answers, expected_answers, strict=True):
        assert answer["indices"] == list(result.embeddings[0].indices.ids) and answer["dimensions"] == SIZE
        assert np.allclose(answer["values"], result.embeddings[0].values)


def test_the_python_package_gives_arrays(served, pb):
    longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
    with longembed.Client(served[1]._channel.target().decode().removeprefix("dns:///"), model="both") as client:
        answers = client.embed(TEXTS, output="SPARSE")
        wanted = [weights_of(result) for result in embed(served, pb, TEXTS, model="both", output="SPARSE").results]
        for answer, weights in zip(answers, wanted, strict=True):
            assert answer.sparse.indices.tolist() == np.flatnonzero(weights).tolist() and np.allclose(answer.sparse.values, weights[weights > 0])
        scores = longembed.sparse.score([answer.sparse for answer in answers], [answer.sparse for answer in answers])
        assert np.allclose(scores, np.array(wanted) @ np.array(wanted).T, rtol=1e-5)
        small = client.embed(TEXTS, output="SPARSE", encoding="INT8")[0]
        assert np.abs(small.sparse.values - answers[0].sparse.values).max() <= answers[0].sparse.values.max() / 250
        with pytest.raises(ValueError, match="read .sparse"):
            answers.matrix()
        with pytest.raises(ValueError, match="embed it with output SPARSE"):
            client.embed(TEXTS)[0].sparse  # noqa: B018
        with longembed.Client(client.server, model="splade") as other:
            assert other.embed(TEXTS)[0].indices is not None
