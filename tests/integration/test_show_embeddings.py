"""Tests what deploy/quickstart.sh shows of models of each kind: of one vector, of a sparse one, and of one vector per token."""

import os
import subprocess
import sys

import pytest

from running_server import BUILD, ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_colbert  # noqa: E402
import tiny_sparse  # noqa: E402

from model.export import check  # noqa: E402
from model.export.__main__ import main  # noqa: E402


def show(server) -> str:
    environment = {**os.environ, "LONGEMBED_SERVER": f"127.0.0.1:{server.port}"}
    command = [sys.executable, ROOT / "deploy/show_embeddings.py", BUILD / "longembed"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def test_one_vector(server):
    shown = show(server)
    assert "of 384\n" in shown and "has 6844 tokens" in shown and shown.count("  <") == 4


@pytest.mark.parametrize("kind, words", [("splade", " entries of a vocabulary of 300"), ("colbert", " vectors of ")])
def test_other_outputs(kind, words, tmp_path):
    save = {"splade": lambda folder: tiny_sparse.save_splade("distilbert", folder, "max", "relu"), "colbert": tiny_colbert.save_stanford}[kind]
    checkpoint = save(tmp_path / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "lines", lambda lines=check.lines()[:3]: lines)
        assert main([str(checkpoint), "--out", str(tmp_path / kind)]) == 0
    server = start_server(tmp_path, [kind], models_folder=tmp_path)
    try:
        shown = show(server)
    finally:
        assert server.stop() == 0
    assert shown.count(words) == 5 and shown.count("  <") >= 4, shown
