"""Tests reading sets: parts are merged, and every defect of a file is reported with its position."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed.bench import hub  # noqa: E402
from longembed.bench.corpus import CorpusError, read_folder  # noqa: E402
from small_sets import write_lines, write_set  # noqa: E402


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parts_are_merged_into_one_set(tmp_path, suffix):
    write_set(tmp_path, "dev", documents=3, suffix=suffix)
    write_set(tmp_path, "heldout", first=3, documents=2, suffix=suffix)
    whole = read_folder(tmp_path)
    assert whole.document_ids == ("d0", "d1", "d2", "d3", "d4")
    assert len(whole.queries) == 10
    assert whole.answers() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert whole.evidence[2] == ((len(whole.documents[1]) // 3, len(whole.documents[1]) // 3 + 9),)
    part = read_folder(tmp_path, ["heldout"])
    assert part.document_ids == ("d3", "d4") and part.answers() == [0, 0, 1, 1]
    assert part.sha256() != whole.sha256()


def test_a_subset_keeps_its_own_queries(tmp_path):
    whole = read_folder(write_set(tmp_path, documents=4))
    some = whole.subset([3, 1])
    assert some.document_ids == ("d3", "d1")
    assert some.query_ids == ("q1a", "q1b", "q3a", "q3b")
    assert some.answers() == [1, 1, 0, 0]
    assert some.evidence[0] == whole.evidence[2]


def test_grades_and_several_relevant_documents(tmp_path):
    """A grade of 0 means not relevant. A query is not in a subset unless all its relevant documents are."""
    write_set(tmp_path, documents=3, suffix="")
    with (tmp_path / "dev.qrels.jsonl").open("a") as file:
        for line in ({"query": "q0a", "doc": "d1", "relevance": 0}, {"query": "q1a", "doc": "d2", "relevance": 2}, {"query": "q2b", "doc": "d0"}):
            file.write(json.dumps(line) + "\n")
    whole = read_folder(tmp_path)
    assert whole.relevant == ({0: 1.0}, {0: 1.0}, {1: 1.0, 2: 2.0}, {1: 1.0}, {2: 1.0}, {2: 1.0, 0: 1.0})
    assert whole.subset([0, 1]).query_ids == ("q0a", "q0b", "q1b")


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("docs", {"id": "d0", "text": "again"}, 'dev.docs.jsonl, line 4: the id "d0" occurs twice'),
        ("docs", {"id": "d9"}, 'dev.docs.jsonl, line 4: "text" must be a string'),
        ("docs", {"id": "d9", "text": ""}, 'dev.docs.jsonl, line 4: "text" must be a string that is not empty'),
        ("docs", ["d9"], "dev.docs.jsonl, line 4: a line must be a JSON object"),
        ("queries", {"id": "q9", "text": "what?"}, 'the query "q9" has no relevant document'),
        ("queries", {"id": "q9", "text": "what?", "evidence": [[5, 5]]}, 'dev.queries.jsonl, line 7: "evidence" must be a list of pairs'),
        ("qrels", {"query": "q0a", "doc": "d9"}, 'dev.qrels.jsonl, line 7: "doc" names "d9"'),
        ("qrels", {"query": "q9", "doc": "d0"}, 'dev.qrels.jsonl, line 7: "query" names "q9"'),
        ("queries", {"id": "q9", "text": "a \ud800"}, 'dev.queries.jsonl, line 7: "text" has the lone surrogate U+D800 at character 2'),
        ("qrels", {"query": "q0a", "doc": "d1", "relevance": float("inf")}, 'line 7: "relevance" must be a number from -1e9 to 1e9; it is Inf'),
        ("qrels", {"query": "q0a", "doc": "d1", "relevance": float("nan")}, 'line 7: "relevance" must be a number from -1e9 to 1e9; it is NaN'),
        ("qrels", {"query": "q0a", "doc": "d1", "relevance": 10**400}, 'dev.qrels.jsonl, line 7: "relevance" must be a number from -1e9 to 1e9; it is 1000'),
        ("qrels", {"query": "q0a", "doc": "d1", "score": 0}, 'dev.qrels.jsonl, line 7: "relevance" is missing; the line has "score" instead'),
        ("qrels", {"query": "q0a", "doc": "d0", "relevance": 0}, 'line 7: "relevance" of document "d0" for query "q0a" is 0, and 1 in an earlier line'),
        ("qrels", {"query": "q0a", "doc": "d0", "relevance": "high"}, 'dev.qrels.jsonl, line 7: "relevance" must be a number'),
    ],
)
def test_a_bad_line_is_named(tmp_path, part, line, message):
    write_set(tmp_path, suffix="")
    with (tmp_path / f"dev.{part}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(CorpusError) as error:
        read_folder(tmp_path)
    assert message in str(error.value)


def test_missing_parts_and_files_are_named(tmp_path):
    with pytest.raises(CorpusError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="has the parts: none"):
        read_folder(tmp_path)
    write_set(tmp_path)
    with pytest.raises(CorpusError, match="has no test.docs.jsonl .*parts: dev"):
        read_folder(tmp_path, ["test"])
    (tmp_path / "dev.queries.jsonl.gz").unlink()
    with pytest.raises(CorpusError, match="exactly one of dev.queries.jsonl and dev.queries.jsonl.gz; it has 0"):
        read_folder(tmp_path)


def test_evidence_beyond_its_document_is_refused(tmp_path):
    """Offsets in bytes instead of code points would put the evidence into the last third."""
    write_set(tmp_path, documents=1, suffix="")
    write_lines(tmp_path / "dev.queries.jsonl", [{"id": "q0a", "text": "a?", "evidence": [[0, 660]]}, {"id": "q0b", "text": "b?", "evidence": [[9, 700]]}])
    with pytest.raises(CorpusError, match=r"dev.queries.jsonl, line 2: \"evidence\" has \[9, 700\]; the first relevant document has 660 code points"):
        read_folder(tmp_path)


def test_a_broken_archive_and_broken_json_are_named(tmp_path):
    write_set(tmp_path)
    whole = (tmp_path / "dev.docs.jsonl.gz").read_bytes()
    (tmp_path / "dev.docs.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match="dev.docs.jsonl.gz cannot be read"):
        read_folder(tmp_path)
    (tmp_path / "dev.docs.jsonl.gz").write_bytes(whole[:20] + bytes([255 - byte for byte in whole[20:60]]) + whole[60:])
    with pytest.raises(CorpusError, match="dev.docs.jsonl.gz cannot be read: Error -3 while decompressing"):
        read_folder(tmp_path)
    write_set(tmp_path / "other", suffix="")
    (tmp_path / "other" / "dev.docs.jsonl").write_text('{"id": "d0", "text": "a title", "text": "its text"}\n')
    with pytest.raises(CorpusError, match='dev.docs.jsonl, line 1: the key "text" occurs twice'):
        read_folder(tmp_path / "other")
    (tmp_path / "other" / "dev.docs.jsonl").write_text('{"id": "d0",\n')
    with pytest.raises(CorpusError, match="dev.docs.jsonl, line 1: not JSON"):
        read_folder(tmp_path / "other")


def hub_copy(folder, name, lengths=(None,)):
    """Writes LongEmbed's repository as on the hub: SET/{corpus,queries,qrels}.jsonl with doc_id, qid, text and, if synthetic, context_length."""
    (folder / name).mkdir()
    mark = [{} if length is None else {"context_length": length} for length in lengths]
    write_lines(folder / name / "corpus.jsonl", [{"doc_id": f"d{n}-{i}", "text": f"text {n}", **m} for i, m in enumerate(mark) for n in range(3)])
    write_lines(folder / name / "queries.jsonl", [{"qid": f"q{n}-{i}", "text": f"query {n}", **m} for i, m in enumerate(mark) for n in range(2)])
    write_lines(folder / name / "qrels.jsonl", [{"qid": f"q{n}-{i}", "doc_id": f"d{n}-{i}", **m} for i, m in enumerate(mark) for n in range(2)])
    return hub.local_files(folder)


def test_synthetic_sets_of_the_hub_are_cut_by_length(tmp_path):
    found = hub.load("passkey", hub_copy(tmp_path, "passkey", (256, 32768)))
    assert list(found) == ["256", "32768"]
    assert found["32768"].document_ids == ("d0-1", "d1-1", "d2-1")
    assert found["32768"].answers() == [0, 1]
    assert found["256"].metric == "accuracy_at_1"
    assert found["256"].source["revision"] == "6e346642246bfb4928c560ee08640dc84d074e8c"


def test_a_line_without_its_length_is_refused(tmp_path):
    copy = hub_copy(tmp_path, "needle", (256, None))
    with pytest.raises(CorpusError, match='needle/corpus.jsonl, line 4: "context_length" must be a number'):
        hub.load("needle", copy)


def test_a_real_set_of_the_hub_must_be_longembeds(tmp_path, monkeypatch):
    copy = hub_copy(tmp_path, "qmsum")
    with pytest.raises(CorpusError, match=r"\(3, 2, 32\), where LongEmbed's has \(197, 1527, 11169115\)"):
        hub.load("qmsum", copy)
    monkeypatch.setitem(hub.REAL_SETS, "qmsum", (3, 2, 33))
    with pytest.raises(CorpusError, match="where LongEmbed's has"):
        hub.load("qmsum", copy)
    monkeypatch.setitem(hub.REAL_SETS, "qmsum", (3, 2, 32))
    assert hub.load("qmsum", copy)[""].metric == "ndcg_at_10"
    with pytest.raises(CorpusError, match="LongEmbed has no set 'wikipedia'; it has narrativeqa"):
        hub.load("wikipedia", copy)


def test_files_come_from_the_pinned_revision(tmp_path, monkeypatch):
    """Replaces only the network function of the real library."""
    library = pytest.importorskip("huggingface_hub")
    hub_copy(tmp_path, "needle", (256,))
    asked = []

    def download(repo_id, filename, *, repo_type, revision):
        asked.append((repo_id, filename, repo_type, revision))
        return str(tmp_path / filename)

    monkeypatch.setattr(library, "hf_hub_download", download)
    hub.load("needle")
    assert asked == [("dwzhu/LongEmbed", f"needle/{part}.jsonl", "dataset", hub.REVISION) for part in ("corpus", "queries", "qrels")]


def test_an_unreachable_hub_is_reported(monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library, "hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(CorpusError, match="passkey/corpus.jsonl of dwzhu/LongEmbed at 6e346642 cannot be downloaded from the hub: no route"):
        hub.load("passkey")
