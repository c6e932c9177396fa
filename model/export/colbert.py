"""Multi-vector checkpoints (ColBERT, arXiv 2004.12832), which give one vector per token through Dense layers. Reads their settings from the three existing
formats.

sentence-transformers' MultiVectorEncoder stores its settings with the Transformer module, PyLate in config_sentence_transformers.json, and Stanford's ColBERT
in artifact.metadata. The defaults for the two older formats are those with which sentence-transformers 6.2 loads them.
"""

import string
from dataclasses import dataclass, field
from pathlib import Path

from model.export import files
from model.export.errors import ExportError

METADATA_FILE = "artifact.metadata"
STANFORD_CLASS = "HF_ColBERT"
PYLATE_DENSE = "pylate.models.Dense.Dense"
PYLATE_TYPE, NATIVE_TYPE = "ColBERT", "MultiVectorEncoder"  # model_type in config_sentence_transformers.json.
QUERY_LENGTH = 32  # The default number of tokens.


@dataclass(frozen=True)
class Expansion:
    """The lengthening of queries to `length` tokens with `token` (None: the tokenizer's mask token). If `attend`, every token attends to the added tokens."""

    length: int
    attend: bool = False
    token: str | None = None
    cut: bool = True  # Whether queries beyond `length` are truncated to it.


@dataclass
class Settings:
    """The settings of a multi-vector checkpoint, besides its prompts."""

    query_length: int | None = None  # Limit in tokens at which queries are truncated; None: the model's limit.
    document_length: int | None = None
    expansion: Expansion | None = None
    skipped_words: list[str] = field(default_factory=list)  # Words of documents that get no vector.
    markers: list[str] = field(default_factory=list)  # Vocabulary tokens that occur in prompts and that the tokenizer would split.

    @property
    def query_limit(self) -> int | None:
        return self.expansion.length if self.expansion and self.expansion.cut else self.query_length


def native(settings: dict, file: Path, mask: dict, mask_file: Path) -> Settings:
    """Reads the settings of the Transformer module and of the MultiVectorMask module."""
    for key, plain in (("skiplist_tasks", (None, ["document"], "document")), ("keep_only_token_ids", (None, []))):
        if mask.get(key) not in plain:
            raise ExportError(f"{files.name_of(mask_file)} says {key} = {mask[key]!r}, which is not served; choose another checkpoint.")
    return Settings(
        query_length=_tokens(settings, "query_length", file),
        document_length=_tokens(settings, "document_length", file),
        expansion=_expansion(settings.get("query_expansion"), file),
        skipped_words=_words(mask, mask_file),
    )


def pylate(content: dict, file: Path) -> tuple[Settings, dict[str, str]]:
    """Reads config_sentence_transformers.json. Returns the settings, and the prompts including its prefixes."""
    prefixes = {name: files.value(content, f"{name}_prefix", str, file, "a string") for name in ("query", "document")}
    prompts = files.texts(content, "prompts", file)
    for name, prefix in prefixes.items():
        if prefix is not None:
            prompts[name] = prefix + prompts.get(name, "").removeprefix(prefix)
    length = _tokens(content, "query_length", file)
    expansion = None
    if "query_expansion" in content:
        expansion = _expansion(content["query_expansion"], file)
    elif content.get("do_query_expansion") is not False:
        attend = content.get("attend_to_expansion_tokens", content.get("attend_to_mask_tokens"))
        expansion, length = Expansion(length or QUERY_LENGTH, bool(attend)), None
    words = _words(content, file) if content.get("skiplist_words") is not None else list(string.punctuation)
    markers = [prefix for prefix in prefixes.values() if prefix and prefix.split()]
    return Settings(length, _tokens(content, "document_length", file), expansion, words, markers), prompts


def stanford(folder: Path) -> tuple[Settings, dict[str, str]]:
    """Reads artifact.metadata, with sentence-transformers' defaults for missing settings."""
    file = folder / METADATA_FILE
    content = files.read_json(file)
    prompts = {
        "query": (files.value(content, "query_token_id", str, file, "a token") or "[unused0]") + " ",
        "document": (files.value(content, "doc_token_id", str, file, "a token") or "[unused1]") + " ",
    }
    expansion = Expansion(_tokens(content, "query_maxlen", file) or QUERY_LENGTH, bool(content.get("attend_to_mask_tokens")))
    words = list(string.punctuation) if content.get("mask_punctuation", True) else []
    return Settings(None, _tokens(content, "doc_maxlen", file), expansion, words, list(prompts.values())), prompts


def _tokens(content: dict, key: str, file: Path) -> int | None:
    found = files.value(content, key, int, file, "a number of tokens")
    if found is not None and found < 3:
        raise ExportError(f"{files.name_of(file)} says {key} = {found}, which leaves no room for a text; correct it.")
    return found


def _words(content: dict, file: Path) -> list[str]:
    found = files.value(content, "skiplist_words", list, file, "an array of words") or []
    if not all(isinstance(word, str) for word in found):
        raise ExportError(f"{files.name_of(file)} says skiplist_words = {str(found)[:80]}, which must be an array of words; correct it.")
    return found


def _expansion(said, file: Path) -> Expansion | None:
    if said is None:
        return None
    if not isinstance(said, dict) or set(said) - {"strategy", "attend", "token", "length"} or said.get("strategy") not in ("fixed", "min"):
        raise ExportError(f"{files.name_of(file)} says query_expansion = {str(said)[:80]}, which is not served; choose another checkpoint.")
    length = _tokens(said, "length", file)
    if length is None:
        raise ExportError(f"{files.name_of(file)} says query_expansion without a length; add it.")
    return Expansion(length, bool(said.get("attend", False)), said.get("token"), said["strategy"] == "fixed")
