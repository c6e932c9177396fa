"""Runs longembed-bench through a real server: aggregation equals the server's, cuts are exact, interrupted runs continue, and advice is written."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("bm25s", reason="bm25s is not installed; run tests/run.sh")

from longembed import Client, Options  # noqa: E402
from longembed.bench import aggregate, embedders, recipes, runner, synthetic  # noqa: E402
from longembed.bench.__main__ import main  # noqa: E402
from longembed.bench.corpus import read_folder  # noqa: E402
from longembed.bench.store import Store  # noqa: E402
from running_server import start_server  # noqa: E402
from small_sets import write_lines  # noqa: E402

ROWS = """
baseline: truncated
rows:
  truncated: {document: {truncate: END}}
  first 600, interpolated: {document: {extension: {interpolation: {}}}, first: 600}
  NTK: {document: {extension: {ntk_dynamic: {}}}}
  windows of 1024: {document: {extension: {windows: {tokens: 1024}}}}
  words: {bm25: {}}
  words and NTK: {sum: [words, NTK]}
grids:
  sizes:
    name: "{tokens}, {scoring}"
    axes: {tokens: [64, 128], scoring: [max, mean_of_top(2)]}
    row: {document: {extension: {windows: {tokens: "{tokens}"}}, output: WINDOW_VECTORS}, reduce: "{scoring}", queries: sentences}
  means:
    name: "{tokens}, mean"
    axes: {tokens: [64, 128], aggregation: [mean]}
    row: {document: {extension: {windows: {tokens: "{tokens}"}}}, aggregate: "{aggregation}"}
"""


@pytest.fixture
def client(address):
    with Client(address) as connected:
        yield connected


@pytest.fixture
def small_set(tmp_path) -> Path:
    """Writes four documents of about 700 tokens. Each mentions a place at its end, and has a query of two sentences."""
    names = [fact.split("\t") for fact in (Path(synthetic.__file__).parent / "data/needles.tsv").read_text().splitlines()[:4]]
    prose = (Path(synthetic.__file__).parent / "data/persuasion.txt").read_text().split()
    texts = [" ".join(prose[500 * i : 500 * i + 500]) + " " + fact for i, (fact, _) in enumerate(names)]
    folder = tmp_path / "set"
    folder.mkdir()
    write_lines(folder / "dev.docs.jsonl", [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])
    write_lines(folder / "dev.queries.jsonl", [{"id": f"q{i}", "text": f"I have a question. {question}"} for i, (_, question) in enumerate(names)])
    write_lines(folder / "dev.qrels.jsonl", [{"query": f"q{i}", "doc": f"d{i}"} for i in range(4)])
    return folder


@pytest.fixture
def counted(monkeypatch):
    """Counts the texts sent to be embedded. `limit`: the stream breaks after this many answers."""

    class Counted:
        texts, limit = [], None

    counts = Counted()
    stream = Client.embed_stream

    def counting(self, items, *arguments, **options):
        items = list(items)
        for number, answer in enumerate(stream(self, items, *arguments, **options)):
            if counts.limit is not None and len(counts.texts) >= counts.limit:
                raise KeyboardInterrupt
            counts.texts.append(items[number])
            yield answer

    monkeypatch.setattr(Client, "embed_stream", counting)
    return counts


@pytest.mark.parametrize("name", ["mean", "token_weighted_mean", "max", "first", "norm_weighted(0.5)", "top_norm(2)", "groups(4)"])
@pytest.mark.parametrize("last", ["BACK_EXTENDED", "SHORT"])
def test_aggregation_equals_the_servers(client, long_text, name, last):
    windows = {"tokens": 100, "overlap": 10, "last": last}
    parts = embedders.ServerEmbedder(client, Options(input_type="DOCUMENT", extension={"windows": windows}, output="WINDOW_VECTORS", normalize=False))
    output = {"output": "WINDOW_VECTORS"} if name.startswith("groups") else {}
    whole = Options(input_type="DOCUMENT", extension={"windows": {**windows, **aggregate.of_server(name)}}, **output)
    (_, found), *_ = parts.embed([long_text])
    assert len(found.values) > 10 and set(found.lengths[:-1]) == {100}
    ours = aggregate.normalized(aggregate.parse(name)(found.values, found.lengths))
    np.testing.assert_allclose(ours, client.embed([long_text], whole)[0].vectors, atol=2e-6)


@pytest.mark.parametrize("prompt", ["", "passage: "])
def test_a_cut_text_has_the_requested_tokens(client, long_text, prompt):
    (cut,) = embedders.first_tokens(client, [long_text], 300, prompt)
    assert long_text.startswith(cut)
    options = Options(prompt=prompt) if prompt else Options()
    assert client.explain([cut], options).results[0].tokens == 300
    assert embedders.first_tokens(client, [cut], 300, prompt) == [cut]


@pytest.mark.parametrize("prompt", ["", "passage: "])
def test_a_cut_that_leaves_nothing_is_refused(client, prompt):
    """It used to double a length of 0 for ever, or not to cut."""
    beside = client.explain(["a"], Options(prompt=prompt)).results[0].tokens - 1
    assert embedders.first_tokens(client, ["one two"], beside + 1, prompt) == ["one"]
    for count in range(1, beside + 1):
        with pytest.raises(embedders.EmbedderError, match=f"first is {count}, but prompt and special tokens alone are {beside}"):
            embedders.first_tokens(client, ["one two"], count, prompt)


@pytest.mark.parametrize("name", ["model", "prompt", "recipe"])
def test_answers_by_another_recipe_than_the_described_one_are_refused(client, tmp_path, monkeypatch, name):
    """A server that is restarted with another model must not add its vectors to those of the first."""
    stream = Client.embed_stream
    monkeypatch.setattr(Client, "embed_stream", lambda *given, **more: (dataclasses.replace(answer, **{name: "other"}) for answer in stream(*given, **more)))
    embedder = embedders.ServerEmbedder(client, Options())
    with pytest.raises(embedders.EmbedderError, match=f"the server's {name} changed from .* to 'other'; run the same command again"):
        Store(tmp_path).embed(embedder, ["a"])
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("field", ["precision", "file_sha256"])
def test_a_model_that_is_replaced_between_documents_and_queries_is_refused(client, small_set, tmp_path, monkeypatch, field):
    """Each side has vectors of one recipe, but not of the same weights."""
    model, embed, replaced = Client.model, embedders.ServerEmbedder.embed, []

    def described(self, *given):
        found = model(self, *given)
        if replaced and field == "precision":
            found.precision = "other"
        elif replaced:
            found.file_sha256["weights.safetensors"] = "other"
        return found

    def embed_and_replace(self, texts):
        yield from embed(self, texts)
        replaced.append(True)

    monkeypatch.setattr(Client, "model", described)
    monkeypatch.setattr(embedders.ServerEmbedder, "embed", embed_and_replace)
    rows = recipes.parse({"rows": {"cut": {"document": {"truncate": "END"}}}})
    task = runner.Task("small", {"": read_folder(small_set)})
    with pytest.raises(recipes.RecipeError, match=f"row 'cut': the server has replaced the model 'e5-small-v2' .another {field}. during the run"):
        runner.Bench(client, Store(tmp_path / "store")).run(task, rows)


def test_a_run_and_its_second_run(address, small_set, tmp_path, counted, capsys):
    (tmp_path / "rows.yaml").write_text(ROWS)
    command = ["run", str(small_set), "--rows", str(tmp_path / "rows.yaml"), "--server", address, "--out", str(tmp_path / "out")]
    counted.limit = 7
    assert main(command) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    counted.limit = None
    assert main(command) == 0
    # Four recipes for documents, and queries as a whole and by sentence. Rows that share windows also share them here.
    assert len(counted.texts) == 4 * 4 + 4 + (1 + 4)
    folder = tmp_path / "out" / "set" / "e5-small-v2"
    result = runner.load(folder)
    rows = {row["name"]: row for row in result["slices"][0]["rows"]}
    assert rows["64, max"]["metrics"]["accuracy_at_1"]["value"] == 1.0
    assert rows["truncated"]["cost"]["truncated_documents"] > 0 and rows["64, mean"]["cost"]["truncated_tokens"] == 0
    assert rows["64, max"]["cost"]["vectors_per_document"] > rows["128, max"]["cost"]["vectors_per_document"] > 2
    assert rows["64, mean"]["cost"]["vectors_per_document"] == 1 and rows["64, mean"]["cost"]["bytes_per_document"] == 384 * 4
    skipped = result["slices"][0]["skipped"]
    assert "1024" in skipped.pop("windows of 1024")  # More than the trained window of this model.
    assert skipped == {"NTK": "the model has no ntk_dynamic", "words and NTK": "NTK: the model has no ntk_dynamic"}
    assert "* NTK: the model has no ntk_dynamic." in (folder / "table.md").read_text()
    assert {"grid-sizes.png", "grid-means.png", "gains.png", "quality-cost.png"} <= {file.name for file in folder.iterdir()}
    done = len(counted.texts)
    assert main([*command, "--no-pictures"]) == 0
    assert len(counted.texts) == done


def test_a_row_that_fails_is_named_with_its_text(address, small_set, tmp_path, capsys):
    (tmp_path / "rows.yaml").write_text("rows: {truncated: {document: {truncate: END}}, plain: {document: {}}}")
    assert main(["run", str(small_set), "--rows", str(tmp_path / "rows.yaml"), "--server", address, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("longembed-bench: row 'plain': the text '") and "the limit is 512" in error


def test_passkey_by_length(client, tmp_path):
    """At 1,024 tokens, the keys are beyond the window. All truncated texts are equal, so the right one comes first once in 8 times."""
    long = synthetic.passkey(1024)
    beyond = [i for i, text in enumerate(long.documents) if text.index("pass key") > 2600][:8]
    tasks = runner.Task("passkey", {"256": synthetic.passkey(256).subset(beyond), "1024": long.subset(beyond)})
    rows = recipes.parse(yaml.safe_load("rows: {truncated: {document: {truncate: END}}, plain only: {document: {}, longest: 256}}"))
    result = runner.Bench(client, Store(tmp_path)).run(tasks, rows)
    found = [{row["name"]: row["metrics"]["accuracy_at_1"]["value"] for row in one["rows"]} for one in result["slices"]]
    assert found == [{"truncated": 1.0, "plain only": 1.0}, {"truncated": 0.125}]
    assert result["mean"] == {"truncated": 0.5625}
    assert result["slices"][1]["skipped"] == {"plain only": "run up to 256 tokens only"}


@pytest.fixture
def profiled(tmp_path) -> str:
    """Starts a server with the profile "archive"."""
    running = start_server(tmp_path, ["e5-small-v2"], extra="profiles: {archive: {windows: {tokens: 64}}}\n")
    yield f"127.0.0.1:{running.port}"
    assert running.stop() == 0


def test_a_model_named_with_a_profile_runs_and_is_not_advised(profiled, small_set, tmp_path, capsys):
    """Advice must not change. A profile may change on the server, and without its profile the row would be the plain encoding."""
    (tmp_path / "rows.yaml").write_text('rows: {cut: {document: {truncate: END}}, archive: {document: {model: "e5-small-v2:archive"}}}')
    command = [str(small_set), "--rows", str(tmp_path / "rows.yaml"), "--server", profiled, "--out", str(tmp_path / "out"), "--no-pictures"]
    assert main(["run", *command]) == 0
    results = json.loads((tmp_path / "out/set/e5-small-v2/results.json").read_text())
    assert [row["cost"]["truncated_documents"] for row in results["slices"][0]["rows"]] == [4, 0]
    capsys.readouterr()
    assert main(["advise", *command]) == 1
    assert "none of the rows fits the objective one-vector" in capsys.readouterr().err
    assert main(["run", *command, "--model", "e5-small-v2:archive"]) == 1
    assert "--model e5-small-v2:archive names a profile" in capsys.readouterr().err


def test_advice_for_a_small_set(address, small_set, tmp_path, capsys):
    (tmp_path / "rows.yaml").write_text(ROWS)
    folder = Path(__file__).resolve().parents[4] / "models/e5-small-v2"
    shutil.copy(folder / "longembed-model.yaml", tmp_path)
    command = ["advise", str(small_set), "--rows", str(tmp_path / "rows.yaml"), "--server", address, "--out", str(tmp_path / "out"), "--no-pictures"]
    assert main([*command, "--profile", "places", "--manifest", str(tmp_path), "--parts", "dev"]) == 0
    assert "advised: " in capsys.readouterr().out
    out = tmp_path / "out" / "set-dev" / "e5-small-v2" / "advise"
    advice = runner.load(out)["advice"]
    profile = yaml.safe_load((out / "profile.yaml").read_text())["profiles"]["places"]
    manifest = yaml.safe_load((tmp_path / "longembed-model.yaml").read_text())
    assert profile == advice["extension"] == json.loads(manifest["recommended_extension"])
    assert manifest["recommendation_evidence"]["one_vector_set"] == "set-dev"
    assert manifest["files"] == yaml.safe_load((folder / "longembed-model.yaml").read_text())["files"]
    capsys.readouterr()
    assert main([*command, "--only", "64, mean", "128, mean"]) == 0
    out_text = capsys.readouterr().out
    assert re.match(r"round: 2 recipes and the baseline on (\d+) of \1 documents\n", out_text)
    assert "chosen_from: 2 recipes" in out_text, "the baseline is none of the rows to choose from"
    assert {"truncated", "64, mean"} <= set(runner.load(tmp_path / "out" / "set" / "e5-small-v2" / "advise")["advice"]["rounds"][0]["scores"])
