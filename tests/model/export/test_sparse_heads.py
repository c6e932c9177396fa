"""Tests sparse heads. For a text, an exported model must give the weights that users of the checkpoint get. Unknown forms must be refused.

The oracle is transformers on the checkpoint's folder with the published formulas in float64, implemented in this file. The exporter's own oracle
is SparseEncoder."""

import json
import shutil

import pytest
import safetensors.torch
import tiny_sparse
import torch
from conftest import manifest_of, refused
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from model.export import check, directory
from model.export.__main__ import main

TEXTS = ("The Quick brown fox. 12", " a  b ", "É é ÀB", "[Q] [CLS] x [SEP]", "x" * 70, "a", "one two three four five six seven eight nine ten")
TOLERANCE = 2e-5
LIMIT = 32


@pytest.fixture(autouse=True)
def fewer_texts(monkeypatch):
    monkeypatch.setattr(check, "lines", lambda lines=check.lines()[:4]: lines)


def export(folder, out, *options) -> str:
    assert main([str(folder), "--out", str(out), *options]) == 0
    return out


@torch.no_grad()
def splade(folder, ids, strategy, activation) -> torch.Tensor:
    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    weights = (1 + logits.clamp(min=0)).log()
    if activation == "log1p_relu":
        weights = (1 + weights).log()
    return weights.sum(0) if strategy == "sum" else weights.max(0).values


def assert_right(folder, model, expected_of) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sequences = [tokenizer(text, truncation=True, max_length=LIMIT)["input_ids"] for text in TEXTS]
    assert [model.ids(directory.Sample(text, "")) for text in TEXTS] == sequences
    alone, together = model.sparse_alone(sequences), model.sparse(sequences)
    for ids, one, other in zip(sequences, alone, together):
        expected = expected_of(ids)
        scale = expected.max().clamp(min=1)
        assert (one.double() - expected).abs().max() <= TOLERANCE * scale
        assert (one - other).abs().max() <= TOLERANCE * scale
        assert ((one != 0) == (expected > 0)).float().mean() > 0.99  # A weight close to 0 may have either sign.


@pytest.mark.parametrize(
    "kind, strategy, activation",
    [
        ("bert", "max", "relu"), ("bert", "sum", "log1p_relu"), ("distilbert", "max", "log1p_relu"), ("roberta", "sum", "relu"), ("mpnet", "max", "relu"),
        ("modernbert", "max", "relu"),
    ],
)  # fmt: skip
def test_splade_matches_sparse_encoder_and_the_formula(kind, strategy, activation, tmp_path, capsys):
    folder = tiny_sparse.save_splade(kind, tmp_path / kind, strategy, activation)
    out = export(folder, tmp_path / "out")
    assert "sentence-transformers" in capsys.readouterr().err
    content = manifest_of(out)
    assert (content["pooling"], content["sparse_head"]) == ("NONE", f"SPLADE_{strategy.upper()}")
    assert content["prompts"] == {"query": "q: ", "document": ""} and set(content["files"]) == {"encoder.pt", "tokenizer.json", "sparse_head.pt"}
    assert_right(folder, directory.Directory(out), lambda ids: splade(folder, ids, strategy, activation))


@pytest.mark.parametrize("kind, tied", [("bert", False), ("camembert", True), ("xlm-roberta", True)])
def test_a_bare_masked_language_model_needs_the_option_splade(kind, tied, tmp_path, capsys):
    folder = tiny_sparse.save_splade(kind, tmp_path / kind, modules=False, tied=tied)
    assert "or splade for sparse vectors" in refused(folder, tmp_path / "out", capsys)
    out = export(folder, tmp_path / "out", "--pooling", "splade")
    assert_right(folder, directory.Directory(out), lambda ids: splade(folder, ids, "max", "relu"))


def test_the_legacy_module_is_the_same(tmp_path):
    folder = tiny_sparse.save_splade("bert", tmp_path / "bert")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    tiny_sparse.write(folder / "modules.json", modules)
    tiny_sparse.write(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    content = manifest_of(export(folder, tmp_path / "out"))
    assert (content["sparse_head"], content["trained_window"]) == ("SPLADE_MAX", 20)


def test_bge_m3_has_both_kinds_of_vectors(tmp_path):
    folder = tiny_sparse.save_bge_m3(tmp_path / "bge-m3-like")
    out = export(folder, tmp_path / "out")
    content = manifest_of(out)
    assert (content["pooling"], content["sparse_head"]) == ("CLS", "TOKEN_WEIGHTS")
    network, linear = AutoModel.from_pretrained(folder, attn_implementation="eager").eval(), torch.load(folder / "sparse_linear.pt")

    @torch.no_grad()
    def expected(ids):
        hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0].double()
        weights = torch.zeros(300, dtype=torch.float64)
        for id, row in zip(ids, hidden):
            weight = float((row * linear["weight"][0].double()).sum() + linear["bias"].double())
            if id not in (0, 1, 2, 3):  # The ids of [UNK], [PAD], [SEP] and [CLS].
                weights[id] = max(weights[id], weight)
        return weights

    assert_right(folder, directory.Directory(out), expected)
    again = export(folder, tmp_path / "out")
    assert manifest_of(again) == content
    torch.save({"weight": torch.zeros(1, 64), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    assert manifest_of(export(folder, tmp_path / "out"))["files"]["sparse_head.pt"] != content["files"]["sparse_head.pt"]


class Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


def _pickle(folder):
    torch.save({"weight": Payload(), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")


def _half(folder):
    (folder / "sparse_linear.pt").write_bytes((folder / "sparse_linear.pt").read_bytes()[:300])


def _pointer(folder):
    (folder / "sparse_linear.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


@pytest.mark.parametrize(
    "change, said",
    [
        (_pickle, "pickled objects"), (_half, "not a whole PyTorch file"), (_pointer, "git-LFS pointer"),
        (lambda folder: torch.save({"weight": torch.zeros(1, 63), "bias": torch.zeros(1)}, folder / "sparse_linear.pt"), "(1, 63)"),
        (lambda folder: torch.save({"linear": torch.zeros(1, 64)}, folder / "sparse_linear.pt"), "linear"),
    ],
)  # fmt: skip
def test_an_invalid_sparse_linear_layer_is_refused(change, said, tmp_path, capfd):
    folder = tiny_sparse.save_bge_m3(tmp_path / "model")
    change(folder)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    told = capfd.readouterr()
    assert said in told.err and "Traceback" not in told.err and "this must not run" not in told.out + told.err


def _config(file, **changes):
    def change(folder):
        path = folder / file
        tiny_sparse.write(path, json.loads(path.read_text()) | changes)

    return change


def _headless(folder):
    fresh = folder.parent / "headless"
    AutoModel.from_pretrained(folder).save_pretrained(fresh)
    shutil.copy(fresh / "model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize(
    "change, said",
    [
        (_config("1_SpladePooling/config.json", pooling_strategy="mean"), "pooling_strategy = 'mean'"),
        (_config("1_SpladePooling/config.json", activation_function="softplus"), "activation_function = 'softplus'"),
        (_config("config_sentence_transformers.json", max_active_dims=8), "max_active_dims"),
        (_config("config_sentence_transformers.json", model_type="SentenceTransformer"), "of a SentenceTransformer"),
        (_config("sentence_bert_config.json", transformer_task="feature-extraction"), "transformer_task"),
        (_config("sentence_bert_config.json", modality_config={"text": {"method_output_name": "last_hidden_state"}}), "logits"),
        (_headless, "no masked-language-model head"),
    ],
)  # fmt: skip
def test_unsupported_forms_of_splade_are_refused(change, said, tmp_path, capsys):
    folder = tiny_sparse.save_splade("bert", tmp_path / "model")
    change(folder)
    assert said in refused(folder, tmp_path / "out", capsys)


def test_other_modules_of_a_sparse_encoder_are_refused_by_name(tmp_path, capsys):
    folder = tiny_sparse.save_splade("bert", tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    for kind in ("SparseAutoEncoder", "SparseStaticEmbedding", "Router"):
        modules[1]["type"] = f"sentence_transformers.sparse_encoder.modules.{kind}"
        tiny_sparse.write(folder / "modules.json", modules)
        assert kind in refused(folder, tmp_path / "out", capsys)


def test_a_head_whose_bias_is_lost_is_found_by_the_check(tmp_path, capsys, monkeypatch):
    from model.export import sparse_heads

    folder = tiny_sparse.save_splade("bert", tmp_path / "model")
    whole = sparse_heads.splade

    def without_bias(*arguments):
        head = whole(*arguments)
        head.decoder.bias = torch.nn.Parameter(torch.zeros(head.decoder.bias.shape), requires_grad=False)
        return head

    monkeypatch.setattr(sparse_heads, "splade", without_bias)
    assert "the exported sparse head differs" in refused(folder, tmp_path / "out", capsys)


def test_a_head_of_narrow_weights_is_written_in_float32(tmp_path):
    """The encoder keeps the checkpoint's precision. The loader of the head accepts only float32."""
    folder = tiny_sparse.save_splade("distilbert", tmp_path / "model")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    out = export(folder, tmp_path / "out")
    assert manifest_of(out)["precision"] == "bf16"
    assert {weight.dtype for weight in torch.jit.load(out / "sparse_head.pt").parameters()} == {torch.float32}


def test_sparse_vectors_are_not_checked_layer_by_layer(tmp_path, capsys):
    folder = tiny_sparse.save_bge_m3(tmp_path / "model")
    assert "not checked layer by layer; give --check whole" in refused(folder, tmp_path / "out", capsys, "--check", "layers")
