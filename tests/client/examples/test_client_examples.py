"""Runs the commands of client/examples/README.md, exactly as written there, against a real server.

Each language has two blocks of commands: one that installs, which needs a network, and one that builds and runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

from running_server import ROOT, start_server  # noqa: E402

EXAMPLES = ROOT / "client/examples"
COPY = ROOT / "build/client_examples"
TOOLS = {"python": ["python3"], "node": ["node", "npm"], "go": ["go", "protoc"], "java": ["javac", "mvn"], "rust": ["cargo", "protoc"]}
QUICK = {"python", "node"}


def commands(language: str) -> list[str]:
    section = re.search(rf"^## {language}\n(.*?)(?=^## |\Z)", (EXAMPLES / "README.md").read_text(encoding="utf-8"), flags=re.S | re.M | re.I)
    return re.findall(r"^```sh\n(.*?)^```", section[1], flags=re.S | re.M)


def run(command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=COPY, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1200
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("server"), ["e5-small-v2"])
    yield f"127.0.0.1:{server.port}"
    assert server.stop() == 0


@pytest.fixture(scope="module")
def copy():
    """Copies the tree's files over those of an earlier run, whose build outputs save time."""
    made = shutil.ignore_patterns(".venv", "bin", "longembed", "node_modules", "target")
    shutil.copytree(ROOT / "proto", COPY / "proto", dirs_exist_ok=True)
    shutil.copytree(EXAMPLES, COPY / "client/examples", dirs_exist_ok=True, ignore=made)


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == TOOLS.keys()


@pytest.mark.parametrize("language", TOOLS)
def test_the_commands_of_the_readme_work(language, copy, address):
    if language not in QUICK and not os.environ.get("LONGEMBED_EXAMPLES"):
        pytest.skip(f"{language}: compiles a gRPC library for minutes; run tests/client/examples/run.sh")
    for tool in TOOLS[language]:
        if shutil.which(tool) is None:
            pytest.skip(f"{language}: {tool} is not installed")
    install, build_and_run = commands(language)
    installed = run(install)
    if installed.returncode != 0:
        pytest.skip(f"{language}: its libraries could not be installed: {(installed.stderr or installed.stdout).strip()[-300:]}")
    done = run(build_and_run, LONGEMBED_SERVER=address)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *streamed, refused = re.sub(r"\x1b\[\d*m", "", done.stdout).strip().splitlines()  # Maven resets colors.
    assert re.fullmatch(r"Embed: e5-small-v2, 384 dimensions, \d+ tokens", first)
    assert sorted(streamed) == ["EmbedStream: amazon, 384 dimensions", "EmbedStream: nile, 384 dimensions"]
    code, rest = re.fullmatch(r"Refused: (\w+), (.*)", refused).groups()
    assert code.replace("_", "").lower() == "invalidargument"
    assert rest.startswith("reason INPUT_TOO_LONG, field inputs[0]: ") and "1002 tokens" in rest
