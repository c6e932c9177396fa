"""Tests successive halving with made-up results, and the files that it writes."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import advise, recipes  # noqa: E402
from longembed.bench.__main__ import compared  # noqa: E402

# Metric and seconds of each recipe. The number of vectors follows from its windows.
FIGURES = {
    "truncated": (0.30, 1.0),
    "w64": (0.46, 3.0),
    "w128": (0.48, 2.8),
    "w256": (0.525, 2.6),
    "w512": (0.53, 2.5),
    "w512 weighted": (0.535, 2.5),
    "max": (0.1, 2.5),
}
VECTORS = {"m64": 200.0, "m128": 100.0, "m256": 50.0}
ROWS = """
rows:
  truncated: {document: {truncate: END}}
  w64: {document: {extension: {windows: {tokens: 64}}}, aggregate: mean}
  w128: {document: {extension: {windows: {tokens: 128}}}, aggregate: mean}
  w256: {document: {extension: {windows: {tokens: 256}}}, aggregate: mean}
  w512: {document: {extension: {windows: {tokens: 512}}}, aggregate: mean}
  w512 weighted: {document: {extension: {windows: {tokens: 512, overlap: 8}}}, aggregate: token_weighted_mean}
  max: {document: {extension: '{"windows": {"tokens": 512}}'}, aggregate: max}
  profile: {document: {extension: {profile: long}}}
  m64: {document: {extension: {windows: {tokens: 64}}, output: WINDOW_VECTORS}, queries: sentences}
  m128: {document: {extension: {windows: {tokens: 128}}, output: WINDOW_VECTORS}, reduce: mean_of_top(3)}
  m256: {document: {extension: {windows: {tokens: 256}}, output: WINDOW_VECTORS}}
  words: {bm25: {}}
"""


@pytest.fixture
def rows():
    return recipes.parse(yaml.safe_load(ROWS)).rows


class Figures:
    """Evaluates recipes by the tables above, and records the calls."""

    def __init__(self, metrics=None):
        self.metrics = metrics or {name: value for name, (value, _) in FIGURES.items()} | {"m64": 0.8, "m128": 0.7, "m256": 0.6}
        self.asked = []

    def __call__(self, corpus, rows):
        self.asked.append((len(corpus.documents), [row.name for row in rows]))
        return [
            {
                "name": row.name,
                "metrics": {"ndcg_at_10": {"value": self.metrics[row.name], "low": 0.0, "high": 1.0}},
                "cost": {"vectors_per_document": VECTORS.get(row.name, 1.0), "seconds_per_document": FIGURES.get(row.name, (0, 3.0))[1]},
            }
            for row in rows
        ]


def find(corpus, rows, figures, **changes):
    return advise.advise(corpus, list(rows.values()), rows["truncated"], figures, **{"objective": "one-vector", "within": 0.0, **changes})


def test_recipes_halve_while_documents_double(corpus, rows):
    figures = Figures()
    found = find(corpus, rows, figures)
    assert found.winner.name == "w512 weighted"
    assert found.tried == 6
    assert figures.asked == [
        (12, ["truncated", "w64", "w128", "w256", "w512", "w512 weighted", "max"]),
        (24, ["truncated", "w256", "w512", "w512 weighted"]),
    ]
    assert [one["documents"] for one in found.rounds] == [12, 24]
    assert [row["name"] for row in found.rows] == ["truncated", "w256", "w512", "w512 weighted"]


def test_a_recipe_that_no_cheaper_one_beats_survives(corpus, rows):
    """The recipe has the worst metric but the fastest embedding. It is kept for the picture of quality against cost."""
    figures = Figures()
    found = advise.survivors(
        [rows[name] for name in ("w64", "w128", "w256", "max")], {row["name"]: row for row in figures(corpus, list(rows.values())[:7])}, corpus
    )
    assert [row.name for row in found] == ["w128", "w256", "max"]


@pytest.mark.parametrize(("within", "winner"), [(0.0, "w512 weighted"), (0.006, "w512"), (0.2, "w512")])
def test_a_cheaper_recipe_within_reach_wins(corpus, rows, within, winner):
    figures = Figures({**Figures().metrics, "w512": 0.531})
    found = [rows[name] for name in ("w64", "w256", "w512", "w512 weighted")]
    named = {row["name"]: row for row in figures(corpus, found)}
    named["w512"]["cost"]["seconds_per_document"] = 2.0
    assert advise.cheapest_of_best(found, named, corpus, within).name == winner


def test_objective_and_most_vectors(corpus, rows):
    assert find(corpus, rows, Figures(), objective="several-vectors").winner.name == "m64"
    figures = Figures()
    assert find(corpus, rows, figures, objective="several-vectors", max_vectors=100).winner.name == "m128"
    with pytest.raises(recipes.RecipeError, match="every recipe keeps more than 20 vectors a document; the fewest are 50"):
        find(corpus, rows, Figures(), objective="several-vectors", max_vectors=20)
    with pytest.raises(recipes.RecipeError, match="objective is 'all'"):
        find(corpus, rows, Figures(), objective="all")


def test_samples_are_seeded_and_nested(corpus, rows):
    seen = []

    def evaluate(sample, some):
        seen.append(set(sample.document_ids))
        return Figures()(sample, some)

    for seed in (0, 0, 1):
        find(corpus, rows, evaluate, seed=seed)
    assert seen[0] < seen[1] and seen[0] == seen[2] != seen[4]


@pytest.mark.parametrize(("documents", "recipes_tried", "sizes"), [(97, 24, [13, 25, 49, 97]), (97, 3, [97]), (20, 24, [20]), (1000, 6, [500, 1000])])
def test_sample_sizes(documents, recipes_tried, sizes):
    assert advise.sample_sizes(documents, recipes_tried) == sizes


def test_samples_without_enough_queries_are_left_out(corpus, rows):
    """Most documents of a set may be no query's answer. A sample without any query has no metric."""
    few = dataclasses.replace(corpus, queries=corpus.queries[:2], query_ids=corpus.query_ids[:2], relevant=corpus.relevant[:2], evidence=())
    figures = Figures()
    assert find(few, rows, figures).winner.name == "w512 weighted"
    assert [documents for documents, _ in figures.asked] == [24]


@pytest.mark.parametrize(
    "body",
    [
        {"document": {"extension": {"recommended": {}}}},
        {"document": {"extension": {"profile": "archive"}}},
        {"document": {"extension": {"profile": "archive"}}, "aggregate": "mean"},
        {"document": {}, "aggregate": "mean"},
        {"document": {"output": "SPAN_VECTORS", "spans": {"sentences": {}}}},
        {"document": {"output": "TOKEN_VECTORS"}},
        {"document": {"output": "SPARSE"}},
    ],
)
@pytest.mark.parametrize("objective", advise.OBJECTIVES)
def test_rows_that_a_manifest_cannot_express_are_not_tried(body, objective):
    """The server refuses a recommendation or a profile that refers to another, and one for several vectors without windows."""
    rows = recipes.parse({"rows": {"truncated": {"document": {"truncate": "END"}}, "other": body}}).rows
    with pytest.raises(recipes.RecipeError, match=f"none of the rows fits the objective {objective}"):
        advise.candidates(list(rows.values()), objective, "truncated")


def test_an_extension_is_written_by_the_names_of_the_proto():
    body = {"document": {"extension": '{"windows": {"tokens": "64", "aggregation": 2}, "attentionLogScaling": true}'}}
    (row,) = recipes.parse({"rows": {"a": body}}).rows.values()
    assert recipes.methods(row) == {"windows", "attention_log_scaling"}
    assert advise.extension_of(row) == {"windows": {"tokens": 64, "aggregation": "MAX"}, "attention_log_scaling": True}


@pytest.mark.parametrize(("manifest_of", "advised"), [(None, ["a", "b", "c", "words"]), ("served", ["a", "b", "words"])])
@pytest.mark.parametrize("baseline", ["a", "c", "d"])
def test_a_manifest_gets_no_advice_of_another_model(manifest_of, advised, baseline):
    """Any row may be the baseline, which is no advice: the profile in use, for example."""
    bodies = {"a": {"document": {}}, "b": {"document": {"model": "served"}}, "c": {"document": {"model": "other"}}, "words": {"bm25": {}}}
    bodies["d"] = {"document": {"model": "served:profile"}}
    bench = SimpleNamespace(names_profile=lambda row: ":" in recipes.model_of(row))
    loaded = recipes.parse({"baseline": baseline, "rows": bodies})
    assert sorted(row.name for row in compared(loaded, bench, manifest_of)) == sorted({*advised, baseline})


def test_a_baseline_that_cannot_be_run_is_refused(corpus, rows):
    with pytest.raises(recipes.RecipeError, match="baseline 'truncated' cannot be run by this model"):
        advise.advise(corpus, [row for row in rows.values() if row.name != "truncated"], rows["truncated"], Figures(), "one-vector")


def test_evidence_holds_the_options_that_are_not_in_the_extension(corpus, rows):
    body = {"document": {"extension": {"recurrent": {}}, "max_tokens": 4096, "truncate": "END"}, "query": {"prompt": "ask: "}}
    (row,) = recipes.parse({"rows": {"w64": body}}).rows.values()
    found = find(corpus, {"truncated": rows["truncated"], "w64": row}, Figures())
    notes = advise.evidence(found, corpus, "truncated", "2026-11-28", {"precision": "int8", "query_model": "fp32"})
    assert notes["document_options"] == '{"max_tokens": 4096, "truncate": "END"}'
    assert notes["query_options"] == '{"prompt": "ask: "}'
    assert (notes["precision"], notes["query_model"]) == ("int8", "fp32")


def test_a_manifest_of_another_model_is_refused(tmp_path):
    (tmp_path / "longembed-model.yaml").write_text("format_version: 1\nfiles: {encoder.pt: ab, tokenizer.json: cd}\n")
    advise.check_manifest(tmp_path, {"name": "e5", "file_sha256": {"encoder.pt": "ab", "tokenizer.json": "cd"}})
    with pytest.raises(recipes.RecipeError, match="longembed-model.yaml is of another model than the served e5: encoder.pt has another hash there"):
        advise.check_manifest(tmp_path, {"name": "e5", "file_sha256": {"encoder.pt": "ef", "tokenizer.json": "cd"}})


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("truncated", {}),
        ("w64", {"windows": {"tokens": 64, "aggregation": "MEAN"}}),
        ("w512 weighted", {"windows": {"tokens": 512, "overlap": 8, "aggregation": "TOKEN_WEIGHTED_MEAN"}}),
        ("max", {"windows": {"tokens": 512, "aggregation": "MAX"}}),
        ("m128", {"windows": {"tokens": 128}}),
        ("weighted", {"windows": {"tokens": 64, "aggregation": "NORM_WEIGHTED", "norm_temperature": 0.5}}),
        ("top", {"windows": {"tokens": 64, "aggregation": "TOP_NORM", "top": 2}}),
        ("groups", {"windows": {"tokens": 64, "vectors": 8}}),
    ],
)
def test_the_extension_in_the_request(rows, name, extension):
    windows = {"extension": {"windows": {"tokens": 64}}}
    more = {"weighted": "norm_weighted(0.5)", "top": "top_norm(2)", "groups": "groups(8)"}
    body = {"rows": {row: {"document": windows, "aggregate": aggregate} for row, aggregate in more.items()}}
    assert advise.extension_of((rows | recipes.parse(body).rows)[name]) == extension


def test_a_profile_for_the_servers_config(corpus, rows, tmp_path):
    found = find(corpus, rows, Figures())
    notes = advise.evidence(found, corpus, "truncated", "2026-11-28", {"precision": "int8"})
    advise.write_profile(tmp_path / "profile.yaml", "archive", found.winner, notes)
    text = (tmp_path / "profile.yaml").read_text()
    assert yaml.safe_load(text) == {"profiles": {"archive": {"windows": {"tokens": 512, "overlap": 8, "aggregation": "TOKEN_WEIGHTED_MEAN"}}}}
    assert "# ndcg_at_10: 0.5350 [0.0000, 1.0000]\n# baseline: truncated 0.3000\n" in text


def test_a_manifest_keeps_its_other_keys_and_the_other_objective(corpus, rows, tmp_path):
    manifest = tmp_path / "longembed-model.yaml"
    manifest.write_text(
        yaml.safe_dump({"format_version": 1, "name": "e5", "recommended_extension": '{"windows": {}}', "files": {"encoder.pt": "ab"}}, sort_keys=False)
    )
    for objective in ("one-vector", "several-vectors"):
        found = find(corpus, rows, Figures(), objective=objective, max_vectors=100)
        advise.edit_manifest(tmp_path, found.winner, objective, advise.evidence(found, corpus, "truncated", "2026-11-28", None))
    content = yaml.safe_load(manifest.read_text())
    assert (content["format_version"], content["name"], content["files"]) == (1, "e5", {"encoder.pt": "ab"})
    assert json.loads(content["recommended_extension"]) == {"windows": {"tokens": 512, "overlap": 8, "aggregation": "TOKEN_WEIGHTED_MEAN"}}
    assert json.loads(content["recommended_multi_vector_extension"]) == {"windows": {"tokens": 128}}
    evidence = content["recommendation_evidence"]
    assert all(isinstance(value, str) for value in evidence.values())
    assert evidence["one_vector_set"] == evidence["several_vectors_set"] == "small"
    assert evidence["several_vectors_scoring"] == "reduce mean_of_top(3)"
    assert evidence["several_vectors_queries"] == "48"
    assert len(manifest.read_text().splitlines()) == 6, "a line a key, as the exporter writes it"
    assert evidence["one_vector_chosen_from"] == "6 recipes by successive halving on the same queries"


def test_prompts_of_a_manifest_stay_readable_for_the_server(rows, tmp_path):
    """yaml-cpp reads the escapes \\N and \\_ as bytes that are not UTF-8, and keeps an indentation after a line separator as blanks."""
    prompts = {"query": "une question\xa0:\n", "document": "a\u2028b", "title": "a\x85b"}
    manifest = tmp_path / "longembed-model.yaml"
    manifest.write_text(yaml.safe_dump({"format_version": 1, "prompts": prompts}), encoding="utf-8")
    advise.edit_manifest(tmp_path, rows["w64"], "one-vector", {})
    written = manifest.read_text(encoding="utf-8")
    assert yaml.safe_load(written)["prompts"] == prompts
    assert not {"\\N", "\\_"} & {written[i : i + 2] for i in range(len(written))} and not set("\x85\u2028\u2029") & set(written)


def test_a_file_other_than_a_manifest_is_refused(rows, tmp_path):
    (tmp_path / "longembed-model.yaml").write_text("models: []\n")
    with pytest.raises(recipes.RecipeError, match="has no format_version"):
        advise.edit_manifest(tmp_path, rows["w64"], "one-vector", {})
