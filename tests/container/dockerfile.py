"""Parses Dockerfiles and .dockerignore files, as far as this repository uses their language. Anything unknown is an error and is never ignored."""

import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "RUN", "COPY", "USER", "EXPOSE", "LABEL", "ENTRYPOINT", "CMD", "HEALTHCHECK", "STOPSIGNAL"}
FLAGS = {"FROM": {"platform"}, "RUN": {"mount"}, "COPY": {"from", "chown", "chmod"}, "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"}}


class DockerfileError(Exception):
    pass


@dataclass
class Instruction:
    line: int
    name: str
    flags: list[tuple[str, str]]
    text: str  # The text after the flags.

    @property
    def argv(self) -> list[str] | None:
        """Returns the exec form, ["a", "b"], or None for the shell form."""
        if not self.text.startswith("["):
            return None
        try:
            argv = json.loads(self.text)
        except ValueError as error:
            raise DockerfileError(f"line {self.line}: {self.name} looks like JSON and is not: {error}") from None
        return argv

    def flag(self, name: str) -> str | None:
        values = [value for key, value in self.flags if key == name]
        return values[-1] if values else None


@dataclass
class Stage:
    name: str
    base: str  # As written, without expanding variables.
    line: int
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Dockerfile:
    arguments: list[Instruction]  # The ARG instructions before the first FROM.
    stages: list[Stage]


def read_instructions(text: str) -> list[Instruction]:
    instructions, lines, number = [], text.splitlines(), 0
    while number < len(lines):
        start, joined = 0, ""
        while number < len(lines):
            line = lines[number]
            number += 1
            if line.lstrip().startswith("#") or not line.strip():
                continue
            start = start or number
            if not line.rstrip().endswith("\\"):
                joined += line
                break
            joined += line.rstrip()[:-1]
        if joined.strip():
            instructions.append(_read_instruction(start, joined.strip()))
    return instructions


def _read_instruction(line: int, text: str) -> Instruction:
    name, _, rest = text.partition(" ")
    name, rest = name.upper(), rest.strip()
    if name not in KNOWN:
        raise DockerfileError(f"line {line}: {name} is not an instruction that this program knows")
    if "<<" in rest and name in {"RUN", "COPY"}:
        raise DockerfileError(f"line {line}: here-documents are not known to this program")
    flags = []
    while match := re.match(r"--([a-z-]+)(?:=(\S+))?\s*", rest):
        if match[1] not in FLAGS.get(name, set()) or match[2] is None:
            raise DockerfileError(f"line {line}: {name} has a flag --{match[1]} that this program does not know")
        flags.append((match[1], match[2]))
        rest = rest[match.end():]
    if not rest:
        raise DockerfileError(f"line {line}: {name} has no arguments")
    return Instruction(line, name, flags, rest)


def parse(text: str) -> Dockerfile:
    arguments, stages = [], []
    for instruction in read_instructions(text):
        if instruction.name == "FROM":
            words = instruction.text.split()
            if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
                raise DockerfileError(f"line {instruction.line}: FROM must be IMAGE or IMAGE AS NAME")
            name = words[2] if len(words) == 3 else str(len(stages))
            if name in [stage.name for stage in stages]:
                raise DockerfileError(f"line {instruction.line}: a stage {name} exists already")
            stages.append(Stage(name, words[0], instruction.line))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(f"line {instruction.line}: {instruction.name} stands before the first FROM")
    if not stages:
        raise DockerfileError("there is no FROM")
    return Dockerfile(arguments, stages)


VARIABLE = re.compile(r"\\(.)|\$(?:(\w+)|\{(\w+)(?:(:[-+])([^}]*))?\})")


def expand(text: str, variables: dict[str, str]) -> str:
    """Expands $NAME, ${NAME}, ${NAME:-otherwise} and ${NAME:+instead}. An unknown name is empty, as in Docker."""

    def value(match: re.Match) -> str:
        if match[1]:
            return match[0]
        found = variables.get(match[2] or match[3], "")
        if match[4] == ":-":
            return found or match[5]
        if match[4] == ":+":
            return match[5] if found else ""
        return found

    return VARIABLE.sub(value, text)


def pairs(text: str, variables: dict[str, str]) -> dict[str, str]:
    """Parses NAME=value ... of ENV and LABEL. Variables are expanded after splitting, so that a value with blanks stays one value."""
    if "'" in text:
        raise DockerfileError(f"{text}: single quotes are not known to this program")
    found = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"{word}: NAME=value was expected")
        found[name] = expand(value, variables)
    return found


def _pattern(text: str) -> re.Pattern:
    """Converts a line of .dockerignore to a regular expression that matches a path and everything below it."""
    out, index = "", 0
    while index < len(text):
        if text.startswith("**/", index):
            out, index = out + "(?:.*/)?", index + 3
        elif text.startswith("**", index):
            out, index = out + ".*", index + 2
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(text[index], re.escape(text[index]))
            index += 1
    return re.compile(out + "(?:/.*)?")


class Ignored:
    """A .dockerignore file. Later lines take precedence, and ! includes files again."""

    def __init__(self, text: str):
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(_pattern(line.lstrip("!").strip("/")), line.startswith("!")) for line in lines]
        self._taken_back = [line.lstrip("!").strip("/") for line in lines if line.startswith("!")]

    def __contains__(self, path: str) -> bool:
        ignored = False
        for pattern, takes_back in self._rules:
            if pattern.fullmatch(path):
                ignored = not takes_back
        return ignored

    def whole(self, folder: str) -> bool:
        """Returns true if everything below a folder is ignored, so that the folder need not be read."""
        return folder in self and not any(path.startswith((folder + "/", "**")) for path in self._taken_back)


def context_files(context: Path, ignored: Ignored, under: str = ".") -> list[str]:
    """Returns the files and links of the build context that COPY `under` copies, relative to the context."""
    top = context / under
    if top.is_symlink() or not top.is_dir():
        relative = top.relative_to(context).as_posix()
        return [relative] if (top.exists() or top.is_symlink()) and relative not in ignored else []
    found = []
    for folder, folders, files in os.walk(top):
        here = Path(folder).relative_to(context)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and not ignored.whole((here / name).as_posix()))
        found += [(here / name).as_posix() for name in sorted(files + links)]
    return [path for path in found if path not in ignored]
