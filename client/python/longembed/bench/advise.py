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
# On a sample with fewer documents than this, the ranking of recipes is no better than chance.
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
    """Returns the rows that fit the objective and that a server can run in one request, without the baseline."""
    if objective not in OBJECTIVES:
        raise RecipeError(f"objective is {objective!r}; it must be one of {', '.join(OBJECTIVES)}")
    several = objective == "several-vectors"
    fit = [row for row in rows if row.kind == "document" and row.name != baseline and _keeps_several(row) == several and _extension(row) is not None]
    if not fit:
        raise RecipeError(f"none of the rows fits the objective {objective}")
    return fit


def advise(
    corpus: Corpus, rows: Sequence[Row], baseline: Row, evaluate: Evaluate, objective: str, max_vectors: float = math.inf, within: float = 0.01, seed: int = 0
) -> Advice:
    """Returns the search result. The winner is the cheapest recipe whose metric is within `within` of the best: fewest vectors, then fewest
    seconds per document.

    Recipes with more than `max_vectors` per document on average are dropped after the first round. Raises RecipeError if none is left."""
    alive = candidates(rows, objective, baseline.name)
    tried = len(alive)
    order = random.Random(seed).sample(range(len(corpus.documents)), len(corpus.documents))
    rounds = []
    for documents in sample_sizes(len(corpus.documents), tried):
        sample = corpus if documents == len(corpus.documents) else corpus.subset(sorted(order[:documents]))
        found = evaluate(sample, [baseline, *alive])
        named = {row["name"]: row for row in found}
        alive = [row for row in alive if named[row.name]["cost"]["vectors_per_document"] <= max_vectors]
        if not alive:
            raise RecipeError(f"every recipe keeps more than {max_vectors:g} vectors a document; the fewest are {min(_vectors(row) for row in found[1:]):g}")
        rounds.append({"documents": documents, "queries": len(sample.queries), "scores": {row["name"]: _metric(row, corpus) for row in found}})
        if documents < len(corpus.documents):
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
        raise RecipeError(f"{row.name}: the server has no aggregation {row.body.get('aggregate')!r}")
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
    return notes | _beside_the_extension(advice.winner) | ({"precision": model["precision"]} if model else {})


def _beside_the_extension(row: Row) -> dict[str, str]:
    """Returns the part of this recipe that the client performs, which is not in the extension."""
    scoring = ", ".join(f"{key} {str(row.body[key]).lower()}" for key in ("reduce", "queries", "center") if key in row.body)
    cut = {"documents_cut_to": f"{row.body['first']} tokens"} if "first" in row.body else {}
    return cut | ({"scoring": scoring} if scoring else {})


def write_profile(path: Path, name: str, row: Row, notes: dict[str, str]) -> None:
    """Writes a configuration file for the server, with one profile and its evidence as comments."""
    import yaml

    comments = "".join(f"# {key}: {value}\n" for key, value in notes.items())
    profile = yaml.safe_dump({"profiles": {name: extension_of(row)}}, sort_keys=False, default_flow_style=None, width=1 << 20)
    write_whole(
        path,
        f'# By longembed-bench advise. For the server\'s config; requests name it: {{"extension": {{"profile": "{name}"}}}}.\n{comments}{profile}'.encode(),
    )


def edit_manifest(folder: Path, row: Row, objective: str, notes: dict[str, str]) -> Path:
    """Writes the recommendation and its evidence into a model's longembed-model.yaml, in the format of model.export. Other keys are kept.

    Evidence for both objectives may be present. Each key is therefore prefixed with its objective."""
    import yaml

    path = folder / "longembed-model.yaml" if folder.is_dir() else folder
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "format_version" not in content:
        raise RecipeError(f"{path} is not the longembed-model.yaml of a model: it has no format_version")
    key, prefix = ("recommended_extension", "one_vector_") if objective == "one-vector" else ("recommended_multi_vector_extension", "several_vectors_")
    content[key] = json.dumps(extension_of(row))
    others = {name: value for name, value in (content.get("recommendation_evidence") or {}).items() if not name.startswith(prefix)}
    content["recommendation_evidence"] = others | {prefix + name: value for name, value in notes.items()}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1 << 20)
    write_whole(path, text.encode())
    return path


def _keeps_several(row: Row) -> bool:
    several = row.body.get("aggregate", "windows").split("(")[0] in ("windows", "groups")
    return (recipes.keeps_windows(row) and several) or row.body["document"].get("output") == "SPAN_VECTORS"


def _extension(row: Row) -> dict[str, Any] | None:
    """Returns None if the server does not have such an aggregation."""
    extension = row.body["document"].get("extension") or {}
    extension = dict(json.loads(extension) if isinstance(extension, str) else extension)
    wanted = row.body.get("aggregate", "windows")
    if wanted == "windows" or not recipes.keeps_windows(row):
        return extension
    if wanted not in aggregate.SERVER_AGGREGATIONS:
        return None
    return extension | {"windows": {**extension["windows"], "aggregation": aggregate.SERVER_AGGREGATIONS[wanted]}}


def _metric(row: dict, corpus: Corpus) -> float:
    return row["metrics"][corpus.metric]["value"]


def _vectors(row: dict) -> float:
    return row["cost"]["vectors_per_document"]
