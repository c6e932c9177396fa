"""Tests that every patch of a past fault still applies. run.sh checks that its test detects the fault, which takes longer."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATCHES = sorted(HERE.glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_applies(patch):
    done = subprocess.run(["git", "apply", "--check", patch], cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, f"update it for the current tree: {done.stderr}"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_says_what_must_fail(patch):
    headers = [line.split(": ")[0] for line in patch.read_text().split("\ndiff ")[0].splitlines()]
    assert headers == ["Fault", "Targets", "Run"]


def test_there_are_patches():
    assert len(PATCHES) >= 8
