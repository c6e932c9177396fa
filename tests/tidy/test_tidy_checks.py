"""Tests that each check of tidy.py reports a bad sample and accepts a good one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tidy  # noqa: E402


@pytest.mark.parametrize("line", ["One thing. Another thing.", "* One thing? Yes.", "1. One. Two.", "It is **bold.** Then more. And `code`."])
def test_several_sentences_in_a_line(line):
    assert tidy.check_sentences("a.md", line)


@pytest.mark.parametrize("line", ["One thing, e.g. This.", "* **Label.** One sentence.", "1. One sentence.", "## 1. A heading", "| a. B | c. D |", "`a. B` is code.", "A link ([page](b.md)), then more.", "```\nA. B.\n```"])
def test_one_sentence_in_a_line(line):
    assert not tidy.check_sentences("a.md", line)


def test_long_lines():
    assert tidy.check_columns("a.md", "word " * 40)
    assert not tidy.check_columns("a.md", "| " + "word " * 40 + "|")
    assert not tidy.check_columns("a.md", "```\n" + "word " * 40 + "\n```")
    assert not tidy.check_columns("a.md", f"A [link]({'x' * 200}) and `{'y' * 200}`")


def test_links(tmp_path):
    (tmp_path / "b.md").write_text("# The title, of `b`\n")
    good = "[b](b.md), [there](b.md#the-title-of-b), [here](#here), [web](https://example.com)\n# Here\n| [b](b.md) |\n"
    assert not tidy.check_links("a.md", good, tmp_path)
    for bad in ("[c](c.md)", "[b](b.md#no)", "[here](#nowhere)", "| [c](c.md) |"):
        assert tidy.check_links("a.md", bad, tmp_path), bad


@pytest.mark.parametrize("line", ["a giant text", "bool IsGiant(int n);", "kGiant = 8", "NOBODY_WAITS", "the neighbours", "ForWantOf", "// Whoever asks.", "tokenisation"])
def test_banned_words(line):
    assert tidy.check_words("a.h", line)


@pytest.mark.parametrize("line", ["oversized", "gigantic", "a hurricane", "neighbor", "wait for it"])
def test_other_words(line):
    assert not tidy.check_words("a.h", line)


def test_markers():
    assert tidy.check_markers("a.py", "# TODO: later") and tidy.check_markers("a.cc", "// FIXME")
    assert not tidy.check_markers("a.py", "mastodon")


def test_comments():
    for line in ("// Of the text.", "  // Whose turn it is.", "# What a client sends.", '    """That a thread has had."""', "// Of those that run"):
        assert tidy.check_comments("a.cc", f"int a;\n{line}\n"), line
    for line in ("// The client's turn.", "// Offers a token.", "// Of equal norms, the first counts.", "int a;  // Of the text.", "// Returns a.\n// Of two, one."):
        assert not tidy.check_comments("a.cc", f"int a;\n{line}\n"), line


def test_file_names():
    assert all(map(tidy.check_file_name, ["server/utils.h", "a/util/b.cc", "tests/string_utils.py", "common/a.h"]))
    assert not tidy.check_file_name("server/utilization.h")


def test_includes(tmp_path):
    for path, included in {"model/plan/a.cc": "model/plan/methods/b.h", "model/plan/methods/b.h": "system/c.h", "system/c.h": ""}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f'#include "{included}"\n#include <vector>\n')
    rooms = tidy.includes(["model/plan/a.cc", "model/plan/methods/b.h", "system/c.h"], tmp_path)
    assert rooms == {"model/plan": {"model/plan/methods"}, "model/plan/methods": {"system"}, "system": set()} and not tidy.check_includes(rooms)
    upward = tidy.check_includes(rooms | {"system": {"server/core"}})
    assert [str(finding) for finding in upward] == ["system:1: includes server/core, which is not below it"]
    circle = tidy.check_includes(rooms | {"model/plan/methods": {"model/plan"}})
    assert "includes itself" in circle[0].what


def test_include_guards():
    good = "// A.\n#ifndef LONGEMBED_SERVER_A_H_\n#define LONGEMBED_SERVER_A_H_\nint a;\n#endif  // LONGEMBED_SERVER_A_H_\n"
    assert not tidy.check_include_guard("server/a.h", good)
    assert tidy.check_include_guard("server/b.h", good)
    assert tidy.check_include_guard("server/a.h", "#pragma once\n")


def test_long_functions():
    cpp = "int f() {\n" + "  g();\n" * 60 + "}\n"
    python = "def f():\n" + "    g()\n" * 60
    assert tidy.check_function_length("a.cc", cpp) and tidy.check_function_length("a.py", python)
    assert not tidy.check_function_length("a.cc", cpp.replace("  g();\n", "", 10)) and not tidy.check_function_length("a.py", python.replace("    g()\n", "", 10))


@pytest.mark.parametrize("title", ["fix it", "Fix it.", "Merge branch 'a'", "Fixed it", "F" + "x" * 72, "WIP"])
def test_bad_titles(title):
    assert tidy.check_title(title)


def test_good_title():
    assert not tidy.check_title("Merge the vectors of a text's parts")
    assert not tidy.check_title("Refuse weights that are not finite")


def test_exceptions_apply_where_they_say(monkeypatch):
    monkeypatch.setattr(tidy, "exceptions", lambda: [("a/*.h", '"giant"')])
    finding = tidy.check_words("a/b.h", "giant")[0]
    assert tidy.excepted(finding)
    assert not tidy.excepted(tidy.Finding("c.h", 1, finding.what)) and not tidy.excepted(tidy.Finding("a/b.h", 1, "other"))
