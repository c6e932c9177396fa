"""Tests that every example of client/python/examples runs against a real server and prints what its docstring says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from running_server import ROOT  # noqa: E402

EXAMPLES = ROOT / "client/python/examples"


@pytest.fixture
def run(example_address, long_text, tmp_path):
    """Returns a function run(name, *arguments) that returns the lines of an example's output. Uses long_text, which skips the test if the licenses
    are not on this machine."""

    def run_example(name: str, *arguments: str) -> list[str]:
        environment = {**os.environ, "LONGEMBED_SERVER": example_address}
        ended = subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    return run_example


def test_every_example_is_tested():
    scripts = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == {"quickstart.py", "streaming.py", "langchain_retriever.py", "qdrant_windows.py", "faq_corpus.py"}


def test_quickstart(run):
    model, refused, explained, one, windows = run("quickstart.py")
    assert model.startswith("e5-small-v2: 384 dimensions, trained for 512 tokens")
    assert refused.startswith("refused: ") and "512" in refused
    assert int(re.search(r"(\d+) tokens", explained)[1]) > 6000
    assert "shape (1, 384)" in one
    numbers = re.search(r"\((\d+), 384\).*cosine ([.\d]+), at tokens (\d+) to (\d+) of (\d+)", windows)
    count, best, start, end, tokens = map(float, numbers.groups())
    assert count > 100 and best > float(re.search(r"question ([.\d]+)", one)[1])
    assert start > 0.9 * tokens and end - start <= 64  # The answer is in the last part of the license.


def test_streaming_and_what_a_second_run_leaves_out(run, tmp_path):
    out = tmp_path / "vectors.jsonl"
    (first,) = run("streaming.py", str(out))
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert first.startswith(f"0 were there, {len(written)} texts of ") and len(written) > 300
    assert len({line["id"] for line in written}) == len(written) and {len(line["vector"]) for line in written} == {384}
    out.write_text("".join(json.dumps(line) + "\n" for line in written[5:]) + json.dumps(written[0])[:-9])  # The run was killed within a line.
    (second,) = run("streaming.py", str(out))
    assert second.startswith(f"{len(written) - 5} were there, 5 texts of ")
    assert sorted(json.loads(line)["id"] for line in out.read_text().splitlines()) == sorted(line["id"] for line in written)


def test_streaming_adds_no_vectors_of_another_recipe(example_address, long_text, tmp_path):
    """Between two runs, the server may get another model under the same name."""
    out = tmp_path / "vectors.jsonl"
    out.write_text(json.dumps({"id": "Artistic:0", "recipe": "another", "vector": [1.0] * 384}) + "\n")
    environment = {**os.environ, "LONGEMBED_SERVER": example_address}
    ended = subprocess.run([sys.executable, EXAMPLES / "streaming.py", out], env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 1 and "has vectors of recipe another" in ended.stderr
    assert len(out.read_text().splitlines()) == 1


def test_langchain_retriever(run):
    for library in ("langchain_core", "bm25s"):
        pytest.importorskip(library, reason=f"{library} is not installed; run tests/run.sh")
    lines = run("langchain_retriever.py")
    best = [line.split(": ")[1].split(",")[0] for line in lines if "window vectors and BM25" in line]
    assert best == ["GPL-3", "GFDL-1.3", "Artistic", "MPL-2.0"]


def test_qdrant_windows(run):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed; run tests/run.sh")
    lines = run("qdrant_windows.py")
    plain, windows = (int(count) for count in re.search(r"finds (\d) of 8, window vectors with MaxSim (\d)$", lines[-1]).groups())
    assert windows >= 7 > plain
    (notice,) = (line for line in lines if line.startswith("  GPL-3: ") and "interactive mode" in line)
    assert "make it output a short notice" in notice


def test_a_faq_becomes_a_set_that_the_bench_reads(run, tmp_path):
    from longembed.bench.corpus import read_folder

    answers = [f"Answer {number} tells of &amp; explains <b>package {number}</b>. " * 8 for number in range(25)]
    body = "".join(f"<h2>{number}.1 What is package {number}?</h2><p>{answer}</p>" for number, answer in enumerate(answers))
    (tmp_path / "faq.html").write_text(f"<html>{body}<h2>No question</h2>text<h2>Too short?</h2>yes</html>", encoding="utf-8")
    assert run("faq_corpus.py", "set", "faq.html") == ["25 questions and answers in set"]
    corpus = read_folder(str(tmp_path / "set"))
    assert list(corpus.queries) == [f"What is package {number}?" for number in range(25)]
    assert corpus.documents[3].startswith("Answer 3 tells of & explains package 3 . Answer 3")
    assert list(corpus.relevant) == [{number: 1} for number in range(25)]
