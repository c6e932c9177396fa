"""Writes longembed-model.yaml. model/manifest in C++ reads it and refuses unknown keys."""

from pathlib import Path

import yaml

from model.export.sources import sha256_of

FILE = "longembed-model.yaml"
ENCODER = "encoder.pt"
TOKENIZER = "tokenizer.json"
SPARSE_HEAD = "sparse_head.pt"
FORMAT_VERSION = 1
EXPORTER_VERSION = 9  # Increase it whenever the same checkpoint would give different files.
SEPARATORS = frozenset("\x85\u2028\u2029")


class _Dumper(yaml.SafeDumper):
    """A dumper without aliases, which the reader does not support. A value that occurs twice is written twice."""

    # A copy without \N and \_ (U+0085 and U+00A0), which the reader does not support either. They are written as \x85 and \xA0.
    ESCAPE_REPLACEMENTS = {character: name for character, name in yaml.SafeDumper.ESCAPE_REPLACEMENTS.items() if name not in ("N", "_")}

    def ignore_aliases(self, data) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Puts texts with line separators in double quotes, as escapes. PyYAML would take these characters for line breaks and indent what follows, but they are
        none for the reader (YAML 1.2), which would keep the indentation as part of the text."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if SEPARATORS.intersection(text) else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def write(folder: Path, content: dict) -> None:
    """Writes `content` and the SHA-256 sums of the directory's files."""
    files = {name: sha256_of(folder / name) for name in (ENCODER, TOKENIZER, SPARSE_HEAD) if (folder / name).is_file()}
    full = {"format_version": FORMAT_VERSION, **content, "files": files}
    text = yaml.dump(full, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
    (folder / FILE).write_text(text, encoding="utf-8")


def is_current(folder: Path, request: dict) -> bool:
    """Returns whether `folder` already holds the result of `request`: this version made it from an equal request, and its files are unchanged."""
    try:
        content = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        exporter = content["exporter"]
        if content["format_version"] != FORMAT_VERSION or exporter["version"] != EXPORTER_VERSION or exporter["request"] != request:
            return False
        expected = {name: content["files"][name] for name in (ENCODER, TOKENIZER)} | content["files"]
        return all(sha256_of(folder / name) == sum_of_file for name, sum_of_file in expected.items())
    except (OSError, ValueError, RecursionError, yaml.YAMLError, KeyError, TypeError):  # ValueError: not UTF-8, or a date such as 2026-13-01.
        return False
