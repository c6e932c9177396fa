"""Compares the server's vectors with those of transformers. Only the weights and the texts are shared."""

import random
import sys

import numpy
import pytest
import torch

from running_server import MODELS, ROOT, start_server

sys.path.insert(0, str(ROOT))
from model.export import architectures, sources  # noqa: E402  (Reads the checkpoint only; the network is that of transformers.)

NAMES = ["e5-small-v2", "bge-small-en-v1.5", "all-MiniLM-L6-v2"]
TEXTS = [line for line in (ROOT / "model/export/texts.txt").read_text(encoding="utf-8").splitlines() if line]


@pytest.fixture(scope="module", params=NAMES)
def served(request, tmp_path_factory, pb):
    import grpc

    running = start_server(tmp_path_factory.mktemp("vectors"), [request.param])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield request.param, pb[1].EmbeddingServiceStub(channel)
    assert running.stop() == 0


def samples(tokenizer, window: int) -> list[str]:
    """Returns every line of the text file, and slices of the whole file from 1 token up to the whole window."""
    everything = " ".join(TEXTS)
    words = everything.split()
    picked = list(TEXTS)
    rng = random.Random(5)
    for length in (1, 2, 16, 60, 128, 200, window - 2):
        start = rng.randrange(len(words) // 2)
        stretch = words[start]
        for word in words[start + 1 :]:
            longer = f"{stretch} {word}"
            if len(tokenizer.encode(longer).ids) > length + 2:
                break
            stretch = longer
        picked.append(stretch)
    return [text for text in picked if len(tokenizer.encode(text).ids) <= window]


@torch.inference_mode()
def transformers_vectors(name: str, texts: list[str]) -> tuple[numpy.ndarray, list[int]]:
    from tokenizers import Tokenizer

    checkpoint = sources.find(name).load()
    reference = architectures.find(checkpoint.config).reference(checkpoint.config, checkpoint.tensors)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vectors, counts = [], []
    for text in texts:
        ids = tokenizer.encode(text).ids
        hidden = reference(input_ids=torch.tensor([ids])).last_hidden_state[0]
        vector = hidden[0] if name.startswith("bge") else hidden.mean(0)
        vectors.append(torch.nn.functional.normalize(vector, dim=0).numpy())
        counts.append(len(ids))
    return numpy.stack(vectors), counts


def test_vectors_are_those_of_transformers(served, pb):
    name, stub = served
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))
    window = stub.GetModel(pb[0].GetModelRequest(model=name)).trained_window
    texts = samples(tokenizer, window)
    assert len(texts) >= 50
    expected, counts = transformers_vectors(name, texts)
    assert min(counts) <= 3 and max(counts) >= window - 4

    def embed(batch):
        response = stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text=text) for text in batch]))
        return numpy.array([result.embeddings[0].values for result in response.results]), [r.tokens for r in response.results]

    alone, tokens = (numpy.concatenate(column) for column in zip(*(embed([text]) for text in texts)))
    assert list(tokens) == counts
    assert (alone * expected).sum(1).min() >= 0.99999

    order = list(range(len(texts)))
    random.Random(9).shuffle(order)
    batched = numpy.empty_like(alone)
    for start in range(0, len(order), 13):
        batch = order[start : start + 13]
        batched[batch] = embed([texts[i] for i in batch])[0]
    assert (batched * expected).sum(1).min() >= 0.99999
    assert numpy.abs(batched - alone).max() <= 1e-5


def test_prompt_is_put_before_the_text(stub, pb):
    text = "The Nile is about 6,650 km long."
    request = pb[0].EmbedRequest(inputs=[pb[0].Input(text=text)])
    request.options.prompt_name = "passage"
    named = stub.Embed(request)
    literal = stub.Embed(pb[0].EmbedRequest(inputs=[pb[0].Input(text="passage: " + text)]))
    assert named.prompt == "passage: "
    assert named.results[0].tokens == literal.results[0].tokens
    expected, _ = transformers_vectors("e5-small-v2", ["passage: " + text])
    assert numpy.dot(named.results[0].embeddings[0].values, expected[0]) >= 0.99999


def test_truncation_keeps_the_named_end(stub, pb):
    text = " ".join(TEXTS) * 3
    for truncate, take in ((pb[0].EmbedOptions.END, slice(None, 510)), (pb[0].EmbedOptions.START, slice(-510, None))):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(MODELS / "e5-small-v2" / "tokenizer.json"))
        content = tokenizer.encode(text, add_special_tokens=False).ids
        request = pb[0].EmbedRequest(inputs=[pb[0].Input(text=text)])
        request.options.truncate = truncate
        result = stub.Embed(request).results[0]
        assert (result.tokens, result.truncated_tokens) == (512, len(content) - 510)
        ids = pb[0].EmbedRequest(inputs=[pb[0].Input(token_ids=pb[0].TokenIds(ids=content[take]))])
        same = stub.Embed(ids).results[0]
        assert numpy.abs(numpy.array(result.embeddings[0].values) - same.embeddings[0].values).max() <= 1e-5


def test_encodings_decode_to_the_same_vector(stub, pb):
    options = pb[0].EmbedOptions
    request = pb[0].EmbedRequest(inputs=[pb[0].Input(text=TEXTS[5])])
    exact = numpy.array(stub.Embed(request).results[0].embeddings[0].values, dtype=numpy.float32)

    def packed(encoding):
        request.options.encoding = encoding
        return stub.Embed(request).results[0].embeddings[0]

    assert (numpy.frombuffer(packed(options.FLOAT16).packed, dtype="<f2") == exact.astype("<f2")).all()
    halves = numpy.frombuffer(packed(options.BFLOAT16).packed, dtype="<u2").astype(numpy.uint32) << 16
    expected = torch.from_numpy(exact).to(torch.bfloat16).to(torch.float32).numpy()
    assert (halves.view(numpy.float32) == expected).all()
    int8 = packed(options.INT8)
    restored = numpy.frombuffer(int8.packed, dtype=numpy.int8) * int8.scale
    assert numpy.abs(restored - exact).max() <= int8.scale * 0.501
    assert packed(options.BINARY).packed == numpy.packbits(exact > 0).tobytes()
