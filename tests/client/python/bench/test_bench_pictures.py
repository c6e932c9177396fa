"""Tests tables and pictures: every picture is drawn from results alone, shows what it should, and refuses results that do not fit."""

from __future__ import annotations

import matplotlib.pyplot as pyplot
import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import plots, report  # noqa: E402
from longembed.bench.pareto import pareto  # noqa: E402


def row(name, value, vectors=1.0, seconds=1.0, position=True):
    estimate = {"value": value, "low": value - 0.05, "high": value + 0.05}
    found = {
        "name": name,
        "metrics": {metric: estimate for metric in ("ndcg_at_10", "accuracy_at_1", "recall_at_10")},
        "difference": {"ndcg_at_10": {"value": value - 0.3, "low": value - 0.33, "high": value - 0.27}},
        "cost": {
            "vectors_per_document": vectors,
            "bytes_per_document": round(1536 * vectors),
            "tokens_per_second": 4000.0 if vectors else None,
            "seconds_per_document": seconds,
            "truncated_documents": 0,
        },
    }
    thirds = {name: {**estimate, "queries": 9} for name in ("first third", "middle third", "last third")}
    return found | ({"position": {"psi": {"value": 0.2, "low": 0.1, "high": 0.4}, "thirds": thirds}} if position else {})


def result(slices, grids=None, task="small"):
    names = list(dict.fromkeys(one["name"] for rows in slices.values() for one in rows))
    corpus = {"name": task, "documents": 97, "queries": 770}
    kinds = {"words": {"bm25": {}}, "both": {"sum": ["words", "truncated"]}}
    return {
        "format": 1,
        "task": task,
        "metric": "ndcg_at_10",
        "date": "2026-11-28",
        "seed": 0,
        "bootstrap_draws": 2000,
        "baseline": "truncated",
        "model": {"name": "e5-small-v2", "precision": "int8", "device": "cpu", "trained_window": 512},
        "recipes": {name: {**kinds.get(name, {"document": {}}), **({"grid": grids[name]} if grids and name in grids else {})} for name in names},
        "slices": [{"name": name, "corpus": corpus, "rows": rows, "skipped": {"NTK": "the model has no ntk"}} for name, rows in slices.items()],
        "mean": {name: 0.5 for name in names},
    }


@pytest.fixture
def one_set():
    rows = [row("truncated", 0.3, seconds=0.2), row("mean", 0.5), row("windows", 0.7, 26.0), row("words", 0.9, 0.0, 0.01), row("both", 0.93, 26.0)]
    grid = {}
    for tokens in (64, 128):
        for how in ("mean", "max"):
            for queries in ("whole", "sentences"):
                rows.append(row(f"{tokens} {how} {queries}", 0.4 + tokens / 1000, 1.0 if how == "mean" else 99.0))
                grid[rows[-1]["name"]] = {"figure": "Window by Scoring", "window": tokens, "scoring": how, "queries": queries}
    return result({"": rows}, grid)


@pytest.fixture
def by_length():
    return result({"256": [row("truncated", 1.0), row("mean", 1.0)], "512": [row("truncated", 0.9)], "1024": [row("truncated", 0.5), row("mean", 0.7)]})


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_all_pictures_of_a_set(one_set, tmp_path):
    files = plots.all_of(one_set, tmp_path)
    assert [file.name for file in files] == ["quality-cost.png", "gains.png", "position.png", "grid-window-by-scoring.png"]
    for file in files:
        pixels = pyplot.imread(file)
        assert pixels.shape[0] > 200 and pixels.shape[1] > 400
        assert pixels.std() > 0.05, "something is drawn"
    assert not pyplot.get_fignums(), "no figure stays open"


def test_gains_are_over_the_baseline_and_leave_grids_out(one_set):
    figure = plots.gains([one_set, one_set])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["mean", "windows", "words", "both"]
    assert texts(figure) == ["+20.0", "+40.0", "+60.0", "+63.0"] * 2


def test_the_costs_front_is_named(one_set):
    named = texts(plots.cost(one_set))
    assert "truncated" in named and "words: no vectors" in named and "both" in named
    assert named.count("windows") == 2


def test_rows_that_a_simpler_kind_beats_have_no_label():
    rows = [row("truncated", 0.3), row("one", 0.6, 1.0, 2.0), row("few", 0.5, 2.0, 3.0), row("many", 0.7, 9.0, 4.0)]
    named = texts(plots.cost(result({"": rows})))
    assert "few" not in named and named.count("many") == named.count("one") == 2


def test_a_grid_shows_every_cell_and_its_vectors(one_set):
    figure = plots.grid(one_set, "Window by Scoring")
    assert len(figure.axes) == 2
    assert texts(figure).count("46.4") == texts(figure).count("52.8") == 4
    assert texts(figure).count("99") == 4
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["64\n4,000 tok/s", "128\n4,000 tok/s"]


def test_a_grid_of_one_axis_and_of_four():
    """A grid of one axis has one line. Axes after the second are combined in panels, and no cell is drawn over another."""
    one = result({"": [row("64", 0.4), row("128", 0.5)]}, {name: {"figure": "g", "window": int(name)} for name in ("64", "128")})
    assert texts(plots.grid(one, "g")) == ["40.0", "50.0"]
    places = [(a, b, c, d) for a in (1, 2) for b in (1, 2) for c in (1, 2) for d in (1, 2)]
    rows = [row(str(place), 0.1 + i / 100) for i, place in enumerate(places)]
    four = plots.grid(result({"": rows}, {str(place): {"figure": "g", **dict(zip("abcd", place))} for place in places}), "g")
    assert len(four.axes) == 4
    assert sorted(texts(four)) == sorted(f"{10 + i:.1f}" for i in range(16))
    assert [axis.get_title(loc="left") for axis in four.axes] == ["c, d: 1, 1", "c, d: 1, 2", "c, d: 2, 1", "c, d: 2, 2"]


def test_every_grid_has_a_file_of_its_own(tmp_path):
    figures = {"64": "окна", "128": "слова", "256": "слова!"}
    rows = [row(name, 0.4) for name in figures]
    found = plots.all_of(result({"": rows}, {name: {"figure": figure, "window": int(name)} for name, figure in figures.items()}), tmp_path)
    assert [file.name for file in found if file.name.startswith("grid")] == ["grid-окна.png", "grid-слова.png", "grid-слова-3.png"]


def test_rows_without_vectors_have_seconds_alone(tmp_path):
    figure = plots.cost(result({"": [row("truncated", 0.3, 0.0), row("words", 0.9, 0.0)]}))
    assert [axis.get_xlabel() for axis in figure.axes] == ["seconds of embedding a document"]
    free = result({"": [row("truncated", 0.3, 0.0, 0.0), row("words", 0.9, 0.0, 0.0)]})
    assert "quality-cost.png" not in {file.name for file in plots.all_of(free, tmp_path)}


def test_lengths_at_which_no_row_ran_have_no_picture(tmp_path):
    none = result({"256": [], "512": []})
    assert plots.all_of(none, tmp_path) == []
    with pytest.raises(ValueError, match="heatmap cannot be drawn"):
        plots.picture("heatmap", [none], tmp_path / "out.png")
    assert "Not run" in report.markdown(none)


@pytest.mark.parametrize("name", ["gains", "cost", "position", "grids"])
def test_a_picture_without_figures_is_refused(name, tmp_path):
    bare = result({"": [row("truncated", 0.3, 0.0, 0.0, position=False)]})
    with pytest.raises(ValueError, match=f"{name} cannot be drawn: the result of small, e5-small-v2 has no figures for it"):
        plots.picture(name, [bare], tmp_path / "out.png")


def test_a_heatmap_has_the_lengths_of_all_results():
    short, long = (result({length: [row("truncated", value)] for length, value in lengths}) for lengths in ([("256", 1.0), ("512", 0.9)], [("1024", 0.5)] * 2))
    long["slices"].append({**long["slices"][0], "name": "2048"})
    assert [label.get_text() for label in plots.heatmap([short, long]).axes[0].get_xticklabels()] == ["256", "512", "1k", "2k"]
    assert texts(plots.heatmap([short, long])) == ["100", "90", "trained window", "50", "50", "trained window"]


@pytest.mark.parametrize("name", ["from $5 to $6", "a $\\nothing$ known"])
def test_dollar_signs_in_names_are_not_formulas(name, tmp_path):
    """matplotlib takes what is between two of them for a formula, and raises an error for one that it does not know."""
    rows = [row("truncated", 0.3, seconds=0.2), row(name, 0.8), row(f"{name}, too", 0.9, 4.0)]
    places = {f"{name}, too": {"figure": name, name: name, "b": 1, "c": name}}
    shown = result({"": rows}, places, task=name)
    assert len(plots.all_of(shown, tmp_path)) == 4
    plots.picture("gains", [shown, shown], tmp_path / "gains.png")
    assert name in [label.get_text() for label in plots.gains([shown, shown]).axes[0].get_yticklabels()]
    by_length = result({length: rows for length in ("256", "1024")}, task=name)
    plots.picture("heatmap", [by_length, by_length], tmp_path / "heatmap.png")
    every_text = plots.heatmap([by_length]).findobj(lambda artist: hasattr(artist, "get_parse_math") and name in artist.get_text())
    assert every_text and not any(text.get_parse_math() for text in every_text)


def test_a_bar_in_a_name_does_not_end_its_cell(one_set):
    assert report.table(["method", "x"], [["a | b", "1"]]).endswith("| a \\| b | 1 |\n")


def test_the_heatmap_has_one_block_per_result_and_blank_cells(by_length):
    figure = plots.heatmap([by_length, by_length])
    assert len(figure.axes) == 2
    assert texts(figure) == ["100", "90", "50", "100", "70", "trained window"] * 2
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["256", "512", "1k"]


def test_position_shows_one_dot_per_third_and_psi(one_set):
    left, right = plots.position(one_set).axes
    assert len(left.collections) == 3 * 5 and len(right.collections) == 5


@pytest.mark.parametrize(
    ("name", "which", "message"),
    [("heatmap", ["one_set"], "by length"), ("gains", ["by_length"], "of sets"), ("cost", ["one_set", "one_set"], "cost takes one result; 2 were given")],
)
def test_results_that_do_not_fit_are_refused(name, which, message, request, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.picture(name, [request.getfixturevalue(one) for one in which], tmp_path / "out.png")


def test_pictures_by_name(one_set, by_length, tmp_path):
    for name, found in (("heatmap", by_length), ("gains", one_set), ("cost", one_set), ("position", one_set)):
        assert plots.picture(name, [found], tmp_path / f"{name}.svg")[0].stat().st_size > 5000
    assert [file.name for file in plots.picture("grids", [one_set], tmp_path / "grids")] == ["grid-window-by-scoring.png"]


def test_text_stands_out_from_its_cell():
    assert plots._readable((1, 1, 1, 1)) == plots.INK
    assert plots._readable((0, 0, 0.2, 1)) == "white"


def test_pareto():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [tuple(point) for point in rng.integers(0, 6, (8, 2)).astype(float)]
        front = pareto(points)
        beaten = [any(x <= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points]
        assert {points[i] for i in front} == {point for point, out in zip(points, beaten) if not out}
        assert [points[i] for i in front] == sorted({points[i] for i in front})


def test_a_table_of_one_set(one_set):
    text = report.markdown(one_set)
    assert "97 documents, 770 queries" in text
    assert "| truncated | 0.300 | [0.250, 0.350] |  | 0.300 | 0.300 | 0.20 | 1 | 1,536 | 4,000 | 0.2 |" in text
    assert "| windows | 0.700 | [0.650, 0.750] | +0.400 [+0.370, +0.430] | 0.700 | 0.700 | 0.20 | 26 | 39,936 | 4,000 | 1 |" in text
    assert "| words | 0.900 | [0.850, 0.950] | +0.600 [+0.570, +0.630] | 0.900 | 0.900 | 0.20 |  |  |  | 0.01 |" in text
    assert "by the document's length" not in text
    assert text.endswith("Not run:\n\n* NTK: the model has no ntk.\n")


def test_a_table_by_characters(one_set):
    for one in one_set["slices"][0]["rows"]:
        one["by_length"] = [{"from": 100, "to": 2001, "queries": 400, "value": 0.25}, {"from": 2001, "to": 9001, "queries": 370, "value": 0.75}]
    text = report.markdown(one_set)
    assert "| method | 100 to 2,000 characters (400 queries) | 2,001 to 9,000 characters (370 queries) |" in text
    one_set["slices"][0]["rows"][0]["by_length"][0]["queries"] = 1
    assert "| method | 100 to 2,000 characters (1 query) |" in report.markdown(one_set)
    assert "| windows | 0.250 | 0.750 |" in text


def test_a_table_by_length(by_length):
    text = report.markdown(by_length)
    assert "| method | 256 | 512 | 1,024 | mean |" in text
    assert "| mean | 1.00 |  | 0.70 | 50.0 |" in text


def test_several_results_side_by_side(one_set, by_length):
    by_length["task"], by_length["model"] = "passkey", None
    lines = report.combined([one_set, by_length]).splitlines()
    assert lines[0] == "| method | small, e5-small-v2 | passkey |"
    assert lines[2] == "| truncated | 50.0 | 50.0 |"
    assert "| windows | 50.0 |  |" in lines
