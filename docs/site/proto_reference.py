"""Makes a Markdown reference of a .proto file from its declarations and comments. Reads the style of our protos: one declaration a line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

RULER = re.compile(r"^-{10,}")
BLOCK = re.compile(r"(service|message|enum|oneof) (\w+) \{(?P<rest>.*)")
RPC = re.compile(r"rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\)\s*(;|\{)")
MEMBER = re.compile(r"(?:(optional|repeated) )?(map<[^>]+>|[\w.]+) (\w+) = (\d+)( \[[^\]]*\])?;")
VALUE = re.compile(r"(\w+) = (-?\d+)( \[[^\]]*\])?;")


@dataclass
class Block:
    """A service, message, enum or oneof, with its contents in order."""

    kind: str
    name: str
    comment: str
    rows: list[tuple[str, ...]] = field(default_factory=list)
    children: list[Block] = field(default_factory=list)


def split_comment(line: str) -> tuple[str, str]:
    code, _, comment = line.partition("//")
    return code.strip(), comment.strip()


def parse(text: str) -> Block:
    """The file as a block; its comment is what stands above `syntax`."""
    file = Block("file", "", "")
    stack, comments = [file], []
    for line in text.splitlines():
        code, comment = split_comment(line)
        if not code:
            if RULER.match(comment) or not line.strip():
                comments = [] if RULER.match(comment) else comments
            else:
                comments.append(line.strip().removeprefix("//").removeprefix(" "))
            continue
        if code.startswith("syntax"):
            file.comment, comments = "\n".join(comments), []
        elif match := BLOCK.match(code):
            block = Block(match[1], match[2], "\n".join([*comments, *([comment] if comment else [])]))
            stack[-1].children.append(block)
            if match[1] == "oneof":  # Its fields are rows of the message.
                block.rows = stack[-1].rows
            if not match["rest"].strip().endswith("}"):
                stack.append(block)
            comments = []
        elif match := RPC.match(code):
            said = "\n".join([*comments, *([comment] if comment else [])])
            stack[-1].rows.append((match[1], (match[2] or "") + match[3], (match[4] or "") + match[5], said))
            comments = []
            if match[6] == "{" and not code.endswith("}"):
                stack.append(Block("options", "", ""))
        elif code.startswith("}"):
            stack.pop()
        elif stack[-1].kind in ("message", "oneof") and (match := MEMBER.match(code)):
            said = "\n".join([*comments, *([comment] if comment else [])])
            label = f"one of `{stack[-1].name}`" if stack[-1].kind == "oneof" else match[1] or ""
            stack[-1].rows.append((match[3], match[4], match[2], label, said))
            comments = []
        elif stack[-1].kind == "enum" and (match := VALUE.match(code)):
            stack[-1].rows.append((match[1], match[2], "\n".join([*comments, *([comment] if comment else [])])))
            comments = []
        else:
            comments = []
    return file


def prose(comment: str) -> str:
    """A comment as Markdown: its bullets as a list."""
    out: list[str] = []
    for line in comment.splitlines():
        if re.match(r"\s*\* ", line) and out and not re.match(r"\s*[*] |  ", out[-1]) and out[-1]:
            out.append("")
        out.append(re.sub(r"^\s*\* ", "* ", line))
    return escape("\n".join(out))


def escape(text: str) -> str:
    """Escapes the characters of a comment that Markdown would interpret. Text in backticks is not changed."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"(?<!^)(?<!\n)([*_<>\[\]|{}])", r"\\\1", part) for part in parts)


def cell(comment: str) -> str:
    return prose(" ".join(comment.split()))


class Writer:
    def __init__(self, package: str, file: Block):
        self.package, self.lines, self.types = package, [], {}
        self._collect(file, "")
        self.lines += [f"# {package}", "", prose(file.comment), ""]
        self._blocks(file, "", 2)

    def _collect(self, block: Block, scope: str) -> None:
        for child in block.children:
            if child.kind in ("message", "enum"):
                self.types[f"{scope}{child.name}"] = f"{scope}{child.name}".lower().replace(".", "")
                self._collect(child, f"{scope}{child.name}.")

    def _link(self, name: str, scope: str) -> str:
        stream, bare = ("stream ", name[7:]) if name.startswith("stream ") else ("", name)
        bare = bare.removeprefix(f"{self.package}.")
        while True:
            if f"{scope}{bare}" in self.types:
                return f"{stream}[{bare}](#{self.types[f'{scope}{bare}']})"
            if not scope:
                return f"{stream}`{bare}`"
            scope = scope.rpartition(".")[0].rpartition(".")[0] + "." if scope.count(".") > 1 else ""

    def _table(self, header: str, rows: list[list[str]]) -> None:
        if rows:
            self.lines += [header, re.sub(r"[^|]+", "---", header), *(f"| {' | '.join(row)} |" for row in rows), ""]

    def _blocks(self, parent: Block, scope: str, level: int) -> None:
        for block in parent.children:
            if block.kind == "oneof":
                continue
            name = f"{scope}{block.name}"
            kind = {"service": "service ", "enum": "enum "}.get(block.kind, "")
            anchor = self.types.get(name, name.lower())
            self.lines += [f"{'#' * min(level, 4)} {kind}{name} {{#{anchor}}}", ""]
            if block.comment:
                self.lines += [prose(block.comment), ""]
            if block.kind == "service":
                rows = [[f"`{method}`", self._link(request, ""), self._link(response, ""), cell(said)] for method, request, response, said in block.rows]
                self._table("| method | request | response | |", rows)
            elif block.kind == "enum":
                self._table("| value | number | |", [[f"`{value}`", number, cell(said)] for value, number, said in block.rows])
            else:
                rows = [[f"`{member}`", number, " ".join(filter(None, [label, self._link(kind_of, f"{name}.")])), cell(said)] for member, number, kind_of, label, said in block.rows]
                self._table("| field | number | type | |", rows)
                self._blocks(block, f"{name}.", level + 1)


def reference(proto: Path) -> str:
    """The page for one .proto file. Raises ValueError where a declaration was not understood."""
    text = proto.read_text(encoding="utf-8")
    file = parse(text)
    writer = Writer(re.search(r"^package ([\w.]+);", text, re.M)[1], file)
    declared = len(re.findall(r"^\s*(?:optional |repeated )?(?!option|returns)(?:map<[^>]+>|[\w.]+) \w+ = \d+(?: \[[^\]]*\])?;", text, re.M))
    written = sum(len(rows) for rows in fields_of(file))
    if declared != written:
        raise ValueError(f"{proto}: {declared} fields are declared, {written} were understood")
    return "\n".join(writer.lines)


def fields_of(block: Block) -> list[list]:
    own = [block.rows] if block.kind == "message" else []
    return own + [rows for child in block.children for rows in fields_of(child)]
