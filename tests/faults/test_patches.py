"""Tests that every patch of a past fault still applies. run.sh checks that its test detects the fault, which takes longer."""

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
PATCHES = sorted(HERE.glob("*.patch"))


def header(patch, name):
    return next(line.removeprefix(f"{name}: ") for line in patch.read_text().splitlines() if line.startswith(f"{name}: "))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_applies(patch):
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"update it for the current tree: {done.stderr}"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_says_what_must_fail(patch):
    headers = [line.split(": ")[0] for line in patch.read_text().split("\ndiff ")[0].splitlines()]
    assert headers == ["Fault", "Targets", "Run"]


def test_there_are_patches():
    assert len(PATCHES) >= 8


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_filter_of_a_patch_matches_a_test(patch):
    """GoogleTest passes if a filter matches nothing, as it does after a test was renamed."""
    if not (BUILD / "tests" / header(patch, "Targets").split()[-1]).exists():
        pytest.skip("the tests are not built; run tests/run.sh")
    command = header(patch, "Run") + " --gtest_list_tests"
    listed = subprocess.run(["bash", "-c", command], cwd=ROOT, env=os.environ | {"build": str(BUILD)}, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert any(line.startswith("  ") for line in listed.stdout.splitlines()), f"no test matches: {command}"
