"""Tests that an adapter whose library is not installed names the extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("mteb", "mteb", "mteb"),
    ],
)
def test_the_extra_is_named(module, library, extra):
    code = f"import sys; sys.modules[{library!r}] = None; import longembed.{module}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ImportError: longembed." + module) and f'pip install "longembed[{extra}]"' in ended.stderr


def test_the_sentence_transformers_encoder_needs_no_library():
    code = "import sys; sys.modules.update(sentence_transformers=None, torch=None, transformers=None); import longembed.sentence_transformers"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
