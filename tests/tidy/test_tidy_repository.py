"""Checks the repository: language, Markdown, spelling, names, length of functions, titles of commits, and format. This takes seconds.
clang_tidy.sh and the other checks in README.md take minutes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tidy  # noqa: E402


def report(found: list[tidy.Finding]) -> None:
    left = [finding for finding in found if not tidy.excepted(finding)]
    assert not left, f"{len(left)} findings:\n" + "\n".join(map(str, left))


def over(check, *patterns: str) -> list[tidy.Finding]:
    texts = ((path, tidy.read_text(path)) for path in tidy.tracked(*patterns))
    return [finding for path, text in texts if text is not None for finding in check(path, text)]


@pytest.mark.parametrize("check", [tidy.check_sentences, tidy.check_columns, tidy.check_links], ids=lambda check: check.__name__)
def test_markdown(check):
    report(over(check, "*.md"))


@pytest.mark.parametrize("check", [tidy.check_words, tidy.check_markers], ids=lambda check: check.__name__)
def test_words(check):
    report(over(check))


def test_comments():
    report(over(tidy.check_comments, "*.h", "*.cc", "*.cu", "*.py", "*.rs", "*.proto", "*.sh", "*.yaml", "*.cmake", "*CMakeLists.txt"))


def test_file_names():
    report([finding for path in tidy.tracked() for finding in tidy.check_file_name(path)])


def test_includes():
    report(tidy.check_includes(tidy.includes(tidy.tracked(*(f"{floor}/*.{kind}" for floor in tidy.ALLOWED_INCLUDES for kind in ("h", "cc", "cu"))))))


def test_include_guards():
    report(over(tidy.check_include_guard, "*.h"))


def function_findings(path: str) -> list[tidy.Finding]:
    return tidy.check_function_length(path, tidy.read_text(path) or "")


def test_functions_fit_on_a_screen():
    with ProcessPoolExecutor() as pool:
        report([finding for found in pool.map(function_findings, tidy.tracked("*.py", "*.h", "*.cc"), chunksize=20) for finding in found])


@pytest.mark.parametrize("path, name", [row[:2] for row in tidy.table("long_functions.tsv")])
def test_exceptions_of_length_are_used(path, name):
    """A function that has become short must be removed from the list."""
    assert max(lines for function, _, lines in tidy.functions(path, tidy.read_text(path)) if function == name) > tidy.MAX_FUNCTION_LINES


def test_spelling():
    """Checks American spelling with codespell's list."""
    command = [sys.executable, "-m", "codespell_lib", "--builtin", "clear,rare,en-GB_to_en-US", "--ignore-words", tidy.HERE / "spelling.txt"]
    done = subprocess.run([*command, *tidy.tracked()], cwd=tidy.ROOT, capture_output=True, text=True)
    found = [tidy.Finding(path, int(line), what) for path, line, what in (text.split(":", 2) for text in done.stdout.splitlines())]
    report(found)
    assert done.returncode in (0, len(found), 65), done.stderr


def test_titles_of_commits():
    if not (tidy.ROOT / ".git").exists():
        pytest.skip("not a clone")
    wrong = {title: problems for title in tidy.titles() if (problems := tidy.check_title(title))}
    assert not wrong


def test_clang_format():
    program = shutil.which("clang-format-14")
    if program is None:
        pytest.skip("clang-format-14 is not installed")
    done = subprocess.run([program, "--dry-run", "--Werror", *tidy.tracked("*.h", "*.cc")], cwd=tidy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"clang-format-14 -i would change:\n{done.stderr}"
