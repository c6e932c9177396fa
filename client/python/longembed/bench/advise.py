"""Finds a recipe for a corpus with queries. Runs successive halving over recipes, on growing samples of the documents, and then all remaining
recipes on all documents.

Each round halves the recipes and doubles the documents. A recipe that no cheaper one beats is kept regardless of its rank, so that the last round
shows quality against cost."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import aggregate, recipes
from .corpus import Corpus
from .pareto import pareto
from .recipes import RecipeError, Row
from .store import write_whole

OBJECTIVES = ("one-vector", "several-vectors")
# On a sample with fewer documents than this, or with queries for fewer, the ranking of recipes is no better than chance.
FEWEST_DOCUMENTS = 12

Evaluate = Callable[[Corpus, Sequence[Row]], list[dict]]
"""Returns the result rows, {"name", "metrics", "cost", ...}, of these recipes on this corpus. The baseline's row comes first."""


@dataclass
class Advice:
    """The outcome of the search. rounds: for each round, its documents and {recipe: metric}. rows: the rows of the last round, on all documents.
    winner: the recommended recipe."""

    objective: str
    winner: Row
    rows: list[dict]
    tried: int
    rounds: list[dict] = field(default_factory=list)

    def row(self, name: str) -> dict:
        return next(row for row in self.rows if row["name"] == name)


def candidates(rows: Sequence[Row], objective: str, baseline: str) -> list[Row]:
    """Returns the rows that fit the objective and whose extension says by itself what a server does in one request, without the baseline."""
    if objective not in OBJECTIVES:
        raise RecipeError(f"objective is {objective!r}; it must be one of {', '.join(OBJECTIVES)}")
    documents = [row for row in rows if row.kind == "document" and row.name != baseline]
    fit = [row for row in documents if _objective(row) == objective and _extension(row) is not None]
    if not fit:
        raise RecipeError(f"none of the rows fits the objective {objective}")
    return fit


def advise(
    corpus: Corpus, rows: Sequence[Row], baseline: Row, evaluate: Evaluate, objective: str, max_vectors: float = math.inf, within: float = 0.01, seed: int = 0
) -> Advice:
    """Returns the search result. The winner is the cheapest recipe whose metric is within `within` of the best: fewest vectors, then fewest
    seconds per document.

    Recipes with more than `max_vectors` per document on average are dropped after the first round. Raises RecipeError if none is left."""
    if baseline.kind == "sum" or baseline not in rows:
        raise RecipeError(f"the baseline {baseline.name!r} {'is a sum' if baseline.kind == 'sum' else 'cannot be run by this model'}; name another one")
    alive = candidates(rows, objective, baseline.name)
    tried = len(alive)
    order = random.Random(seed).sample(range(len(corpus.documents)), len(corpus.documents))
    rounds = []
    for documents in sample_sizes(len(corpus.documents), tried):
        whole = documents == len(corpus.documents)
        sample = corpus if whole else corpus.subset(sorted(order[:documents]))
        if not whole and len(set(sample.answers())) < FEWEST_DOCUMENTS:
            continue  # Most documents of the set are no query's answer.
        found = evaluate(sample, [baseline, *alive])
        named = {row["name"]: row for row in found}
        alive = [row for row in alive if named[row.name]["cost"]["vectors_per_document"] <= max_vectors]
        if not alive:
            raise RecipeError(f"every recipe keeps more than {max_vectors:g} vectors a document; the fewest are {min(_vectors(row) for row in found[1:]):g}")
        rounds.append({"documents": documents, "queries": len(sample.queries), "scores": {row["name"]: _metric(row, corpus) for row in found}})
        if not whole:
            alive = survivors(alive, named, corpus)
    kept = [baseline.name, *(row.name for row in alive)]
    winner = cheapest_of_best(alive, named, corpus, within)
    return Advice(objective, winner, [row for row in found if row["name"] in kept], tried, rounds)


def sample_sizes(documents: int, recipes_tried: int) -> list[int]:
    """Returns the number of documents of each round. It doubles from round to round and ends with all. There are as many rounds as halving needs
    to leave about three recipes."""
    halvings = max(0, math.ceil(math.log2(recipes_tried / 3)))
    sizes = [math.ceil(documents / 2**left) for left in range(halvings, 0, -1)]
    return [size for size in sizes if size >= FEWEST_DOCUMENTS] + [documents]


def survivors(alive: Sequence[Row], found: dict[str, dict], corpus: Corpus) -> list[Row]:
    """Returns the better half of the recipes, and those that no recipe with less embedding time or fewer vectors beats. Keeps the given order."""
    best = sorted(alive, key=lambda row: -_metric(found[row.name], corpus))[: math.ceil(len(alive) / 2)]
    kept = {row.name for row in best}
    for cost in ("seconds_per_document", "vectors_per_document"):
        points = [(found[row.name]["cost"][cost], _metric(found[row.name], corpus)) for row in alive]
        kept |= {alive[i].name for i in pareto(points)}
    return [row for row in alive if row.name in kept]


def cheapest_of_best(alive: Sequence[Row], found: dict[str, dict], corpus: Corpus, within: float) -> Row:
    best = max(_metric(found[row.name], corpus) for row in alive)
    good = [row for row in alive if _metric(found[row.name], corpus) >= best - within]
    return min(good, key=lambda row: (_vectors(found[row.name]), found[row.name]["cost"]["seconds_per_document"], -_metric(found[row.name], corpus)))


def extension_of(row: Row) -> dict[str, Any]:
    """Returns the longembed.v1.Extension, in JSON form, that makes the server compute the row's vectors. {} is the plain encoding."""
    extension = _extension(row)
    if extension is None:
        raise RecipeError(f"{row.name}: advise cannot write an extension for this recipe")
    return extension


def evidence(advice: Advice, corpus: Corpus, baseline: str, date: str, model: dict | None) -> dict[str, str]:
    """Returns the evidence for the recommendation, as strings by name, for the manifest's recommendation_evidence."""
    row, before = advice.row(advice.winner.name), advice.row(baseline)
    value, cost = row["metrics"][corpus.metric], row["cost"]
    notes = {
        "set": corpus.name,
        "set_sha256": corpus.sha256(),
        "date": date,
        "documents": str(len(corpus.documents)),
        "queries": str(len(corpus.queries)),
        corpus.metric: f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]",
        "baseline": f"{baseline} {before['metrics'][corpus.metric]['value']:.4f}",
        "recipe": advice.winner.name,
        "vectors_per_document": f"{cost['vectors_per_document']:g}",
        "chosen_from": f"{advice.tried} recipes by successive halving on the same queries",
    }
    served = {key: model[key] for key in ("precision", "query_model") if key in model} if model else {}
    return notes | _beside_the_extension(advice.winner) | served


def _beside_the_extension(row: Row) -> dict[str, str]:
    """Returns the part of this recipe that is not in the extension: what the client performs, and the other options of the server."""
    options = {f"{side}_options": json.dumps(rest, sort_keys=True) for side in ("document", "query") if (rest := _other_options(row, side))}
    scoring = ", ".join(f"{key} {str(row.body[key]).lower()}" for key in ("reduce", "queries", "center") if key in row.body)
    cut = {"documents_cut_to": f"{row.body['first']} tokens"} if "first" in row.body else {}
    return cut | options | ({"scoring": scoring} if scoring else {})


def _other_options(row: Row, side: str) -> dict[str, Any]:
    implied = ("extension", "output") if side == "document" else ()
    return {key: value for key, value in (row.body.get(side) or {}).items() if key not in implied}


def write_profile(path: Path, name: str, row: Row, notes: dict[str, str]) -> None:
    """Writes a configuration file for the server, with one profile and its evidence as comments."""
    import yaml

    comments = "".join(f"# {key}: {' '.join(value.split())}\n" for key, value in notes.items())
    profile = yaml.safe_dump({"profiles": {name: extension_of(row)}}, sort_keys=False, default_flow_style=None, width=1 << 20)
    write_whole(
        path,
        (
            f'# By longembed-bench advise. Add this profile to `profiles` of the server\'s config; requests name it: {{"extension": {{"profile": {json.dumps(name)}}}}}.\n'
            f"{comments}{profile}"
        ).encode(),
    )


def edit_manifest(folder: Path, row: Row, objective: str, notes: dict[str, str]) -> Path:
    """Writes the recommendation and its evidence into a model's longembed-model.yaml, in the format of model.export. Other keys are kept.

    Evidence for both objectives may be present. Each key is therefore prefixed with its objective."""
    import yaml

    path, content = _manifest(folder)
    key, prefix = ("recommended_extension", "one_vector_") if objective == "one-vector" else ("recommended_multi_vector_extension", "several_vectors_")
    content[key] = json.dumps(extension_of(row))
    others = {name: value for name, value in (content.get("recommendation_evidence") or {}).items() if not name.startswith(prefix)}
    content["recommendation_evidence"] = others | {prefix + name: value for name, value in notes.items()}
    text = yaml.dump(content, Dumper=_manifest_dumper(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=1 << 20)
    write_whole(path, text.encode())
    return path


def _manifest_dumper() -> type:
    """Returns a dumper of what the server's reader of manifests takes, as in model/export/manifest.py: no aliases, no escapes \\N and \\_, and line separators
    only as escapes, because YAML 1.2 does not take them for line breaks as PyYAML does."""
    import yaml

    class Dumper(yaml.SafeDumper):
        ESCAPE_REPLACEMENTS = {character: name for character, name in yaml.SafeDumper.ESCAPE_REPLACEMENTS.items() if name not in ("N", "_")}

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if set("\x85\u2028\u2029").intersection(text) else None)

    Dumper.add_representer(str, represent_text)
    return Dumper


def check_manifest(folder: Path, model: dict) -> None:
    """Refuses a manifest that is not of the measured model, by the hashes of its files."""
    path, content = _manifest(folder)
    listed, served = content.get("files") or {}, model["file_sha256"]
    differing = sorted(name for name in listed.keys() | served.keys() if listed.get(name) != served.get(name))
    if differing:
        raise RecipeError(f"{path} is of another model than the served {model['name']}: {differing[0]} has another hash there")


def _manifest(folder: Path) -> tuple[Path, dict]:
    import yaml

    path = folder / "longembed-model.yaml" if folder.is_dir() else folder
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "format_version" not in content:
        raise RecipeError(f"{path} is not the longembed-model.yaml of a model: it has no format_version")
    return path, content


def _objective(row: Row) -> str | None:
    """Returns the objective that the row fits, or None. Sparse vectors, and those of spans and tokens, have no recommendation."""
    if recipes.keeps_windows(row):
        return "several-vectors" if str(row.body.get("aggregate", "windows")).split("(")[0] in ("windows", "groups") else "one-vector"
    return "one-vector" if row.body["document"].get("output") in (None, "ONE_VECTOR") else None


def _extension(row: Row) -> dict[str, Any] | None:
    """Returns the extension with the row's aggregation. Returns None if the extension refers to another one, which may change."""
    extension = recipes.extension_of(row)
    if "recommended" in extension or "profile" in extension or (recipes.keeps_windows(row) and "windows" not in extension):
        return None
    wanted = str(row.body.get("aggregate", "windows"))
    if wanted == "windows" or not recipes.keeps_windows(row):
        return extension
    return extension | {"windows": {**extension["windows"], **aggregate.of_server(wanted)}}


def _metric(row: dict, corpus: Corpus) -> float:
    return row["metrics"][corpus.metric]["value"]


def _vectors(row: dict) -> float:
    return row["cost"]["vectors_per_document"]
