"""Tests that everything that pages name exists: files, tests, and programs of the build."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = "cc|h|py|sh|yaml|json|md|proto|cmake|txt|rs|patch|toml|pt"
MADE = ("build/", "models/", "..", "http", "/")  # Created by a build, or outside the repository.


def pages() -> list[Path]:
    skipped = {"build", "models", "node_modules", "target"}
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*.md")]
    return sorted(path for path in found if not any(part in skipped or part.startswith(".") for part in path.parts[:-1]))


def names(page: Path) -> set[str]:
    """Returns all text in backticks."""
    return set(re.findall(r"`([^`\n]+)`", (ROOT / page).read_text(encoding="utf-8")))


@cache
def source_of(pattern: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob(pattern))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_files_exist(page):
    """A path with a folder is relative to the root, to the page's folder, or to model/, server/ or proto/. NAME in a path is a placeholder."""
    files = {name for name in names(page) if re.fullmatch(rf"[\w.-]+(?:/[\w.-]+)+\.(?:{EXTENSIONS})", name) and not name.startswith(MADE) and "NAME" not in name}
    places = (ROOT, ROOT / page.parent, ROOT / "server", ROOT / "model", ROOT / "proto")
    assert [file for file in sorted(files) if not any((place / file).exists() for place in places)] == []


@pytest.mark.parametrize("page", pages(), ids=str)
def test_tests_exist(page):
    in_cc, in_python, in_cmake = source_of("tests/**/*_test.cc"), source_of("tests/**/test_*.py"), source_of("tests/**/CMakeLists.txt")
    for name in names(page):
        if match := re.fullmatch(r"(\w+Test)(?:\.(\w+))?", name):
            test = match[2] or r"\w+"
            assert re.search(rf"TEST(_F|_P)?\({match[1]},\s*{test}\)", in_cc), name
        elif re.fullmatch(r"test_\w+", name):
            assert f"def {name}(" in in_python, name
        elif re.fullmatch(r"\w+_test", name):
            assert f"NAME {name} " in in_cmake, name
