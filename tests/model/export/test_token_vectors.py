"""Tests token vectors. For queries and documents, an exported model must give the vectors that users of the checkpoint get. Unknown forms must be
refused.

The oracle is transformers on the checkpoint's folder with ColBERT's published steps in float64, implemented in this file. The exporter's own
oracle is MultiVectorEncoder."""

import json

import pytest
import safetensors.torch
import tiny_colbert
import torch
import torch.nn.functional as F
from conftest import manifest_of, refused
from tiny_colbert import DOCUMENT_LENGTH, QUERY_LENGTH, save_native, save_pylate, save_stanford
from tokenizers import Tokenizer
from transformers import AutoModel

from model.export import check, directory, layered_check
from model.export.__main__ import main

TEXTS = ("a b", "The fox. It ran, far!", "x" * 40, "one two three four five six")
MIN_COSINE = 0.99999


@pytest.fixture(autouse=True)
def fewer_texts(monkeypatch):
    monkeypatch.setattr(check, "lines", lambda lines=check.lines()[:4]: lines)


def export(folder, out):
    assert main([str(folder), "--out", str(out)]) == 0
    return directory.Directory(out)


@torch.no_grad()
def colbert(folder, text: str, query: bool, marker: int, expanded: int = QUERY_LENGTH, attend: bool = False, skipped: str = "") -> torch.Tensor:
    """Encodes [CLS] marker text [SEP]. A query is extended by [MASK] tokens that nothing attends to. The last hidden states go through
    linear.weight and are scaled to length 1."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation(), tokenizer.no_padding()
    limit = QUERY_LENGTH if query else DOCUMENT_LENGTH
    ids = [3, marker, *tokenizer.encode(text, add_special_tokens=False).ids[: limit - 3], 2]
    attended = [1] * len(ids)
    if query:
        more = max(0, expanded - len(ids))
        ids, attended = ids + [tokenizer.token_to_id("[MASK]")] * more, attended + [int(attend)] * more
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    hidden = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attended])).last_hidden_state[0]
    file = folder / "1_Dense" / "model.safetensors"
    weight = safetensors.torch.load_file(file if file.exists() else folder / "model.safetensors")["linear.weight"].double()
    skip = set() if query else {tokenizer.token_to_id(word) for word in skipped}
    return F.normalize(torch.stack([weight @ row for id, row in zip(ids, hidden) if id not in skip]), dim=1)


def assert_right(model, expected_of) -> None:
    for role in ("query", "document"):
        samples = [directory.Sample(text, role) for text in TEXTS]
        together = model.encode_tokens(samples)
        for sample, alone, batched in zip(samples, model.token_vectors(samples), together):
            expected = expected_of(sample.text, role == "query")
            for found in (alone, batched):
                assert found.shape == expected.shape
                assert (F.normalize(found.double(), dim=1) * expected).sum(1).min() >= MIN_COSINE


@pytest.mark.parametrize("kind, attend", [("bert", False), ("bert", True), ("modernbert", False)])
def test_pylate(kind, attend, tmp_path):
    folder = save_pylate(tmp_path / kind, kind, attend_to_expansion_tokens=attend)
    model = export(folder, tmp_path / "out")
    content = model.content
    assert content["pooling"] == "NONE" and content["vector_size"] == tiny_colbert.SIZE and content["trained_window"] == DOCUMENT_LENGTH
    assert content["prompts"] == {"query": "[Q] ", "document": "[D] "}
    assert content["token_vectors"]["query_tokens"] == content["token_vectors"]["expansion_tokens"] == QUERY_LENGTH
    ids = {name: Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(name) for name in ("[Q] ", "[D] ")}
    punctuation = "".join(tiny_colbert.PYLATE["skiplist_words"])
    assert_right(model, lambda text, query: colbert(folder, text, query, ids["[Q] " if query else "[D] "], attend=attend, skipped=punctuation))


def test_stanford(tmp_path):
    folder = save_stanford(tmp_path / "colbert")
    model = export(folder, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    markers = [tokenizer.token_to_id(name) for name in ("[unused1]", "[unused0]")]
    assert_right(model, lambda text, query: colbert(folder, text, query, markers[query], skipped="!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))


def test_the_expansion_of_queries_may_be_off(tmp_path):
    model = export(save_pylate(tmp_path / "bert", do_query_expansion=False), tmp_path / "out")
    assert model.content["token_vectors"] | {"skipped_tokens": []} == {"query_tokens": QUERY_LENGTH, "expansion_tokens": 0, "skipped_tokens": []}


@pytest.mark.parametrize("expansion", [None, {"strategy": "fixed", "length": 12}, {"strategy": "min", "length": 12, "attend": True}])
def test_sentence_transformers_own_form(expansion, tmp_path, capsys):
    model = export(save_native(tmp_path / "bert", expansion=expansion, document_length=16), tmp_path / "out")
    assert "MultiVectorEncoder" in capsys.readouterr().err
    settings = model.content["token_vectors"]
    assert (settings["query_tokens"], settings["expansion_tokens"]) == {None: (32, 0), "fixed": (12, 12), "min": (32, 12)}[expansion and expansion["strategy"]]
    assert len(settings["skipped_tokens"]) == 2 and model.content["trained_window"] == 16  # "the" is not a token of this vocabulary.


@pytest.mark.parametrize("save", [save_pylate, save_native])
def test_defaults_are_kept(save, tmp_path):
    folder = save(tmp_path / "bert")
    _file("config_sentence_transformers.json", default_prompt_name="query", similarity_fn_name="meanmaxsim", matryoshka_dimensions=[4, 8])(folder)
    content = export(folder, tmp_path / "out").content
    assert content["default_prompt_name"] == "query" and "similarity_function" not in content
    assert set(content["trained_dimensions"]) >= {4, 8}


def test_a_blank_marker_is_none(tmp_path):
    folder = save_stanford(tmp_path / "colbert")
    _file("artifact.metadata", query_token_id=" ")(folder)
    assert export(folder, tmp_path / "out").content["prompts"]["query"].strip() == ""


def test_a_residual_dense_layer(tmp_path):
    export(save_pylate(tmp_path / "bert", residual=True), tmp_path / "out")


def _file(name, **changes):
    def change(folder):
        path = folder / name
        tiny_colbert.write(path, json.loads(path.read_text()) | changes)

    return change


@pytest.mark.parametrize(
    "save, change, said",
    [
        (save_native, _file("2_MultiVectorMask/config.json", skiplist_tasks=["query", "document"]), "skiplist_tasks"),
        (save_native, _file("2_MultiVectorMask/config.json", keep_only_token_ids=[7]), "keep_only_token_ids"),
        (save_native, _file("sentence_bert_config.json", query_expansion={"strategy": "longest", "length": 8}), "query_expansion"),
        (save_native, _file("sentence_bert_config.json", query_expansion={"strategy": "fixed"}), "without a length"),
        (save_native, _file("config_sentence_transformers.json", model_type="SentenceTransformer"), "of a SentenceTransformer"),
        (save_pylate, _file("config_sentence_transformers.json", query_length=2), "query_length = 2"),
        (save_pylate, _file("config_sentence_transformers.json", skiplist_words=[1]), "skiplist_words"),
        (save_pylate, _file("config_sentence_transformers.json", similarity_fn_name="cosine"), "similarity_fn_name = 'cosine'"),
        (save_native, _file("config_sentence_transformers.json", default_prompt_name="passage"), "default_prompt_name = 'passage'"),
        (save_native, _file("config_sentence_transformers.json", truncate_dim=8), "truncate_dim"),
        (save_stanford, _file("artifact.metadata", doc_maxlen="many"), "doc_maxlen"),
    ],
)  # fmt: skip
def test_settings_that_the_server_does_not_support_are_refused(save, change, said, tmp_path, capsys):
    folder = save(tmp_path / "model")
    change(folder)
    assert said in refused(folder, tmp_path / "out", capsys)


def test_token_vectors_are_not_pooled(tmp_path, capsys):
    assert "leave --pooling out" in refused(save_pylate(tmp_path / "model"), tmp_path / "out", capsys, "--pooling", "mean")


def test_mask_tokens_beyond_a_local_window_are_refused(tmp_path, capsys):
    folder = save_pylate(tmp_path / "model", "modernbert", query_length=12)
    assert "beyond which a mask token sees no text" in refused(folder, tmp_path / "out", capsys)


def test_token_vectors_are_not_checked_layer_by_layer(tmp_path, capsys, monkeypatch):
    folder = save_pylate(tmp_path / "model")
    assert "not checked layer by layer; give --check whole" in refused(folder, tmp_path / "out", capsys, "--check", "layers")
    monkeypatch.setattr(layered_check, "available_memory", lambda: 0)
    export(folder, tmp_path / "out")
    assert "token vectors: " in capsys.readouterr().err


def test_documents_longer_than_the_positions_of_a_rotary_model_are_refused(tmp_path, capsys):
    folder = save_native(tmp_path / "colbert", kind="nomic_bert", document_length=64)
    line = refused(folder, tmp_path / "out", capsys).splitlines()[-1]
    assert "users truncate at 64 tokens, but this export would truncate at 32" in line


@pytest.mark.parametrize("role, limit", [("query", QUERY_LENGTH), ("document", DOCUMENT_LENGTH)])
def test_markers_that_leave_no_room_are_refused(role, limit, tmp_path, capsys):
    """The vocabulary lacks this marker, so that each of its letters is a token."""
    folder = save_pylate(tmp_path / "colbert", **{f"{role}_prefix": "[AMarkerThatNoTokenStandsFor] "})
    assert f"the prompt '{role}' takes 31 of {limit} tokens and leaves no room for a text" in refused(folder, tmp_path / "out", capsys).splitlines()[-1]
