"""Tests that the documentation site builds without a broken link, has every page, and can be read without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed; build/venv/bin/pip install -r docs/requirements.txt")

ROOT = Path(__file__).resolve().parents[2]


def build(config: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", out]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there(site):
    for page, words in {
        "index.html": "each request chooses", "docs/errors/index.html": "QUEUE_WAIT", "server/telemetry/index.html": "longembed_requests_total",
        "reference/longembed.v1/index.html": "EmbedStreamRequest", "reference/tei.v1/index.html": "EmbedSparse", "reference/python/index.html": "embed_stream",
        "deploy/config.yaml/index.html": "max_queue_wait", "model/plan/methods/positions.h/index.html": "Positions",
    }.items():  # fmt: skip
        assert words in (site / page).read_text(encoding="utf-8"), page
    assert (site / "model/plan/figures/qmsum-e5-small-v2-gains.png").is_file() and (site / "search/search_index.json").is_file()


def test_nothing_is_fetched_from_elsewhere(site):
    """Links may lead to other sites, but scripts, styles, fonts and pictures may not be loaded from them."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="?(https?:[^" >]+)|<link[^>]* rel="?(?:stylesheet|preconnect|preload)[^>]* href="?(https?:[^" >]+)', text)
        assert not fetched, f"{page.relative_to(site)} fetches {fetched}"


def test_broken_links_fail_the_build(tmp_path):
    """In a copy of the site, adds links to a page, a heading and a file that do not exist."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "build", "models", "node_modules", ".venv", "target"))
    broken = ("server/nowhere.md", "server/README.md#nowhere", "deploy/nowhere.yaml")
    with (copy / "README.md").open("a", encoding="utf-8") as page:
        page.writelines(f"\nSee [this]({link}).\n" for link in broken)
    done = build(copy / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert [link for link in broken if f"'{link}'" not in done.stderr] == [], done.stderr
