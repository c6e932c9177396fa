"""Tests that, for a text, an exported model gives the vector that users of the checkpoint get.

The oracle is transformers on the checkpoint's folder, called by code in this file."""

import functools
import json
import shutil

import broken_checkpoints as broken
import huggingface_hub
import pytest
import tiny_colbert
import torch
import torch.nn.functional as F
from broken_checkpoints import SENTENCE, edit, write
from conftest import REPOSITORY, manifest_of
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, processors
from transformers import AutoModel, AutoTokenizer

from model.export import check, checkpoints, directory, reference
from model.export import folder as checkpoint_folder
from model.export.__main__ import main

TEXTS = ("The Quick brown fox. 12", " a  b ", "É é e\u0301 ÀB", "[Q] [CLS] x [SEP]", "中文 b 🚀", "x" * 70, "one two three four five six seven eight nine ten")
MIN_COSINE = 0.99999


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return {kind: broken.save(kind, root / kind, pooling) for kind, pooling in (("bert", "mean"), ("llama", "last"), ("mistral", "last"))}


@pytest.fixture(autouse=True)
def fewer_texts(monkeypatch):
    """Uses fewer texts in the exporter's check. test_command.py uses all of them."""
    monkeypatch.setattr(check, "lines", lambda lines=check.lines()[:8]: lines)


@pytest.fixture
def exported(originals, tmp_path, capsys):
    """Returns a function that changes a copy of a checkpoint and exports it. It returns (the checkpoint's folder, the model directory, the
    output)."""

    def export(change=lambda folder: None, kind="bert", options=()):
        folder = broken.copy(originals[kind], tmp_path / "checkpoint")
        change(folder)
        capsys.readouterr()
        status = main([str(folder), "--out", str(tmp_path / "out"), *options])
        said = capsys.readouterr().err
        assert status == 0, said
        return folder, directory.Directory(tmp_path / "out"), said

    return export


@functools.cache
def users_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@functools.cache
def users_model(folder):
    return AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def users_ids(folder, text, limit=32):
    return users_tokenizer(folder)(text, truncation=True, max_length=limit)["input_ids"]


def users_vector(folder, ids, pooling="mean"):
    with torch.no_grad():
        hidden = users_model(folder)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]


def our_vector(model: directory.Directory, text, prompt_name=None):
    return model.alone([model.ids(directory.Sample(text, prompt_name))])[0]


def cosine(a, b) -> float:
    return F.cosine_similarity(a.double(), b.double(), dim=0).item()


def assert_right(folder, model, pooling="mean", prompt="", prompt_name=None, limit=32):
    for text in TEXTS:
        ids = users_ids(folder, prompt + text, limit)
        assert model.ids(directory.Sample(text, prompt_name)) == ids, text
        assert cosine(our_vector(model, text, prompt_name), users_vector(folder, ids, pooling)) >= MIN_COSINE, text


def _noise(folder) -> dict:
    return {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in broken.tensors(folder).items()}


def _shards_beside_a_stray(folder):
    content = broken.tensors(folder)
    broken.save_tensors(folder, _noise(folder), "model-ema.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: names[i % 2] for i, name in enumerate(sorted(content))}
    for shard in names:
        broken.save_tensors(folder, {name: content[name] for name in content if weight_map[name] == shard}, shard)
    write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors").unlink()


def _old_bin(folder):
    torch.save(broken.tensors(folder), folder / "pytorch_model.bin")
    broken.save_tensors(folder, _noise(folder), "model.fp16.safetensors")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "change, ignored",
    [
        (lambda folder: broken.save_tensors(folder, _noise(folder), "model_old.safetensors"), "model_old.safetensors"),
        (lambda folder: broken.save_tensors(folder, _noise(folder), "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"),
        (lambda folder: broken.save_tensors(folder, _noise(folder), "consolidated.safetensors"), "consolidated.safetensors"),
        (lambda folder: torch.save(_noise(folder), folder / "model_ema.bin"), "model_ema.bin"),
        (lambda folder: torch.save(_noise(folder), folder / "pytorch_model.bin"), None),
        (_shards_beside_a_stray, "model-ema.safetensors"),
        (_old_bin, "model.fp16.safetensors"),
    ],
)
def test_the_weights_are_those_that_transformers_reads(exported, change, ignored):
    folder, model, said = exported(change)
    assert_right(folder, model)
    assert ignored is None or f"transformers does not read them either: {ignored}" in said


def _limit(file, **change):
    return lambda folder: edit(folder / file, **change)


def _both(folder):
    edit(folder / "sentence_bert_config.json", max_seq_length=20)
    edit(folder / "tokenizer_config.json", model_max_length=25)


def _nothing_but_a_later_file(folder):
    write(folder / "sentence_bert_config.json", {})
    write(folder / "sentence_roberta_config.json", {"max_seq_length": 20})


@pytest.mark.parametrize(
    "change, window, source",
    [
        # sentence-transformers 6.2 saves the limit in this file.
        (_limit("tokenizer_config.json", model_max_length=24), 24, "model_max_length of tokenizer_config.json"),
        (_limit("sentence_bert_config.json", max_seq_length=20), 20, "max_seq_length of sentence_bert_config.json"),
        (_limit("sentence_roberta_config.json", max_seq_length=20), 20, "max_seq_length of sentence_roberta_config.json"),
        (_limit("sentence_xlm-roberta_config.json", max_seq_length=20), 20, "max_seq_length of sentence_xlm-roberta_config.json"),
        (_limit("tokenizer_config.json", max_len=24), 24, "max_len of tokenizer_config.json"),
        (_limit("tokenizer_config.json", max_len=24, model_max_length=26), 26, "model_max_length of tokenizer_config.json"),
        (_nothing_but_a_later_file, 20, "max_seq_length of sentence_roberta_config.json"),
        (_both, 20, "max_seq_length of sentence_bert_config.json"),
        (_limit("sentence_bert_config.json", max_seq_length=None), 32, "the model's positions"),
        (_limit("tokenizer_config.json", model_max_length=1000000000000000019884624838656), 32, "the model's positions"),
        (_limit("tokenizer_config.json", model_max_length=512), 32, "the model's positions"),
    ],
)
def test_the_limit_is_where_users_of_the_checkpoint_truncate(exported, change, window, source):
    folder, model, _ = exported(change)
    assert (model.content["trained_window"], model.content["plain_limit"], model.content["trained_window_source"]) == (window, window, source)
    assert_right(folder, model, limit=window)


@pytest.mark.parametrize("with_modules", [True, False])
def test_a_limit_that_the_exporter_does_not_find_is_found_by_the_check(originals, tmp_path, capsys, monkeypatch, with_modules):
    monkeypatch.setattr(checkpoint_folder, "_window", lambda *_: (None, None))
    folder = broken.copy(originals["bert"], tmp_path / "checkpoint")
    edit(folder / "tokenizer_config.json", model_max_length=24)
    if not with_modules:
        (folder / "modules.json").unlink()
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "users truncate at 24 tokens, but this export would truncate at 32" in capsys.readouterr().err


def test_the_command_line_outranks_the_limit(exported):
    _, model, _ = exported(_limit("tokenizer_config.json", model_max_length=24), options=["--trained-window", "30"])
    assert (model.content["trained_window"], model.content["trained_window_source"]) == (30, "--trained-window")


@pytest.mark.parametrize("file, key", [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")])
def test_a_limit_below_the_table_s_window_is_kept(exported, monkeypatch, file, key):
    """As in a copy of e5-small-v2 that was tuned on shorter texts and saved under the same name."""
    monkeypatch.setattr(checkpoints, "ALL", (checkpoints.Known("owner/checkpoint", 30, "MEAN", "MIT"),))
    folder, model, _ = exported(_limit(file, **{key: 20}))
    assert (model.content["trained_window"], model.content["trained_window_source"]) == (20, f"{key} of {file}")
    assert_right(folder, model, limit=20)


def test_the_table_s_window_outranks_a_longer_limit(exported, monkeypatch):
    monkeypatch.setattr(checkpoints, "ALL", (checkpoints.Known("owner/checkpoint", 20, "MEAN", "MIT"),))
    folder, model, _ = exported(_limit("sentence_bert_config.json", max_seq_length=30))
    assert (model.content["trained_window"], model.content["trained_window_source"]) == (20, "the table of known checkpoints")
    assert_right(folder, model, limit=20)


def test_sizes_that_only_distilbert_reads_are_ignored_elsewhere(exported):
    """A ColBERT's config, for example, may name the size of its vectors `dim`."""
    folder, model, _ = exported(lambda folder: edit(folder / "config.json", dim=128, hidden_dim=7, n_layers=9))
    assert_right(folder, model)


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("window", [3, 15])
def test_a_window_shorter_than_every_sample_of_the_check(exported, kind, window):
    folder, model, _ = exported(_limit("sentence_bert_config.json", max_seq_length=window), kind)
    assert model.content["trained_window"] == window
    assert_right(folder, model, "last" if kind == "llama" else "mean", limit=window)


NAMES = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def _tokenizer(change=None, words=None, post_processor=True, **config):
    def edit_files(folder):
        write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **NAMES, **config})
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"] |= change or {}
        if not post_processor:
            content["post_processor"] = None
        write(folder / "tokenizer.json", content)

    return edit_files


def _added(folder):
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {str(i): {"content": word, "special": special, **plain} for i, word, special in ((192, "[Q]", True), (200, "fox", False))}
    write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **NAMES, "added_tokens_decoder": tokens})


def _vocabulary_alone(folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})


@pytest.mark.parametrize(
    "change",
    [
        _tokenizer({"lowercase": False}, do_lower_case=True), _tokenizer({"lowercase": True}, do_lower_case=False), _tokenizer(strip_accents=False),
        _tokenizer(strip_accents=True, do_lower_case=False), _tokenizer(tokenize_chinese_chars=False), _tokenizer(post_processor=False), _tokenizer(post_processor=False, do_lower_case=False), _added, _vocabulary_alone,
        lambda folder: (folder / "tokenizer_config.json").unlink(), lambda folder: write(folder / "special_tokens_map.json", {"sep_token": "[PAD]"}),
    ],
)  # fmt: skip
def test_the_tokenizer_is_the_one_that_transformers_makes_of_all_its_files(exported, change):
    folder, model, _ = exported(change)
    assert_right(folder, model)


def _rowless(*spellings):
    """Fills the vocabulary to the model's 300 rows, and adds tokens beyond them, as EmbeddingGemma (special) and Qwen3-Embedding-4B (not special) have them."""

    def change(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary |= {f"##filler{i}": i for i in range(len(vocabulary), 300)}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        content["added_tokens"] += [{"id": 300 + i, "content": word, "special": i == 0, **flags} for i, word in enumerate(spellings)]
        write(folder / "tokenizer.json", content)

    return change


@pytest.mark.parametrize("spellings", [["<image_soft_token>"], [f"<tool{i}>" for i in range(12)]])
def test_tokens_without_a_row_are_left_out_of_the_tokenizer(exported, spellings):
    """The users' library fails for a text that spells one."""
    folder, model, said = exported(_rowless(*spellings))
    assert_right(folder, model)
    assert f"left out of the tokenizer, because the model has no row for them: {', '.join(spellings[:8])}" in said
    assert len(users_tokenizer(folder)) == 300 + len(spellings) and max(model.tokenizer.get_vocab().values()) == 299
    assert max(model.ids(directory.Sample(" ".join(spellings)))) < 300


def _do_lower_case(*parts):
    """BGE has this setting, beside a tokenizer that may lower-case, too."""

    def change(folder):
        write(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"] = {"type": "Sequence", "normalizers": list(parts)} if len(parts) > 1 else parts[0] if parts else None
        write(folder / "tokenizer.json", content)

    return change


BERT_NORMALIZER = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}


@pytest.mark.parametrize("options", [[], ["--pooling", "cls"]])
@pytest.mark.parametrize(
    "parts",
    [
        [BERT_NORMALIZER | {"lowercase": True}], [BERT_NORMALIZER | {"lowercase": False}], [], [{"type": "NFKC"}, {"type": "Lowercase"}],
        [{"type": "Replace", "pattern": {"String": "Q"}, "content": "z"}, {"type": "NFC"}],
        [{"type": "Replace", "pattern": {"String": "Q"}, "content": "z"}, {"type": "Lowercase"}],
    ],
)  # fmt: skip
def test_sentence_transformers_lower_cases_texts_where_its_settings_say_so(exported, parts, options):
    folder, model, _ = exported(_do_lower_case(*parts), options=options)
    users = SentenceTransformer(str(folder), device="cpu")
    for text in TEXTS:
        ids = users.preprocess([text])["input_ids"][0].tolist()
        assert model.ids(directory.Sample(text)) == ids, text
        assert cosine(our_vector(model, text), users_vector(folder, ids, "cls" if options else "mean")) >= MIN_COSINE, text
    assert our_vector(model, "THE BROWN FOX").equal(our_vector(model, "the brown fox"))


@pytest.mark.parametrize("flags", [{"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": True}, {"add_eos_token": True}])
def test_special_tokens_that_only_the_tokenizer_s_flags_add(exported, flags):
    config = {"tokenizer_class": "TokenizersBackend", "bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", **flags}
    folder, model, _ = exported(lambda folder: write(folder / "tokenizer_config.json", config), "mistral")
    assert_right(folder, model, "last")
    assert model.content["add_eos_token"] is (users_ids(folder, "a")[-1] == 2)


def _pooling(path, **modes):
    def change(folder):
        shutil.rmtree(folder / "1_Pooling")
        (folder / path).mkdir(parents=True)
        write(folder / path / "config.json", {"embedding_dimension": 64, **modes})
        broken.modules(folder, ("", SENTENCE + "Transformer"), (path, SENTENCE + "Pooling"))

    return change


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(
    "path, modes, pooling",
    [
        ("2_Pooling", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"), ("modules/pool", {"pooling_mode": "mean"}, "mean"),
        ("1_Pooling", {"pooling_mode": ["mean"], "include_prompt": True}, "mean"), ("pooling", {"pooling_mode": "lasttoken"}, "last"),
        ("2_Pooling", {"pooling_mode": "cls"}, "cls"),
    ],
)  # fmt: skip
def test_the_pooling_is_the_one_that_modules_json_points_to(exported, kind, path, modes, pooling):
    if (kind, pooling) == ("llama", "cls"):
        pytest.skip("the first token of a causal model sees nothing")
    folder, model, _ = exported(_pooling(path, **modes), kind)
    assert model.content["pooling"] == pooling.upper()
    assert_right(folder, model, pooling)


def test_pooling_of_the_command_line_outranks_what_is_not_served(exported):
    folder, model, _ = exported(_pooling("1_Pooling", pooling_mode="max"), options=["--pooling", "cls"])
    assert_right(folder, model, "cls")


def test_the_layout_of_sentence_transformers_before_1_0(exported):
    def change(folder):
        (folder / "0_Transformer").mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / file).rename(folder / "0_Transformer" / file)
        write(folder / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
        broken.modules(folder, ("0_Transformer", SENTENCE + "Transformer"), ("1_Pooling", SENTENCE + "Pooling"), ("2_Normalize", SENTENCE + "Normalize"))
        (folder / "2_Normalize").mkdir()

    folder, model, _ = exported(change)
    assert_right(folder / "0_Transformer", model, limit=20)


def _sentences(**content):
    return lambda folder: write(folder / "config_sentence_transformers.json", content)


def test_the_default_prompt_is_that_of_requests_that_name_none(exported):
    folder, model, _ = exported(_sentences(prompts={"query": "q: ", "document": "d: "}, default_prompt_name="query"))
    assert model.content["default_prompt_name"] == "query"
    assert_right(folder, model, prompt="q: ")
    assert_right(folder, model, prompt="d: ", prompt_name="document")
    assert_right(folder, model, prompt="", prompt_name="")


@pytest.mark.parametrize("options, default", [(["--default-prompt-name", "document"], "document"), (["--default-prompt-name", ""], None), ([], "query")])
def test_the_command_line_outranks_the_default_prompt(exported, options, default):
    _, model, _ = exported(_sentences(prompts={"query": "q: ", "document": "d: "}, default_prompt_name="query"), options=options)
    assert model.content.get("default_prompt_name") == default


def test_a_prompt_without_a_separator_is_tokenized_with_its_text(exported):
    folder, model, _ = exported(_sentences(prompts={"query": "un", "document": "", "null": None}))
    assert model.content["prompts"] == {"query": "un", "document": ""} and "default_prompt_name" not in model.content
    assert_right(folder, model, prompt="un", prompt_name="query")


@pytest.mark.parametrize(
    "prompts, expected",
    [({}, {"query": "query: ", "passage": "passage: "}), ({"query": "", "document": ""}, {"query": "query: ", "passage": "passage: "}), ({"query": "my "}, {"query": "my "})],
)
def test_known_checkpoints_bring_their_prompts_where_a_folder_has_none(exported, prompts, expected):
    _, model, _ = exported(_sentences(prompts=prompts), options=["--name", "e5-base", "--trained-window", "32"])
    assert model.content["prompts"] == expected


def test_empty_prompts_keep_their_names_for_a_known_checkpoint_without_prompts(exported):
    _, model, _ = exported(_sentences(prompts={"query": "", "document": ""}), options=["--name", "gte-base", "--trained-window", "32"])
    assert model.content["prompts"] == {"query": "", "document": ""} and model.content["input_types"] == {"QUERY": "query", "DOCUMENT": "document"}


def _ending(template):
    def change(folder):
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("[CLS]", 3), ("[SEP]", 2)])
        tokenizer.save(str(folder / "tokenizer.json"))

    return change


@pytest.mark.parametrize(
    "template, options, suffix",
    [
        ("$A", [], []), ("$A", ["--append-eos"], [2]), ("$A", ["--no-append-eos"], []),
        ("[CLS] $A [SEP]", [], [2]), ("[CLS] $A [SEP]", ["--append-eos"], [2]), ("[CLS] $A [SEP]", ["--no-append-eos"], []),
    ],
)  # fmt: skip
def test_eos_ends_a_text_where_the_tokenizer_or_the_command_line_says_so(exported, template, options, suffix):
    folder, model, _ = exported(_ending(template), "mistral", options)
    assert model.content["special_tokens"]["suffix"] == suffix and model.content["add_eos_token"] is bool(suffix)
    prefix = [3] if "[CLS]" in template else []
    for text in TEXTS:
        bare = users_tokenizer(folder).encode(text, add_special_tokens=False)
        ids = prefix + bare[: 32 - len(prefix) - len(suffix)] + suffix
        assert cosine(our_vector(model, text), users_vector(folder, ids, "last")) >= MIN_COSINE


@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_matryoshka_dimensions_and_the_similarity_are_kept(exported, file):
    def change(folder):
        edit(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
        edit(folder / file, matryoshka_dimensions=[32, 8, 64, 8])

    _, model, _ = exported(change)
    assert model.content["trained_dimensions"] == [8, 32, 64] and model.content["similarity_function"] == "dot"


def test_dimensions_of_the_command_line(exported):
    _, model, _ = exported(options=["--trained-dimensions", "16, 32"])
    assert model.content["trained_dimensions"] == [16, 32, 64] and "similarity_function" not in model.content


@pytest.mark.parametrize(
    "transformer, pooling", [("models.Transformer", "models.Pooling"), ("base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling")]
)
def test_sentence_transformers_older_and_newer_names_of_modules(exported, transformer, pooling):
    names = [("", f"sentence_transformers.{transformer}"), ("1_Pooling", f"sentence_transformers.{pooling}")]
    folder, model, _ = exported(lambda folder: broken.modules(folder, *names))
    assert_right(folder, model)


def test_the_check_says_by_what_it_compared(exported):
    pytest.importorskip("sentence_transformers")
    _, _, said = exported(_sentences(prompts={"query": "q: "}, default_prompt_name="query"))
    assert "through tokenizer.json and encoder.pt in Python: cosine to sentence-transformers" in said


def test_the_check_goes_through_the_model_library_where_it_is_built(exported):
    program = REPOSITORY / "build/release/longembed-embed-texts"
    if not program.is_file():
        pytest.skip("build/release/longembed-embed-texts is not built")
    _, model, said = exported(_sentences(prompts={"query": "q: ", "document": ""}, default_prompt_name="query"), options=["--embed-texts", str(program)])
    assert "through the model library" in said
    by_library = directory.Directory(model.folder, program).vectors([directory.Sample(text) for text in TEXTS])
    for vector, text in zip(by_library, TEXTS):
        assert cosine(vector, our_vector(model, text)) >= MIN_COSINE


def _wrong(monkeypatch, method, change):
    honest = getattr(directory.Directory, method)
    monkeypatch.setattr(directory.Directory, method, lambda self, argument: change(honest(self, argument)))


@pytest.mark.parametrize(
    "method, change, words",
    [
        ("ids", lambda ids: ids[:-1] or ids, "gives different tokens"), ("ids", lambda ids: [ids[0], *ids], "gives different tokens"),
        ("alone", lambda vectors: vectors + 0.05 * vectors.norm(dim=1, keepdim=True) * torch.eye(vectors.size(1))[0], "differs from"),
        ("alone", lambda vectors: vectors * 1.01, "norms of the export's vectors differ"), ("alone", lambda vectors: vectors * float("nan"), "differs from"),
        ("alone", lambda vectors: vectors[:, :32], "dimensions"),
    ],
)  # fmt: skip
def test_the_check_finds_wrong_tokens_and_vectors(originals, tmp_path, capsys, monkeypatch, method, change, words):
    _wrong(monkeypatch, method, change)
    assert main([str(originals["bert"]), "--out", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out").exists()


def test_the_check_sees_a_vector_that_depends_on_its_batch(originals, tmp_path, capsys, monkeypatch):
    honest = directory.Directory.encode

    def encode(self, sequences):
        vectors = honest(self, sequences)
        return vectors if len(sequences) == 1 else vectors + 0.01 * vectors.norm(dim=1, keepdim=True) * torch.eye(vectors.size(1))[0]

    monkeypatch.setattr(directory.Directory, "encode", encode)
    assert main([str(originals["bert"]), "--out", str(tmp_path / "out")]) == 1
    assert "depends on the rest of its batch" in capsys.readouterr().err


def test_the_texts_of_the_check_are_hard_for_tokenizers(monkeypatch):
    monkeypatch.undo()
    samples = check.samples_of({"query": "q: ", "document": ""}, "query", ["[MASK]", "<s>"], "long " * 600)
    texts = [sample.text for sample in samples]
    joined = " ".join(texts)
    assert all(word in joined for word in ("[MASK]", "<s>", "中文", "🚀", "é", "e\u0301", "THE QUICK", "  two blanks", "\u00ad"))
    assert " " in texts and "\t\n " in texts and max(map(len, texts)) > 2500
    assert {sample.prompt_name for sample in samples} == {None, "query", "document", ""}


def test_a_padding_token_that_a_text_spells_has_a_position(tmp_path, capsys):
    """In XLM-R transformers gives this token no position. The check compares with a transformers that is told to give it one."""
    folder = broken.save("xlm-roberta", tmp_path / "checkpoint")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"})
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    model = directory.Directory(tmp_path / "out")
    ids = model.ids(directory.Sample("a [PAD] b"))
    assert 1 in ids and "[PAD]" in model.special_spellings()
    with torch.no_grad():
        hidden = users_model(folder)(input_ids=torch.tensor([ids]), position_ids=torch.arange(len(ids)).unsqueeze(0) + 2).last_hidden_state[0]
    assert cosine(our_vector(model, "a [PAD] b"), hidden.mean(0)) >= MIN_COSINE


@pytest.mark.parametrize("published", [True, False])
def test_a_gte_without_token_types(tmp_path, published):
    """The published code makes no table of token types if type_vocab_size is 0."""
    folder = broken.save("gte", tmp_path / "checkpoint", "cls")
    broken.save_tensors(folder, {name: tensor for name, tensor in broken.tensors(folder).items() if "token_type" not in name})
    edit(folder / "config.json", type_vocab_size=0)
    users = users_model(folder)
    if published:
        edit(folder / "config.json", model_type="new", architectures=["NewModel"], auto_map={"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"})
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    model = directory.Directory(tmp_path / "out")
    for text in TEXTS:
        with torch.no_grad():
            hidden = users(input_ids=torch.tensor([model.ids(directory.Sample(text))])).last_hidden_state[0]
        assert cosine(our_vector(model, text), hidden[0]) >= MIN_COSINE


def _hub(monkeypatch, repository, cache):
    """Replaces the hub's client by one whose hub has the files of the folder `repository`."""
    names = [file.relative_to(repository).as_posix() for file in repository.rglob("*") if file.is_file()]

    def snapshot_download(name, allow_patterns, revision=None):
        for file in huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns):
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / file, cache / file)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name, revision=None: names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def _folders_of_any_name(folder):
    for name in ("2_Dense_1024", "encoder"):
        (folder / name).mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).rename(folder / "encoder" / file)
    write(folder / "2_Dense_1024/config.json", {"in_features": 64, "out_features": 16, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"})
    broken.save_tensors(folder / "2_Dense_1024", {"linear.weight": torch.randn(16, 64)})
    broken.modules(folder, ("encoder", SENTENCE + "Transformer"), ("1_Pooling", SENTENCE + "Pooling"), ("2_Dense_1024", SENTENCE + "Dense"))
    (folder / "0_Transformer").mkdir()  # Leftovers that no file names.
    for stray in ("pytorch_model.bin", "0_Transformer/model.safetensors", "encoder/pytorch_model.bin"):
        (folder / stray).write_bytes(b"stray")


def test_the_weights_of_every_module_are_requested_from_the_hub(originals, tmp_path, monkeypatch):
    repository = broken.copy(originals["bert"], tmp_path / "repository")
    _folders_of_any_name(repository)
    _hub(monkeypatch, repository, tmp_path / "0a1b2c")
    assert main(["owner/some-model", "--out", str(tmp_path / "out")]) == 0
    content = manifest_of(tmp_path / "out")
    assert content["name"] == "some-model" and content["vector_size"] == 16 and content["source"] == "hub:owner/some-model@0a1b2c"
    assert not list((tmp_path / "0a1b2c").rglob("pytorch_model.bin")) and not (tmp_path / "0a1b2c/0_Transformer").exists()


def test_shards_and_settings_are_requested_from_the_hub(originals, tmp_path, monkeypatch):
    repository = broken.copy(originals["bert"], tmp_path / "repository")
    _shards_beside_a_stray(repository)
    _hub(monkeypatch, repository, tmp_path / "0a1b2c")
    assert main(["owner/some-model", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "0a1b2c/model-ema.safetensors").exists()
    stanford = tiny_colbert.save_stanford(tmp_path / "stanford")
    _hub(monkeypatch, stanford, tmp_path / "1a1b2c")
    assert main(["owner/colbert", "--out", str(tmp_path / "out")]) == 0
    assert manifest_of(tmp_path / "out")["trained_window"] == tiny_colbert.DOCUMENT_LENGTH


def test_a_reference_that_dies_is_named(monkeypatch):
    """Must be the last test, because the next one would have to start another process."""
    process = reference.start()
    process.kill()
    process.wait()
    monkeypatch.setattr(reference, "start", lambda: process)
    with pytest.raises(reference.ExportError, match="was killed"):
        reference.tokenizer(REPOSITORY)
