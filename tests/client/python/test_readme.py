"""Runs the examples of client/python/README.md in order, in one process each, and the example of the front page, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "client/python/README.md"


def test_every_python_example_of_the_readme_runs(example_address, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.S | re.M)
    assert len(blocks) >= 10
    pytest.importorskip("langchain_core", reason="the adapters' libraries are not installed; run tests/run.sh")
    program = "\n".join(blocks).replace("127.0.0.1:50051", example_address)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={"LONGEMBED_SERVER": example_address, "PATH": "/usr/bin:/bin", "HAYSTACK_TELEMETRY_ENABLED": "False", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    for told in ("INPUT_TOO_LONG inputs[0]", "0 6332", "Artistic\n", "Apache-2.0 (384,)", "CC0-1.0 "):
        assert told in done.stdout, done.stdout
    assert "GPL-3 (384,)" not in done.stdout


def test_the_example_of_the_front_page_runs(example_address):
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S | re.M)
    program = block.replace("127.0.0.1:50051", example_address) + "\nprint(vectors.shape)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1, 384)\n"
