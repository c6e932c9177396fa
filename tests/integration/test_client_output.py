"""Tests that other tools can read the command line's output: NumPy, and Parquet through pyarrow."""

import json
import re
import subprocess

import numpy as np
import pytest

from running_server import BUILD, ROOT

TEXTS = ["how long is the Nile?", "a river " * 300, "the end"]


@pytest.fixture
def embed(server, tmp_path):
    """Returns a function that runs `longembed embed` over TEXTS and returns its output."""
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))

    def run(*flags: str) -> str:
        command = [BUILD / "longembed", "embed", "--server", f"127.0.0.1:{server.port}", "--windows=128", *flags, source]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return run


def matrix(embed, tmp_path, *flags: str) -> tuple[np.ndarray, list[dict]]:
    assert embed("--out", str(tmp_path / "v.npy"), *flags) == ""
    return np.load(tmp_path / "v.npy"), [json.loads(line) for line in (tmp_path / "v.npy.jsonl").read_text().splitlines()]


def test_the_line_of_the_page_is_what_its_command_prints(server):
    """docs/calling.md shows the first component alone, with four decimals."""
    text, flags, shown = re.search(r"^\$ echo '(.*?)' \| build/release/longembed (embed.*)\n(\{.*\})$", (ROOT / "docs/calling.md").read_text(), re.MULTILINE).groups()
    command = [BUILD / "longembed", *flags.split(), "--server", f"127.0.0.1:{server.port}"]
    printed = json.loads(subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=True).stdout)
    wanted = json.loads(shown.replace(",...]", "]"))
    printed["embedding"] = [round(component, len(str(wanted["embedding"][0]).split(".")[1])) for component in printed["embedding"][:1]]
    assert len(printed.pop("recipe")) > 10 and wanted.pop("recipe") == "..."
    assert printed == wanted


def test_numpy_reads_what_json_says(embed, tmp_path):
    vectors, lines = matrix(embed, tmp_path)
    expected = [json.loads(line) for line in embed().splitlines()]
    assert vectors.dtype == np.float32 and vectors.shape == (3, 384)
    assert [line["rows"] for line in lines] == [[0, 1], [1, 2], [2, 3]]
    for row, line, answer in zip(vectors, lines, expected, strict=True):
        np.testing.assert_array_equal(row, np.float32(answer.pop("embedding")))
        line.pop("rows")
        assert line == answer


def test_several_vectors_of_a_text_are_rows(embed, tmp_path):
    vectors, lines = matrix(embed, tmp_path, "--vectors", "window")
    windows = [len(line["windows"]) for line in lines]
    assert max(windows) > 2 and [b - a for a, b in (line["rows"] for line in lines)] == windows and lines[-1]["rows"][1] == len(vectors)


def test_other_encodings(embed, tmp_path):
    whole, _ = matrix(embed, tmp_path)
    half, _ = matrix(embed, tmp_path, "--encoding", "float16")
    assert half.dtype == np.float16 and np.abs(half.astype(np.float32) - whole).max() < 0.001
    bits, _ = matrix(embed, tmp_path, "--encoding", "binary")
    assert bits.dtype == np.uint8 and bits.shape == (3, 48)


def test_parquet_as_the_readme_says(embed, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    del pyarrow
    import pyarrow.json
    import pyarrow.parquet

    (tmp_path / "vectors.jsonl").write_text(embed())
    pyarrow.parquet.write_table(pyarrow.json.read_json(tmp_path / "vectors.jsonl"), tmp_path / "vectors.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "vectors.parquet")
    assert table.column("id").to_pylist() == ["t0", "t1", "t2"] and len(table.column("embedding")[0]) == 384
