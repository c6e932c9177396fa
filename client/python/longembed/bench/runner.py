"""Runs rows over a task and collects the results as plain JSON. Tables and pictures are made from it."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longembed import Client, InvalidArgument, LongEmbedError, Options

from . import metrics, recipes
from .corpus import Corpus
from .embedders import EmbedderError
from .recipes import Recipes, Row
from .store import Store, write_whole
from .systems import Bars, Models, Scorer, no_bars

FORMAT = 1
DRAWS = 2000


@dataclass(frozen=True)
class Task:
    """A retrieval set. One of LongEmbed's synthetic tasks has a slice for each nominal length: {"256": ..., "512": ...}. A real set has the single
    slice ""."""

    name: str
    slices: dict[str, Corpus]

    @property
    def metric(self) -> str:
        return next(iter(self.slices.values())).metric


@dataclass
class Bench:
    """Settings for running rows.

    client: may be None if no row needs a server. query_model: see recipes.query_options. say: called with a line of text after each row."""

    client: Client | None
    store: Store
    seed: int = 0
    query_model: str | None = None
    bars: Bars = no_bars
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self):
        self._models = Models(self.client)

    def run(self, task: Task, chosen: Recipes) -> dict:
        """Returns the result. It lists, with a reason, the rows that the model cannot run or that are not run at a length."""
        model = self.describe_model()
        slices = [self.measure(name, corpus, chosen) for name, corpus in task.slices.items()]
        return gather(task.name, task.metric, chosen, model, slices, self.seed)

    def measure(self, name: str, corpus: Corpus, chosen: Recipes) -> dict:
        """Returns the figures of one set: {"name", "corpus", "rows", "skipped"}."""
        scorer = Scorer(self.client, self.store, corpus, self.bars, self.query_model, self._models)
        bootstrap = metrics.Bootstrap(corpus.answers(), DRAWS, self.seed)
        values, costs, skipped = {}, {}, {}
        for row in chosen.rows.values():
            reason = self._why_not(row, name) or next((f"{part}: {skipped[part]}" for part in row.parts if part in skipped), None)
            if reason:
                skipped[row.name] = reason
                continue
            started = time.monotonic()
            with _about(row):
                scored = scorer.score(row)
                values[row.name], costs[row.name] = metrics.per_query(scored.scores, corpus.relevant), scored.cost.describe()
            estimate = bootstrap.estimate(values[row.name][corpus.metric])
            figure = f"{corpus.metric} {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
            self.say(f"{corpus.name} {name:6} {row.name:44} {figure}  {time.monotonic() - started:.1f} s")
        baseline = values.get(chosen.baseline)
        rows = [{"name": row, **figures(found, baseline, corpus, bootstrap), "cost": costs[row]} for row, found in values.items()]
        return {"name": name, "corpus": corpus.describe(), "rows": rows, "skipped": skipped}

    def able(self, rows: list[Row]) -> list[Row]:
        """Returns the rows that the model can run."""
        return [row for row in rows if not self._why_not(row, "")]

    def names_profile(self, row: Row) -> bool:
        """Returns whether the row's documents have a profile of the server, by an alias NAME:PROFILE as their model."""
        name = recipes.model_of(row)
        return name is not None and name in self._models.get(name).aliases

    def describe_model(self) -> dict | None:
        if self.client is None:
            return None
        model = self._models.get(None)
        fields = ("name", "architecture", "trained_window", "dimensions", "precision", "device", "engine")
        queries = {"query_model": self.query_model} if self.query_model else {}
        return {name: getattr(model, name) for name in fields} | queries | {"file_sha256": dict(model.file_sha256)}

    def _why_not(self, row: Row, length: str) -> str | None:
        if row.longest and length.isdigit() and int(length) > row.longest:
            return f"run up to {row.longest} tokens only"
        if row.kind == "document" and self.client is not None:
            model = self._models.get(recipes.model_of(row))
            missing = sorted(recipes.methods(row) - set(model.methods))
            if missing:
                return f"the model has no {', '.join(missing)}"
            return self._refused_extension(recipes.document_options(row, model))
        return None

    def _refused_extension(self, options: Options) -> str | None:
        """Returns why the server refuses the extension or the output, such as windows beyond the trained window. None: it does not."""
        try:
            self.client.explain(["a"], options)
        except InvalidArgument as error:
            if (error.field or "").startswith(("options.extension", "options.output")):
                return str(error)
        return None


@contextmanager
def _about(row: Row) -> Iterator[None]:
    """Names the row in errors."""
    try:
        yield
    except LongEmbedError as error:
        raise error.about(f"row {row.name!r}") from error
    except (EmbedderError, ValueError) as error:
        raise recipes.RecipeError(f"row {row.name!r}: {error}") from error


def gather(task: str, metric: str, chosen: Recipes, model: dict | None, slices: list[dict], seed: int) -> dict:
    """Combines measured slices into a result."""
    return {
        "format": FORMAT,
        "task": task,
        "metric": metric,
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "bootstrap_draws": DRAWS,
        "model": model,
        "baseline": chosen.baseline,
        "recipes": {name: {**row.body, "grid": row.grid} if row.grid else row.body for name, row in chosen.rows.items()},
        "slices": slices,
        "mean": _mean(slices, metric),
    }


def save(result: dict, folder: Path) -> Path:
    path = folder / "results.json"
    write_whole(path, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def load(path: Path) -> dict:
    path = path / "results.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    found = result.get("format") if isinstance(result, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: format is {found!r}; this version reads {FORMAT}")
    return result


def figures(values: dict[str, np.ndarray], baseline: dict[str, np.ndarray] | None, corpus: Corpus, bootstrap: metrics.Bootstrap) -> dict:
    """Returns metrics with intervals, the paired difference to the baseline, position bias by thirds, and the metric by document length."""
    lengths = [len(corpus.documents[document]) for document in corpus.answers()]
    main = values[corpus.metric]
    result: dict = {"metrics": {name: bootstrap.estimate(values[name]).rounded() for name in metrics.METRICS}}
    if baseline is not None:
        result["difference"] = {name: bootstrap.estimate(values[name] - baseline[name]).rounded() for name in metrics.METRICS}
    if corpus.evidence:
        bias = metrics.position_bias(main, metrics.thirds(corpus.evidence, lengths), bootstrap)
        if bias:
            thirds = {name: {**estimate.rounded(), "queries": bias.queries[name]} for name, estimate in bias.groups.items()}
            result["position"] = {"psi": bias.psi.rounded(), "thirds": thirds}
    result["by_length"] = [
        {"from": low, "to": high, "queries": int(mask.sum()), **bootstrap.estimate(main, mask).rounded()}
        for low, high in metrics.length_slices(lengths)
        if (mask := np.array([low <= length < high for length in lengths])).any()
    ]
    return result


def _mean(slices: list[dict], metric: str) -> dict[str, float]:
    """Returns the mean over the slices, as LongEmbed scores its synthetic tasks. Only rows that ran on all slices are included."""
    values = [{row["name"]: row["metrics"][metric]["value"] for row in one["rows"]} for one in slices]
    return {name: round(float(np.mean([one[name] for one in values])), 5) for name in values[0] if all(name in one for one in values)}
