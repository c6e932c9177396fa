"""mteb 2.x: an encoder with one vector per text, a search over several vectors per text, and local data for retrieval tasks.

    import mteb
    from longembed import Options
    from longembed.mteb import LongEmbedEncoder, use_local_data

    task = mteb.get_task("LEMBQMSumRetrieval")
    use_local_data(task, "longdata/qmsum")
    result = mteb.evaluate(LongEmbedEncoder("127.0.0.1:50051", document=Options(extension={"windows": {}})), task)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise ImportError('longembed.mteb needs mteb 2: pip install "longembed[mteb]"') from error

from longembed import messages
from longembed.bench.corpus import Line, read_lines
from longembed.client import Client
from longembed.errors import LongEmbedError
from longembed.options import Options
from longembed.results import refuse_two_recipes
from longembed.retriever import Retriever
from longembed.sentence_transformers import LongEmbedModel
from longembed.sides import DOCUMENT, QUERY

if TYPE_CHECKING:
    from mteb.abstasks import AbsTaskRetrieval
    from torch.utils.data import DataLoader


class LongEmbedEncoder:
    """mteb's EncoderProtocol, with one vector per text.

    client: a Client or HOST:PORT. None: the environment variable LONGEMBED_SERVER, otherwise the default address.
    query, document: options for queries and for documents, as in LongEmbedModel. Tasks that have neither (similarity, clustering, ...) are
    embedded as queries, as E5's authors do. query=Options(...) changes how.
    mteb identifies results by model, revision and experiment. Here these are the served model, the hash of its files, and its prompts, the options
    and the recipes, which also cover what the options refer to on the server."""

    def __init__(self, client: Client | str | None = None, *, query: Options | None = None, document: Options | None = None):
        self.model = LongEmbedModel(client, query=query, document=document)
        sides = self.model.sides
        options = {side: sides.options(side) for side in (QUERY, DOCUMENT)}
        served = sides.client.model(options[DOCUMENT].model)
        experiment = {side.lower(): _one_line(options[side].to_dict()) for side in options}
        if (asking := options[QUERY].model) != options[DOCUMENT].model:
            asked = sides.client.model(asking)
            experiment["query_model"] = _one_line({"files": _files(asked), **_identity(asked)})
        self._recipes = {side: sides.client.explain(["a"], one).recipe for side, one in options.items()}
        experiment |= {f"{side.lower()}_recipe": recipe for side, recipe in self._recipes.items()}
        self.mteb_model_meta = _meta(served, experiment, "dense", ScoringFunction.COSINE, options[DOCUMENT].dimensions)

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = True,
    ) -> np.ndarray:
        """Returns float32 [n, d]. batch_size has no effect, because the server forms the batches. Several of mteb's corpora have documents without
        a text. They get vectors of zeros, as from mteb's own clients of such servers. Raises LongEmbedError if the server has another model than
        when this encoder was made, since mteb would keep the results under the first one's name."""
        texts = [text for batch in inputs for text in batch["text"]]
        sides = self.model.sides
        side = DOCUMENT if prompt_type == PromptType.document else QUERY
        options = sides.options(side)
        answers = sides.embed_with(options, texts, show_progress_bar, keep_empty=True)
        refuse_two_recipes([self._recipes[side], *(answer.recipe for answer in answers if answer.error is None)])
        vectors = np.zeros((len(answers), options.dimensions or sides.client.model(options.model).dimensions), np.float32)
        for row, answer in zip(vectors, answers):
            if answer.error is None:
                row[:] = answer.float32()[0]
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self.model.similarity_pairwise(embeddings1, embeddings2)


class LongEmbedSearch:
    """mteb's SearchProtocol over longembed.Retriever: MaxSim over window vectors, alone or summed with BM25.

    client: a Client or HOST:PORT. None: the environment variable LONGEMBED_SERVER, otherwise the default address.
    new_retriever: creates the retriever of each corpus.
    experiment: the name that distinguishes this search from others in mteb's results, such as "windows-64-256-512-bm25". Required with
    new_retriever."""

    def __init__(
        self,
        client: Client | str | None = None,
        *,
        new_retriever: Callable[[Client], Retriever] = Retriever.windows,
        experiment: str | None = None,
    ):
        if experiment is None and new_retriever != Retriever.windows:
            raise TypeError("give new_retriever a name as `experiment`: mteb keeps results under it")
        self.client = client if isinstance(client, Client) else Client(client)
        self._new_retriever = new_retriever
        self._retriever: Retriever | None = None
        self._ids: list[str] = []
        served = self.client.model()
        self._fingerprint = _fingerprint(served)
        self.mteb_model_meta = _meta(served, {"retriever": experiment or "windows"}, "late-interaction", ScoringFunction.MAX_SIM, None)

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Embeds the corpus. Its rows have an id, a text, and optionally a title. Rows without either are left out, since nothing can find them."""
        if _fingerprint(self.client.model()) != self._fingerprint:
            raise LongEmbedError("the server has replaced the model since this search was made; mteb would keep its results under the first one", "ABORTED")
        documents = {row["id"]: text for row in corpus if (text := _document_text(row))}
        self._retriever, self._ids = self._new_retriever(self.client), list(documents)
        self._retriever.add(documents)

    def search(
        self, queries: Iterable[Mapping[str, Any]], *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Returns {query id: {document id: score}} of the top_k documents. If `top_ranked` is given, only the documents that it lists for a query
        are considered. A query without a text finds none."""
        if self._retriever is None:
            raise RuntimeError("index has not been called")
        texts = {row["id"]: _query_text(row) for row in queries}
        asked = [id for id, text in texts.items() if text.strip()]
        scores = dict(zip(asked, self._retriever.scores(texts[id] for id in asked), strict=True))
        return {id: self._best(scores[id], top_k, None if top_ranked is None else top_ranked.get(id, [])) if id in scores else {} for id in texts}

    def _best(self, scores: np.ndarray, top_k: int, candidates: list[str] | None) -> dict[str, float]:
        allowed = None if candidates is None else set(candidates)
        order = [int(n) for n in np.argsort(-scores, kind="stable") if allowed is None or self._ids[n] in allowed]
        return {self._ids[n]: float(scores[n]) for n in order[:top_k]}


def use_local_data(task: AbsTaskRetrieval, folder: str | Path, parts: Iterable[str] = ("dev",), split: str | None = None) -> None:
    """Gives a retrieval task its data from local files, so that it does not access the hub.

    folder: contains PART.docs.jsonl, PART.queries.jsonl and PART.qrels.jsonl (each may end in .gz) for every part. Their lines are {"id", "text"},
    {"id", "text"} and {"query", "doc", "relevance"}. Several parts together form one set.
    split: a split of the task. None: its only one. A task with several splits needs one call for each.
    Raises ValueError for a broken line, if an id occurs twice, and if a judgment names a query or document that does not exist, or has another
    grade than before."""
    if isinstance(parts, str):
        raise TypeError(f"parts takes a list of names: [{parts!r}], not {parts!r}")
    if split is None:
        if len(task.eval_splits) != 1:
            raise ValueError(f"{task.metadata.name} has the splits {', '.join(task.eval_splits)}; say which one this is: split=...")
        (split,) = task.eval_splits
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    for part in parts:
        for found, name in ((documents, "docs"), (queries, "queries")):
            for line in _lines(Path(folder), f"{part}.{name}.jsonl"):
                if line.text("id") in found:
                    raise line.error(f"id {line.text('id')!r} occurs twice")
                found[line.text("id")] = line.text("text")
        for line in _lines(Path(folder), f"{part}.qrels.jsonl"):
            grades, doc = judged.setdefault(line.text("query"), {}), line.text("doc")
            if grades.setdefault(doc, _grade(line)) != _grade(line):
                raise line.error(f"document {doc!r} is judged twice for query {line.text('query')!r}, as {grades[doc]} and as {_grade(line)}")
    _check_judgements(judged, queries, documents)
    texts = {id: {"text": text} for id, text in documents.items()}
    for name, value in (("corpus", texts), ("queries", queries), ("relevant_docs", judged)):
        setattr(task, name, {**getattr(task, name, {}), split: value})
    task.data_loaded = True


def _check_judgements(judged: dict[str, dict[str, int]], queries: dict[str, str], documents: dict[str, str]) -> None:
    for query, relevant in judged.items():
        if query not in queries:
            raise ValueError(f"qrels judge query {query!r}, which is not among the queries")
        for document in relevant:
            if document not in documents:
                raise ValueError(f"qrels of query {query!r} name document {document!r}, which is not among the documents")


def _lines(folder: Path, name: str) -> Iterator[Line]:
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.exists() and packed.exists():
        raise ValueError(f"{folder} has both {plain.name} and {packed.name}; remove one of them")
    return read_lines(packed if packed.exists() else plain)


def _grade(line: Line) -> int:
    """Returns a grade as mteb takes it. Raises CorpusError for a broken number, which would lose its fraction."""
    grade = line.grade()
    if grade != int(grade):
        raise line.error(f'"relevance" is {grade:g}; mteb takes whole numbers')
    return int(grade)


def _document_text(row: Mapping[str, Any]) -> str:
    """Joins title and text as mteb does for its encoders."""
    title = row.get("title") or ""
    return f"{title} {row['text']}".strip() if title else row["text"].strip()


def _query_text(row: Mapping[str, Any]) -> str:
    """Joins the query and, if the task has one, its instruction, as mteb does."""
    if not isinstance(row["text"], str):
        raise TypeError(f"query {row['id']!r} is a conversation; only texts are embedded")
    instruction = row.get("instruction")
    return f"{row['text']} {instruction}" if instruction else row["text"]


def _one_line(options: dict[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, separators=(",", ":"))


def _files(served: messages.Model) -> str:
    return hashlib.sha256(json.dumps(sorted(served.file_sha256.items())).encode()).hexdigest()[:16]


def _fingerprint(served: messages.Model) -> str:
    return f"{_files(served)} {served.precision}"


def _identity(served: messages.Model) -> dict[str, str]:
    """Returns the precision, and the prompts and input types, which options refer to by name or by naming none. They are in the model's manifest, not
    in the files of its revision."""
    prompts = {name: _one_line(dict(found)) for name in ("prompts", "input_types") if (found := getattr(served, name))}
    default = {"default_prompt": served.default_prompt_name} if served.default_prompt_name else {}
    return {"precision": served.precision, **prompts, **default}


def _meta(served: messages.Model, experiment: dict[str, str], kind: str, similarity: ScoringFunction, dimensions: int | None) -> ModelMeta:
    meta = ModelMeta.create_empty({"name": f"longembed/{served.name}", "revision": _files(served)})
    return meta.model_copy(
        update={
            "embed_dim": dimensions or served.dimensions,
            "experiment_kwargs": {**experiment, **_identity(served)},
            "framework": ["API"],
            "languages": None,
            "max_tokens": served.plain_limit,
            "model_type": [kind],
            "similarity_fn_name": similarity,
            "use_instructions": bool(served.prompts),
        }
    )
