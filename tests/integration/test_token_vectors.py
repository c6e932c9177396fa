"""Tests token vectors from checkpoint to client. Models are exported with the exporter's own check, served, and compared with
sentence-transformers' MultiVectorEncoder."""

import sys

import grpc
import numpy as np
import pytest
import torch
import transformers
from google.protobuf.json_format import ParseDict

from running_server import ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import explicit_model  # noqa: E402
import tiny_colbert  # noqa: E402

from model.export import check  # noqa: E402
from model.export.__main__ import main  # noqa: E402

TEXTS = ["Who?", "The fox. It ran, far!", "no two are alike, 1"]
LONG = "one two three, four five six. seven eight nine ten eleven twelve"


@pytest.fixture(scope="module")
def served(tmp_path_factory, pb):
    """Returns the stub, the channel, and sentence-transformers' models by name."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    checkpoints, exported = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("models")
    folders = {
        "stanford": tiny_colbert.save_stanford(checkpoints / "stanford"),
        "pylate": tiny_colbert.save_pylate(checkpoints / "pylate", "modernbert"),
        "native": tiny_colbert.save_native(checkpoints / "native", document_length=16),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "lines", lambda lines=check.lines()[:3]: lines)
        for name, folder in folders.items():
            assert main([str(folder), "--out", str(exported / name)]) == 0
    running = start_server(tmp_path_factory.mktemp("tokens"), list(folders), models_folder=exported)
    theirs = {name: sentence_transformers.MultiVectorEncoder(str(folder), device="cpu") for name, folder in folders.items()}
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield pb[1].EmbeddingServiceStub(channel), channel, theirs
    assert running.stop() == 0


def embed(served, pb, texts, **options):
    request = pb[0].EmbedRequest(options=ParseDict(options, pb[0].EmbedOptions()))
    for text in texts:
        request.inputs.add().text = text
    return served[0].Embed(request).results


def vectors_of(result) -> np.ndarray:
    return np.array([embedding.values for embedding in result.embeddings], np.float64)


@pytest.mark.parametrize("kind", ["QUERY", "DOCUMENT"])
@pytest.mark.parametrize("name", ["stanford", "pylate", "native"])
def test_vectors_are_those_of_multi_vector_encoder(served, pb, name, kind):
    encode = served[2][name].encode_query if kind == "QUERY" else served[2][name].encode_document
    expected = encode(TEXTS, convert_to_numpy=True, show_progress_bar=False)
    batched = embed(served, pb, TEXTS, model=name, input_type=kind, truncate="END")
    for text, wanted, result in zip(TEXTS, expected, batched, strict=True):
        alone = embed(served, pb, [text], model=name, input_type=kind, truncate="END")[0]
        for found in (vectors_of(result), vectors_of(alone)):
            assert found.shape == wanted.shape
            assert (found * wanted).sum(axis=1).min() >= 0.99999


def test_ranges_say_which_tokens_have_a_vector(served, pb):
    result = embed(served, pb, [TEXTS[1]], model="stanford", input_type="DOCUMENT")[0]
    tokens = served[0].Tokenize(pb[0].TokenizeRequest(model="stanford", texts=[TEXTS[1]], add_special_tokens=False)).results[0].tokens
    found = [embedding.range for embedding in result.embeddings]
    content = [r.start for r in found if r.end > r.start]
    assert content == [i for i, token in enumerate(tokens) if token.text not in (".", ",", "!")][: len(content)]
    assert len(found) - len(content) == 3  # Those are [CLS], [unused1] and [SEP].


def test_windows_of_a_document_have_the_vectors_of_each(served, pb):
    (result,) = embed(served, pb, [LONG], model="stanford", input_type="DOCUMENT", extension={"windows": {"tokens": 12}, "when": "ALWAYS"})
    content = [token.id for token in served[0].Tokenize(pb[0].TokenizeRequest(model="stanford", texts=[LONG], add_special_tokens=False)).results[0].tokens]
    assert len(result.sequences) > 3
    pieces = []
    for sequence in result.sequences:
        request = pb[0].EmbedRequest(options=pb[0].EmbedOptions(model="stanford", input_type=pb[0].EmbedOptions.DOCUMENT))
        request.inputs.add().token_ids.ids.extend(content[sequence.content.start : sequence.content.end])
        pieces.append(vectors_of(served[0].Embed(request).results[0]))
    assert np.abs(vectors_of(result) - np.concatenate(pieces)).max() <= 1e-5


def test_documents_are_calibrated_in_every_row_and_queries_are_not(served, pb):
    network, calibration = served[2]["stanford"][0].auto_model, explicit_model.Calibration(basket=5, share=1.0)

    def attend(module, query, key, value, attention_mask, scaling=None, **more):
        weights = torch.softmax(query @ key.transpose(2, 3) * (query.size(-1) ** -0.5 if scaling is None else scaling), dim=-1)
        rows = [[calibration.of_row(row, i) for i, row in enumerate(head)] for head in weights[0].double().numpy()]
        return (torch.tensor(np.array(rows)).to(value.dtype) @ value[0]).unsqueeze(0).transpose(1, 2).contiguous(), None

    asked = {"attention_calibration": {"basket": 5, "layers": 1.0}}
    (document,) = embed(served, pb, [LONG], model="stanford", input_type="DOCUMENT", truncate="END", extension={**asked, "when": "ALWAYS"})
    (query,) = embed(served, pb, [LONG], model="stanford", input_type="QUERY", truncate="END", extension=asked)
    transformers.AttentionInterface.register("calibrated", attend)
    before, network.config._attn_implementation = network.config._attn_implementation, "calibrated"
    expected = served[2]["stanford"].encode_document([LONG], convert_to_numpy=True, show_progress_bar=False)[0]
    network.config._attn_implementation = before
    assert (vectors_of(document) * expected).sum(axis=1).min() >= 0.99999
    plain = embed(served, pb, [LONG], model="stanford", input_type="QUERY", truncate="END")[0]
    assert np.array_equal(vectors_of(query), vectors_of(plain))


@pytest.mark.parametrize("factor", [2, 3, 50])
@pytest.mark.parametrize("name", ["stanford", "pylate"])
def test_documents_are_pooled_by_wards_method(served, pb, name, factor):
    """The oracle is scipy's linkage over the document's unpooled vectors. The first vector is protected."""
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    for extension in ({}, {"windows": {"tokens": 12}, "when": "ALWAYS"}):
        options = {"model": name, "input_type": "DOCUMENT", "extension": extension, "truncate": "END"}
        whole, pooled = (embed(served, pb, [LONG], **options, **more)[0] for more in ({}, {"token_pooling": factor}))
        vectors, ranges = vectors_of(whole), [(e.range.start, e.range.end) for e in whole.embeddings]
        count = -(-(len(vectors) - 1) // factor)
        labels = hierarchy.fcluster(hierarchy.linkage(vectors[1:], "ward"), count, "maxclust")
        first = {label: i for i, label in reversed(list(enumerate(labels)))}
        found = vectors_of(pooled)
        assert len(found) == 1 + len(first) == 1 + count and np.abs(found[0] - vectors[0]).max() <= 1e-6
        for row, label in enumerate(sorted(first, key=first.get), 1):
            mean = vectors[1:][labels == label].mean(axis=0)
            assert found[row] @ mean / np.linalg.norm(mean) >= 0.99999
            inside = [r for r, of in zip(ranges[1:], labels) if of == label]
            assert (pooled.embeddings[row].range.start, pooled.embeddings[row].range.end) == (min(start for start, _ in inside), max(end for _, end in inside))
        one = embed(served, pb, [LONG], **options, token_pooling=1)[0]
        assert np.array_equal(vectors_of(one), vectors)


def test_a_query_is_never_pooled(served, pb):
    plain, asked = (embed(served, pb, [TEXTS[1]], model="stanford", input_type="QUERY", truncate="END", **more)[0] for more in ({}, {"token_pooling": 3}))
    assert np.array_equal(vectors_of(plain), vectors_of(asked))


def test_outputs_that_the_model_does_not_support_are_refused(served, pb):
    for options, said in (({"output": "ONE_VECTOR", "input_type": "QUERY"}, "it supports: TOKEN_VECTORS"), ({}, "options.input_type")):
        with pytest.raises(grpc.RpcError) as refused:
            embed(served, pb, TEXTS, model="native", **options)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and said in refused.value.details()


def test_the_python_package_scores_them(served, pb):
    longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
    with longembed.Client(served[1]._channel.target().decode().removeprefix("dns:///"), model="pylate") as client:
        queries = client.embed(TEXTS[:1], input_type="QUERY", truncate="END")
        documents = client.embed(TEXTS, input_type="DOCUMENT", truncate="END")
    scores = longembed.maxsim.score(longembed.maxsim.MultiVectors.of(queries), longembed.maxsim.MultiVectors.of(documents), reduce="max")
    theirs = served[2]["pylate"]
    wanted = theirs.similarity(theirs.encode_query(TEXTS[:1]), theirs.encode_document(TEXTS)).numpy()
    assert np.allclose(scores[0] * tiny_colbert.QUERY_LENGTH, wanted[0], atol=1e-4)
