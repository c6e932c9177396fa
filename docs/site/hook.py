"""Builds the documentation site from the Markdown files of the whole repository. A hook of mkdocs.yml.

Each page has the same path as its file in the repository, so that links work unchanged. If a page links to a file that
is not Markdown, that file gets a page that shows it. If a page links to a folder, the target is the folder's README.md,
or a list of its files. The references of the protos and of the Python package are generated from their source.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import proto_reference  # noqa: E402
import python_reference  # noqa: E402

PICTURES = (".png", ".svg")
SKIPPED = {"build", "models", "node_modules", "target", "CMakeFiles"}  # And whatever begins with a dot.
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
LANGUAGES = {".h": "cpp", ".cc": "cpp", ".proto": "proto", ".yaml": "yaml", ".py": "python", ".json": "json", ".sh": "bash", ".rs": "rust"}


def markdown_pages(folder: Path = ROOT) -> Iterator[str]:
    """Paths of every Markdown file, from the repository's root."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name not in SKIPPED and not entry.name.startswith("."):
            yield from markdown_pages(entry)
        elif entry.suffix == ".md":
            yield entry.relative_to(ROOT).as_posix()


def is_local(target: str) -> bool:
    return not re.match(r"[a-z]+:|/", target)


def page_of(path: str) -> str:
    """Returns the site's path for the target of a link. A missing target is returned unchanged, so that MkDocs reports it."""
    file = ROOT / path
    if file.is_dir():
        return posixpath.join(path, "README.md" if (file / "README.md").is_file() else "index.md")
    if file.is_file() and file.suffix not in (".md", *PICTURES):
        return f"{path}.md"
    return path


def linked_paths(pages: list[str]) -> set[str]:
    """Everything in the repository that pages link to."""
    found = set()
    for page in pages:
        text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
        found |= {posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) for _, target, _ in LINK.findall(text) if is_local(target)}
    return found


def shown(path: str) -> str:
    """A page that shows a file, or lists a folder. Neither is searched: their words would outnumber those of pages."""
    head = f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n"
    file = ROOT / path
    if file.is_dir():
        return head + "\n".join(f"* `{entry.name}{'/' if entry.is_dir() else ''}`" for entry in sorted(file.iterdir()))
    text = file.read_text(encoding="utf-8").rstrip("\n")
    fence = "````" if "```" in text else "```"
    return f"{head}{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}\n{fence}\n"


def references() -> dict[str, str]:
    return {
        "reference/longembed.v1.md": proto_reference.reference(ROOT / "proto/longembed/v1/embedding.proto"),
        "reference/tei.v1.md": proto_reference.reference(ROOT / "proto/tei/v1/tei.proto"),
        "reference/python.md": python_reference.reference(ROOT / "client/python/longembed"),
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in list(files):
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(ROOT / "docs"):
            files.remove(file)
    pages = list(markdown_pages())

    def repository_file(path: str) -> File:
        return File(path, str(ROOT), config.site_dir, config.use_directory_urls)

    for page in pages:
        files.append(repository_file(page))
    for path in sorted(linked_paths(pages)):
        if path.endswith(PICTURES) and (ROOT / path).is_file():
            files.append(repository_file(path))
        elif page_of(path) != path and not page_of(path).endswith("README.md"):
            files.append(File.generated(config, page_of(path), content=shown(path), inclusion=InclusionLevel.NOT_IN_NAV))
    for path, content in references().items():
        files.append(File.generated(config, path, content=content))
    files.append(File.generated(config, "stylesheets/site.css", content=(HERE / "site.css").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    folder = posixpath.dirname(page.file.src_uri)
    if "\n## " not in markdown:  # An empty table of contents would take the room of a wide page.
        page.meta.setdefault("hide", ["toc"])

    def rewritten(match: re.Match) -> str:
        before, target, after = match.groups()
        if not is_local(target):
            return match[0]
        path = page_of(posixpath.normpath(posixpath.join(folder, target)))
        return f"{before}{posixpath.relpath(path, folder or '.')}{after}"

    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in FENCED.split(markdown))
