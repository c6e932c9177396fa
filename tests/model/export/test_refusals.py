"""Tests that unsupported checkpoints are refused with one sentence that names the cause and the remedy. Nothing is written, and nothing ends in a
traceback."""

import json
import math

import broken_checkpoints as broken
import pytest
import torch
from broken_checkpoints import LFS_POINTER, SENTENCE, edit, write
from tokenizers import Tokenizer, models

from model.export.__main__ import main


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    kinds = {"bert": "mean", "llama": "last", "mistral": "last", "nomic_bert": "mean", "distilbert": "mean"}
    return {kind: broken.save(kind, root / kind, pooling) for kind, pooling in kinds.items()}


FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}  # An entry of sentence-transformers' modality_config.


@pytest.fixture
def refused(originals, tmp_path, capsys):
    """Returns a function that changes a copy of a checkpoint, exports it, and returns the one-line error."""

    def export(change, kind="bert", options=(), name="checkpoint"):
        folder = broken.copy(originals[kind], tmp_path / name)
        change(folder)
        capsys.readouterr()
        status = main([str(folder), "--out", str(tmp_path / "out"), *options])
        line = capsys.readouterr().err.splitlines()[-1]
        assert status == 1 and not (tmp_path / "out").exists(), line
        assert line.startswith("Export failed: ") and line.endswith(".") and "report" not in line
        return line

    return export


def config(**change):
    return lambda folder: edit(folder / "config.json", **change)


def settings(**change):
    return lambda folder: edit(folder / "sentence_bert_config.json", **change)


def sentences(**change):
    return lambda folder: edit(folder / "config_sentence_transformers.json", **change)


def pooling(**change):
    return lambda folder: write(folder / "1_Pooling/config.json", {"word_embedding_dimension": 64, **change})


def tokenizer_config(**change):
    return lambda folder: edit(folder / "tokenizer_config.json", **change)


def modules(*entries):
    return lambda folder: broken.modules(folder, *entries)


def text(file, content):
    return lambda folder: (folder / file).write_text(content, encoding="utf-8")


def cut(file, size):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


TRANSFORMER, POOLING, NORMALIZE = ("", SENTENCE + "Transformer"), ("1_Pooling", SENTENCE + "Pooling"), ("2_Normalize", SENTENCE + "Normalize")


@pytest.mark.parametrize(
    "quantization",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"quantization_config": {"quant_method": "awq"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, {"quantization_config": {"quant_method": "fp8"}},
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}, {"quantization_config": {"load_in_4bit": True}},
        {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, {"compression_config": {"quant_method": "sparseml"}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_quantized_checkpoints(refused, kind, quantization):
    line = refused(config(**quantization), kind)
    assert "the checkpoint is quantized" in line and "dequantize" in line
    method = next(iter(json.loads(json.dumps(quantization)).values()))
    assert str(method.get("quant_method", method.get("quantization_config", {}).get("quant_method", "unknown"))) in line


def _scaled(suffix, dtype=torch.float32):
    def change(folder):
        content = broken.tensors(folder)
        content["layers.0.self_attn.q_proj" + suffix] = torch.ones(64, 1).to(dtype)
        broken.save_tensors(folder, content)

    return change


def _stored(dtype):
    return lambda folder: broken.save_tensors(
        folder, {name: tensor.to(dtype) if name.endswith("proj.weight") else tensor for name, tensor in broken.tensors(folder).items()}
    )


@pytest.mark.parametrize(
    "change, tensor",
    [(_scaled(suffix), suffix) for suffix in (".weight_scale", ".weight_scale_inv", ".scales", ".qzeros", ".SCB", ".absmax", ".input_scale")]
    + [(_scaled(".qweight", torch.int32), ".qweight"), (_stored(torch.int8), "int8"), (_stored(torch.float8_e4m3fn), "float8"), (_stored(torch.uint8), "uint8")],
)
def test_quantized_weights_that_no_configuration_announces(refused, change, tensor):
    line = refused(change, "llama")
    assert "the checkpoint is quantized" in line and tensor in line


@pytest.mark.parametrize("value, dtype", [(float("inf"), torch.float16), (float("-inf"), torch.float32), (float("nan"), torch.bfloat16)])
@pytest.mark.parametrize("kind, tensor, weight", [("bert", "embeddings.word_embeddings.weight", "embeddings.word"), ("llama", "embed_tokens.weight", "embeddings.word")])
def test_weights_that_are_not_finite(refused, kind, tensor, weight, value, dtype):
    """No text of the check has the last token."""

    def change(folder):
        content = {name: tensor.to(dtype) for name, tensor in broken.tensors(folder).items()}
        content[tensor][-1, 3] = value
        broken.save_tensors(folder, content)

    line = refused(change, kind)
    assert "not all finite" in line and weight in line


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_files_of_quantizers(refused, file):
    assert file in refused(text(file, '{"bits": 4}'), "llama")


@pytest.mark.parametrize(
    "change, kind, words",
    [
        (config(auto_map={"AutoModel": "modeling_mistral_encoder.MistralEncoderModel"}), "mistral", "auto_map"),
        (config(auto_map={"AutoModel": "owner/name--modeling_bert.JinaBertModel", "AutoConfig": "configuration_bert.JinaBertConfig"}), "bert", "JinaBertModel"),
        (config(auto_map={"AutoModelForCausalLM": "modeling.Own"}), "llama", "own modeling code"),
        (tokenizer_config(auto_map={"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}), "bert", "tokenizer code (auto_map"),
        (config(architectures=["LlamaEncoderModel"]), "llama", "LlamaEncoderModel (architectures)"),
        (config(architectures=["JinaBertForMaskedLM"]), "bert", "JinaBertForMaskedLM"),
        (config(transformers_weights="ema.safetensors"), "bert", "transformers_weights"),
        (modules(("", "custom_st.Transformer"), POOLING), "bert", "custom_st.Transformer"),
        (modules(TRANSFORMER, ("1_Pooling", "modeling_pool.Pooling")), "bert", "modeling_pool.Pooling"),
        (modules(TRANSFORMER, POOLING, ("2", "custom.Normalize")), "bert", "custom.Normalize"),
        (modules(("", "transformers_modules.x.custom_st.Transformer"), POOLING), "bert", "own code"),
        (modules(("", "Transformer"), POOLING), "bert", "own code"),
    ],
)
def test_code_of_the_checkpoint_s_own(refused, change, kind, words):
    assert words in refused(change, kind)


@pytest.mark.parametrize("kind", ["LayerNorm", "Dropout", "WeightedLayerPooling", "CNN", "LSTM", "Router", "SpladePooling", "WordEmbeddings"])
def test_modules_that_are_not_served(refused, kind):
    assert f"not served ({kind})" in refused(modules(TRANSFORMER, POOLING, ("2_More", SENTENCE + kind)))


@pytest.mark.parametrize(
    "entries", [(TRANSFORMER,), (TRANSFORMER, NORMALIZE, POOLING), (TRANSFORMER, POOLING, POOLING), (POOLING, TRANSFORMER), (TRANSFORMER, TRANSFORMER, POOLING)]
)
def test_modules_in_another_order(refused, entries):
    assert "in this order" in refused(modules(*entries))


@pytest.mark.parametrize(
    "content, words",
    [
        ([{"type": SENTENCE + "Transformer", "path": "../elsewhere"}], "outside its folder"),
        ([{"type": SENTENCE + "Transformer", "path": "/etc"}], "outside its folder"),
        ([{"type": SENTENCE + "Transformer", "path": None}], "instead of a module's type and path"),
        ([{"path": ""}], "instead of a module's type and path"),
        (["Transformer"], "instead of a module's type and path"),
        ([], "names no modules"),
        ([{"type": SENTENCE + "Transformer", "path": "", "kwargs": ["task"]}], "kwargs"),
        ({"0": "Transformer"}, "holds an object instead of an array"),
        (None, "holds null instead of an array"),
    ],
)
def test_invalid_modules_files(refused, content, words):
    assert words in refused(lambda folder: write(folder / "modules.json", content))


@pytest.mark.parametrize("module", ["2_Dense", "1_SpladePooling", "3_LayerNorm", "10_CNN"])
def test_modules_that_no_file_names(refused, module):
    def change(folder):
        (folder / module).mkdir()
        (folder / "modules.json").unlink()

    line = refused(change)
    assert f"the module {module}" in line and "download modules.json" in line


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_adapters(refused, file):
    line = refused(text(file, "{}"), "llama")
    assert file in line and "merge_and_unload" in line


@pytest.mark.parametrize(
    "change, words",
    [
        (pooling(pooling_mode_mean_tokens=True, pooling_mode_cls_token=True), "mean and cls"),
        (pooling(pooling_mode=["mean", "max"]), "mean and max"),
        (pooling(pooling_mode_max_tokens=True), "pools by max"),
        (pooling(pooling_mode="weightedmean"), "pools by weightedmean"),
        (pooling(pooling_mode_weightedmean_tokens=True, pooling_mode_mean_tokens=False), "pools by weightedmean"),
        (pooling(pooling_mode_mean_sqrt_len_tokens=True), "mean_sqrt_len_tokens"),
        (pooling(pooling_mode="attention"), "pools by attention"),
        (pooling(pooling_mode=7), "pools by 7"),
        (pooling(pooling_mode_mean_tokens=False), "does not name"),
        (pooling(pooling_mode_mean_tokens=None), "does not name"),
        (pooling(pooling_mode="mean", include_prompt=False), "include_prompt"),
        (pooling(pooling_mode="mean", include_prompt=None), "include_prompt"),
        (lambda folder: (folder / "1_Pooling/config.json").unlink(), "1_Pooling/config.json is not there"),
        (modules(TRANSFORMER, ("2_Pooling", SENTENCE + "Pooling")), "2_Pooling/config.json is not there"),
    ],
)
def test_poolings_that_are_not_served(refused, change, words):
    assert words in refused(change)


def test_the_error_names_the_folder_of_older_layouts(refused):
    def change(folder):
        (folder / "0_Transformer").mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / file).rename(folder / "0_Transformer" / file)

    assert "they are in 0_Transformer; correct the path" in refused(change)


@pytest.mark.parametrize("kind, scaling", [
    *(("llama", scaling) for scaling in ("dynamic", "ntk")), *(("nomic_bert", scaling) for scaling in ("dynamic", "yarn", "longrope", "llama3", "ntk")),
])  # fmt: skip
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_scaled_rotary_positions(refused, kind, key, scaling):
    line = refused(config(**{key: {"rope_type": scaling, "rope_theta": 1000.0, "factor": 2.0}}), kind)
    assert "scales its rotary positions" in line and scaling in line


@pytest.mark.parametrize(
    "change, words",
    [
        ({"rope_scaling": {"type": "su", "factor": 2.0}, "rope_parameters": None}, "scales its rotary positions"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}}, "rope_parameters.full_attention"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_parameters": [1.0]}, "rope_parameters"),
    ],
)
def test_rotary_positions_of_other_forms(refused, change, words):
    assert words in refused(config(**change), "llama")


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [None, "64", 0, -1, 2.5, True, [64]])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_invalid_sizes(refused, kind, key, value):
    line = refused(config(**{key: value}), kind)
    assert f"{key} = {json.dumps(value)}" in line


@pytest.mark.parametrize(
    "change, kind, words",
    [
        (config(type_vocab_size=-1), "bert", "type_vocab_size = -1"),
        (config(type_vocab_size="2"), "bert", "type_vocab_size"),
        (config(num_attention_heads=5), "bert", "does not divide hidden_size"),
        (config(num_attention_heads=7, head_dim=None), "llama", "does not divide hidden_size"),
        (config(num_attention_heads=3, head_dim=16), "llama", "not a multiple"),
        (config(rms_norm_eps=None), "llama", "rms_norm_eps = null"),
        (config(layer_norm_eps="1e-12"), "bert", "layer_norm_eps"),
        (config(model_type=None), "bert", "model_type"),
        (config(model_type=["bert"]), "bert", "model_type"),
        (config(architectures="BertModel"), "bert", "architectures"),
        (config(architectures=[["BertModel"]]), "bert", "architectures"),
        (config(hidden_act=None), "bert", "hidden_act"),
        (config(num_key_value_heads="2"), "llama", "num_key_value_heads"),
        (config(num_hidden_layers=2), "bert", "num_hidden_layers"),
        (config(n_layers=2), "distilbert", "n_layers = 2"), (config(hidden_dim=95), "distilbert", "hidden_dim = 95"),
        (lambda folder: edit(folder / "config.json", "num_attention_heads"), "bert", "no num_attention_heads"),
        (lambda folder: edit(folder / "config.json", "rms_norm_eps"), "llama", "no rms_norm_eps"),
        (lambda folder: edit(folder / "config.json", "model_type"), "bert", "architecture 'none'"),
    ],
)
def test_configurations_that_do_not_fit(refused, change, kind, words):
    assert words in refused(change, kind)


@pytest.mark.parametrize(
    "change, words",
    [
        (settings(max_seq_length="512"), "max_seq_length"), (settings(max_seq_length=0), "max_seq_length = 0"), (settings(max_seq_length=-1), "max_seq_length"),
        (settings(max_seq_length=True), "max_seq_length = true"), (settings(max_seq_length=30.5), "max_seq_length = 30.5"), (settings(max_seq_length=30.0), "max_seq_length = 30.0, which must be a whole number of tokens; correct it."),
        (tokenizer_config(model_max_length=30.0), "model_max_length = 30.0"),
        (settings(max_seq_length=[32]), "max_seq_length"), (settings(max_seq_length=math.nan), "max_seq_length = nan"), (tokenizer_config(model_max_length=math.nan), "model_max_length = nan"), (tokenizer_config(model_max_length="32"), "model_max_length"),
        (tokenizer_config(model_max_length=0), "model_max_length = 0"), (settings(max_seq_length=2), "trained window of 2"),
        (settings(do_lower_case=1), "do_lower_case = 1, which must be true or false"), (settings(do_lower_case="true"), "do_lower_case"), (settings(model_args={"is_causal": False}), "model_args"),
        (settings(tokenizer_args={"use_fast": False}), "tokenizer_args"), (settings(config_args={"hidden_act": "relu"}), "config_args"),
        (settings(query_length=16), "query_length"), (settings(query_expansion={"strategy": "fixed"}), "query_expansion"),
        (settings(transformer_task="fill-mask"), "transformer_task"), (settings(module_output_name="sentence_embedding"), "module_output_name"),
        (settings(modality_config={"text": {"method": "get_text_features"}}), "modality_config"), (settings(modality_config={"image": {}}), "modality_config"),
        (settings(modality_config={"text": FORWARD, "message": FORWARD | {"format": "flat"}}), "chat template (modality_config.message)"),
        (settings(tokenizer_name_or_path="elsewhere"), "tokenizer_name_or_path"),
        (sentences(prompts=["query: "]), "prompts"), (sentences(prompts={"query": 1}), "prompts.query"), (sentences(prompts="query: "), "prompts"),
        (sentences(prompts={"": "q: "}, default_prompt_name=""), "prompts with an empty name"), (sentences(prompts={"query": "q\ud83d"}), "prompts.query"),
        (sentences(prompts={"\ud83d": "q"}), "half of a surrogate pair"), (sentences(prompts={"query": "x " * 30}), "the prompt 'query' takes 32 of 32 tokens"),
        (sentences(prompts={"query": "q: "}, default_prompt_name="document"), "default_prompt_name = 'document'"),
        (sentences(default_prompt_name="query"), "default_prompt_name"), (sentences(default_prompt_name=1), "default_prompt_name"),
        (sentences(similarity_fn_name="jaccard"), "similarity_fn_name = 'jaccard'"), (sentences(similarity_fn_name=["dot"]), "similarity_fn_name"),
        (sentences(model_type="SparseEncoder"), "SparseEncoder"), (sentences(model_type="CrossEncoder"), "CrossEncoder"),
        (sentences(truncate_dim=16), "truncate_dim"), (sentences(matryoshka_dimensions=["16"]), "matryoshka_dimensions"),
        (config(matryoshka_dimensions=[16, 128]), "128 dimensions"), (config(matryoshka_dimensions=[0]), "matryoshka_dimensions"),
        (config(matryoshka_dimensions=16), "matryoshka_dimensions"),
        (tokenizer_config(split_special_tokens=True), "split_special_tokens"), (tokenizer_config(truncation_side="left"), "truncation_side"),
    ],
)  # fmt: skip
def test_settings_that_change_vectors_or_are_invalid(refused, change, words):
    assert words in refused(change)


@pytest.mark.parametrize("options", [[], ["--pooling", "mean"], ["--append-eos"]])
def test_chat_templates_that_sentence_transformers_applies(refused, options):
    """With an option that outranks the files, the check compares with transformers, which does not apply the template to a text."""

    def change(folder):
        write(folder / "sentence_bert_config.json", {"modality_config": {"text": FORWARD, "message": FORWARD | {"format": "flat"}}, "module_output_name": "token_embeddings"})
        edit(folder / "tokenizer_config.json", eos_token="[SEP]", chat_template="{% for m in messages %}[CLS]{{ m['content'] }}[SEP]{% endfor %}")

    assert "chat template (modality_config.message)" in refused(change, "llama", options=options)


def _without_modules(folder):
    (folder / "modules.json").unlink()
    edit(folder / "config.json", max_position_embeddings=64)


@pytest.mark.parametrize(
    "change, kind, options",
    [
        (settings(max_seq_length=64), "llama", []), (settings(max_seq_length=64), "llama", ["--pooling", "mean"]), (settings(max_seq_length=64), "nomic_bert", []),
        # A sliding window of 32 tokens.
        (config(max_position_embeddings=64), "mistral", []), (_without_modules, "mistral", []),
    ],
)  # fmt: skip
def test_limits_beyond_the_positions_of_a_rotary_model(refused, change, kind, options):
    """The users' library computes further positions. After a position table, it fails."""
    line = refused(change, kind, options=options)
    assert "users truncate at 64 tokens, but this export would truncate at 32; add --trained-window 32 if longer texts may get other vectors" in line


FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json")


@pytest.mark.parametrize("file", FILES)
def test_git_lfs_pointers(refused, file):
    line = refused(text(file, LFS_POINTER))
    assert file in line and "git lfs pull" in line


@pytest.mark.parametrize("file", [*FILES, "config_sentence_transformers.json", "sentence_bert_config.json", "special_tokens_map.json", "model.safetensors.index.json", "sparse_linear.pt"])
def test_broken_links(refused, file):
    """As in a copy of the hub's cache without its blobs."""

    def change(folder):
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to("../../blobs/0a1b")
        if "index" in file:
            (folder / "model.safetensors").unlink()

    line = refused(change)
    assert f"{file} is a link to ../../blobs/0a1b, which is not there" in line


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_incomplete_downloads(refused, file, share):
    line = refused(lambda folder: cut(file, int(share * (folder / file).stat().st_size))(folder))
    assert file in line and ("download it again" in line or "has no config.json" in line)


@pytest.mark.parametrize("content", ["[]", "null", "7", '"text"', "{", "not json", "\ufeff{}", '{"a": ' + "1" * 5000 + "}", "[" * 100_000], ids=lambda content: content[:9])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"])
def test_files_that_are_no_object(refused, file, content):
    assert file in refused(text(file, content))


def test_text_of_another_encoding(refused):
    assert "not UTF-8" in refused(lambda folder: (folder / "config.json").write_bytes('{"é": 1}'.encode("utf-16")))


class Pickled:
    """An object that is not a tensor."""


def _binary(content):
    def change(folder):
        saved = content(broken.tensors(folder))
        (folder / "model.safetensors").unlink()
        if isinstance(saved, bytes):
            (folder / "pytorch_model.bin").write_bytes(saved)
        else:
            torch.save(saved, folder / "pytorch_model.bin")

    return change


@pytest.mark.parametrize(
    "content, words",
    [
        (lambda tensors: Pickled(), "pickled objects"), (lambda tensors: {**tensors, "step": Pickled()}, "pickled objects"),
        (lambda tensors: torch.nn.Linear(2, 2), "pickled objects"), (lambda tensors: {"state_dict": tensors}, "mapping of names to tensors"),
        (lambda tensors: {**tensors, "epoch": 3}, "mapping of names to tensors"), (lambda tensors: list(tensors.values()), "mapping of names to tensors"),
        (lambda tensors: {**tensors, 3: torch.zeros(2)}, "mapping of names to tensors"),
        (lambda tensors: {**tensors, "a": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}, "the tensor a, which is quantized"),
        (lambda tensors: {**tensors, "a": torch.empty(3, device="meta")}, "the tensor a, which is without content"),
        (lambda tensors: {**tensors, "a": torch.eye(3).to_sparse()}, "the tensor a, which is sparse_coo"),
        (lambda tensors: {}, "mapping of names to tensors"), (lambda tensors: LFS_POINTER.encode(), "git lfs pull"), (lambda tensors: b"", "pytorch_model.bin"),
        (lambda tensors: b"PK\x03\x04 cut off", "pytorch_model.bin"), (lambda tensors: b"\x80\x02", "pytorch_model.bin"),
    ],
)  # fmt: skip
def test_pickles(refused, content, words):
    assert words in refused(_binary(content))


def _index(content, shards=()):
    def change(folder):
        original = broken.tensors(folder)
        (folder / "model.safetensors").unlink()
        names = sorted(original)
        for i, shard in enumerate(shards):
            broken.save_tensors(folder, {name: original[name] for name in names[i :: len(shards)]}, shard)
        if content is not None:
            write(folder / "model.safetensors.index.json", content(names) if callable(content) else content)

    return change


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    "change, words",
    [
        (_index({}), "weight_map"), (_index({"weight_map": []}), "weight_map"), (_index({"weight_map": {"a": 1}}), "weight_map"),
        (_index({"weight_map": {"a": "../model.safetensors"}}), "weight_map"), (_index({"weight_map": None}), "weight_map"),
        (_index({"weight_map": {"a": SHARDS[0]}}), "is not there"),
        (_index(lambda names: {"weight_map": {**{name: SHARDS[i % 2] for i, name in enumerate(names)}, "more.weight": SHARDS[0]}}, SHARDS), "no shard holds more.weight"),
        (_index(None, SHARDS), "add the index"), (_index(None, ("weights.safetensors",)), "rename the file"), (_index(None), "has no weights"),
    ],
)  # fmt: skip
def test_shards(refused, change, words):
    assert words in refused(change)


def test_tokenizers_that_split_at_random(refused):
    """With a small probability, the check may see no difference."""

    def change(folder):
        tokenizer = Tokenizer(models.BPE({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")], unk_token="[UNK]", dropout=1e-6))
        tokenizer.save(str(folder / "tokenizer.json"))
        edit(folder / "tokenizer_config.json", unk_token="[UNK]", pad_token="[PAD]")

    assert "splits words at random (model.dropout = 1e-06)" in refused(change)


def test_tokenizers_that_truncate_on_the_left(refused):
    """transformers takes the side from this file if tokenizer_config.json does not say it."""

    def change(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        content["truncation"]["direction"] = "Left"
        write(folder / "tokenizer.json", content)

    assert "checkpoint/tokenizer.json truncates texts on the left (truncation.direction)" in refused(change)


def test_tokenizers_that_cannot_be_loaded(refused):
    assert "tokenizer" in refused(text("tokenizer.json", "{}"))


def _larger_vocabulary(content):
    content["model"]["vocab"] |= {f"##more{i}": 192 + i for i in range(200)}


def _gap_in_the_vocabulary(content):
    content["model"]["vocab"]["##rare"] = 300


def _added_token_of_the_vocabulary(content):
    _gap_in_the_vocabulary(content)
    content["added_tokens"].append({"id": 300, "content": "##rare", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})


def _end_of_text(content):
    content["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [300]


@pytest.mark.parametrize("change, ids", [(_larger_vocabulary, 392), (_gap_in_the_vocabulary, 301), (_added_token_of_the_vocabulary, 301), (_end_of_text, 301)])
def test_a_tokenizer_with_ids_beyond_the_model_s_rows(refused, change, ids):
    def edit_file(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        write(folder / "tokenizer.json", content)

    assert f"the tokenizer has {ids} ids, but the model has rows for 300; they do not belong together" in refused(edit_file)


@pytest.mark.parametrize("content, words", [(LFS_POINTER, "vocab.txt is a git-LFS pointer"), ("a\nb\n", "cannot be used")])
def test_vocabularies_that_are_not_whole(refused, content, words):
    def change(folder):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text(content)
        write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})

    assert words in refused(change)


@pytest.mark.parametrize("with_modules", [True, False])
def test_token_types_other_than_0(refused, with_modules):
    def change(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        for part in content["post_processor"]["single"]:
            for settings in part.values():
                settings["type_id"] = 1
        write(folder / "tokenizer.json", content)
        edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
        if not with_modules:
            (folder / "modules.json").unlink()

    assert "token types other than 0" in refused(change)


@pytest.mark.parametrize("key, size", [("vocab_size", 200), ("vocab_size", 301), ("max_position_embeddings", 20)])
def test_tables_of_another_size(refused, key, size):
    assert "another size than config.json says (vocab_size, max_position_embeddings" in refused(config(**{key: size}))


@pytest.mark.parametrize("kind", ["bert", "nomic_bert", "distilbert"])
def test_a_pooling_that_no_file_says(refused, kind):
    """nomic-embed-text takes the mean, but snowflake-arctic-embed-m-long and CodeRankEmbed, of the same network, the first token."""

    def change(folder):
        (folder / "modules.json").unlink()
        (folder / "1_Pooling/config.json").unlink()

    assert "does not say how it pools; add --pooling mean, cls or last" in refused(change, kind)


def test_weights_of_another_configuration(refused):
    def change(folder):
        content = broken.tensors(folder)
        content.pop("encoder.layer.1.output.dense.weight")
        broken.save_tensors(folder, content)

    assert "encoder.layer.1.output.dense.weight" in refused(change)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--append-eos"], "names an EOS token"), (["--no-append-eos"], "names an EOS token"), (["--default-prompt-name", "query"], "--default-prompt-name"),
        (["--trained-dimensions", "16,x"], "--trained-dimensions"), (["--trained-dimensions", "0"], "--trained-dimensions"), (["--trained-dimensions", "65"], "65 dimensions"),
        (["--embed-texts", "/nowhere/longembed-embed-texts"], "build the target"),
        (["--prompt", "long=" + "x " * 30], "the prompt 'long' takes 32 of 32 tokens and leaves no room for a text"),
        (["--prompt", "query=\udcff"], "--prompt 'query=\\udcff' is not UTF-8"), (["--name", "\udcff"], "--name '\\udcff' is not UTF-8"),
        (["--license", "\udcff"], "--license '\\udcff' is not UTF-8"), (["--default-prompt-name", "\udcff"], "--default-prompt-name '\\udcff' is not UTF-8"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(refused, options, words):
    assert words in refused(lambda folder: None, options=options)


def test_a_full_disk_is_reported(originals, tmp_path, capsys, monkeypatch):
    from model.export import manifest

    def full(folder, content):
        raise OSError(28, "No space left on device", str(folder / "encoder.pt"))

    monkeypatch.setattr(manifest, "write", full)
    assert main([str(originals["bert"]), "--out", str(tmp_path / "out")]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out").exists()
