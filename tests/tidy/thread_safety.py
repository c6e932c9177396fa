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
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Group:
    """Files that one run of the compiler can check, because they are compiled with the same flags."""

    sources: list[Path]
    flags: list[str]
    directory: str


def groups(build: Path) -> list[Group]:
    """Returns the files of compile_commands.json that use mutexes, grouped by their flags. A group has the definitions (-D) of all its files.

    Most of the time is spent on headers, so it takes a third of what single files take."""
    found: dict[tuple, Group] = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = Path(entry["file"])
        sources = [source for source in sources_of_unit(file) if file.exists() and uses_mutexes(source)]
        if not sources:
            continue
        words = shlex.split(entry["command"])
        flags = words[1 : words.index("-o")]
        definitions = [flag for flag in flags if flag.startswith("-D")]
        others = tuple(flag for flag in flags if flag not in definitions)
        group = found.setdefault(others, Group([], list(others), entry["directory"]))
        group.sources.extend(source for source in sources if source not in group.sources)
        group.flags.extend(flag for flag in definitions if flag not in group.flags)
    return list(found.values())


def check(group: Group, clang: str) -> str:
    """Returns clang's findings, or "" if there are none."""
    includes = "".join(f'#include "{source}"\n' for source in group.sources)
    done = subprocess.run([clang, *group.flags, *FLAGS, "-x", "c++", "-"], input=includes, cwd=group.directory, capture_output=True, text=True)
    if done.returncode and len(group.sources) > 1:
        # Alone, because files that are compiled together may repeat a name.
        return "".join(check(replace(group, sources=[source]), clang) for source in group.sources)
    return done.stderr if done.returncode else ""


def findings(build: Path, clang: str) -> tuple[int, list[str]]:
    """Returns the number of checked files, and clang's findings."""
    checked = groups(build)
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = [text for text in pool.map(lambda group: check(group, clang), checked) if text]
    return sum(len(group.sources) for group in checked), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="a configured build")
    parser.add_argument("--clang", default="clang++-19", help="the compiler")
    arguments = parser.parse_args()
    checked, found = findings(arguments.build, arguments.clang)
    print("".join(found), end="")
    print(f"{checked} files checked, {len(found)} groups with findings")
    return 1 if found or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
