"""Tests truncation, which does not tokenize the text that it cuts away. The remaining tokens must be those that Hugging Face's tokenizers give for
the whole text."""

import random
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from running_server import ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_checkpoints  # noqa: E402

from model.export.__main__ import main  # noqa: E402

SPECIALS = ["[UNK]", "[PAD]", "[SEP]", "[CLS]"]
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = ("the river mills unbelievable it's don't 3.14 1234567 e\u0301 naïve İstanbul Ελλάς привет мир שלום سلام हिन्दी ไทย 東京 中文字符 カタカナ 한국어 "
    "😀 👨‍👩‍👧 ﷺ ﬁne . , ( ) - # a bb").split()  # fmt: skip


def _wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIALS, show_progress=False)


def _unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIALS, unk_token="[UNK]", show_progress=False)


def _gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def _llama3():
    tokenizer, trainer = _gpt2()
    split = pre_tokenizers.Split(Regex(LLAMA), "isolated")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tokenizer, trainer


TOKENIZERS = {"wordpiece": _wordpiece, "unigram": _unigram, "gpt2": _gpt2, "llama3": _llama3}


def save(name: str, folder: Path) -> None:
    """Saves a tiny BERT with a trained tokenizer of 300 entries. Its template is [CLS] $A [SEP]."""
    tiny_checkpoints.save("bert", folder)
    tokenizer, trainer = TOKENIZERS[name]()
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))


class Served:
    def __init__(self, server, stub, pb, tokenizers):
        self.server, self.stub, self.pb, self.tokenizers = server, stub, pb, tokenizers

    def options(self, model: str, truncate: str, prompt: str = "", **more):
        return self.pb.EmbedOptions(model=model, truncate=self.pb.EmbedOptions.Truncate.Value(truncate), prompt=prompt, **more)

    def embed(self, options, text: str):
        return self.stub.Embed(self.pb.EmbedRequest(options=options, inputs=[self.pb.Input(text=text)]), timeout=300).results[0]

    def of_ids(self, model: str, ids: list[int]) -> np.ndarray:
        request = self.pb.EmbedRequest(options=self.pb.EmbedOptions(model=model), inputs=[self.pb.Input(token_ids={"ids": ids, "complete": True})])
        return np.array(self.stub.Embed(request).results[0].embeddings[0].values)


@pytest.fixture(scope="module")
def served(tmp_path_factory, pb):
    exported, tokenizers = tmp_path_factory.mktemp("models"), {}
    for name in TOKENIZERS:
        folder = tmp_path_factory.mktemp("checkpoints") / name
        save(name, folder)
        assert main([str(folder), "--out", str(exported / name), "--pooling", "mean"]) == 0
        tokenizers[name] = Tokenizer.from_file(str(exported / name / "tokenizer.json"))
    extra = "limits: {max_request_bytes: 33554432, max_tokens_per_input: 65536}\n"
    server = start_server(tmp_path_factory.mktemp("truncation"), list(TOKENIZERS), extra, exported)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.max_send_message_length", -1)]) as channel:
        yield Served(server, pb[1].EmbeddingServiceStub(channel), pb[0], tokenizers)
    assert server.stop() == 0


def joined(seams: list[str], words: list[str], count: int, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(words) + rng.choice(seams) for _ in range(count))


TEXTS = {
    "words": joined([" "], WORDS, 30_000, 1),
    "every seam": joined([" "] * 20 + ["  ", "\n", " \n", "\t", "\u00a0", "\u3000", "\r\n", ""], WORDS, 30_000, 2),
    "runs of blanks": joined([" " * 50, "\n" * 30, " \t" * 9, " "], WORDS, 10_000, 3),
    "ideographs": joined([""] * 30 + ["，", "。"], list("東京中文字符的一是不了人我在有他"), 75_000, 4),
    "cyrillic": joined([" "], "привет мир Москва один два".split(), 30_000, 5),
    "emoji": joined(["", " "], ["😀", "👨‍👩‍👧", "a"], 30_000, 6),
    "no blanks": joined([""], ["the", "river", "a", "mills"], 45_000, 7),
    "long words": joined([" "], ["x" * 3000, "the", "river"], 300, 8),
    "a long word first": "y" * 100_000 + joined([" "], WORDS, 30_000, 9),
    "a long word last": joined([" "], WORDS, 30_000, 10) + "z" * 100_000,
    "short": "the river",
}


@pytest.mark.parametrize("prompt", ["", "passage: "])
@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_truncation_keeps_the_tokens_of_the_whole_text(served, name, text, prompt):
    encoding = served.tokenizers[name].encode(prompt + text, add_special_tokens=False)
    begin = next(i for i, (_, end) in enumerate(encoding.offsets) if end > len(prompt))
    before, content = encoding.ids[:begin], encoding.ids[begin:]
    for truncate, tokens in (("END", 32), ("START", 32), ("END", 15), ("START", 15)):
        room = tokens - 2 - len(before)
        kept = content[:room] if truncate == "END" else content[-room:]
        options = served.options(name, truncate, prompt, **({} if tokens == 32 else {"max_tokens": tokens}))
        result = served.embed(options, text)
        assert np.array_equal(np.array(result.embeddings[0].values), served.of_ids(name, [3, *before, *kept, 2]))
        cut = len(content) - len(kept)
        assert result.tokens == len(kept) + len(before) + 2
        if result.truncated_tokens_estimated:
            # A word of 100,000 letters may be one token.
            assert len(text.encode()) > 2 * 65536 and result.truncated_tokens == pytest.approx(cut, rel=0.6)
        else:
            assert result.truncated_tokens == cut
            ranges = (0, len(kept)) if truncate == "END" else (cut, cut + len(kept))
            assert (result.sequences[0].content.start, result.sequences[0].content.end) == ranges
        explained = served.stub.Explain(served.pb.ExplainRequest(options=options, inputs=[served.pb.Input(text=text)]), timeout=300)
        assert explained.results[0].truncated_tokens == cut and explained.results[0].tokens == result.tokens


@pytest.mark.parametrize("name", TOKENIZERS)
def test_max_tokens_of_windows_does_not_tokenize_the_rest(served, name):
    text = TEXTS["words"]
    ids = served.tokenizers[name].encode(text, add_special_tokens=False).ids
    options = served.options(name, "END", max_tokens=100)
    options.extension.windows.tokens = 20
    result = served.embed(options, text)
    assert result.truncated_tokens_estimated and result.sequences[-1].content.end == 98
    alone = served.pb.EmbedRequest(options=served.pb.EmbedOptions(model=name, extension=options.extension))
    alone.inputs.add().token_ids.ids.extend(ids[:98])
    assert list(result.embeddings[0].values) == list(served.stub.Embed(alone).results[0].embeddings[0].values)


def test_a_truncated_text_with_sentence_spans_is_tokenized_whole(served):
    text = "The river. It's a mill. " * 5000
    options = served.options("wordpiece", "END", output=served.pb.EmbedOptions.SPAN_VECTORS, spans={"sentences": {}})
    result = served.embed(options, text)
    assert not result.truncated_tokens_estimated and len(result.embeddings) > 1


def peak(pid: int) -> int:
    """Returns the peak of resident bytes since the last call."""
    status = Path(f"/proc/{pid}/status").read_text()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_of(stub, pb, pid: int, options, content: str) -> int:
    """Returns the peak of resident bytes over several calls."""
    request, most = pb.EmbedRequest(options=options, inputs=[pb.Input(text=content)]), 0
    for _ in range(3):
        peak(pid)
        stub.Embed(request, timeout=300)
        most = max(most, peak(pid))
    return most


SIXTEEN_MEGABYTES = ("the river mills unbelievable it's a bb привет мир " * 350_000).encode()[: 16 << 20].decode(errors="ignore")


def peak_of_the_message(stub, pb, pid: int, options) -> int:
    """Returns the peak of resident bytes when the server reads sixteen megabytes and refuses them."""
    refused, most = pb.EmbedOptions(), 0
    refused.CopyFrom(options)
    refused.prompt_name = "none of the model's"
    for _ in range(3):
        peak(pid)
        with pytest.raises(grpc.RpcError):
            stub.Embed(pb.EmbedRequest(options=refused, inputs=[pb.Input(text=SIXTEEN_MEGABYTES)]), timeout=300)
        most = max(most, peak(pid))
    return most


# Tokenizing all of it would take several hundred megabytes. tests/benchmark/truncation.py measures memory and time.
MOST_BYTES = 128 << 20


@pytest.mark.parametrize("truncate", ["END", "START"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_rest_of_sixteen_megabytes_takes_no_memory(served, name, truncate):
    options, pid = served.options(name, truncate), served.server.process.pid
    message = peak_of_the_message(served.stub, served.pb, pid, options)
    assert peak_of(served.stub, served.pb, pid, options, SIXTEEN_MEGABYTES) - message <= MOST_BYTES


def test_the_sentences_of_a_text_take_little_memory(served):
    """Each of eight million line ends is a sentence. Those without a token are not kept: they took 250 MiB."""
    text, pid = ("aa bb" + "\n" * 2000) * 4000, served.server.process.pid

    def peak_with(**spans) -> int:
        options = served.options("wordpiece", "END", output=served.pb.EmbedOptions.SPAN_VECTORS, spans=spans)
        return peak_of(served.stub, served.pb, pid, options, text)

    assert peak_with(sentences={}) - peak_with(every_tokens={"tokens": 8}) <= 64 << 20
