"""Tests that tables in the documentation agree with the source."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Helpers that set a fixed code, with that code.
HELPERS = {"Invalid": "INVALID_ARGUMENT", "Exhausted": "RESOURCE_EXHAUSTED"}


def screaming(name: str) -> str:
    """Converts InvalidArgument to INVALID_ARGUMENT."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def reasons_of_the_source(text: str) -> set[tuple[str, str]]:
    """Returns (reason, code) for every error that the source creates. The reason is the first literal in capitals after a helper, or after
    MakeError and its code."""
    by_code = re.findall(r'MakeError\(\s*absl::StatusCode::k(\w+)\s*,[^;]*?"([A-Z][A-Z0-9_]+)"', text)
    by_helper = re.findall(rf'\b({"|".join(HELPERS)})\([^;]*?"([A-Z][A-Z0-9_]+)"', text)
    return {(reason, screaming(code)) for code, reason in by_code} | {(reason, HELPERS[helper]) for helper, reason in by_helper}


def test_the_page_of_errors_has_every_reason_under_its_code():
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([A-Z_]+) \| \S", page, re.M)
    assert len(rows) == len(set(rows)) == len(re.findall(r"^\| `", page, re.M)), "a row twice, or of another form"
    files = [*ROOT.glob("model/**/*.cc"), *ROOT.glob("server/**/*.cc")]
    made = set().union(*(reasons_of_the_source(file.read_text(encoding="utf-8")) for file in files))
    assert len(made) > 80
    assert made - set(rows) == set(), "docs/errors.md lacks these"
    assert set(rows) - made == set(), "no source has these any more; VERSIONING.md says what that means for a release"


def test_the_parser_of_reasons_sees_each_form():
    text = """
      return Invalid(field, "A_REASON", absl::StrCat("is ", x));
      return Invalid("", "B_REASON", "is set");
      return Invalid(absl::StrCat("ranges[", i, "]"), "C_REASON", "is set");
      return Exhausted(
          "D_REASON", "full", delay);
      return MakeError(absl::StatusCode::kNotFound, field, "E_REASON", "is gone");
    """
    assert reasons_of_the_source(text) == {
        ("A_REASON", "INVALID_ARGUMENT"), ("B_REASON", "INVALID_ARGUMENT"), ("C_REASON", "INVALID_ARGUMENT"), ("D_REASON", "RESOURCE_EXHAUSTED"),
        ("E_REASON", "NOT_FOUND")}  # fmt: skip


def test_every_architecture_has_a_row():
    modules = re.search(r"^MODULES = \{(.*?)^\}", (ROOT / "model/export/architectures.py").read_text(encoding="utf-8"), re.M | re.S)[1]
    families = (ROOT / "model/export/README.md").read_text(encoding="utf-8").split("## Families", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`[^|]*) \|", families, re.M)
    documented = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert set(re.findall(r'^ +"([\w-]+)":', modules, re.M)) == documented - {"model_type"}  # "model_type" is from the table's header.
