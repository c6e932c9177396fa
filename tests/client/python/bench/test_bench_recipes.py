"""Tests recipes in YAML: grids are expanded, and invalid rows are refused by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import recipes  # noqa: E402

E5 = SimpleNamespace(input_types={"QUERY": "query", "DOCUMENT": "passage"}, methods=["windows", "interpolation"], name="e5", aliases=["e5:archive"])
BARE = SimpleNamespace(input_types={}, methods=[], name="bare", aliases=[])


def parse(text):
    return recipes.parse(yaml.safe_load(text), "file")


def row(text):
    return parse(f"rows:\n  only: {text}").rows["only"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{document: {}, speed: fast}", "file: row 'only' has the unknown key 'speed'"),
        ("{document: {window: 5}}", "file: row 'only': document has the unknown key 'window'; known are dimensions, encoding"),
        ("{document: {extension: {windows: {size: 5}}}}", "file: row 'only': document: options:"),
        ("{document: {output: SEVERAL}}", "file: row 'only': document: options.output is 'SEVERAL'; it must be one of ONE_VECTOR"),
        ("{document: {}, query: {priority: BULK}}", "query has the unknown key 'priority'"),
        ("{document: {}, bm25: {}}", "must have exactly one of document, bm25, sum, openai, sentence_transformers; it has document, bm25"),
        ("{reduce: max}", "it has none"),
        ("{document: {}, reduce: median}", "file: row 'only': reduce: unknown reduction 'median'"),
        ("{document: {}, queries: words}", "queries is 'words'; it must be whole or sentences"),
        ("{document: {}, first: many}", "first is 'many'; it must be a whole number"),
        ("{document: {}, longest: 0}", "longest is 0"),
        ("{document: {}, aggregate: median}", "aggregate is 'median'"),
        ("{document: {output: WINDOW_VECTORS}, aggregate: mean}", "document.output cannot be given with aggregate"),
        ("{document: {extension: {windows: {vectors: 8}}}, aggregate: mean}", "extension.windows.vectors is 8, and aggregate is made from the vectors of win"),
        ("{document: {extension: '{\"windows\": {\"vectors\": 8}}'}, aggregate: first}", "output: WINDOW_VECTORS instead, or aggregate: groups(8)"),
        ("{document: {normalize: false}, aggregate: mean}", "document.normalize cannot be given with windows"),
        ("{bm25: {k2: 3}}", "bm25 has the unknown key 'k2'; known are b, k1, language"),
        ("{bm25: {k1: fast}}", "file: row 'only': bm25: k1 is 'fast'; it must be a number from 0"),
        ("{bm25: {b: 75}}", "bm25: b is 75; it must be a number from 0 to 1"),
        ("{document: {truncate: END, extension: {windows: }}}", "document.extension: windows has no value; write {windows: {}} for its defaults"),
        ("{document: {}, query: {extension: '{\"windows\": null}'}}", "query.extension: windows has no value"),
        ("{bm25: {words: '200'}}", "bm25: words is '200'; it must be a whole number from 1, or null"),
        ("{bm25: {language: ''}}", "bm25: language is ''; it must be a string that is not empty"),
        ("{bm25: false}", "row 'only': bm25 must be a mapping; it is False"),
        ("{document: 0}", "row 'only': document must be a mapping; it is 0"),
        ("{bm25: {}, grid: no}", "row 'only': grid must be a mapping"),
        ("{sum: [a, b]}", "row 'only' is a sum with 'a', which is not a row before it"),
        ("{sum: [a]}", "sum must list two rows or more"),
        ("{openai: {url: http://127.0.0.1}}", "openai: model must be given"),
        ("{openai: {url: http://127.0.0.1, model: m, key: secret}}", "openai has the unknown key 'key'"),
        ("{openai: {url: http://127.0.0.1, model: m, batch: 0}}", "openai: batch is 0; it must be a whole number from 1"),
        ("{openai: {url: http://127.0.0.1, model: m, query_prompt: 5}}", "openai: query_prompt is 5; it must be a string"),
        ("{openai: {url: http://127.0.0.1, model: m, timeout: .nan}}", "openai: timeout is nan; it must be a number above 0"),
        ("{sentence_transformers: {path: p, max_seq_length: long}}", "max_seq_length is 'long'; it must be a whole number from 1, or null"),
        ("{sentence_transformers: {}}", "sentence_transformers: path must be given"),
        ("[1]", "row 'only' must be a mapping"),
    ],
)
def test_a_bad_row_is_refused(text, message):
    with pytest.raises(recipes.RecipeError) as error:
        row(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {}", "there is no row"),
        ("baseline: b\nrows: {a: {bm25: {}}}", "the baseline 'b' is not a row"),
        ("row: {}", "file has the unknown key 'row'"),
        ("rows: {a: {bm25: {}}, b: {bm25: {}}, c: {sum: [a, b], weights: [1]}}", "weights must be a list of 2 numbers"),
        ("rows: {a: {bm25: {}}, b: {bm25: {}}, c: {sum: [a, b], weights: [1, x]}}", "weights must be a list of 2 numbers"),
        ("rows: {a: {bm25: {}}, b: {bm25: {}}, c: {sum: [a, b], weights: [.nan, 1]}}", "weights must be a list of 2 numbers"),
        ("rows: {a 1: {bm25: {}}}\ngrids: {g: {name: 'a {x}', axes: {x: [1]}, row: {bm25: {}}}}", "two rows are named 'a 1'"),
        ("grids: {g: {axes: {x: []}, row: {bm25: {}}}}", "every axis must list its values"),
        ("grids: {g: {axis: {x: [1]}}}", "grids: g has the unknown key 'axis'"),
    ],
)
def test_a_bad_file_is_refused(text, message):
    with pytest.raises(recipes.RecipeError) as error:
        parse(text)
    assert message in str(error.value)


def test_files_and_presets(tmp_path):
    (tmp_path / "mine.yaml").write_text("rows: {words: {bm25: {}}}")
    assert list(recipes.load(tmp_path / "mine.yaml").rows) == ["words"]
    (tmp_path / "broken.yaml").write_text("rows: {")
    with pytest.raises(recipes.RecipeError, match="not YAML"):
        recipes.load(tmp_path / "broken.yaml")
    with pytest.raises(recipes.RecipeError, match="nor one of the presets ablation, advise, longembed, newer, passkey, rope"):
        recipes.load("nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows:\n  a: {bm25: {}}\n  a: {bm25: {b: 0.3}}\n", "line 3: the key 'a' occurs twice"),
        ("rows: {a: {bm25: {b: 0.1, k1: 1,\n b: 0.2}}}", "line 2: the key 'b' occurs twice"),
    ],
)
def test_a_repeated_key_is_refused(tmp_path, text, message):
    """YAML's loader would keep the last of them."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(recipes.RecipeError, match=message):
        recipes.load(tmp_path / "mine.yaml")


def test_a_file_may_have_any_name(tmp_path):
    (tmp_path / "mine").write_text("rows: {words: {bm25: {words: null}}}")
    assert list(recipes.load(str(tmp_path / "mine")).rows) == ["words"]


@pytest.mark.parametrize("name", recipes.presets())
def test_every_preset_is_valid(name):
    loaded = recipes.load(name)
    assert loaded.baseline == "truncated"
    assert len(loaded.rows) > 10


def test_a_grid_is_every_combination():
    found = parse(
        "grids: {sizes: {name: '{tokens} by {how}', axes: {tokens: [32, 64], how: [mean, top_norm(2)]}, "
        "row: {document: {extension: {windows: {tokens: '{tokens}'}}}, aggregate: '{how}'}}}"
    )
    assert list(found.rows) == ["32 by mean", "32 by top_norm(2)", "64 by mean", "64 by top_norm(2)"]
    last = found.rows["64 by top_norm(2)"]
    assert last.body == {"document": {"extension": {"windows": {"tokens": 64}}}, "aggregate": "top_norm(2)"}
    assert last.grid == {"figure": "sizes", "tokens": 64, "how": "top_norm(2)"}


def test_placeholders_are_replaced_in_keys_too():
    found = parse("grids: {kinds: {name: '{kind}', axes: {kind: [yarn, grouped]}, row: {document: {extension: {'{kind}': {}}}}}}")
    assert [recipes.methods(one) for one in found.rows.values()] == [{"yarn"}, {"grouped"}]


def test_truth_values_are_written_as_in_yaml():
    found = parse(
        "grids: {scales: {name: 'scaled {scaled}', axes: {scaled: [false, true]}, row: {document: {extension: {windows: {}, attention_log_scaling: '{scaled}'}}}}}"
    )
    assert {name: one.body["document"]["extension"]["attention_log_scaling"] for name, one in found.rows.items()} == {"scaled false": False, "scaled true": True}


def test_a_row_that_is_nearly_named_is_suggested():
    with pytest.raises(recipes.RecipeError, match="there is no row 'windows 512, mean'; did you mean 'windows 512 mean'"):
        recipes.load("longembed").chosen(["windows 512, mean"])


def test_choosing_a_sum_chooses_its_parts():
    found = parse("rows: {a: {bm25: {}}, b: {document: {}}, c: {sum: [a, b]}, d: {sum: [c, b]}, e: {document: {}}}")
    assert list(found.chosen(["d"]).rows) == ["a", "b", "c", "d"]
    assert list(found.chosen([]).rows) == ["a", "b", "c", "d", "e"]
    assert found.chosen(["b"]).baseline == "b"
    with pytest.raises(recipes.RecipeError, match="there is no row 'z'; there are: a, b, c, d, e"):
        found.chosen(["z"])


def test_the_models_own_prompts_are_the_default():
    plain = row("{document: {}}")
    assert recipes.document_options(plain, E5).input_type == "DOCUMENT"
    assert recipes.query_options(plain, E5).input_type == "QUERY"
    assert recipes.query_options(plain, E5).extension == {"windows": {}}
    assert recipes.query_options(plain, E5, "other").model == "other"
    assert recipes.document_options(plain, BARE).input_type is None
    own = row("{document: {prompt: ''}, query: {prompt_name: search, truncate: END, model: third}}")
    assert recipes.document_options(own, E5).to_dict() == {"prompt": ""}
    assert recipes.query_options(own, E5, "other").to_dict() == {"prompt_name": "search", "truncate": "END", "model": "third"}


def test_queries_follow_the_model_and_the_dimensions_of_their_documents():
    """Vectors of two models have nothing to do with each other. --query-model is for rows that name no model."""
    named = row("{document: {model: third, dimensions: 64, force_dimensions: true}}")
    assert (recipes.model_of(named), recipes.query_model_of(named, "other")) == ("third", "third")
    found = recipes.query_options(named, E5, "other")
    assert (found.model, found.dimensions, found.force_dimensions) == ("third", 64, True)
    own = row("{document: {model: third, dimensions: 64}, query: {model: fourth, dimensions: 32}}")
    assert recipes.query_model_of(own) == "fourth"
    assert (recipes.query_options(own, E5).model, recipes.query_options(own, E5).dimensions) == ("fourth", 32)
    assert recipes.query_model_of(row("{document: {}}")) is None


def test_a_profile_is_for_the_side_that_names_it():
    """A server refuses an extension beside an alias NAME:PROFILE."""
    documents, queries = row("{document: {model: 'e5:archive'}}"), row("{document: {}, query: {model: 'e5:archive'}}")
    assert recipes.document_options(documents, E5).model == "e5:archive"
    assert (recipes.query_options(documents, E5).model, recipes.query_options(documents, E5).extension) == ("e5", {"windows": {}})
    for found in (recipes.query_options(queries, E5), recipes.query_options(row("{document: {}}"), E5, "e5:archive")):
        assert (found.model, found.extension) == ("e5:archive", None)


@pytest.mark.parametrize("text", ["{document: {output: WINDOW_VECTORS}, reduce: max}", "{document: {}, aggregate: mean}"])
def test_windows_come_unnormalized_whatever_is_made_of_them(text):
    options = recipes.document_options(row(text), E5)
    assert (options.output, options.normalize) == ("WINDOW_VECTORS", False)
