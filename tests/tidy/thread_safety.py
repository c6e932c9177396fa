"""Checks everything declared ABSL_GUARDED_BY with clang's thread-safety analysis. It analyzes every file that uses system/mutex.h, with the flags of a configured build.

    build/venv/bin/python tests/tidy/thread_safety.py [--build build/release] [--clang clang++-19]

The build must have created its generated sources. Prints the findings. The exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = "system/mutex.h"
FLAGS = ["-fsyntax-only", "-Wthread-safety", "-Werror=thread-safety", "-Wno-thread-safety-attributes", "-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument", "-ferror-limit=0"]


def sources_of_unit(unit: Path) -> list[Path]:
    """Returns the files of a unity build's unit. Any other file is returned itself."""
    if not unit.name.startswith("unity_"):
        return [unit]
    return [Path(path) for path in re.findall(r'#include "(.+\.cc)"', unit.read_text())]


def uses_mutexes(source: Path) -> bool:
    """Returns true if the file, or the header with its name, includes HEADER."""
    files = (source, source.with_suffix(".h"))
    return any(file.exists() and f'#include "{HEADER}"' in file.read_text(encoding="utf-8") for file in files)


def units(build: Path) -> list[dict]:
    """Returns the entries of compile_commands.json that contain a file of ours with mutexes."""
    entries = json.loads((build / "compile_commands.json").read_text())
    return [entry for entry in entries if Path(entry["file"]).exists() and any(map(uses_mutexes, sources_of_unit(Path(entry["file"]))))]


def check(entry: dict, clang: str) -> str:
    """Returns clang's findings, or "" if there are none."""
    words = shlex.split(entry["command"])
    output = words.index("-o")
    command = [clang, *words[1:output], *words[output + 2 :], *FLAGS]
    done = subprocess.run([word for word in command if word != "-c"], cwd=entry["directory"], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def findings(build: Path, clang: str) -> tuple[int, list[str]]:
    """Returns the number of checked units, and clang's findings."""
    checked = units(build)
    with ThreadPoolExecutor(cpu_count()) as pool:
        return len(checked), [text for text in pool.map(lambda unit: check(unit, clang), checked) if text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="a configured build")
    parser.add_argument("--clang", default="clang++-19", help="the compiler")
    arguments = parser.parse_args()
    checked, found = findings(arguments.build, arguments.clang)
    print("".join(found), end="")
    print(f"{checked} units checked, {len(found)} with findings")
    return 1 if found or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
