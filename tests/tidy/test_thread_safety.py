"""Tests that everything declared ABSL_GUARDED_BY is accessed with its mutex held, with clang's analysis of the files of the release build."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import thread_safety  # noqa: E402

CLANG = shutil.which("clang++-19")
BUILD = thread_safety.ROOT / "build/release"
COUNTER = """
#include "system/mutex.h"
class Counter {
 public:
  void Add() { %s ++n_; }
 private:
  longembed::Mutex mutex_;
  int n_ ABSL_GUARDED_BY(mutex_) = 0;
};
"""
pytestmark = pytest.mark.skipif(CLANG is None, reason="clang++-19 is not installed")


def findings(folder: Path, source: str, *others: Path) -> str:
    file = folder / "counter.cc"
    file.write_text(source)
    return thread_safety.check(thread_safety.Group([file, *others], ["-std=c++20", f"-I{thread_safety.ROOT}"], folder), CLANG)


def test_an_access_without_the_lock_is_found(tmp_path):
    assert "requires holding mutex 'mutex_'" in findings(tmp_path, COUNTER % "")
    assert findings(tmp_path, COUNTER % "const longembed::MutexLock lock(mutex_);") == ""


def test_a_wait_without_the_lock_is_found(tmp_path):
    wait = "longembed::MutexLock lock(mutex_); longembed::ConditionVariable c; c.Wait(lock, [this]() %s { return n_ > 0; });"
    assert "requires holding mutex 'mutex_'" in findings(tmp_path, COUNTER % (wait % ""))
    assert findings(tmp_path, COUNTER % (wait % "ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_)")) == ""


def test_files_that_repeat_a_name_are_no_finding(tmp_path):
    held = COUNTER % "const longembed::MutexLock lock(mutex_);"
    other = tmp_path / "other.cc"
    other.write_text(held)
    assert findings(tmp_path, held, other) == ""
    assert "requires holding mutex 'mutex_'" in findings(tmp_path, COUNTER % "", other)


def test_files_of_a_build(tmp_path):
    ledger, admission = (thread_safety.ROOT / f"server/admission/{name}.cc" for name in ("ledger", "admission"))
    (tmp_path / "unity_0_cxx.cxx").write_text(f'#include "{ledger}"\n#include "{tmp_path}/other.cc"\n')
    (tmp_path / "other.cc").write_text("int a;\n")
    compiled = {tmp_path / "unity_0_cxx.cxx": "-DA", admission: "-DB", thread_safety.ROOT / "server/rpc/health.cc": "-DA -Ielsewhere", tmp_path / "other.cc": "", "gone.cc": ""}
    (tmp_path / "compile_commands.json").write_text(
        json.dumps([{"file": str(file), "directory": "build", "command": f"c++ {flags} -o a.o -c {file}"} for file, flags in compiled.items()])
    )
    together, alone = thread_safety.groups(tmp_path)
    assert (together.sources, together.flags, together.directory) == ([ledger, admission], ["-DA", "-DB"], "build")
    assert (alone.sources, alone.flags) == ([thread_safety.ROOT / "server/rpc/health.cc"], ["-Ielsewhere", "-DA"])


@pytest.mark.skipif(not (BUILD / "compile_commands.json").exists(), reason="the release build is not configured")
def test_every_guarded_member():
    checked, found = thread_safety.findings(BUILD, CLANG)
    assert checked
    assert not found, "".join(found)
