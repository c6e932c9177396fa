"""Reads the rows of a table from YAML. README.md in this folder explains every key."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from longembed import Options, maxsim

from . import aggregate as aggregates

KINDS = ("document", "bm25", "sum", "openai", "sentence_transformers")
COMMON = {"longest", "grid", "queries", "reduce", "center"}
KEYS = {
    "document": {"document", "query", "aggregate", "first", *COMMON},
    "bm25": {"bm25", "longest", "grid", "queries"},
    "sum": {"sum", "weights", "longest", "grid"},
    "openai": {"openai", *COMMON},
    "sentence_transformers": {"sentence_transformers", *COMMON},
}
PROMPTING = ("prompt_name", "input_type", "prompt")


class RecipeError(ValueError):
    """A recipe is invalid. The message names row and key."""


@dataclass(frozen=True)
class Values:
    """The values that a key takes, in words and as a test."""

    words: str
    fit: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


WHOLE = Values("a whole number from 1", lambda value: type(value) is int and value >= 1)
WHOLE_OR_NONE = Values("a whole number from 1, or null", lambda value: value is None or WHOLE.fit(value))
FROM_ZERO = Values("a number from 0", lambda value: _is_number(value) and value >= 0)
ABOVE_ZERO = Values("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Values("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
STRING = Values("a string", lambda value: isinstance(value, str))
NAME = Values("a string that is not empty", lambda value: isinstance(value, str) and value != "")
NAME_OR_NONE = Values("a string that is not empty, or null", lambda value: value is None or NAME.fit(value))
PROMPTS = {"query_prompt": STRING, "document_prompt": STRING}
BM25_VALUES = {"words": WHOLE_OR_NONE, "k1": FROM_ZERO, "b": SHARE, "language": NAME}
OPENAI_VALUES = {"url": NAME, "model": NAME, "key_env": NAME, **PROMPTS, "dimensions": WHOLE_OR_NONE, "batch": WHOLE, "timeout": ABOVE_ZERO}
SENTENCE_TRANSFORMERS_VALUES = {"path": NAME, **PROMPTS, "device": NAME_OR_NONE, "max_seq_length": WHOLE_OR_NONE, "batch": WHOLE}


@dataclass(frozen=True)
class Row:
    """One way to score queries against documents.

    kind: one of KINDS, the key that decides how the row is scored. body: the row as written. grid: its place in an ablation grid, {"figure": ...,
    axis: value}."""

    name: str
    kind: str
    body: dict[str, Any]
    grid: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        return list(self.body["sum"]) if self.kind == "sum" else []

    @property
    def longest(self) -> int | None:
        """The greatest nominal length at which the row runs on the synthetic tasks."""
        return self.body.get("longest")


@dataclass(frozen=True)
class Recipes:
    rows: dict[str, Row]
    baseline: str

    def chosen(self, names: list[str]) -> Recipes:
        """Returns the named rows and the rows that they sum. Returns all rows if none is named."""
        for name in names:
            if name not in self.rows:
                near = difflib.get_close_matches(name, self.rows, n=1)
                suggestion = f"did you mean {near[0]!r}? There are: " if near else "there are: "
                raise RecipeError(f"there is no row {name!r}; {suggestion}{', '.join(self.rows)}")
        wanted = list(names)
        for name in wanted:
            wanted += [part for part in self.rows[name].parts if part not in wanted]
        rows = {name: row for name, row in self.rows.items() if not names or name in wanted}
        return Recipes(rows, self.baseline if self.baseline in rows else next(iter(rows)))


def load(source: str | Path) -> Recipes:
    """Loads a file, or a preset of this package by its name."""
    import yaml

    preset = resources.files(__package__) / f"presets/{source}.yaml"
    try:
        text = (preset if source in presets() else Path(source)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{source} is neither a file of recipes nor one of the presets {', '.join(presets())}: {error}") from error
    try:
        _refuse_repeated_keys(yaml.compose(text, yaml.SafeLoader), str(source))
        return parse(yaml.safe_load(text), str(source))
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not YAML: {error}") from error


def _refuse_repeated_keys(node: Any, where: str) -> None:
    """Refuses a mapping with two equal keys, of which YAML's loader would drop the first. `node` is of yaml.compose, or None for an empty file."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, where)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise RecipeError(f"{where}, line {key.start_mark.line + 1}: the key {key.value!r} occurs twice")
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
            _refuse_repeated_keys(value, where)


def presets() -> list[str]:
    return sorted(file.name.removesuffix(".yaml") for file in (resources.files(__package__) / "presets").iterdir() if file.name.endswith(".yaml"))


def parse(content: Any, where: str = "recipes") -> Recipes:
    """Parses {"baseline": NAME, "rows": {NAME: ROW}, "grids": {NAME: GRID}}."""
    top = _mapping(content, where, {"description", "baseline", "rows", "grids"})
    rows: dict[str, Row] = {}
    named = [(str(name), body, {}) for name, body in _mapping(top.get("rows", {}), f"{where}: rows").items()]
    for figure, grid in _mapping(top.get("grids", {}), f"{where}: grids").items():
        named += _expand(str(figure), _mapping(grid, f"{where}: grids: {figure}", {"name", "axes", "row"}), where)
    for name, body, grid in named:
        if name in rows:
            raise RecipeError(f"{where}: two rows are named {name!r}")
        rows[name] = _row(name, _mapping(body, f"{where}: row {name!r}"), grid, f"{where}: row {name!r}")
    if not rows:
        raise RecipeError(f"{where}: there is no row")
    _check_sums(rows, where)
    baseline = str(top.get("baseline", next(iter(rows))))
    if baseline not in rows:
        raise RecipeError(f"{where}: the baseline {baseline!r} is not a row")
    return Recipes(rows, baseline)


def document_options(row: Row, model: Any) -> Options:
    """Returns the row's options for documents. If the row names no prompt and the model has a DOCUMENT prompt, it is used.

    Window vectors are requested un-normalized, so that rows which differ only in later steps share them."""
    given = _with_prompt(dict(row.body["document"]), "DOCUMENT", model)
    if keeps_windows(row):
        given |= {"output": "WINDOW_VECTORS", "normalize": False}
    return Options(**given)


def model_of(row: Row) -> str | None:
    """Returns the model that the row names for its documents. None: the client's."""
    return row.body["document"].get("model")


def query_model_of(row: Row, query_model: str | None = None) -> str | None:
    """Returns the model of the row's queries: the one that it names for them, or for its documents, or else `query_model`. None: the client's.

    query_model: another model of the server with the same weights in another precision, for rows that name no model."""
    return (row.body.get("query") or {}).get("model") or model_of(row) or query_model


def query_options(row: Row, model: Any, query_model: str | None = None) -> Options:
    """Returns the row's options for queries. `model` describes query_model_of(row, query_model). If the row names no prompt, the model's QUERY
    prompt is used. A query beyond the trained window is cut into windows. If the row names no dimensions for queries, those of its documents are
    used. The profile of an alias NAME:PROFILE is for the side that names it: of the documents' alias, queries get only the model."""
    given = _with_prompt(dict(row.body.get("query") or {}), "QUERY", model)
    documents = model_of(row)
    own = given.get("model") or (query_model if documents is None else None)
    if name := own or (model.name if documents in model.aliases else documents):
        given["model"] = name
    if "dimensions" not in given:
        given |= {key: value for key, value in row.body["document"].items() if key in ("dimensions", "force_dimensions")}
    if "extension" not in given and "truncate" not in given and own not in model.aliases:
        given["extension"] = {"windows": {}}
    return Options(**given)


def keeps_windows(row: Row) -> bool:
    return row.kind == "document" and ("aggregate" in row.body or row.body["document"].get("output") == "WINDOW_VECTORS")


def extension_of(row: Row) -> dict[str, Any]:
    """Returns the extension of the row's documents by the names of the proto, whether it is written as a mapping or as JSON, in snake_case or in
    camelCase. {} if it has none."""
    extension = Options(extension=row.body["document"].get("extension")).message().extension
    return json_format.MessageToDict(extension, preserving_proto_field_name=True)


def methods(row: Row) -> set[str]:
    """Returns the fields of Extension that the model must support for this row."""
    return set(extension_of(row)) - {"when", "recommended", "profile"} if row.kind == "document" else set()


def _with_prompt(given: dict, input_type: str, model: Any) -> dict:
    if not any(key in given for key in PROMPTING) and input_type in model.input_types:
        given["input_type"] = input_type
    return given


def _row(name: str, body: dict, grid: dict, where: str) -> Row:
    kinds = [kind for kind in KINDS if kind in body]
    if len(kinds) != 1:
        raise RecipeError(f"{where} must have exactly one of {', '.join(KINDS)}; it has {', '.join(kinds) or 'none'}")
    kind = kinds[0]
    _mapping(body, where, KEYS[kind])
    checks = {
        "document": _check_document,
        "bm25": _check_bm25,
        "sum": _check_sum,
        "openai": _check_openai,
        "sentence_transformers": _check_sentence_transformers,
    }
    checks[kind](body, where)
    if body.get("queries", "whole") not in ("whole", "sentences"):
        raise RecipeError(f"{where}: queries is {body['queries']!r}; it must be whole or sentences")
    if not isinstance(body.get("center", False), bool):
        raise RecipeError(f"{where}: center is {body['center']!r}; it must be true or false")
    for key in ("first", "longest"):
        if key in body and (type(body[key]) is not int or body[key] < 1):
            raise RecipeError(f"{where}: {key} is {body[key]!r}; it must be a whole number of tokens")
    try:
        maxsim.reduction(str(body.get("reduce", "max")))
    except ValueError as error:
        raise RecipeError(f"{where}: reduce: {error}") from error
    return Row(name, kind, body, {**_mapping(body.get("grid", {}), f"{where}: grid"), **grid})


def _check_document(body: dict, where: str) -> None:
    for side in ("document", "query"):
        if side in body:
            known = {option.name for option in fields(Options)} - {"priority"}
            given = _mapping(_or_empty(body[side]), f"{where}: {side}", known)
            try:
                Options(**given).message()
            except (TypeError, ValueError) as error:
                raise RecipeError(f"{where}: {side}: {error}") from error
            _refuse_methods_without_value(given.get("extension"), f"{where}: {side}.extension")
    document = body["document"] = body["document"] or {}
    if "aggregate" in body:
        try:
            aggregates.parse(str(body["aggregate"]))
        except ValueError as error:
            raise RecipeError(f"{where}: {error}") from error
        if "output" in document:
            raise RecipeError(f"{where}: document.output cannot be given with aggregate, which is made from WINDOW_VECTORS")
        if groups := Options(extension=document.get("extension")).message().extension.windows.vectors:
            raise RecipeError(
                f"{where}: extension.windows.vectors is {groups}, and aggregate is made from the vectors of windows, not of groups of them; "
                f"give output: WINDOW_VECTORS instead, or aggregate: groups({groups})"
            )
    if ("aggregate" in body or document.get("output") == "WINDOW_VECTORS") and "normalize" in document:
        raise RecipeError(f"{where}: document.normalize cannot be given with windows: they are always aggregated un-normalized and scored normalized")


def _refuse_methods_without_value(extension: Any, where: str) -> None:
    """Refuses `windows:` without a value. YAML reads it as null, and the proto's JSON form takes null for a method that is not there."""
    found = json.loads(extension) if isinstance(extension, str) else extension or {}
    for method in (key for key, value in found.items() if value is None):
        raise RecipeError(f"{where}: {method} has no value; write {{{method}: {{}}}} for its defaults, or leave it out")


def _check_bm25(body: dict, where: str) -> None:
    body["bm25"] = _checked_values(_or_empty(body["bm25"]), f"{where}: bm25", BM25_VALUES)


def _check_sum(body: dict, where: str) -> None:
    parts, weights = body["sum"], body.get("weights")
    if not isinstance(parts, list) or len(parts) < 2:
        raise RecipeError(f"{where}: sum must list two rows or more; it is {parts!r}")
    if weights is not None and (not isinstance(weights, list) or len(weights) != len(parts) or not all(map(_is_number, weights))):
        raise RecipeError(f"{where}: weights must be a list of {len(parts)} numbers, one for each row in sum; it is {weights!r}")


def _check_openai(body: dict, where: str) -> None:
    _check_required(_checked_values(body["openai"], f"{where}: openai", OPENAI_VALUES), ("url", "model"), f"{where}: openai")


def _check_sentence_transformers(body: dict, where: str) -> None:
    given = _checked_values(body["sentence_transformers"], f"{where}: sentence_transformers", SENTENCE_TRANSFORMERS_VALUES)
    _check_required(given, ("path",), f"{where}: sentence_transformers")


def _check_required(given: dict, keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if key not in given:
            raise RecipeError(f"{where}: {key} must be given")


def _checked_values(value: Any, where: str, known: dict[str, Values]) -> dict:
    given = _mapping(value, where, set(known))
    for key, one in given.items():
        if not known[key].fit(one):
            raise RecipeError(f"{where}: {key} is {one!r}; it must be {known[key].words}")
    return given


def _check_sums(rows: dict[str, Row], where: str) -> None:
    seen: set[str] = set()
    for name, row in rows.items():
        for part in row.parts:
            if part not in seen:
                raise RecipeError(f"{where}: row {name!r} is a sum with {part!r}, which is not a row before it")
        seen.add(name)


def _or_empty(value: Any) -> Any:
    """YAML reads a key without a value as None."""
    return {} if value is None else value


def _mapping(value: Any, where: str, known: set[str] | None = None) -> dict:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping; it is {value!r:.80}")
    unknown = [key for key in value if known is not None and key not in known]
    if unknown:
        raise RecipeError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return dict(value)


def _expand(figure: str, grid: dict, where: str) -> list[tuple[str, Any, dict]]:
    """Returns a row for every combination of the axes' values. {AXIS} is replaced in its name, its keys and its strings."""
    where = f"{where}: grid {figure!r}"
    axes = _mapping(grid.get("axes"), f"{where}: axes")
    if not all(isinstance(values, list) and values for values in axes.values()):
        raise RecipeError(f"{where}: every axis must list its values")
    rows = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values))
        rows.append((_filled(str(grid.get("name", figure)), chosen), _filled(grid.get("row"), chosen), {"figure": figure, **chosen}))
    return rows


def _filled(value: Any, chosen: dict[str, Any]) -> Any:
    """Fills in placeholders. A string that is only a placeholder becomes the value itself, so that numbers stay numbers."""
    if isinstance(value, Mapping):
        return {_filled(key, chosen): _filled(inner, chosen) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, chosen) for inner in value]
    if not isinstance(value, str):
        return value
    for axis, replacement in chosen.items():
        if value == f"{{{axis}}}":
            return replacement
        written = str(replacement).lower() if isinstance(replacement, bool) else str(replacement)  # Written as in YAML.
        value = value.replace(f"{{{axis}}}", written)
    return value
