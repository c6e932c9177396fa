"""Reads training texts from files and folders: plain text, Markdown, HTML and JSONL, gzipped or not."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Iterable, Iterator

from model.train.errors import TrainError

DEBIAN_TEXTS = Path("/usr/share/doc")
PLAIN, HTML, JSONL = (".txt", ".md", ".rst"), (".html", ".htm"), (".jsonl",)
SHORTEST_TEXT = 400  # In characters. Folders of documentation have many stubs without content.
SHORTEST_PARAGRAPH = 40  # In characters. Shorter ones are headings, menus and table cells.
MOST_FILE_BYTES = 32 << 20
BLOCKS = frozenset("p div li dd dt pre h1 h2 h3 h4 h5 h6 tr table ul ol dl section article blockquote br body td th".split())
SKIPPED = frozenset("script style head nav footer header svg noscript".split())
WITHIN_HEAD = frozenset("base basefont link meta noscript script style template title".split())
# Frequent words of English prose. Folders of documentation often mix many languages.
ENGLISH = frozenset("the of and to a in is that for it with as be this are or by on not".split())
ENGLISH_SHARE = 0.15


def read(sources: Iterable[Path], english_only: bool = False) -> list[list[str]]:
    """Returns the texts of the files and folders, each as a list of paragraphs. Sources keep their order, and the files of a folder are in the order of
    their paths.

    A paragraph that occurs again, in any text, is dropped, so that copies and page headers are used only once. Texts shorter than SHORTEST_TEXT
    characters are dropped. `english_only` also drops texts that are not English prose. Raises TrainError for a source that does not exist, for a
    source that is a file of unknown kind, and for a file that cannot be read. Files of unknown kind within a folder are ignored.
    """
    seen: set[bytes] = set()
    texts = []
    for file in _files(sources):
        for raw in _texts_of(file):
            paragraphs = [paragraph for paragraph in _paragraphs(raw) if _first_time(paragraph, seen)]
            if sum(map(len, paragraphs)) >= SHORTEST_TEXT and (not english_only or is_english(paragraphs)):
                texts.append(paragraphs)
    return texts


def is_english(paragraphs: list[str]) -> bool:
    words = re.findall(r"[^\W\d_]+", " ".join(paragraphs).lower())
    return bool(words) and sum(word in ENGLISH for word in words) / len(words) >= ENGLISH_SHARE


def plain_text(html: str) -> str:
    """Returns the text of an HTML page, with an empty line between blocks."""
    reader = _Page()
    reader.feed(html)
    reader.close()
    return "".join(reader.parts)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if self._skipping == ["head"] and tag not in WITHIN_HEAD:  # HTML allows </head> to be left out.
            self._skipping.clear()
        if tag in SKIPPED:
            self._skipping.append(tag)
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._skipping and tag == self._skipping[-1]:
            self._skipping.pop()
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.parts.append(data)


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from sorted(file for file in source.rglob("*") if file.is_file() and not file.is_symlink() and _kind(file))
        elif not source.is_file():
            raise TrainError(f"--texts {source} is neither a file nor a folder; give one that exists.")
        elif not _kind(source):
            raise TrainError(f"--texts {source} is of no known kind; give {', '.join(PLAIN + HTML + JSONL)}, each gzipped (.gz) or not.")
        else:
            yield source


def _kind(file: Path) -> str | None:
    name = file.name.lower().removesuffix(".gz")
    if name.startswith(("changelog", "copyright")):  # Every Debian package has these, and they are not prose.
        return None
    ending = Path(name).suffix
    return next((kind[0] for kind in (PLAIN, HTML, JSONL) if ending in kind), None)


def _texts_of(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb") as stream:
            raw = stream.read(MOST_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TrainError(f"{file} cannot be read ({error}); remove it or leave it out.") from error
    if len(raw) > MOST_FILE_BYTES:
        raise TrainError(f"{file} holds more than {MOST_FILE_BYTES >> 20} MiB; split it.")
    content = raw.decode("utf-8-sig", errors="replace")
    kind = _kind(file)
    if kind == JSONL[0]:
        yield from _lines(file, content)
    else:
        yield plain_text(content) if kind == HTML[0] else content


def _lines(file: Path, content: str) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), 1):  # A string may contain other ends of lines, such as U+2028.
        if not line.strip():
            continue
        try:
            text = json.loads(line, object_pairs_hook=_with_distinct_keys)["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrainError(f'{file}, line {number} is not a JSON object with a string "text", or has a key twice.') from error
        if not isinstance(text, str):
            raise TrainError(f'{file}, line {number} is not a JSON object with a string "text".')
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TrainError(f"{file}, line {number} has the lone surrogate U+{ord(text[error.start]):04X} in its text; remove it.") from error
        yield text


def _with_distinct_keys(pairs: list[tuple[str, object]]) -> dict:
    """Raises ValueError for a key twice, of which json would keep only the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _paragraphs(text: str) -> list[str]:
    """Returns the blocks between empty lines, with whitespace normalized to single spaces. Drops those shorter than SHORTEST_PARAGRAPH."""
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return [block for block in blocks if len(block) >= SHORTEST_PARAGRAPH]


def _first_time(paragraph: str, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(paragraph.encode(), digest_size=12).digest()
    fresh = key not in seen
    seen.add(key)
    return fresh
