"""Draws pictures of results. The colors are those of Okabe and Ito, and one scale from light to dark. People with any color vision can distinguish
them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np

matplotlib.use("Agg")
from matplotlib import patheffects, pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from .pareto import pareto  # noqa: E402

KINDS = {"one vector": "#0072B2", "several vectors": "#D55E00", "words": "#5F6B76", "sum of several": "#009E73"}
SHADES = ("#B8C4CE", "#6E8CA8", "#0B3C5D")  # First, middle and last third of the document.
HEAT = "YlGnBu"
INK, FAINT = "#22303C", "#D8DEE4"
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]
COSTS = {"seconds of embedding a document": "seconds_per_document", "vectors a document": "vectors_per_document"}
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#EBEFF2",
    "text.color": INK,
    "text.parse_math": False,  # Names of rows and sets may contain dollar signs.
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "white",
    "legend.frameon": False,
}


def all_of(result: dict, folder: Path) -> list[Path]:
    """Draws all pictures for which a result has figures."""
    files = []
    if len(result["slices"]) > 1:
        return [_saved(heatmap([result]), folder / "heatmap.png")] if _ran(result) else []
    if len(result["slices"][0]["rows"]) > 1 and _costs(result):
        files.append(_saved(cost(result), folder / "quality-cost.png"))
    if _compared(result):
        files.append(_saved(gains([result]), folder / "gains.png"))
    if _positioned(result):
        files.append(_saved(position(result), folder / "position.png"))
    return files + _grid_files(result, folder)


def picture(name: str, results: Sequence[dict], path: Path) -> list[Path]:
    """Draws one picture, by its name on the command line, into the file, or grids into the folder. Raises ValueError if the results do not fit the
    picture."""
    lengths = {len(result["slices"]) > 1 for result in results}
    if lengths != {name == "heatmap"}:
        raise ValueError(f"{name} is drawn from results {'by length (passkey, needle)' if name == 'heatmap' else 'of sets, not of lengths'}")
    for result in results:
        _check_figures(name, result)
    if name in ("heatmap", "gains"):
        return [_saved({"heatmap": heatmap, "gains": gains}[name](results), path)]
    if len(results) > 1:
        raise ValueError(f"{name} takes one result; {len(results)} were given")
    if name == "grids":
        return _grid_files(results[0], path)
    return [_saved({"cost": cost, "position": position}[name](results[0]), path)]


def _grid_files(result: dict, folder: Path) -> list[Path]:
    """Draws every grid into a file of its own. Grids whose names differ only in marks get numbers."""
    files: dict[str, str] = {}
    for name in _grid_names(result):
        slug = _slug(name)
        files[name] = slug if slug not in files.values() else f"{slug}-{len(files) + 1}"
    return [_saved(grid(result, name), folder / f"grid-{slug}.png") for name, slug in files.items()]


def _check_figures(name: str, result: dict) -> None:
    figures = {"heatmap": _ran, "gains": _compared, "cost": _costs, "position": _positioned, "grids": _grid_names}
    if not figures[name](result):
        raise ValueError(f"{name} cannot be drawn: the result of {_title(result)} has no figures for it")


def heatmap(results: Sequence[dict]) -> Figure:
    """Draws accuracy by method and nominal length (the paper's figure 1b). Each result has its own block, one below the other. All blocks have the
    lengths of all results."""
    blocks = [(result, _by_length(result)) for result in results]
    heights = [len(rows) for _, (rows, _) in blocks]
    lengths = sorted({length for _, (_, columns) in blocks for length in columns}, key=int)
    with matplotlib.rc_context(STYLE):
        size = (3.3 + 0.72 * len(lengths), 1.1 + 0.36 * sum(heights) + 0.75 * len(blocks))
        figure, axes = pyplot.subplots(len(blocks), 1, figsize=size, squeeze=False, height_ratios=heights, layout="constrained")
        for axis, (result, (rows, _)) in zip(axes[:, 0], blocks):
            _cells(axis, np.array([[100 * row.get(length, np.nan) for length in lengths] for row in rows.values()]), "{:.0f}", (0, 100))
            axis.set_xticks(range(len(lengths)), [_short(int(length)) for length in lengths])
            axis.set_yticks(range(len(rows)), list(rows))
            axis.set_title(_title(result, f"{_metric_label(result['metric'])}, %"), pad=20)
            _window(axis, result, lengths)
        axes[-1, 0].set_xlabel("tokens a document")
    return figure


def gains(results: Sequence[dict]) -> Figure:
    """Draws the difference of each method to the baseline, in points, with its interval (the paper's figure 1c). Each result has its own panel."""
    names = list(dict.fromkeys(row["name"] for result in results for row in _compared(result)))
    values = {
        name: np.mean([row["difference"][result["metric"]]["value"] for result in results for row in _compared(result) if row["name"] == name])
        for name in names
    }
    order = sorted(names, key=values.get)
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1, len(results), figsize=(3.2 + 4.4 * len(results), 1.5 + 0.29 * len(order)), squeeze=False, sharey=True, layout="constrained"
        )
        for axis, result in zip(axes[0], results):
            rows = {row["name"]: row for row in _compared(result)}
            for place, name in enumerate(order):
                if name in rows:
                    _gain(axis, place, rows[name]["difference"][result["metric"]], KINDS[_kind(result, rows[name])])
            axis.axvline(0, color=INK, linewidth=1)
            axis.set_yticks(range(len(order)), order)
            axis.set_ylim(-0.6, len(order) - 0.4)
            axis.margins(x=0.17)
            axis.grid(axis="x")
            axis.spines["left"].set_visible(False)
            axis.set_xlabel(f"{_metric_label(result['metric'])}, points over {result['baseline']}")
            axis.set_title(_title(result))
        _kinds_legend(figure, {_kind(result, row) for result in results for row in _compared(result)})
    return figure


def cost(result: dict) -> Figure:
    """Draws quality against the cost of a document: seconds of embedding, and vectors kept. Each kind has a line through the points that no
    cheaper point of that kind beats.

    On these lines, only points that no simpler kind beats have names."""
    rows = result["slices"][0]["rows"]
    panels = _costs(result)
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(0.5 + 6 * len(panels), 6), squeeze=False, sharey=True, layout="constrained")
        for axis, (label, key) in zip(axes[0], panels.items()):
            named: list[tuple[tuple[float, float], str]] = []
            simpler: list[tuple[float, float]] = []
            for kind, color in KINDS.items():
                shown = [row for row in rows if row["cost"][key] and _kind(result, row) == kind]
                points = [(row["cost"][key], _percent(result, row)) for row in shown]
                front = _front(axis, points, color)
                named += [(points[i], shown[i]["name"]) for i in front if not any(x <= points[i][0] and y >= points[i][1] for x, y in simpler)]
                simpler += points if kind != "words" else []
            _without(axis, max((row for row in rows if not row["cost"][key]), key=lambda row: _percent(result, row), default=None), result)
            _log_axis(axis, label, min(row["cost"][key] for row in rows if row["cost"][key]))
            _labels(figure, axis, named)
        axes[0, 0].set_ylabel(f"{_metric_label(result['metric'])}, %")
        axes[0, 0].set_title(_title(result, "quality and cost"))
        _kinds_legend(figure, {_kind(result, row) for row in rows})
    return figure


def _front(axis, points: list[tuple[float, float]], color: str) -> list[int]:
    """Draws the points of one kind and the line through its front. Returns the numbers of the points on the front."""
    front = pareto(points)
    if front:
        axis.plot(*zip(*(points[i] for i in front)), color=color, linewidth=1.2, alpha=0.5, zorder=1)
    for i, point in enumerate(points):
        axis.scatter(*point, s=58 if i in front else 28, color=color, alpha=1 if i in front else 0.4, zorder=2, linewidths=0)
    return front


def _without(axis, row: dict | None, result: dict) -> None:
    """Draws a line for the best row without any cost. This is BM25, which needs no vectors."""
    if row is None:
        return
    value = _percent(result, row)
    axis.axhline(value, color=KINDS["words"], linewidth=1, linestyle=(0, (2, 3)), zorder=0)
    place = {"xy": (0, value), "xycoords": ("axes fraction", "data"), "xytext": (6, -11), "textcoords": "offset points"}
    axis.annotate(f"{row['name']}: no vectors", fontsize=8.5, path_effects=HALO, **place)


def _log_axis(axis, label: str, least: float) -> None:
    """Makes an axis logarithmic, with plain numbers from the decade of `least` on, and leaves room for names on the left."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low / (high / low) ** 0.55, high)
    axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,g}" if value * 9.99 > least else ""))
    axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axis.tick_params(axis="x", which="minor", length=0)
    axis.grid()
    axis.set_xlabel(label)


def position(result: dict) -> Figure:
    """Draws the metric by the third of the document that holds the evidence (first, middle, last), and PSI next to it."""
    rows = _positioned(result)[::-1]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 1.7 + 0.31 * len(rows)), sharey=True, width_ratios=(3, 1), layout="constrained")
        for place, row in enumerate(rows):
            thirds = row["position"]["thirds"]
            values = [100 * third["value"] for third in thirds.values()]
            left.plot([min(values), max(values)], [place, place], color=FAINT, linewidth=3, zorder=1, solid_capstyle="round")
            for (name, _), value, shade in zip(thirds.items(), values, SHADES):
                left.scatter(value, place, s=52, color=shade, zorder=2, label=name if place == 0 else None, linewidths=0)
            psi = row["position"]["psi"]
            right.plot([psi["low"], psi["high"]], [place, place], color=FAINT, linewidth=3, solid_capstyle="round")
            right.scatter(psi["value"], place, s=40, color=INK, zorder=2, linewidths=0)
        left.set_yticks(range(len(rows)), [row["name"] for row in rows])
        left.set_xlabel(f"{_metric_label(result['metric'])}, %")
        left.set_title(_title(result, "where the evidence stands"))
        right.set_xlabel("PSI (0: no bias by position)")
        right.set_xlim(0, 1)
        right.set_xticks([0, 0.5, 1])
        for axis in (left, right):
            axis.grid(axis="x")
            axis.spines["left"].set_visible(False)
            axis.set_ylim(-0.6, len(rows) - 0.4)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=3, handletextpad=0.1, columnspacing=1.2)
    return figure


def grid(result: dict, name: str) -> Figure:
    """Draws one ablation grid: the first axis across, the second down, and a panel for each combination of the others. Each cell shows the metric,
    and the vectors per document below it."""
    cells = {row["name"]: row for row in result["slices"][0]["rows"]}
    placed = {row: recipe["grid"] for row, recipe in result["recipes"].items() if recipe.get("grid", {}).get("figure") == name and row in cells}
    x, *others = (key for key in next(iter(placed.values())) if key != "figure")
    y, apart = (others[0] if others else ""), others[1:]
    panel = {row: ", ".join(str(place.get(key)) for key in apart) for row, place in placed.items()}
    panels = list(dict.fromkeys(panel.values()))
    columns, lines = (list(dict.fromkeys(place.get(key, "") for place in placed.values())) for key in (x, y))
    shape = (len(panels), len(lines), len(columns))
    values, vectors, speeds = (np.full(shape, np.nan) for _ in range(3))
    for row, place in placed.items():
        at = (panels.index(panel[row]), lines.index(place.get(y, "")), columns.index(place[x]))
        values[at] = 100 * cells[row]["metrics"][result["metric"]]["value"]
        vectors[at], speeds[at] = cells[row]["cost"]["vectors_per_document"], cells[row]["cost"]["tokens_per_second"] or np.nan
    return _grid_figure(result, name, (x, y, ", ".join(apart)), (columns, lines, panels), values, vectors, speeds)


def _grid_figure(
    result: dict, name: str, names: tuple[str, str, str], ticks: tuple[list, list, list], values: np.ndarray, vectors: np.ndarray, speeds: np.ndarray
) -> Figure:
    columns, lines, panels = ticks
    limits = (np.nanmin(values), np.nanmax(values))
    # If true, the vectors are written below the columns instead of in the cells.
    alike = all(len(set(column[np.isfinite(column)])) == 1 for cells in vectors for column in cells.T)
    with matplotlib.rc_context(STYLE):
        size = (2.8 + len(panels) * (0.5 + 1.05 * len(columns)), 2.1 + 0.5 * len(lines))
        figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True, layout="constrained")
        for axis, panel, cells, counts, speed in zip(axes[0], panels, values, vectors, speeds):
            _cells(axis, cells, "{:.1f}", limits, None if alike else counts)
            axis.set_xticks(range(len(columns)), [_tick(*column, alike) for column in zip(columns, counts.T, speed.T)])
            axis.set_yticks(range(len(lines)), [_display_text(line) for line in lines])
            axis.set_xlabel(_display_text(names[0]), labelpad=6)
            if panel:
                axis.set_title(f"{_display_text(names[2])}: {_display_text(panel)}", fontweight="normal", fontsize=10)
        below = "" if alike else "; small: vectors a document"
        title = "\n".join(textwrap.wrap(_title(result, name), int(size[0] * 8.5)))
        figure.suptitle(f"{title}\n", x=0.012, ha="left", fontsize=11.5, fontweight="bold")
        figure.text(0.012, 1 - 0.36 / size[1] - 0.2 * title.count("\n") / size[1], f"{_metric_label(result['metric'])}, %{below}", va="center", fontsize=9)
    return figure


def _tick(value: object, vectors: np.ndarray, speeds: np.ndarray, with_vectors: bool) -> str:
    """Returns the label of a column: its value, its number of vectors if all its cells share one, and its embedding speed."""
    said = [_display_text(value)]
    if with_vectors and np.nanmax(vectors) > 1:
        said.append(f"{np.nanmax(vectors):,.0f} vectors")
    if np.isfinite(speeds).any():
        said.append(f"{np.nanmean(speeds):,.0f} tok/s")
    return "\n".join(said)


def _cells(axis, values: np.ndarray, form: str, limits: tuple[float, float], small: np.ndarray | None = None):
    """Draws a heatmap with its numbers. If `small` has a number for a cell, it is written below in small type."""
    image = axis.imshow(values, cmap=HEAT, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        color = _readable(image.cmap(image.norm(value)))
        beside = small is not None and np.isfinite(small[row, column])
        axis.text(column, row - (0.14 if beside else 0), form.format(value), ha="center", va="center", color=color)
        if beside:
            axis.text(column, row + 0.26, f"{small[row, column]:,.0f}", ha="center", va="center", color=color, fontsize=7.5)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="minor", length=0)
    return image


def _readable(color: tuple[float, ...]) -> str:
    """Returns dark or white, whichever has more contrast by relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return INK if float(np.dot(linear, (0.2126, 0.7152, 0.0722))) > 0.25 else "white"


def _window(axis, result: dict, lengths: list[str]) -> None:
    """Draws a line at the end of the model's trained window."""
    window = result["model"]["trained_window"] if result["model"] else 0
    inside = sum(int(length) <= window for length in lengths)
    if 0 < inside < len(lengths):
        axis.axvline(inside - 0.5, color="#D55E00", linewidth=2)
        axis.annotate(
            "trained window", (inside - 0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, 3), textcoords="offset points", fontsize=8, color="#D55E00"
        )


def _gain(axis, place: int, difference: dict, color: str) -> None:
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    axis.barh(place, value, height=0.62, color=color, alpha=0.85, linewidth=0)
    axis.plot([low, high], [place, place], color=INK, linewidth=1.1, alpha=0.8)
    axis.annotate(f"{value:+.1f}".replace("-", "\u2212"), (max(high, 0), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)


def _labels(figure: Figure, axis, points: list[tuple[tuple[float, float], str]]) -> None:
    """Puts names to the left of their points. No point of the front lies there, since it would beat the point. Names that would overlap are moved
    up."""
    figure.canvas.draw()  # Lays out the axes, so that positions are known.
    gap, taken = 15.0 * figure.dpi / 100, []
    for (x, y), name in sorted(points, key=lambda one: one[0][1]):
        right, up = axis.transData.transform((x, y))
        left, place = right - 7.0 * len(name) * figure.dpi / 100, up
        for start, other, end in sorted(taken, key=lambda one: one[1]):
            if abs(place - other) < gap and left < end and start < right:
                place = other + gap
        taken.append((left, place, right))
        offset = (-8, (place - up) * 72 / figure.dpi - 3)
        axis.annotate(name, (x, y), xytext=offset, textcoords="offset points", ha="right", fontsize=8.5, zorder=3, path_effects=HALO)


def _listed(result: dict) -> list[dict]:
    """Returns the rows for pictures that show one line per row. Rows of grids have their own pictures, and are returned only if there are no other
    rows."""
    rows = result["slices"][0]["rows"]
    outside = [row for row in rows if not result["recipes"][row["name"]].get("grid")]
    return outside if len(outside) > 1 else rows


def _compared(result: dict) -> list[dict]:
    return [row for row in _listed(result) if row["name"] != result["baseline"] and "difference" in row]


def _ran(result: dict) -> bool:
    """Returns whether any row was run, not skipped, at any length."""
    return any(one["rows"] for one in result["slices"])


def _positioned(result: dict) -> list[dict]:
    return [row for row in _listed(result) if "position" in row]


def _costs(result: dict) -> dict[str, str]:
    """Returns the costs, label and key, that a row has. Rows of BM25 alone keep no vectors."""
    return {label: key for label, key in COSTS.items() if any(row["cost"][key] for row in result["slices"][0]["rows"])}


def _by_length(result: dict) -> tuple[dict[str, dict[str, float]], list[str]]:
    rows: dict[str, dict[str, float]] = {}
    for one in result["slices"]:
        for row in one["rows"]:
            rows.setdefault(row["name"], {})[one["name"]] = row["metrics"][result["metric"]]["value"]
    return rows, [one["name"] for one in result["slices"]]


def _grid_names(result: dict) -> list[str]:
    ran = {row["name"] for row in result["slices"][0]["rows"]}
    figures = [recipe["grid"]["figure"] for name, recipe in result["recipes"].items() if recipe.get("grid", {}).get("figure") and name in ran]
    return list(dict.fromkeys(figures))


def _kind(result: dict, row: dict) -> str:
    recipe = result["recipes"][row["name"]]
    if "bm25" in recipe:
        return "words"
    if "sum" in recipe:
        return "sum of several"
    return "several vectors" if row["cost"]["vectors_per_document"] > 1 else "one vector"


def _kinds_legend(figure: Figure, kinds: set[str]) -> None:
    handles = [pyplot.Line2D([], [], marker="o", linestyle="", color=color, label=kind) for kind, color in KINDS.items() if kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.1, columnspacing=1.4)


def _percent(result: dict, row: dict) -> float:
    return 100 * row["metrics"][result["metric"]]["value"]


def _title(result: dict, what: str = "") -> str:
    model = f", {result['model']['name']}" if result["model"] else ""
    return f"{result['task']}{model}" + (f": {what}" if what else "")


def _metric_label(metric: str) -> str:
    return {"ndcg_at_10": "nDCG@10", "accuracy_at_1": "accuracy at 1", "recall_at_10": "recall at 10"}[metric]


def _short(length: int) -> str:
    return f"{length // 1024}k" if length >= 1024 else str(length)


def _display_text(tick: object) -> str:
    return {True: "yes", False: "no"}.get(tick, str(tick).replace("_", " ")) if isinstance(tick, bool) else str(tick).replace("_", " ")


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")


def _saved(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
