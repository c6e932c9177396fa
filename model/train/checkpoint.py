"""Input and output of training: reads a checkpoint by the exporter's rules, and writes a Hugging Face folder that the exporter accepts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import safetensors.torch
from tokenizers import Tokenizer
from torch import Tensor

from model.export import checkpoints, reference, sources, tokenizer_file
from model.export.export import (
    chosen_prompts, default_prompt_name, find_architecture, pooling, readable, refuse_lost_layers, refuse_unknown_classes, trained_window, without_rowless_tokens,
)  # fmt: skip
from model.export.folder import Checkpoint, transformer_folder
from model.train.errors import TrainError

STRIDE_KEY = "longembed_position_stride"  # Key in the config.json of a folder whose position table this trainer has expanded.


@dataclass(frozen=True)
class Original:
    """The checkpoint from which training starts. `window` is Lo, in tokens."""

    identity: str
    config: dict
    tensors: dict[str, Tensor]
    tokenizer_json: str
    special_tokens: dict[str, str]  # Keys of tokenizer_config.json, such as pad_token, and spellings.
    architecture: ModuleType
    window: int
    pooling: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_function: str | None
    dimensions: list[int]  # Sizes to which Matryoshka vectors may be truncated.

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)


def load(name: str) -> Original:
    """Loads a checkpoint by a known name, a folder, or owner/name of the hub, as `model.export` does. Raises ExportError or TrainError."""
    source = sources.find(name)
    checkpoint = source.load()
    known = checkpoints.find(source.known_as)
    architecture = find_architecture(checkpoint)
    if architecture.FAMILY != "APE":
        raise TrainError(f"{name} has rotary positions; training starts from a checkpoint with a learned position table.")
    if STRIDE_KEY in checkpoint.config or known and known.position_stride > 1:
        raise TrainError(f"{name} has an expanded position table already; start from the checkpoint that it was made from.")
    pooled_by = pooling({}, known, checkpoint, architecture)
    if checkpoint.dense or pooled_by not in ("MEAN", "CLS"):
        what = "Dense modules after pooling" if checkpoint.dense else f"the pooling {pooled_by}"
        raise TrainError(f"{name} has {what}, which training would lose; start from a checkpoint with one vector per text by mean or cls, without them.")
    with readable(checkpoint.config):
        refuse_lost_layers(checkpoint.config, architecture.sizes(checkpoint.config, checkpoint.tensors))
        longest = architecture.longest_position(checkpoint.config, checkpoint.tensors)
    tokenizer_json, special_tokens = _tokenizer(checkpoint, architecture)
    prompts = chosen_prompts({}, known, checkpoint)
    return Original(
        # A checkpoint on the hub may change between two runs. Its label has the commit, once it has been loaded.
        identity=source.label if isinstance(source, sources.HubSource) else source.identity,
        config=checkpoint.config,
        tensors=checkpoint.tensors,
        tokenizer_json=tokenizer_file.lower_cased(tokenizer_json) if checkpoint.lower_case else tokenizer_json,
        special_tokens=special_tokens,
        architecture=architecture,
        window=trained_window({}, known, checkpoint, longest, 1),
        pooling=pooled_by,
        prompts=prompts,
        default_prompt_name=default_prompt_name({}, checkpoint, prompts),
        similarity_function=checkpoint.similarity_function or (known.similarity_function if known else None),
        dimensions=checkpoint.dimensions,
    )


def _tokenizer(checkpoint: Checkpoint, architecture: ModuleType) -> tuple[str, dict[str, str]]:
    """Returns the tokenizer as transformers makes it of all the tokenizer's files, and its special tokens."""
    if not checkpoint.folder:
        return tokenizer_file.strip(checkpoint.tokenizer), {}
    theirs = reference.tokenizer(transformer_folder(checkpoint.folder))
    refuse_unknown_classes(theirs, checkpoint, architecture)
    tokenizer = tokenizer_file.parse(theirs["tokenizer"])
    special = {f"{role}_token": tokenizer.id_to_token(id) for role, id in theirs["special_ids"].items() if id is not None}
    return without_rowless_tokens(tokenizer_file.strip(theirs["tokenizer"]), checkpoint, architecture), special


def full_config(original: Original) -> dict:
    """Returns config.json, completed with the sizes that a checkpoint from an ONNX file lacks."""
    sizes = original.architecture.sizes(original.config, original.tensors)
    stated = {"vocab_size": "vocabulary_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size", "num_hidden_layers": "layers"}
    return {**{key: sizes[size] for key, size in stated.items()}, **original.config}


def without_buffers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors without position_ids, which some files contain: 0, 1, 2, ... for the original's length."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}


def write(folder: Path, original: Original, config: dict, tensors: dict[str, Tensor]) -> None:
    """Writes a Hugging Face folder with the original's tokenizer, pooling and prompts. config.json is written last, so that a folder with config.json
    is complete. Raises TrainError if a file cannot be written."""
    try:
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{folder / '1_Pooling'} cannot be made ({error.strerror}); move what is in its place, and start the same command again.") from error
    modes = {"pooling_mode_mean_tokens": original.pooling == "MEAN", "pooling_mode_cls_token": original.pooling == "CLS"}
    sentences = {"prompts": original.prompts, "default_prompt_name": original.default_prompt_name}
    optional = {"similarity_fn_name": original.similarity_function, "matryoshka_dimensions": original.dimensions}
    files = {
        "1_Pooling/config.json": {"word_embedding_dimension": config["hidden_size"], **modes},
        "sentence_bert_config.json": {"max_seq_length": original.window},
        "config_sentence_transformers.json": {**sentences, **{key: value for key, value in optional.items() if value}},
        # Without this class, transformers would build a tokenizer for the model type from the vocabulary: a BERT's lower-cases, whatever tokenizer.json says.
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **original.special_tokens},
    }
    for name, content in files.items():
        _replace(folder / name, json.dumps(content, indent=1).encode())
    _replace(folder / "tokenizer.json", original.tokenizer_json.encode())
    _replace(folder / "model.safetensors", safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    _replace(folder / "config.json", json.dumps(config, indent=1).encode())


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_name(file.name + ".new")
    try:
        fresh.write_bytes(content)
        os.replace(fresh, file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise TrainError(f"{file} cannot be written ({error.strerror}); make room, and start the same command again.") from error
