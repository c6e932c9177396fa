"""Tests the retriever: BM25 against its formula, and vectors and fusion against their parts, with a client that computes vectors from words."""

import math
import re
import warnings
from string import ascii_lowercase
from types import SimpleNamespace

import numpy as np
import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import Embedding, LongEmbedError, Options, Retriever, maxsim  # noqa: E402
from longembed.retriever import BM25, Vectors, document_options, embed_all, query_options  # noqa: E402
from longembed.sentences import split  # noqa: E402

TEXTS = {
    "cats": "Cats purr and cats sleep. A cat hunts mice at night.",
    "dogs": "Dogs bark. A dog guards the house and hunts rabbits.",
    "fish": "Fish swim in cold water.",
    "empty": "...",
}


class WordClient:
    """A replacement for a server. The vector of a text is the normalized counts of its words' first letters. Windows are sentences."""

    recipe = "r"

    def __init__(self):
        self.asked: list[tuple[Options, list[str]]] = []

    def model(self, name=None):
        return SimpleNamespace(name="words", trained_window=512, input_types={"QUERY": "query", "DOCUMENT": "passage"})

    def explain(self, texts, options):
        return SimpleNamespace(recipe=self.recipe)

    def embed_stream(self, texts, options):
        pairs = [item if isinstance(item, tuple) else (number, item) for number, item in enumerate(texts)]
        self.asked.append((options, [text for _, text in pairs]))
        for id, text in reversed(pairs):  # Answers come in any order.
            pieces = split(text) if options.output == "WINDOW_VECTORS" else [text]
            vectors = np.stack([self.vector(piece) for piece in pieces])
            yield SimpleNamespace(id=id, error=None, scales=None, recipe=self.recipe, vector=vectors[0], float32=lambda vectors=vectors: vectors)

    @staticmethod
    def vector(text):
        counts = np.full(26, 0.01, np.float32)
        for word in re.findall(r"[a-z]+", text.lower()):
            counts[ord(word[0]) - 97] += 1
        return counts / np.linalg.norm(counts)


class EncodingClient(WordClient):
    """Answers as the package does, with the vectors of WordClient in the encoding that is asked for."""

    def embed_stream(self, texts, options):
        for answer in super().embed_stream(texts, options):
            vectors, scales = answer.float32(), None
            if options.encoding == "BINARY":
                vectors = np.packbits(vectors > 0.1, axis=1)
            elif options.encoding == "INT8":
                scales = np.abs(vectors).max(axis=1) / 127
                vectors = np.rint(vectors / scales[:, None]).astype(np.int8)
            elif options.encoding == "FLOAT16":
                vectors = vectors.astype(np.float16)
            yield longembed.Embedding(
                id=answer.id, vectors=vectors, scales=scales, dimensions=26, ranges=np.zeros((len(vectors), 2), np.int64), tokens=1,
                truncated_tokens=0, sequences=[], model="words", prompt="", recipe=answer.recipe,
            )  # fmt: skip


def lucene_bm25(query, texts, k1=1.5, b=0.75):
    """Computes idf = log(1 + (N - df + .5) / (df + .5)) and tf / (tf + k1 (1 - b + b |d| / mean |d|)), over stemmed words that are not stop words."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    stem = Stemmer.Stemmer("english").stemWord
    tokenized = [[stem(word) for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in STOPWORDS_EN] for text in [query, *texts]]
    asked, documents = tokenized[0], tokenized[1:]
    mean_length = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in asked:
            frequency = sum(word in other for other in documents)
            if frequency == 0:
                continue
            count = document.count(word)
            score += math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5)) * count / (count + k1 * (1 - b + b * len(document) / mean_length))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["cats hunting mice", "who hunts?", "cold water, cold fish", "unicorns", "the and of"])
def test_bm25_is_lucenes(query):
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    system = BM25()
    system.extend(system.prepare(None, list(TEXTS.items())))
    np.testing.assert_allclose(system.scores(None, [query])[0], lucene_bm25(query, list(TEXTS.values())), atol=1e-5)


def test_bm25_over_windows_takes_each_texts_best_and_averages_over_sentences():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    system = BM25(words=4, query_sentences=True)
    system.extend(system.prepare(None, list(TEXTS.items())))
    windows = {id: [" ".join(text.split()[i : i + 4]) for i in range(0, len(text.split()), 4)] for id, text in TEXTS.items()}
    flat = [window for own in windows.values() for window in own]
    expected = np.zeros(len(TEXTS))
    for sentence in ("Which cat sleeps?", "Who hunts rabbits in the house?"):
        scores = iter(lucene_bm25(sentence, flat))
        expected += [max(next(scores) for _ in own) for own in windows.values()]
    found = system.scores(None, ["Which cat sleeps? Who hunts rabbits in the house?", "unicorns"])
    np.testing.assert_allclose(found, [expected / 2, [0] * len(TEXTS)], atol=1e-5)
    with pytest.raises(ValueError, match="words is 0"):
        BM25(words=0).scores(None, ["a"])


def test_bm25_does_without_stop_words_where_a_language_has_none():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    system = BM25(language="finnish")
    system.extend(["kissa nukkuu", "koira haukkuu"])
    assert system.scores(None, ["kissat"])[0].argmax() == 0


def test_bm25_names_a_language_that_it_does_not_have():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    with pytest.raises(ValueError, match="language is 'klingon'; PyStemmer has .*english"):
        BM25(language="klingon").scores(None, ["a"])


def test_bm25_takes_documents_in_later_and_texts_without_words():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    system = BM25()
    system.extend(["...", "!"])
    np.testing.assert_array_equal(system.scores(None, ["cats"]), [[0, 0]])
    system.extend(["cats sleep"])
    assert system.scores(None, ["cats"])[0].argmax() == 2


def test_vectors_are_scored_by_the_reduction_and_by_sentence():
    client = WordClient()
    document, query = Options(output="WINDOW_VECTORS", input_type="DOCUMENT"), Options(input_type="QUERY")
    question = "Hunting cats. Guarding dogs."
    for by_sentence, pieces in ((False, [question]), (True, ["Hunting cats.", "Guarding dogs."])):
        system = Vectors(document, query, "mean_of_top(2)", query_sentences=by_sentence)
        system.extend(system.prepare(client, list(TEXTS.items())))
        expected = []
        for text in TEXTS.values():
            tops = [sorted((float(client.vector(piece) @ client.vector(window)) for window in split(text)), reverse=True)[:2] for piece in pieces]
            expected.append(sum(sum(top) / len(top) for top in tops) / len(pieces))
        np.testing.assert_allclose(system.scores(client, [question])[0], expected, atol=1e-6)
    assert {options for options, _ in client.asked} == {document, query}


def test_several_systems_are_fused_and_one_is_itself():
    client = WordClient()
    one = Vectors(Options(), Options())
    other = Vectors(Options(output="WINDOW_VECTORS"), Options())
    retriever = Retriever(client, [one, other], weights=[1, 3])
    retriever.add(TEXTS)
    expected = maxsim.fuse([one.scores(client, ["dogs bark"]), other.scores(client, ["dogs bark"])], [1, 3])
    np.testing.assert_allclose(retriever.scores(["dogs bark"]), expected)
    single = Retriever(client, [Vectors(Options(), Options())])
    single.add(TEXTS)
    np.testing.assert_allclose(single.scores(["dogs bark"]), one.scores(client, ["dogs bark"]))


@pytest.mark.parametrize("encoding", ["FLOAT16", "BFLOAT16", "INT8", "BINARY"])
def test_queries_of_every_encoding_are_scored_by_their_components(encoding):
    [vector] = WordClient.vector("cats purr")[None]
    packed = {"FLOAT16": vector.astype(np.float16), "BFLOAT16": vector, "INT8": np.rint(vector * 127).astype(np.int8), "BINARY": np.packbits(vector > 0.1)}
    scales = np.array([1 / 127], np.float32) if encoding == "INT8" else None
    answer = Embedding(0, packed[encoding][None], scales, len(vector), np.zeros((1, 2), np.int64), 3, 0, [], "m", "", "r")
    client = SimpleNamespace(embed_stream=lambda texts, options: (answer for _ in texts))
    found = embed_all(client, ["cats purr"], Options(encoding=encoding))
    np.testing.assert_array_equal(found, answer.float32())
    assert found.dtype == np.float32


@pytest.mark.parametrize("by_sentence", [False, True])
def test_a_calibrated_system_centers_both_sides(by_sentence):
    client = WordClient()
    system = Vectors(Options(output="WINDOW_VECTORS"), Options(), "max", query_sentences=by_sentence)
    retriever = Retriever(client, [system])
    retriever.add(TEXTS)
    typical, asked = ["Who hunts mice? Tell me.", "Where do fish swim?"], "Which dogs bark? Say it."
    plain = retriever.scores([asked])
    retriever.calibrate(typical)

    def pieces(query):
        return split(query) if by_sentence else [query]

    query_mean = np.mean([client.vector(piece) for query in typical for piece in pieces(query)], axis=0)
    windows = {id: [client.vector(window) for window in split(text)] for id, text in TEXTS.items()}
    document_mean = np.mean([vector for vectors in windows.values() for vector in vectors], axis=0)

    def unit(vector):
        return vector / np.linalg.norm(vector)

    expected = [
        np.mean([max(unit(client.vector(piece) - query_mean) @ unit(vector - document_mean) for vector in vectors) for piece in pieces(asked)])
        for vectors in windows.values()
    ]
    np.testing.assert_allclose(retriever.scores([asked])[0], expected, atol=1e-5)
    assert abs(retriever.scores([asked]) - plain).max() > 0.05
    calibrated = retriever.scores([asked])
    for few in ([], [asked], [asked, asked]):  # The mean of one query is the query, and its centered vector zero.
        with pytest.raises(ValueError, match="two different typical queries"):
            retriever.calibrate(few)
    np.testing.assert_array_equal(retriever.scores([asked]), calibrated)


@pytest.mark.parametrize(("encoding", "tolerance"), [("FLOAT16", 1e-3), ("INT8", 0.02)])
def test_vectors_may_have_any_encoding(encoding, tolerance):
    exact, narrow = (Retriever(EncodingClient(), [Vectors(options, options)]) for options in (Options(), Options(encoding=encoding)))
    for retriever in (exact, narrow):
        retriever.add(TEXTS)
    asked = ["dogs bark", "fish swim"]
    np.testing.assert_allclose(narrow.scores(asked), exact.scores(asked), atol=tolerance)


def test_bits_are_scored_as_plus_and_minus_one():
    options = Options(encoding="BINARY")
    assert embed_all(EncodingClient(), ["dogs bark"], options)[0].tolist() == [1.0 if letter in "db" else -1.0 for letter in ascii_lowercase]
    retriever = Retriever(EncodingClient(), [Vectors(options, options)])
    retriever.add({"same": "dogs bark", "other": "fish swim"})
    assert retriever.scores(["dogs bark"]).tolist() == [[26.0, 18.0]]


@pytest.mark.parametrize("encoding", ["FLOAT32", "INT8"])
def test_a_query_has_one_vector(encoding):
    retriever = Retriever(EncodingClient(), [Vectors(Options(), Options(output="WINDOW_VECTORS", encoding=encoding))])
    retriever.add(TEXTS)
    with pytest.raises(ValueError, match="has 2 vectors"):
        retriever.scores(["One sentence. And another."])


def test_the_error_of_a_query_is_raised():
    class Refusing(WordClient):
        def embed_stream(self, texts, options):
            if list(texts) == ["bad"]:
                yield SimpleNamespace(id=0, error=longembed.InvalidArgument("is bad", "INVALID_ARGUMENT"), vector=np.ones(26), scales=None)
            yield from super().embed_stream([text for text in texts if text != "bad"], options)

    retriever = Retriever(Refusing(), [Vectors(Options(), Options())])
    retriever.add(TEXTS)
    with pytest.raises(longembed.InvalidArgument, match="text 0: is bad"):
        retriever.scores(["bad"])


def test_queries_have_their_side_of_the_model():
    described = WordClient().model()
    assert query_options(described, model="m") == Options(input_type="QUERY", extension={"windows": {}}, model="m")
    assert document_options(described) == Options(input_type="DOCUMENT")
    described.input_types = {}
    assert query_options(described) == Options(extension={"windows": {}}) and document_options(described) == Options()


def test_documents_that_cannot_be_embedded_are_added_to_no_system():
    class Refusing(WordClient):
        def embed_stream(self, texts, options):
            if options.output == "WINDOW_VECTORS" and ("worse", "bad") in texts:
                yield SimpleNamespace(id="worse", error=longembed.InvalidArgument("text 0 is bad", "INVALID_ARGUMENT"))
            yield from super().embed_stream(texts, options)

    retriever = Retriever(Refusing(), [BM25(), Vectors(Options(), Options()), Vectors(Options(output="WINDOW_VECTORS"), Options())])
    retriever.add({"cats": TEXTS["cats"]})
    with pytest.raises(longembed.InvalidArgument, match="document 'worse': text 0 is bad"):
        retriever.add({"worse": "bad", "fish": TEXTS["fish"]})
    retriever.add({"dogs": TEXTS["dogs"]})
    assert retriever.ids == ["cats", "dogs"] and retriever.scores(["dogs bark"]).shape == (1, 2)
    assert retriever.search(["dogs bark"])[0][0].id == "dogs"


def test_vectors_of_two_recipes_are_not_mixed():
    """A server may restart with other weights between two calls, or within the stream of one."""
    client = WordClient()
    retriever = Retriever(client, [Vectors(Options(), Options())])
    retriever.add({"cats": TEXTS["cats"]})
    client.recipe = "other"
    with pytest.raises(LongEmbedError, match="from recipe other to r or back; embed all texts again"):
        retriever.add({"dogs": TEXTS["dogs"]})
    assert retriever.ids == ["cats"]
    answers = WordClient().embed_stream(["a", "b"], Options())
    changing = SimpleNamespace(embed_stream=lambda texts, options: (SimpleNamespace(**{**vars(a), "recipe": a.id}) for a in answers))
    with pytest.raises(LongEmbedError, match="changed"):
        embed_all(changing, ["a", "b"], Options())


def test_queries_of_another_model_than_the_documents_are_refused():
    """A server may restart with other weights after the documents were added, and give vectors of the same size."""
    client = WordClient()
    retriever = Retriever(client, [Vectors(Options(), Options(extension={"windows": {}}))])
    retriever.calibrate(["cats", "dogs"])
    client.recipe = "other"
    with pytest.raises(LongEmbedError, match="from recipe other to r or back"):
        retriever.add(TEXTS)  # Queries would be centered by the mean of the first model's.
    retriever.calibrate(["cats", "dogs"])
    retriever.add(TEXTS)
    assert retriever.search(["dogs bark"])[0][0].id == "dogs"
    client.recipe = "third"
    for call in (retriever.search, retriever.calibrate):
        with pytest.raises(LongEmbedError, match="from recipe other to third or back; embed all texts again"):
            call(["dogs bark", "cats purr"])


def test_search_names_the_best_documents_in_order():
    client = WordClient()
    retriever = Retriever(client, [Vectors(Options(output="WINDOW_VECTORS"), Options())])
    assert retriever.search(["dogs"]) == [[]]
    retriever.add(list(TEXTS.items())[:2])
    retriever.add(list(TEXTS.items())[2:])
    hits = retriever.search(["dogs bark", "fish swim"], k=3)
    assert [found[0].id for found in hits] == ["dogs", "fish"]
    assert [len(found) for found in hits] == [3, 3]
    assert all(found[0].score >= found[1].score >= found[2].score for found in hits)
    with pytest.raises(ValueError, match="'cats' has been added already"):
        retriever.add({"cats": "again"})
    with pytest.raises(TypeError, match="list of queries"):
        retriever.search("dogs")
    with pytest.raises(ValueError, match="k is -1"):
        retriever.search(["dogs"], k=-1)
    with pytest.raises(ValueError, match="one window size"):
        Retriever.windows(client, tokens=())


def test_windows_builds_the_measured_recipe():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    client = WordClient()
    retriever = Retriever.windows(client, tokens=(1024, 64, 256))
    retriever.add(TEXTS)
    query = "Which dog hunts? Rabbits are hunted."
    assert retriever.search([query], k=1)[0][0].id == "dogs"
    asked = [(options.output, options.input_type, options.extension) for options, _ in client.asked]
    windows = [("WINDOW_VECTORS", "DOCUMENT", {"windows": {"tokens": size}}) for size in (64, 256, 512)]
    assert asked == [*windows, *[(None, "QUERY", {"windows": {}})] * 3]
    assert [texts for _, texts in client.asked[3:]] == [split(query), [query], [query]]
    parts = [
        Vectors(Options(output="WINDOW_VECTORS"), Options(), "max", query_sentences=True),
        *[Vectors(Options(output="WINDOW_VECTORS"), Options(), maxsim.log_mean_exp(0.01))] * 2,
        BM25(),
        BM25(words=200, query_sentences=True),
    ]
    for part in {id(part): part for part in parts}.values():
        part.extend(part.prepare(client, list(TEXTS.items())))
    np.testing.assert_allclose(retriever.scores([query]), maxsim.fuse([part.scores(client, [query]) for part in parts]), atol=1e-6)


@pytest.mark.parametrize("calibrated", [False, True])
def test_no_queries_and_no_documents_have_no_hits(calibrated):
    client = WordClient()
    retriever = Retriever.windows(client)
    if calibrated:
        retriever.calibrate(["cats", "dogs"])
    assert retriever.search(["cats"]) == [[]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert retriever.scores(["cats", "dogs"]).shape == (2, 0)
    with pytest.raises(TypeError, match="list of queries"):
        retriever.search("cats")
    retriever.add(TEXTS)
    assert retriever.search([]) == [] and retriever.scores([]).shape == (0, len(TEXTS))


def test_documents_are_pairs():
    retriever = Retriever(WordClient(), [BM25()])
    retriever.add([["cats", TEXTS["cats"]]])
    assert retriever.ids == ["cats"]
    for wrong in ("ab", "a long text", ("a", "b", "c")):
        with pytest.raises(TypeError, match="pair"):
            retriever.add([wrong])
    assert retriever.ids == ["cats"]


def test_a_text_that_no_system_could_read_is_added_to_none():
    """BM25 reads texts in the first search. A text that it cannot read would end every search."""
    retriever = Retriever(WordClient(), [BM25()])
    for wrong in (None, b"bytes", ["a", "list"], longembed.Input(text="cats")):
        with pytest.raises(TypeError, match=f"document 'wrong' is of type {type(wrong).__name__}; it must be a str"):
            retriever.add({"cats": TEXTS["cats"], "wrong": wrong})
    assert retriever.ids == []
    with pytest.raises(TypeError, match="query 1 is of type NoneType"):
        retriever.search(["cats", None])


def test_queries_may_come_from_a_generator():
    """Every system reads them."""
    client = WordClient()
    retriever = Retriever(client, [Vectors(Options(), Options()), Vectors(Options(output="WINDOW_VECTORS"), Options())])
    retriever.add(TEXTS)
    queries = ["dogs bark", "fish swim"]
    retriever.calibrate(query for query in queries)
    np.testing.assert_array_equal(retriever.scores(query for query in queries), retriever.scores(queries))
    assert [found[0].id for found in retriever.search(iter(queries))] == ["dogs", "fish"]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_system_belongs_to_one_retriever(parts):
    """Otherwise, a retriever would give the scores of the other's documents to its own."""
    systems = [Vectors(Options(), Options()) for _ in range(parts)]
    first, second = (Retriever(WordClient(), systems) for _ in range(2))
    first.add({"cats": TEXTS["cats"], "dogs": TEXTS["dogs"]})
    second.add({"fish": TEXTS["fish"], "empty": TEXTS["empty"]})
    for retriever in (first, second):
        with pytest.raises(ValueError, match=r"shape \(1, 4\) for 1 queries and 2 documents; each Retriever needs systems of its own"):
            retriever.search(["fish swim"], k=1)
