"""Tests rows of an OpenAI-compatible endpoint with a stand-in, and the whole command without a longembed server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
pytest.importorskip("bm25s", reason="bm25s is not installed; run tests/run.sh")

from longembed.bench.__main__ import main  # noqa: E402
from longembed.bench.embedders import EmbedderError, OpenAIEmbedder  # noqa: E402
from openai_stand_in import StandIn, vector  # noqa: E402
from small_sets import write_set  # noqa: E402


@pytest.fixture
def stand_in():
    running = StandIn()
    yield running
    running.close()


def embedded(embedder, texts):
    found = dict(embedder.embed(texts))
    return [found[number] for number in range(len(texts))]


def test_batches_prompts_key_and_order(stand_in, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    texts = [f"text {number} here" for number in range(5)]
    found = embedded(OpenAIEmbedder(stand_in.url, "text-embedding-ada-002", "A_KEY", prompt="find: ", batch=2), texts)
    assert [len(request["input"]) for request in stand_in.requests] == [2, 2, 1]
    assert stand_in.requests[0] == {
        "path": "/v1/embeddings",
        "key": "Bearer secret",
        "model": "text-embedding-ada-002",
        "input": ["find: text 0 here", "find: text 1 here"],
    }
    for text, one in zip(texts, found):
        np.testing.assert_allclose(one.values, [vector(f"find: {text}")], rtol=1e-6)
    assert [one.tokens for one in found] == [4] * 5


def test_dimensions_are_sent_and_without_a_key_no_authorization(stand_in, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = embedded(OpenAIEmbedder(stand_in.url + "/", "m", dimensions=16), ["one"])
    assert stand_in.requests == [{"path": "/v1/embeddings", "key": None, "model": "m", "input": ["one"], "dimensions": 16}]
    assert found[0].values.shape == (1, 16)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine_alone(stand_in, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # Nothing listens there.
    assert len(embedded(OpenAIEmbedder(stand_in.url, "m"), ["one"])) == 1
    with pytest.raises(EmbedderError, match="http://embed.example/v1: .*refused"):
        embedded(OpenAIEmbedder("http://embed.example/v1", "m"), ["one"])


def test_a_key_is_written_nowhere(stand_in, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    assert "secret" not in json.dumps(OpenAIEmbedder(stand_in.url, "m", "A_KEY").describe())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda body: [body], "the answer is not a list of embeddings"),
        (lambda body: {"error": {"message": "no such model"}}, "the answer is not a list of embeddings: .*no such model"),
        (lambda body: {**body, "data": None}, "the answer is not a list of embeddings"),
        (lambda body: {**body, "data": [{"index": 0, "embedding": "AACAPw=="}]}, "the answer is not a list of embeddings"),
        (lambda body: {**body, "data": [{"index": 0, "embedding": []}]}, "an embedding is not a list of numbers"),
        (lambda body: {**body, "data": [{"index": 0, "embedding": 1.0}]}, "an embedding is not a list of numbers"),
    ],
)
def test_an_answer_of_another_shape_is_refused(spoil, message):
    running = StandIn(spoil=spoil)
    with pytest.raises(EmbedderError, match=f"{running.url}: {message}"):
        embedded(OpenAIEmbedder(running.url, "m"), ["one"])
    running.close()


def test_an_answer_without_usage_has_no_tokens():
    running = StandIn(spoil=lambda body: {**body, "usage": None})
    assert [one.tokens for one in embedded(OpenAIEmbedder(running.url, "m"), ["one"])] == [0]
    running.close()


def test_a_full_endpoint_is_asked_again():
    running = StandIn(refusals=[429, 503])
    assert len(embedded(OpenAIEmbedder(running.url, "m"), ["one"])) == 1
    assert len(running.requests) == 3
    running.close()


def test_an_error_is_reported():
    running = StandIn(refusals=[400])
    with pytest.raises(EmbedderError, match="HTTP 400: .*come back later"):
        embedded(OpenAIEmbedder(running.url, "m"), ["one"])
    assert len(running.requests) == 1
    running.close()
    with pytest.raises(EmbedderError, match="refused"):
        embedded(OpenAIEmbedder(running.url, "m"), ["one"])


def test_a_short_answer_is_refused():
    running = StandIn(spoil=lambda body: {**body, "data": body["data"][1:]})
    with pytest.raises(EmbedderError, match="2 inputs were sent, and 1 embeddings came back"):
        embedded(OpenAIEmbedder(running.url, "m"), ["one", "two"])
    running.close()


ROWS = """
baseline: endpoint
rows:
  endpoint: {openai: {url: %s, model: text-embedding-ada-002, query_prompt: "ask ", batch: 4}}
  words: {bm25: {}}
  both: {sum: [endpoint, words]}
"""


def test_a_whole_run_without_a_server(stand_in, tmp_path, capsys):
    write_set(tmp_path / "set", documents=12)
    (tmp_path / "rows.yaml").write_text(ROWS % stand_in.url)
    command = ["run", str(tmp_path / "set"), "--rows", str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    asked = len(stand_in.requests)
    folder = tmp_path / "out" / "set" / "no-server"
    result = json.loads((folder / "results.json").read_text())
    rows = {row["name"]: row for row in result["slices"][0]["rows"]}
    assert list(rows) == ["endpoint", "words", "both"]
    assert rows["words"]["metrics"]["ndcg_at_10"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert rows["both"]["metrics"]["accuracy_at_1"]["value"] == 1.0
    assert rows["words"]["difference"]["ndcg_at_10"]["value"] == pytest.approx(1 - rows["endpoint"]["metrics"]["ndcg_at_10"]["value"], abs=1e-4)
    assert rows["endpoint"]["cost"]["vectors_per_document"] == 1 and rows["endpoint"]["cost"]["bytes_per_document"] == 256
    assert rows["words"]["cost"]["vectors_per_document"] == 0 and rows["both"]["cost"]["vectors_per_document"] == 1
    assert set(rows["words"]["position"]["thirds"]) == {"first third", "middle third", "last third"}
    assert "| words | 1.000 | [1.000, 1.000] |" in (folder / "table.md").read_text()
    assert {file.name for file in folder.iterdir()} == {"results.json", "table.md", "gains.png", "quality-cost.png", "position.png"}
    assert main([*command, "--only", "endpoint", "--no-pictures"]) == 0
    assert len(stand_in.requests) == asked, "the second run takes everything from the store"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--within", "-0.1"], "argument --within: is -0.1; it must be at least 0"),
        (["--within", "nan"], "argument --within: is nan"),
        (["--max-vectors", "0"], "argument --max-vectors: is 0; it must be at least 1"),
        (["--seed", "-1"], "argument --seed: is -1; it must be at least 0"),
        (["--timeout", "0"], "argument --timeout: is 0"),
        (["--seed", "one"], "argument --seed: invalid int value: 'one'"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_measured(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(["advise", "set", *flags])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["hub:qmsum", "--parts", "dev"], "--parts is for folders, and hub:qmsum is not one"),
        (["passkey", "--haystack", "prose.txt"], "--haystack is for needle, which is not among the tasks"),
    ],
)
def test_a_flag_that_no_task_reads_is_refused(flags, message, capsys):
    assert main(["run", *flags]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tasks", [("a/set", "b/set"), ("a/set", "a/../a/set"), ("passkey", "hub:passkey"), ("hub:set", "b/set")])
def test_tasks_of_one_name_are_refused(tasks, tmp_path, capsys, monkeypatch):
    """The second would overwrite the results of the first."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", *tasks, "--rows", "passkey"]) == 1
    assert f"{tasks[0]} and {tasks[1]} would both write longembed-bench/" in capsys.readouterr().err


def test_parts_are_in_the_name_of_the_results(tmp_path):
    for part, first in (("dev", 0), ("heldout", 3)):
        write_set(tmp_path / "set", part, first=first)
    (tmp_path / "rows.yaml").write_text("rows: {words: {bm25: {}}}")
    command = ["run", str(tmp_path / "set"), "--rows", str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out"), "--no-pictures"]
    assert main([*command, "--parts", "dev"]) == main([*command, "--halves", "heldout"]) == 0  # --halves is the former name.
    found = [json.loads((tmp_path / f"out/set-{part}/no-server/results.json").read_text()) for part in ("dev", "heldout")]
    assert [one["slices"][0]["corpus"]["name"] for one in found] == ["set-dev", "set-heldout"]


def test_names_of_any_script_do_not_end_a_run(tmp_path):
    """The encoding of the output is Latin-1."""
    write_set(tmp_path / "set")
    (tmp_path / "rows.yaml").write_text("rows: {слова → é: {bm25: {}}}", encoding="utf-8")
    command = [sys.executable, "-m", "longembed.bench", "run", "set", "--rows", "rows.yaml", "--no-pictures"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert ended.returncode == 0, ended.stderr.decode()
    assert "\\u0441\\u043b\\u043e\\u0432\\u0430 \\u2192 é" in ended.stdout.decode("latin-1")
    assert "| слова → é |" in (tmp_path / "longembed-bench/set/no-server/table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("package", "command"), [("yaml", ["run", "set"]), ("matplotlib", ["run", "set"]), ("matplotlib", ["plot", "gains", "set", "--out", "gains.png"])]
)
def test_a_missing_package_is_named_with_its_extra_before_anything_is_measured(package, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(write_set(tmp_path / "set").parent)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(command) == 1
    assert capsys.readouterr() == ("", f'longembed-bench: {package} is not installed: pip install "longembed[bench]"\n')


def test_errors_end_the_command_with_a_sentence(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    write_set(tmp_path / "set")
    assert main(["run", str(tmp_path / "set"), "--out", str(tmp_path)]) == 1
    assert "a row with document needs a running server: --server HOST:PORT" in capsys.readouterr().err
    assert main(["advise", str(tmp_path / "set")]) == 1
    assert "advise needs a running server" in capsys.readouterr().err
    assert main(["table", str(tmp_path)]) == 1
    assert "results.json" in capsys.readouterr().err
    for content, message in (("{", "not JSON"), ("[]", "format is None; this version reads 1"), ('{"format": 2}', "format is 2; this version reads 1")):
        (tmp_path / "results.json").write_text(content)
        assert main(["table", str(tmp_path)]) == 1
        assert f"{tmp_path / 'results.json'}: {message}" in capsys.readouterr().err
