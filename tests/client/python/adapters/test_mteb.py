"""Tests mteb 2.x on local data: one vector per text, and MaxSim through SearchProtocol. Scores are compared with those computed from a generated
client's vectors."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")
mteb = pytest.importorskip("mteb", reason="mteb is not installed; run tests/run.sh")

from mteb.models import EncoderProtocol, SearchProtocol  # noqa: E402
from mteb.types import PromptType  # noqa: E402
from running_server import ROOT  # noqa: E402

from longembed import Client, InvalidArgument, LongEmbedError, Options, Retriever  # noqa: E402
from longembed.mteb import LongEmbedEncoder, LongEmbedSearch, use_local_data  # noqa: E402
from longembed.retriever import Vectors  # noqa: E402

TASK = "LEMBQMSumRetrieval"
LONGDATA = ROOT.parent / "shared/longdata"


def write(path, lines):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def data(tmp_path_factory, long_text):
    """Returns (folder, documents, queries, relevant): four documents of about 600 tokens, with queries about their last words. One query is judged to
    belong to the document of another.

    "dev" and "heldout" are two parts, gzipped. "all" is the whole set in plain text."""
    texts = [long_text[start : start + 2800].strip() for start in range(0, 2 * 2800, 1400)][:4]
    documents = {f"d{number}": text for number, text in enumerate(texts)}
    queries = {f"q{number}": " ".join(text.split()[-30:]) for number, text in enumerate(texts)}
    relevant = {query: f"d{query[1]}" for query in queries} | {"q3": "d0"}
    folder = tmp_path_factory.mktemp("longdata")
    for part, numbers in (("dev", "01"), ("heldout", "23")):
        write(folder / f"{part}.docs.jsonl.gz", [{"id": f"d{n}", "text": documents[f"d{n}"]} for n in numbers])
        write(folder / f"{part}.queries.jsonl.gz", [{"id": f"q{n}", "text": queries[f"q{n}"], "kind": "specific"} for n in numbers if part == "dev"])
        write(folder / f"{part}.qrels.jsonl.gz", [{"query": f"q{n}", "doc": relevant[f"q{n}"], "relevance": 1} for n in numbers if part == "dev"])
    (folder / "all.docs.jsonl").write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in documents.items()))
    (folder / "all.queries.jsonl").write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in queries.items()))
    (folder / "all.qrels.jsonl").write_text("".join(json.dumps({"query": q, "doc": d, "relevance": 1}) + "\n" for q, d in relevant.items()))
    return folder, documents, queries, relevant


def evaluate(model, folder, predictions):
    """Returns mteb's (main score, {query: {document: score}})."""
    task = mteb.get_task(TASK)
    use_local_data(task, folder, ["all"])
    result = mteb.evaluate(model, task, cache=None, prediction_folder=predictions, show_progress_bar=False, co2_tracker=False)
    saved = json.loads(next(predictions.rglob("*predictions.json")).read_text())
    return result.task_results[0].get_score(), saved["default"]["test"]


def ndcg_at_10(scores: np.ndarray, relevant: list[int]) -> float:
    """Computes nDCG@10 for one relevant document per query: the mean of 1 / log2(1 + rank)."""
    ranks = [1 + (row > row[document]).sum() for row, document in zip(scores, relevant)]
    return float(np.mean([1 / np.log2(1 + rank) for rank in ranks]))


def compare(found, main_score, wanted, data):
    _, documents, queries, relevant = data
    matrix = np.array([[found[query][document] for document in documents] for query in queries])
    np.testing.assert_allclose(matrix, wanted, atol=1e-5)
    ids = list(documents)
    assert main_score == pytest.approx(ndcg_at_10(wanted, [ids.index(relevant[query]) for query in queries]), abs=1e-4)
    assert main_score < 1  # One query misses its document.


def test_one_vector_a_text(address, expected, data, tmp_path):
    folder, documents, queries, _ = data
    model = LongEmbedEncoder(address, document=Options(extension={"windows": {"tokens": 128}}))
    assert isinstance(model, EncoderProtocol) and not isinstance(model, SearchProtocol)
    main_score, found = evaluate(model, folder, tmp_path)
    wanted = expected(queries.values(), "query: ") @ expected(documents.values(), "passage: ", windows=128).T
    compare(found, main_score, wanted, data)


def test_maxsim_through_search_protocol(address, expected, expected_windows, data, tmp_path):
    folder, documents, queries, _ = data
    document = Options(input_type="DOCUMENT", extension={"windows": {"tokens": 128}}, output="WINDOW_VECTORS")

    def new_retriever(client):
        return Retriever(client, [Vectors(document, Options(input_type="QUERY"), reduce="max")])

    model = LongEmbedSearch(address, new_retriever=new_retriever, experiment="windows-128-max")
    assert isinstance(model, SearchProtocol) and not isinstance(model, EncoderProtocol)
    main_score, found = evaluate(model, folder, tmp_path)
    asked = expected(queries.values(), "query: ")
    wanted = np.array([[(windows @ query).max() for windows in expected_windows(documents.values(), "passage: ", 128)] for query in asked])
    compare(found, main_score, wanted, data)


def test_search_keeps_to_top_k_and_to_ranked_candidates(address):
    search = LongEmbedSearch(address, new_retriever=lambda client: Retriever.windows(client, tokens=(64,), bm25=False), experiment="windows-64")
    texts = {"n": "It is 6,650 km long.", "c": "Cats sleep.", "b": "Bread is flour."}
    rows = [{"id": id, "text": text, "title": "The Nile" if id == "n" else ""} for id, text in texts.items()]
    with pytest.raises(RuntimeError, match="index"):
        search.search([], top_k=1)
    search.index(rows, task_metadata=None, hf_split="test", hf_subset="default", encode_kwargs={}, num_proc=None)
    asked = [{"id": "q", "text": "Tell me about the Nile."}]
    assert list(search.search(asked, top_k=1)["q"]) == ["n"]
    best = search.search(asked, top_k=2)["q"]
    assert len(best) == 2 and list(best.values()) == sorted(best.values(), reverse=True)
    assert set(search.search(asked, top_k=2, top_ranked={"q": ["c", "b"]})["q"]) == {"c", "b"}
    assert search.search(asked, top_k=2, top_ranked={"another": ["c"]}) == {"q": {}}
    with pytest.raises(TypeError, match="conversation"):
        search.search([{"id": "q", "text": [{"role": "user", "content": "hi"}]}], top_k=1)
    with pytest.raises(TypeError, match="experiment"):
        LongEmbedSearch(address, new_retriever=lambda client: Retriever.windows(client))


@pytest.mark.parametrize("empty", ["", " \n", "\u200b"])
def test_documents_and_queries_without_a_text_are_found_by_nothing(address, expected, empty):
    """Several of mteb's corpora have some. Other errors still end the evaluation."""
    encoder = LongEmbedEncoder(address)

    def encode(texts, side):
        return encoder.encode([{"text": texts[:2]}, {"text": texts[2:]}], task_metadata=None, hf_split="", hf_subset="", prompt_type=side, show_progress_bar=False)

    for side, prompt in ((PromptType.document, "passage: "), (PromptType.query, "query: ")):
        found = encode(["one", empty, "two"], side)
        np.testing.assert_allclose(found[[0, 2]], expected(["one", "two"], prompt), atol=1e-6)
        assert found.shape == (3, 384) and not found[1].any() and encode([empty], side).shape == (1, 384)
    with pytest.raises(InvalidArgument, match="text 1: .*512"):
        encode(["one", "word " * 600], PromptType.document)


def test_search_leaves_out_what_has_no_text(address):
    search = LongEmbedSearch(address, new_retriever=lambda client: Retriever.windows(client, bm25=False), experiment="windows alone")
    search.index([{"id": "a", "text": "The Nile is a river."}, {"id": "none", "text": " ", "title": ""}, {"id": "b", "text": "Cats sleep."}])
    found = search.search([{"id": "none", "text": " "}, {"id": "q", "text": "rivers"}], top_k=3)
    assert found["none"] == {} and set(found["q"]) == {"a", "b"} and found["q"]["a"] > found["q"]["b"]


def test_results_of_another_recommendation_are_kept_apart(address, monkeypatch):
    """The options stay the same if the server's profile or the model's recommendation changes. The recipe does not."""
    recommended = Options(extension='{"recommended": {}}')
    before, plain = (LongEmbedEncoder(address, document=one).mteb_model_meta.experiment_kwargs for one in (recommended, Options()))
    with Client(address) as client:
        windows = Options(input_type="DOCUMENT", extension={"windows": {}})
        assert before["document_recipe"] == client.explain(["a"], windows).recipe
        assert plain["document_recipe"] == client.explain(["a"], Options(input_type="DOCUMENT")).recipe
    monkeypatch.setattr(Client, "explain", lambda *_: SimpleNamespace(recipe="another"))
    assert LongEmbedEncoder(address, document=recommended).mteb_model_meta.experiment_kwargs != before


def test_vectors_of_another_model_are_not_kept_under_the_first_ones_name(address, monkeypatch):
    """The server may restart with other weights after the encoder was made, or between the corpus and the queries of a task."""
    monkeypatch.setattr(Client, "explain", lambda *_: SimpleNamespace(recipe="first"))
    encoder = LongEmbedEncoder(address)
    for side in (PromptType.document, PromptType.query):
        with pytest.raises(LongEmbedError, match="settings changed, from recipe .* first"):
            encoder.encode([{"text": ["a"]}], task_metadata=None, hf_split="", hf_subset="", prompt_type=side, show_progress_bar=False)
    search, model = LongEmbedSearch(address), Client.model
    monkeypatch.setattr(Client, "model", lambda *given: (found := model(*given)).MergeFrom(type(found)(precision="int8")) or found)
    with pytest.raises(LongEmbedError, match="replaced the model"):
        search.index([{"id": "a", "text": "a"}])


@pytest.mark.parametrize("change", [{"prompts": {"query": "ask: "}}, {"default_prompt_name": "query"}], ids=["prompts", "default"])
def test_results_of_other_prompts_are_kept_apart(address, monkeypatch, change):
    """The manifest may get other prompts, while the options name them as before, and the model's files stay the same."""

    def metas():
        return [search_or_encoder(address).mteb_model_meta for search_or_encoder in (LongEmbedEncoder, LongEmbedSearch)]

    model, before = Client.model, metas()

    def described(*given):
        found = model(*given)
        found.MergeFrom(type(found)(**change))
        return found

    monkeypatch.setattr(Client, "model", described)
    for one, other in zip(before, metas(), strict=True):
        assert one.revision == other.revision and one.experiment_name != other.experiment_name


def test_results_of_another_model_of_queries_are_kept_apart(address, monkeypatch):
    """Such as other weights under the name that the options of queries have."""
    model = Client.model
    monkeypatch.setattr(Client, "explain", lambda *_: SimpleNamespace(recipe="r"))

    def meta(files):
        def described(self, name=None):
            found = model(self)
            if name == "other":
                found.file_sha256["encoder.pt"] = files
            return found

        monkeypatch.setattr(Client, "model", described)
        return LongEmbedEncoder(address, query=Options(model="other")).mteb_model_meta

    assert meta("a").experiment_name != meta("b").experiment_name and meta("a").revision == meta("b").revision


def test_results_of_different_options_are_kept_apart(address):
    metas = [
        LongEmbedEncoder(address).mteb_model_meta,
        LongEmbedEncoder(address, document=Options(extension={"windows": {}})).mteb_model_meta,
        LongEmbedEncoder(address, query=Options(prompt="ask: ")).mteb_model_meta,
        LongEmbedSearch(address).mteb_model_meta,
    ]
    assert len({(meta.name, meta.revision, meta.experiment_name) for meta in metas}) == 4
    assert {meta.name for meta in metas} == {"longembed/e5-small-v2"} and len({meta.revision for meta in metas}) == 1
    with Client(address) as client:
        assert LongEmbedEncoder(client).mteb_model_meta.experiment_name == metas[0].experiment_name


def test_local_data(data):
    folder, documents, queries, _ = data
    task = mteb.get_task(TASK)
    use_local_data(task, folder, ["dev", "heldout"])
    task.load_data()  # The data is already there, so the hub is not accessed.
    assert task.corpus == {"test": {id: {"text": text} for id, text in documents.items()}}
    assert task.queries == {"test": {id: queries[id] for id in ("q0", "q1")}}
    assert task.relevant_docs == {"test": {"q0": {"d0": 1}, "q1": {"d1": 1}}}


def test_local_data_of_several_splits(data):
    folder, documents, *_ = data
    task = mteb.get_task("LEMBPasskeyRetrieval")
    with pytest.raises(ValueError, match="say which one"):
        use_local_data(task, folder)
    use_local_data(task, folder, split="test_256")
    use_local_data(task, folder, ["heldout"], split="test_512")
    assert {split: list(corpus) for split, corpus in task.corpus.items()} == {"test_256": ["d0", "d1"], "test_512": ["d2", "d3"]}


def test_local_data_that_contradicts_itself_is_refused(data, tmp_path):
    write(tmp_path / "dev.docs.jsonl.gz", [{"id": "d", "text": "a"}])
    write(tmp_path / "dev.queries.jsonl.gz", [{"id": "q", "text": "a"}])
    for line, message in (({"query": "q", "doc": "x"}, "document 'x'"), ({"query": "x", "doc": "d"}, "query 'x'")):
        write(tmp_path / "dev.qrels.jsonl.gz", [{**line, "relevance": 1}])
        with pytest.raises(ValueError, match=message):
            use_local_data(mteb.get_task(TASK), tmp_path)
    for lines, message in (
        ([{"query": "q", "doc": "d", "relevance": 0.5}], 'line 1: "relevance" is 0.5; mteb takes whole numbers'),
        ([{"query": "q", "doc": "d", "score": 0}], 'line 1: "relevance" is missing; the line has "score" instead'),
        ([{"query": "q", "doc": "d", "relevance": 1}, {"query": "q", "doc": "d", "relevance": 2}], "line 2: document 'd' is judged twice"),
        ([{"query": "q"}], 'line 1: "doc" must be a string'),
    ):
        write(tmp_path / "dev.qrels.jsonl.gz", lines)
        with pytest.raises(ValueError, match=message):
            use_local_data(mteb.get_task(TASK), tmp_path)
    write(tmp_path / "dev.qrels.jsonl.gz", [{"query": "q", "doc": "d", "relevance": 1}])
    with pytest.raises(ValueError, match="'d' occurs twice"):
        use_local_data(mteb.get_task(TASK), tmp_path, ["dev", "dev"])
    with pytest.raises(TypeError, match="parts takes a list of names"):
        use_local_data(mteb.get_task(TASK), tmp_path, "dev")
    with pytest.raises(FileNotFoundError, match="other.docs.jsonl"):
        use_local_data(mteb.get_task(TASK), tmp_path, ["other"])
    for relevances, message in (([0.5], "whole number"), ([1, 0], "as 1 and as 0")):
        write(tmp_path / "dev.qrels.jsonl.gz", [{"query": "q", "doc": "d", "relevance": relevance} for relevance in relevances])
        with pytest.raises(ValueError, match=message):
            use_local_data(mteb.get_task(TASK), tmp_path)
    (tmp_path / "dev.docs.jsonl").write_text("")
    with pytest.raises(ValueError, match="has both dev.docs.jsonl and dev.docs.jsonl.gz"):
        use_local_data(mteb.get_task(TASK), tmp_path)


def test_qmsum_s_local_files():
    if not (LONGDATA / "qmsum").exists():
        pytest.skip("../shared/longdata/qmsum is not there")
    task = mteb.get_task(TASK)
    use_local_data(task, LONGDATA / "qmsum")
    assert len(task.corpus["test"]) == 97 and len(task.queries["test"]) == 770
