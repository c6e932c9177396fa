"""The checks of tests/tidy: pure functions from a file's text to findings, and the lists of files that they apply to.

Tables next to this file hold their data: words.tsv (a word or phrase, a better one, and whether it applies to code too), exceptions.tsv (places where a finding is
acceptable, and why), long_functions.tsv (functions that may be longer, and why), spelling.txt (words that codespell would correct and that we keep).
"""

from __future__ import annotations

import ast
import fnmatch
import graphlib
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MAX_COLUMNS = 150
MAX_FUNCTION_LINES = 60
MAX_TITLE = 72
# Copies of others' files, generated files, and data. Their wording is not checked.
FOREIGN = (
    "proto/google/*", "proto/grpc/*", "proto/opentelemetry/*", "*/Cargo.lock", "*go.sum", "client/python/longembed/bench/data/*", "client/python/longembed/bench/presets/*.tsv",
    "model/export/texts.txt", "tests/fuzz/seeds/*", "tests/fuzz/regressions/*", "tests/fuzz/dictionaries/tokenizer.dict", "tests/fuzz/tokenizers/*", "tests/golden/*",
    "LICENSE*", "NOTICE*", "tests/tidy/*.tsv", "tests/tidy/test_tidy_checks.py",
)


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def tracked(*patterns: str, root: Path = ROOT) -> list[str]:
    """Returns existing files that git tracks, without those of others."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for path in listed if path and (root / path).is_file() and not any(fnmatch.fnmatch(path, pattern) for pattern in FOREIGN)]


def read_text(path: str, root: Path = ROOT) -> str | None:
    """Returns None if the file is not text."""
    try:
        return (root / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def table(name: str) -> list[list[str]]:
    """Returns the rows of a table next to this file. Columns are separated by tabs, and lines that begin with # are comments."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


@lru_cache
def exceptions() -> list[tuple[str, str]]:
    rows = table("exceptions.tsv")
    assert all(len(row) == 3 and row[2] for row in rows), "a line of exceptions.tsv is: path, text of the finding, reason"
    return [(path, text) for path, text, _ in rows]


def excepted(finding: Finding) -> bool:
    return any(fnmatch.fnmatch(finding.path, path) and text in finding.what for path, text in exceptions())


# Markdown.


def lines_outside_code(text: str) -> list[tuple[int, str]]:
    """Returns lines of Markdown with their numbers, without code blocks and comments."""
    lines, fence, comment = [], None, False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.lstrip()
        if fence is None and (mark := re.match(r"```+|~~~+", stripped)):
            fence = mark[0]
        elif fence is not None:
            fence = None if stripped.startswith(fence) else fence
        elif comment or stripped.startswith("<!--"):
            comment = "-->" not in line
        else:
            lines.append((number, line))
    return lines


def prose_lines(text: str) -> list[tuple[int, str]]:
    """Returns the same lines without tables."""
    return [(number, line) for number, line in lines_outside_code(text) if not line.lstrip().startswith("|")]


def without_code_and_links(line: str) -> str:
    line = re.sub(r"`[^`]*`", "`code`", line)
    line = re.sub(r"\]\([^)]*\)", "](link)", line)
    return re.sub(r"https?://\S+", "link", line)


SENTENCE_ENDS = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bNo)[.!?][)\"*_]* +(?=[\"(*_`\[]*[A-Z])")


def check_sentences(path: str, text: str) -> list[Finding]:
    """Checks that a line has one sentence. A label in bold, the number of a list item, and text in brackets may precede it."""
    found = []
    for number, line in prose_lines(text):
        plain = re.sub(r"^(#+\s+|\s*[-*+]\s+)?(\d+\.\s+)?", "", without_code_and_links(line).strip())
        plain = re.sub(r"^\*\*[^*]*\*\*\s*", "", plain)
        plain = re.sub(r"\([^()]*\)", "()", plain)
        if SENTENCE_ENDS.search(plain):
            found.append(Finding(path, number, "more than one sentence in a line"))
    return found


def check_columns(path: str, text: str) -> list[Finding]:
    """Checks that lines have at most MAX_COLUMNS characters. Code and link targets, which cannot be broken, do not count."""
    return [
        Finding(path, number, f"a line of {len(line)} columns; {MAX_COLUMNS} are the limit")
        for number, line in prose_lines(text)
        if len(without_code_and_links(line)) > MAX_COLUMNS and not line.startswith("#")
    ]


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub makes from a page's headings, and those in its HTML."""
    made: set[str] = set()
    for _, line in lines_outside_code(text):
        made.update(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
        if heading := re.match(r"#+\s+(.*)", line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            made.add(anchor if anchor not in made else f"{anchor}-{sum(a.rsplit('-', 1)[0] == anchor for a in made) + 1}")
    return made


def check_links(path: str, text: str, root: Path = ROOT) -> list[Finding]:
    """Checks that relative links lead to a file or folder of the repository, and their anchors to a heading."""
    found = []
    for number, line in lines_outside_code(text):
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (root / path).parent / name
            if name and not file.exists():
                found.append(Finding(path, number, f"the link to {target} leads nowhere"))
            elif anchor and (not name or file.suffix == ".md") and anchor not in anchors(file.read_text(encoding="utf-8") if name else text):
                found.append(Finding(path, number, f"{name or 'this page'} has no heading #{anchor}"))
    return found


# Words.


@dataclass(frozen=True)
class Word:
    pattern: re.Pattern
    word: str
    better: str


def split_names(line: str) -> str:
    """Returns the line in lower case with names split into words: IsGiant and is_giant become "is giant"."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", line)
    return re.sub(r"\s+", " ", apart).lower()


@lru_cache
def banned_words() -> list[Word]:
    """Reads words.tsv: a word or phrase, a tab, and a better one. `*` at the end of a word stands for any letters."""
    words = []
    for word, better in table("words.tsv"):
        stem = re.escape(split_names(word.removesuffix("*"))).replace(r"\ ", " ")
        words.append(Word(re.compile(rf"\b{stem}" + (r"\w*" if word.endswith("*") else r"\b")), word, better))
    return words


@lru_cache
def any_banned() -> re.Pattern:
    return re.compile("|".join(word.pattern.pattern for word in banned_words()))


def check_words(path: str, text: str) -> list[Finding]:
    """Checks that no word or phrase of words.tsv occurs, including in names."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        plain = split_names(line)
        if not any_banned().search(plain):
            continue
        found += [Finding(path, number, f'"{word.word}": better {word.better}') for word in banned_words() if word.pattern.search(plain)]
    return found


def check_markers(path: str, text: str) -> list[Finding]:
    """Checks for markers of open work, which belongs in issues."""
    return [Finding(path, number, f"{mark[0]}: file an issue instead") for number, line in enumerate(text.splitlines(), 1) if (mark := re.search(r"\b(TODO|FIXME|XXX)\b", line))]


FRAGMENT = re.compile(r"(?:(?:Whose|Who|What|That|Nor)\b|Of\b[^,]*(?:[.;]|$))")


def check_comments(path: str, text: str) -> list[Finding]:
    """Checks that no comment or docstring begins as a fragment whose subject has to be guessed: "Of the text.", "Whose turn it is."."""
    found, in_comment = [], False
    for number, line in enumerate(text.splitlines(), 1):
        began = re.match(r"\s*(?://+|#+|\"\"\") ?(?P<words>\w.*)", line)
        if began and not in_comment and (mark := FRAGMENT.match(began["words"])):
            found.append(Finding(path, number, f"a comment that begins with {mark[0].split()[0]}: begin with a verb, or with the noun that it is about"))
        in_comment = bool(re.match(r"\s*(?://|#)", line))
    return found


# Names and shape of code.


def check_file_name(path: str) -> list[Finding]:
    """Checks for names of leftover files."""
    bad = re.search(r"(^|[/_])(utils?|helpers?|misc|common)([._/]|$)", path)
    return [Finding(path, 1, f"a file or folder named {bad[2]} says nothing about what is in it")] if bad else []


# Top folders of the sources, each with those that it may include.
ALLOWED_INCLUDES = {"system": (), "program": (), "model": ("system",), "server": ("system", "program", "model"), "client": ("system", "program")}


def folder_of(path: str) -> str:
    """Returns the folder of a source file that check_includes compares: the top folder and the one below it, such as server/core. model/plan/methods is
    separate from model/plan."""
    folders = path.split("/")[:-1]
    return "/".join(folders[:3] if folders[:3] == ["model", "plan", "methods"] else folders[:2])


def includes(paths: list[str], root: Path = ROOT) -> dict[str, set[str]]:
    """Returns, for each folder of folder_of(), the other folders that its files include."""
    rooms: dict[str, set[str]] = {}
    for path in paths:
        included = re.findall(r'^#include "((?:%s)/[^"]+)"' % "|".join(ALLOWED_INCLUDES), read_text(path, root) or "", re.M)
        rooms.setdefault(folder_of(path), set()).update(folder_of(file) for file in included)
    return {name: names - {name} for name, names in rooms.items()}


def check_includes(rooms: dict[str, set[str]]) -> list[Finding]:
    """Checks that folders include only what ALLOWED_INCLUDES allows, and that they do not include each other in a circle."""
    found = [
        Finding(name, 1, f"includes {other}, which is not below it")
        for name, others in rooms.items()
        for other in others
        if (floor := name.split("/")[0]) != (below := other.split("/")[0]) and below not in ALLOWED_INCLUDES[floor]
    ]
    try:
        graphlib.TopologicalSorter(rooms).prepare()
    except graphlib.CycleError as error:
        found.append(Finding(error.args[1][0], 1, "includes itself: " + " <- ".join(error.args[1])))
    return found


def check_include_guard(path: str, text: str) -> list[Finding]:
    """Checks that the guard is LONGEMBED_ and the path, as in Google's style."""
    guard = "LONGEMBED_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    if f"#ifndef {guard}\n#define {guard}\n" in text and text.endswith(f"#endif  // {guard}\n"):
        return []
    return [Finding(path, 1, f"no include guard {guard}")]


def long_functions(functions: list[tuple[str, int, int]], path: str) -> list[Finding]:
    """Checks a list of (name, first line, lines)."""
    allowed = {(row[0], row[1]) for row in table("long_functions.tsv")}
    return [
        Finding(path, line, f"{name} has {lines} lines; {MAX_FUNCTION_LINES} are the limit")
        for name, line, lines in functions
        if lines > MAX_FUNCTION_LINES and (path, name) not in allowed
    ]


def cpp_functions(path: str, text: str) -> list[tuple[str, int, int]]:
    import lizard

    return [(function.name.removeprefix("longembed::"), function.start_line, function.length) for function in lizard.analyze_file.analyze_source_code(path, text).function_list]


def python_functions(text: str) -> list[tuple[str, int, int]]:
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(node.name, node.lineno, node.end_lineno - node.lineno + 1) for node in nodes]


def functions(path: str, text: str) -> list[tuple[str, int, int]]:
    """Returns (name, first line, lines) of C++ or Python functions."""
    return python_functions(text) if path.endswith(".py") else cpp_functions(path, text)


def check_function_length(path: str, text: str) -> list[Finding]:
    return long_functions(functions(path, text), path)


# Commits.


def check_title(title: str) -> list[str]:
    """Returns what is wrong with a commit's title. Git itself makes the titles of merges."""
    wrong = []
    if len(title) > MAX_TITLE:
        wrong.append(f"has {len(title)} characters; {MAX_TITLE} are the limit")
    if not re.match(r"[A-Z]", title):
        wrong.append("does not begin with a capital letter")
    if title.endswith("."):
        wrong.append("ends with a period")
    if re.match(r"(Merge (branch|remote|pull)|Merge \w+$|WIP|[Ff]ixup|squash)", title):
        wrong.append("is a merge's, or that of a commit to be squashed")
    if re.match(r"(Added|Adds|Adding|Fixed|Fixes|Fixing|Changed|Changes|Changing|Removed|Removes|Removing|Updated|Updates|Updating|Made|Makes|Making)\b", title):
        wrong.append("is not imperative")
    return wrong


def titles(root: Path = ROOT) -> list[str]:
    """Returns the titles of the commits since the newest tag, or of the last 50 commits, without merges."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    newest = git("describe", "--tags", "--abbrev=0")
    span = [f"{newest}..HEAD"] if newest else ["-50"]
    return git("log", "--no-merges", "--format=%s", *span).splitlines()
