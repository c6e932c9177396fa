"""Reads a checkpoint's folder: transformers' files, and sentence-transformers' files if there are any.

Raises an ExportError with the setting's name if a setting is not supported. Settings are never ignored.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from model.export import colbert, files, reference
from model.export.errors import ExportError

# Modules of modules.json, in their order. The Transformer module has two names.
TRANSFORMERS = ("Transformer", "MLMTransformer")
SPLADE_MODULES = ["Transformer", "SpladePooling"]

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
SETTINGS_FILES = tuple(f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"))
TOKENIZER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "*.model")  # Files that transformers converts if there is no tokenizer.json.
POOLING_FOLDER = "1_Pooling"  # Used if there is no modules.json.
LARGEST_WINDOW = 1 << 31  # transformers writes 1e30 for "no limit".

POOLINGS = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}
POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken", "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
}  # fmt: skip
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
# Those of token vectors, which clients compute. "meanmaxsim" is divided by the query's number of tokens, so both rank alike, and the manifest names neither.
MULTI_VECTOR_SIMILARITIES = ("maxsim", "meanmaxsim", "MaxSim")
# Settings of sentence-transformers' Transformer module that do not change vectors, with their allowed values (None: any). All other settings must be absent or
# empty.
HARMLESS_SETTINGS = {
    "max_seq_length": None, "do_lower_case": None, "module_output_name": ("token_embeddings",), "unpad_inputs": None,
    "modality_config": None,
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One entry of modules.json. `folder` holds the module's config.json and weights."""

    kind: str  # Name of the class, such as Transformer, Pooling, Normalize.
    folder: Path


@dataclass
class Checkpoint:
    """A checkpoint, whatever its source. None and {} mean that the checkpoint's files do not set a field."""

    config: dict  # The content of config.json.
    tensors: dict  # Name -> torch.Tensor, with names as in transformers' encoder without head or prefix.
    tokenizer: str  # The text of tokenizer.json.
    lower_case: bool = False  # Whether sentence-transformers lower-cases every text before the tokenizer's own normalizer (do_lower_case).
    pooling: str | None = None  # MEAN, CLS, LAST, SPLADE for sparse vectors only, or TOKENS for token vectors only.
    multi_vector: colbert.Settings | None = None  # For a checkpoint that gives token vectors.
    splade_config: tuple | None = None  # For a SpladePooling module: (folder's name, config).
    dense: list = field(default_factory=list)  # Dense modules after pooling: (folder's name, config, tensors).
    pooling_fault: str | None = None  # Reason why the pooling of the files is not supported, as a sentence.
    prompts: dict = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_function: str | None = None  # One of SIMILARITIES.
    dimensions: list[int] = field(default_factory=list)  # Sizes to which Matryoshka vectors may be truncated.
    window: int | None = None  # Limit in tokens at which its users' library truncates.
    window_source: str | None = None  # Key and file of `window`.
    folder: Path | None = None  # Folder that its users load; None if it is not a Hugging Face folder.
    has_modules: bool = False  # Whether there is a modules.json that sentence-transformers can load.
    scratch: object = None  # Keeps a temporary folder alive as long as this object.


def read_directory(folder: Path) -> Checkpoint:
    """Reads a Hugging Face or sentence-transformers checkpoint."""
    _refuse_adapter(folder)
    modules = read_modules(folder)
    if not modules:
        _refuse_lost_modules(folder)
    transformer = transformer_folder(folder)
    _refuse_adapter(transformer)
    config = files.read_json(transformer / "config.json")
    splade, multi_vector = kinds_of(modules) == SPLADE_MODULES, is_multi_vector(folder, modules)
    settings, settings_file = _settings(transformer, splade, multi_vector)
    tokenizer_config = _tokenizer_config(transformer)
    pooling, fault = ("SPLADE", None) if splade else ("TOKENS", None) if multi_vector else _pooling(folder, modules)
    window, window_source = _window(settings, settings_file, tokenizer_config, transformer / "tokenizer_config.json")
    checkpoint = Checkpoint(
        config=config,
        tensors=files.read_tensors(transformer),
        tokenizer=_tokenizer(transformer, tokenizer_config),
        lower_case=bool(settings.get("do_lower_case")),
        pooling=pooling,
        splade_config=(modules[1].folder.name, files.read_json(modules[1].folder / "config.json")) if splade else None,
        dense=[(module.folder.name, files.read_json(module.folder / "config.json"), files.read_tensors(module.folder)) for module in modules if module.kind == "Dense"],
        pooling_fault=fault,
        window=window,
        window_source=window_source,
        folder=folder,
        has_modules=splade or multi_vector or bool(modules) and _states_dimension(modules[1].folder / "config.json"),
    )
    if multi_vector:
        _read_multi_vector(folder, modules, settings, settings_file, checkpoint)
    else:
        _read_prompts(folder / PROMPTS_FILE, checkpoint)
    checkpoint.dimensions = _dimensions(transformer / "config.json", config) or checkpoint.dimensions
    return checkpoint


def transformer_folder(folder: Path) -> Path:
    """Returns the folder of config.json, weights and tokenizer."""
    modules = read_modules(folder)
    transformer = modules[0].folder if modules else folder
    if not files.is_there(transformer / "config.json"):
        elsewhere = sorted(file.parent.name for file in folder.glob("*/config.json") if "model_type" in files.read_json(file))
        if modules and elsewhere:
            raise ExportError(f"{MODULES_FILE} says that the Transformer's files are in {transformer.name}, but they are in {elsewhere[0]}; correct the path.")
        snapshots = sorted(entry.name for entry in (folder / "snapshots").glob("*/"))
        better = f"such as snapshots/{snapshots[-1]} in it" if snapshots else "where config.json is"
        raise ExportError(f"{transformer.name} has no config.json; give a Hugging Face checkpoint's folder, {better}.")
    return transformer


def read_modules(folder: Path) -> list[Module]:
    """Returns the modules of modules.json, or [] if the folder has none. Raises ExportError if they are not supported."""
    file = folder / MODULES_FILE
    entries = files.read_json(file, list)
    if not entries and file.is_file():
        raise ExportError(f"{files.name_of(file)} names no modules; download it again, or remove it.")
    modules = [_module(entry, file) for entry in entries]
    kinds = kinds_of(modules)
    if kinds == SPLADE_MODULES or is_multi_vector(folder, modules):
        return modules
    more = sorted(set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"})
    if more:
        raise ExportError(f"{folder.name} has modules that are not served ({', '.join(more)}); its vectors would differ. Choose another checkpoint.")
    rest = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if modules and (kinds[:2] != ["Transformer", "Pooling"] or set(rest) - {"Dense"}):
        raise ExportError(f"{folder.name} has the modules {', '.join(kinds)}, but only Transformer, Pooling, Dense and at most one Normalize are served, in this order.")
    return modules


def kinds_of(modules: list[Module]) -> list[str]:
    return ["Transformer" if module.kind in TRANSFORMERS else module.kind for module in modules]


def is_multi_vector(folder: Path, modules: list[Module]) -> bool:
    """Returns whether a checkpoint gives one vector per token: it has Dense modules right after the Transformer, or is Stanford's ColBERT."""
    if not modules:
        return colbert.STANFORD_CLASS in (files.read_json(folder / "config.json").get("architectures") or [])
    kinds = kinds_of(modules)
    dense = kinds[1:2] == ["Dense"]
    tail = [kind for kind in kinds[1:] if kind != "Dense"]
    return kinds[0] == "Transformer" and dense and kinds[1:] == ["Dense"] * kinds.count("Dense") + tail and sorted(tail) in ([], ["MultiVectorMask", "Normalize"], ["MultiVectorMask"])


def _read_multi_vector(folder: Path, modules: list[Module], settings: dict, settings_file: Path, checkpoint: Checkpoint) -> None:
    """Reads the further settings of a multi-vector checkpoint into `checkpoint`."""
    file = folder / PROMPTS_FILE
    content = files.read_json(file)
    kind = files.value(content, "model_type", str, file, "a class's name")
    masks = [module.folder for module in modules if module.kind == "MultiVectorMask"]
    if not modules:
        checkpoint.multi_vector, checkpoint.prompts = colbert.stanford(folder)
        weight = checkpoint.tensors.get("linear.weight")
        if weight is None:
            raise ExportError(f"{folder.name} has no tensor linear.weight, which projects ColBERT's token vectors; check that its weights belong to its config.json.")
        identity = {"activation_function": "torch.nn.modules.linear.Identity"}
        checkpoint.dense = [("linear.weight", identity, {"linear.weight": checkpoint.tensors.pop("linear.weight")})]
    elif kind == colbert.PYLATE_TYPE and not masks:
        checkpoint.multi_vector, checkpoint.prompts = colbert.pylate(content, file)
    elif kind in (None, colbert.NATIVE_TYPE) and masks:
        mask_file = masks[0] / "config.json"
        checkpoint.multi_vector = colbert.native(settings, settings_file, files.read_json(mask_file), mask_file)
        checkpoint.prompts = files.texts(content, "prompts", file)
    else:
        raise ExportError(f"{files.name_of(file)} is of a {kind}, whose modules are {', '.join(kinds_of(modules))}; this form of token vectors is not supported.")
    checkpoint.prompts = {"query": "", "document": "", **checkpoint.prompts}
    _read_defaults(content, file, MULTI_VECTOR_SIMILARITIES, checkpoint)
    if checkpoint.multi_vector.query_limit is None:
        checkpoint.multi_vector.query_length = checkpoint.window
    if checkpoint.multi_vector.document_length:
        checkpoint.window, checkpoint.window_source = checkpoint.multi_vector.document_length, "the checkpoint's document length"


def _module(entry, file: Path) -> Module:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str) or not isinstance(entry.get("path", ""), str):
        raise ExportError(f"{files.name_of(file)} holds {json.dumps(entry)[:80]} instead of a module's type and path; download it again.")
    kind, path = entry["type"], Path(entry.get("path", ""))
    if kind == colbert.PYLATE_DENSE:
        kind = "sentence_transformers.Dense"
    if not kind.startswith("sentence_transformers."):
        raise ExportError(
            f"{files.name_of(file)} names the module {kind}, which is the checkpoint's own code and not sentence-transformers'; its vectors would differ. "
            "Choose another checkpoint."
        )
    if entry.get("kwargs"):
        raise ExportError(
            f"{files.name_of(file)} gives {kind} arguments (kwargs = {json.dumps(entry['kwargs'])[:80]}), which are not served; choose another checkpoint."
        )
    if path.is_absolute() or ".." in path.parts:
        raise ExportError(f"{files.name_of(file)} names a module outside its folder ({path}); correct the path.")
    return Module(kind.rsplit(".", 1)[-1], file.parent / path)


def _refuse_lost_modules(folder: Path) -> None:
    """Raises ExportError if there are folders of sentence-transformers' modules that change vectors, but no modules.json that names them."""
    found = [(re.fullmatch(r"\d+_([A-Z]\w*)", entry.name), entry.name) for entry in sorted(folder.iterdir()) if entry.is_dir()]
    lost = [name for match, name in found if match and match[1] not in ("Transformer", "Pooling", "Normalize")]
    if lost:
        raise ExportError(
            f"{folder.name} has the module {lost[0]} of sentence-transformers, but no {MODULES_FILE} that names it; download {MODULES_FILE}, or remove {lost[0]} "
            "if vectors are used without it."
        )


def _refuse_adapter(folder: Path) -> None:
    adapters = sorted(file.name for file in folder.glob("adapter_*") if file.suffix in (".json", ".safetensors", ".bin"))
    if adapters:
        raise ExportError(
            f"{folder.name} holds an adapter ({', '.join(adapters)}), which is not merged into its weights; load it with peft, call merge_and_unload(), save the "
            "result and export that."
        )


def _settings(folder: Path, splade: bool, multi_vector: bool) -> tuple[dict, Path]:
    """Returns the settings of sentence-transformers' Transformer module, and the file, which is the first one of SETTINGS_FILES with content. `splade`: the
    module's token vectors are logits. `multi_vector`: settings that colbert.py reads are allowed."""
    task, output = ("fill-mask", "logits") if splade else ("feature-extraction", "last_hidden_state")
    file = next((folder / name for name in SETTINGS_FILES if files.read_json(folder / name)), folder / SETTINGS_FILES[0])
    settings = files.read_json(file)
    files.value(settings, "do_lower_case", bool, file, "true or false")
    for key, setting in settings.items():
        if multi_vector and key in ("query_length", "document_length", "query_expansion"):
            continue
        allowed = (task,) if key == "transformer_task" else HARMLESS_SETTINGS.get(key, ())
        if setting in (None, {}, []) or allowed is None or setting in allowed:
            continue
        raise ExportError(
            f"{files.name_of(file)} says {key} = {json.dumps(setting)[:80]}, which is not served; remove it if its absence gives the same vectors."
        )
    modality = files.value(settings, "modality_config", dict, file, "an object of modalities") or {"text": {}}
    text = modality.get("text")
    if not isinstance(text, dict) or text.get("method", "forward") != "forward" or text.get("method_output_name", output) != output:
        raise ExportError(f"{files.name_of(file)} does not embed texts by {output} (modality_config.text); choose another checkpoint.")
    if "message" in modality:
        raise ExportError(
            f"{files.name_of(file)} puts every text into the tokenizer's chat template (modality_config.message), which is not served; choose another checkpoint, or "
            "train it again with texts only (modality_config without message)."
        )
    return settings, file


def _tokenizer_config(folder: Path) -> dict:
    file = folder / "tokenizer_config.json"
    content = files.read_json(file)
    if content.get("auto_map"):
        raise ExportError(
            f"{files.name_of(file)} names the checkpoint's own tokenizer code (auto_map = {json.dumps(content['auto_map'])[:80]}), which is not run; choose "
            "another checkpoint."
        )
    for key, allowed in (("split_special_tokens", False), ("truncation_side", "right")):
        if content.get(key) not in (None, allowed):
            raise ExportError(
                f"{files.name_of(file)} says {key} = {json.dumps(content[key])} but only {json.dumps(allowed)} is served; choose another checkpoint."
            )
    return content


def _window(settings: dict, settings_file: Path, tokenizer_config: dict, tokenizer_file: Path) -> tuple[int | None, str | None]:
    """Returns the limit at which sentence-transformers or the tokenizer truncates, and its source."""
    of_tokenizer = "model_max_length" if "model_max_length" in tokenizer_config else "max_len"  # The latter is the name before transformers 2.9.
    for content, key, file in ((settings, "max_seq_length", settings_file), (tokenizer_config, of_tokenizer, tokenizer_file)):
        limit = files.value(content, key, (int, float), file, "a number of tokens")
        if limit is None or limit >= LARGEST_WINDOW:
            continue
        if not limit >= 1 or not isinstance(limit, int):  # Tokenizers fail on 512.0. The first is also true for NaN.
            raise ExportError(f"{files.name_of(file)} says {key} = {limit}, which must be a whole number of tokens; correct it.")
        return limit, f"{key} of {file.name}"
    return None, None


def _pooling(folder: Path, modules: list[Module]) -> tuple[str | None, str | None]:
    """Returns (pooling, None), or (None, reason) if the pooling is not supported, or (None, None) if no file sets it."""
    file = (modules[1].folder if modules else folder / POOLING_FOLDER) / "config.json"
    if not files.is_there(file):
        return (None, f"{MODULES_FILE} names the pooling module {file.parent.name}, and {files.name_of(file)} is not there; download it") if modules else (None, None)
    config = files.read_json(file)
    if config.get("include_prompt", True) is not True:
        raise ExportError(
            f"{folder.name} leaves the prompt out of its pooling (include_prompt in {files.name_of(file)}), which is not served; choose another checkpoint."
        )
    modes = _pooling_modes(config)
    if len(modes) == 1 and modes[0] in POOLINGS:
        return POOLINGS[modes[0]], None
    by = " and ".join(modes) or "a method that it does not name"
    return None, f"{folder.name} pools by {by} ({files.name_of(file)}), but only mean, cls and last are served; choose one with --pooling if it fits"


def _states_dimension(file: Path) -> bool:
    """Returns whether sentence-transformers can load this pooling module. Files without the dimension are written by hand, for other libraries."""
    return any(key in files.read_json(file) for key in ("embedding_dimension", "word_embedding_dimension"))


def _pooling_modes(config: dict) -> list[str]:
    """Returns the pooling modes as sentence-transformers reads them: one or several names under pooling_mode, or one flag per mode in older files."""
    named = config.get("pooling_mode")
    if named is not None:
        return [str(mode) for mode in (named if isinstance(named, list) else [named])]
    return [POOLING_MODES.get(key, key) for key, flag in config.items() if key.startswith("pooling_mode") and flag not in (False, None)]


def _read_prompts(file: Path, checkpoint: Checkpoint) -> None:
    """Reads prompts and other settings of config_sentence_transformers.json into `checkpoint`."""
    content = files.read_json(file)
    kind = files.value(content, "model_type", str, file, "a class's name")
    served = "SparseEncoder" if checkpoint.pooling == "SPLADE" else "SentenceTransformer"
    if kind not in (None, served):
        raise ExportError(f"{files.name_of(file)} is of a {kind}, but with these modules only a {served} is served; choose another checkpoint.")
    if files.value(content, "max_active_dims", int, file, "a number of weights"):
        raise ExportError(f"{files.name_of(file)} cuts every vector (max_active_dims), which is not served; remove it and let requests name their max_terms.")
    checkpoint.prompts = files.texts(content, "prompts", file)
    checkpoint.similarity_function = _read_defaults(content, file, SIMILARITIES, checkpoint)


def _read_defaults(content: dict, file: Path, similarities: tuple[str, ...], checkpoint: Checkpoint) -> str | None:
    """Reads the defaults of every kind of checkpoint into `checkpoint`, whose prompts are known. Returns the similarity function, one of `similarities`."""
    name = files.value(content, "default_prompt_name", str, file, "a prompt's name")
    if name is not None and name not in checkpoint.prompts:
        raise ExportError(
            f"{files.name_of(file)} says default_prompt_name = {name!r}, which is not one of its prompts ({', '.join(checkpoint.prompts) or 'none'}); correct it."
        )
    checkpoint.default_prompt_name = name
    similarity = files.value(content, "similarity_fn_name", str, file, "a similarity function's name")
    if similarity not in (None, *similarities):
        raise ExportError(f"{files.name_of(file)} says similarity_fn_name = {similarity!r}, which is not one of {', '.join(similarities)}; correct it.")
    if files.value(content, "truncate_dim", int, file, "a number of dimensions"):
        raise ExportError(f"{files.name_of(file)} cuts every vector (truncate_dim), which is not served; remove it and let requests name their dimensions.")
    checkpoint.dimensions = _dimensions(file, content)
    return similarity


def _dimensions(file: Path, content: dict) -> list[int]:
    """Returns the sizes to which a Matryoshka checkpoint's vectors may be truncated."""
    found = files.value(content, "matryoshka_dimensions", list, file, "an array of dimensions") or []
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in found):
        raise ExportError(f"{files.name_of(file)} says matryoshka_dimensions = {json.dumps(found)[:80]}, which must be whole numbers above 0; correct it.")
    return sorted(set(found))


def _tokenizer(folder: Path, tokenizer_config: dict) -> str:
    """Returns the text of tokenizer.json. If the tokenizer is in other files, transformers converts them."""
    for other in folder.glob("*.json"):
        files.is_there(other)
    file = folder / "tokenizer.json"
    if not file.is_file():
        for pattern in TOKENIZER_FILES:
            for other in folder.glob(pattern):
                files.refuse_pointer(other)
        return reference.tokenizer(folder)["tokenizer"]
    truncation = files.value(files.read_json(file), "truncation", dict, file, "an object")
    if truncation and truncation.get("direction") == "Left" and not tokenizer_config.get("truncation_side"):
        raise ExportError(f"{files.name_of(file)} truncates texts on the left (truncation.direction), but only the right is served; choose another checkpoint.")
    return files.read_text(file)
