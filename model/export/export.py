"""Runs one export: loads the checkpoint, describes it in a manifest, builds the graph, writes, checks, and moves the result into place."""

import importlib.metadata
import io
import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Callable, Iterator

import torch
from tokenizers import Tokenizer

from model.export import (
    architectures, archive, check, checkpoints, directory, files, heads, layered_check, manifest, reference, refusals, sparse_check, sparse_heads, token_check,
    tokenizer_file, unattended,
)  # fmt: skip
from model.export.deferred import Deferred
from model.export.errors import ExportError
from model.export.folder import MODULES_FILE, Checkpoint, transformer_folder
from model.export.sources import Source

CONTRACT_VERSION = 1
BY_COMMAND_LINE, BY_TABLE = "--trained-window", "the table of known checkpoints"  # Sources of a trained window that override the checkpoint's limit.


def export(source: Source, overrides: dict, request: dict, out: Path, program: Path | None = None, which_check: str = "auto") -> None:
    """Writes a model directory to `out`, or raises ExportError and leaves `out` unchanged. `overrides` and `request` come from the command line. `program` is
    longembed-embed-texts, or None to check in Python. `which_check` is "whole", "layers", or "auto", which checks a model with dense vectors only
    layer by layer if the whole check does not fit into memory."""
    refuse_foreign_directory(out)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # OpenMP's threads spin, so one thread per core is very slow while another process is busy.
    reference.start()
    checkpoint = source.load()
    architecture = find_architecture(checkpoint)
    name = overrides.get("name", source.default_name)
    say(f"{name}: {architecture.ARCHITECTURE}, {len(checkpoint.tensors)} tensors")

    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint.folder or as_folder(checkpoint, Path(scratch))
        theirs = reference.tokenizer(transformer_folder(folder))
        refuse_unknown_classes(theirs, checkpoint, architecture)
        checkpoint.tensors = deferred_tensors(checkpoint)
        tokenizer_json = without_rowless_tokens(tokenizer_file.strip(theirs["tokenizer"]), checkpoint, architecture)
        if checkpoint.lower_case:
            tokenizer_json = tokenizer_file.lower_cased(tokenizer_json)
        if checkpoint.multi_vector:
            tokenizer_json = tokenizer_file.with_markers(tokenizer_json, checkpoint.multi_vector.markers)
        end = end_of_sequence(theirs["eos"], checkpoint.config)
        with readable(checkpoint.config):
            content = describe(checkpoint, architecture, source, overrides, tokenizer_json, end)
            graph = build(architecture, checkpoint)
            sparse = sparse_head(checkpoint, content, theirs["special_ids"])
            if sparse:
                content["sparse_head"] = sparse[0]
            if checkpoint.multi_vector:
                content["token_vectors"] = token_vectors(checkpoint, architecture, tokenizer_json, theirs["special_ids"])
        dense_alone = not sparse and not checkpoint.multi_vector
        if which_check == "layers" and not dense_alone:
            raise ExportError("the checkpoint gives sparse or token vectors, which are not checked layer by layer; give --check whole.")
        by = f"pooling {content['pooling']}" + (f", sparse head {content['sparse_head']}" if sparse else "")
        say(f"graph built; {by}, trained window of {content['trained_window']} tokens (from {content['trained_window_source']})")
        content["exporter"] = {"version": manifest.EXPORTER_VERSION, **library_versions(), "request": request}
        expectation = expect(checkpoint, folder, content, overrides, source, theirs, end)
        checkpoint.tensors = {}  # Released, because the check loads its own copy.

        def write_encoder(file: Path) -> None:
            content["precision"] = archive.save(graph, contract(architecture.SIGNATURE, architecture.ARCHITECTURE), file)

        writers = {manifest.ENCODER: write_encoder, manifest.TOKENIZER: lambda file: file.write_text(tokenizer_json, encoding="utf-8")}
        if sparse:
            writers[manifest.SPARSE_HEAD] = lambda file: archive.save(sparse[1], contract(sparse_heads.SIGNATURE, architecture.ARCHITECTURE), file, narrow=False)

        def verify(fresh: Path) -> None:
            written = directory.Directory(fresh, program)
            if dense_alone and by_layers(graph, which_check):
                say(str(layered_check.check_by_layers(written, expectation)))
                return
            if content["pooling"] != "NONE":
                say(str(check.check(written, expectation, longest_sample(content))))
            if checkpoint.multi_vector:
                say(str(token_check.check_tokens(written, expectation)))
            if sparse:
                say(str(sparse_check.check_sparse(written, expectation, longest_sample(content))))

        write(out, writers, content, verify)


def find_architecture(checkpoint: Checkpoint) -> ModuleType:
    """Returns the module for the checkpoint. Raises ExportError if the module or the general rules (refusals.py) refuse the checkpoint."""
    refusals.refuse_form(checkpoint.config)
    with readable(checkpoint.config):
        architecture = architectures.find(checkpoint.config)
    refusals.refuse_config(checkpoint.config, architecture)
    refusals.refuse_weights(checkpoint.tensors, checkpoint.folder)
    return architecture


def without_rowless_tokens(tokenizer_json: str, checkpoint: Checkpoint, architecture: ModuleType) -> str:
    """Returns the tokenizer without tokens for which the model has no row, and reports these."""
    with readable(checkpoint.config):
        rows = architecture.sizes(checkpoint.config, checkpoint.tensors)["vocabulary_size"]
    stripped, beyond = tokenizer_file.without_rowless_tokens(tokenizer_json, rows)
    if beyond:
        say(f"left out of the tokenizer, because the model has no row for them: {', '.join(beyond[:8])}{', ...' if beyond[8:] else ''}; texts that spell them are split into words")
    return stripped


@contextmanager
def readable(config: dict) -> Iterator[None]:
    """Converts exceptions that an architecture's module raises for an unsuitable configuration or unsuitable weights to ExportError."""
    try:
        yield
    except KeyError as error:
        raise ExportError(f"config.json has no {error.args[0]}; take it from the original checkpoint.") from error
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200]
        raise ExportError(f"config.json and weights do not fit the architecture {config.get('model_type')!r} ({words}); check that they belong together.") from error


def as_folder(checkpoint: Checkpoint, folder: Path) -> Path:
    """Writes a checkpoint that came in another format as a Hugging Face folder, which transformers reads for the check."""
    import safetensors.torch

    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(checkpoint.config), encoding="utf-8")
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer, encoding="utf-8")
    # Without this file, transformers would build its own tokenizer from the vocabulary.
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")
    return folder


def refuse_unknown_classes(theirs: dict, checkpoint: Checkpoint, architecture: ModuleType) -> None:
    """Raises ExportError if config.json names a class that transformers does not have and no auto_map has its code, because its computation is unknown."""
    unknown = [] if checkpoint.multi_vector else theirs["unknown_architectures"]
    if unknown and not refusals.has_own_code(checkpoint.config, architecture):
        raise ExportError(
            f"config.json was written by {unknown[0]} (architectures), which transformers does not have; if its stock {checkpoint.config['model_type']} gives the same "
            "vectors, remove `architectures` from config.json."
        )


def expect(checkpoint: Checkpoint, folder: Path, content: dict, overrides: dict, source: Source, theirs: dict, end: int | None) -> check.Expectation:
    """Returns how users of the checkpoint load it, with overrides from the command line or the table of known checkpoints."""
    append_eos = chosen_eos(overrides, known_of(source, overrides))
    own_code = bool(checkpoint.config.get("auto_map")) or not theirs["model_type_is_known"]
    pooling = content["pooling"] if content["pooling"] != "NONE" else "TOKENS" if checkpoint.multi_vector else "SPLADE"
    outranked = pooling != checkpoint.pooling or content.get("default_prompt_name") != checkpoint.default_prompt_name
    return check.Expectation(
        folder=folder,
        transformer_folder=transformer_folder(folder),
        splade=vars(splade_of(checkpoint)) if pooling == "SPLADE" else None,
        dense_folders=[str(folder / name) for name, _, _ in checkpoint.dense],
        with_modules=checkpoint.has_modules and not own_code and not outranked and append_eos is None and "position_stride" not in content,
        own_code=own_code,
        lower_case=checkpoint.lower_case,
        limit=content["trained_window"] if content["trained_window_source"] in (BY_COMMAND_LINE, BY_TABLE) or "position_stride" in content else None,
        limit_in_files=checkpoint.window if (checkpoint.window_source or "").startswith("max_seq_length") else None,
        append_eos=append_eos,
        eos=end,
    )


def known_of(source: Source, overrides: dict) -> checkpoints.Known | None:
    return checkpoints.find(source.known_as) or checkpoints.find(overrides.get("name", source.known_as))


def describe(checkpoint: Checkpoint, architecture: ModuleType, source: Source, overrides: dict, tokenizer_json: str, end: int | None) -> dict:
    """Returns the manifest without its version, exporter and files. The command line has precedence over the checkpoint's files and the table of known
    checkpoints."""
    known = known_of(source, overrides)
    tokenizer = tokenizer_file.parse(tokenizer_json)
    sizes = architecture.sizes(checkpoint.config, checkpoint.tensors)
    tokens = special_tokens(tokenizer, chosen_eos(overrides, known), end)
    ids = max([tokenizer_file.largest_id(tokenizer), *tokens["prefix"], *tokens["suffix"]]) + 1
    if ids > sizes["vocabulary_size"]:
        raise ExportError(f"the tokenizer has {ids} ids, but the model has rows for {sizes['vocabulary_size']}; they do not belong together.")
    refuse_lost_layers(checkpoint.config, sizes)
    vector_size = heads.vector_size(sizes["hidden_size"], dense_layers(checkpoint))
    longest = architecture.longest_position(checkpoint.config, checkpoint.tensors)
    stride = overrides.get("position_stride", known.position_stride if known else 1)
    if stride < 1 or (stride > 1 and architecture.FAMILY != "APE"):
        raise ExportError(f"a position stride of {stride} fits no position table of this model; leave --position-stride out.")
    window = trained_window(overrides, known, checkpoint, longest, stride)
    prompts = chosen_prompts(overrides, known, checkpoint)
    pooled_by = pooling(overrides, known, checkpoint, architecture)
    several = {"recommended_multi_vector_extension": overrides.get("recommended_multi_vector_extension", checkpoints.multi_vector_windows(known, window))}
    limits = dict.fromkeys(prompts, longest if stride > 1 else window)
    if checkpoint.multi_vector:
        limits["query"] = min(checkpoint.multi_vector.query_limit or longest, longest)
    refuse_long_prompts(prompts, tokenizer, tokens, limits)
    default = default_prompt_name(overrides, checkpoint, prompts)
    similarity = checkpoint.similarity_function or (known.similarity_function if known else None)
    return {
        "name": overrides.get("name", source.default_name),
        "architecture": architecture.ARCHITECTURE,
        "family": architecture.FAMILY,
        **sizes,
        **({"vector_size": vector_size} if vector_size != sizes["hidden_size"] else {}),
        **({"position_stride": stride} if stride > 1 else {}),
        "trained_window": window,
        "trained_window_source": window_source(overrides, known, checkpoint, window),
        "plain_limit": longest if stride > 1 else window,
        "causal": is_causal(architecture, checkpoint.config),
        "pooling": "NONE" if pooled_by in ("SPLADE", "TOKENS") else pooled_by,
        "special_tokens": tokens,
        "add_eos_token": end is not None and tokens["suffix"][-1:] == [end],
        "prompts": prompts,
        **({"default_prompt_name": default} if default else {}),
        "input_types": input_types(prompts),
        "trained_dimensions": trained_dimensions(overrides, checkpoint, vector_size),
        **({"similarity_function": similarity} if similarity else {}),
        "recommended_extension": overrides.get("recommended_extension", known.recommended_extension if known else checkpoints.WINDOWS),
        **(several if pooled_by not in ("SPLADE", "TOKENS") else {}),
        **({"recommendation_evidence": known.evidence} if known and known.evidence and "recommended_extension" not in overrides else {}),
        "precision": "fp32",
        "source": source.label,
        "license": overrides.get("license", known.license if known else "unknown"),
    }


def is_causal(architecture: ModuleType, config: dict) -> bool:
    return architecture.is_causal(config) if hasattr(architecture, "is_causal") else architecture.CAUSAL


def refuse_lost_layers(config: dict, sizes: dict) -> None:
    """Raises ExportError if the config's sizes differ from the tensors', which means that the files lack layers or have more than the config."""
    said = {
        "num_hidden_layers": "layers", "n_layer": "layers", "hidden_size": "hidden_size", "n_embd": "hidden_size", "intermediate_size": "intermediate_size",
        "n_inner": "intermediate_size",
    }  # fmt: skip
    if config.get("model_type") == "distilbert":  # Other configs may have these names for something else, which no library reads.
        said |= {"n_layers": "layers", "dim": "hidden_size", "hidden_dim": "intermediate_size"}
    for key, size in said.items():
        if config.get(key) not in (None, sizes[size]):
            raise ExportError(f"config.json says {key} = {config[key]}, but the tensors are for {sizes[size]}; the checkpoint is incomplete.")


def trained_window(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint, longest: int, stride: int) -> int:
    """Returns Lo. A tuned position table has `stride` rows for each position of the original training."""
    if stride > 1 and (left_over := longest % stride):
        raise ExportError(f"a position table of {longest} rows has no stride of {stride} ({left_over} rows are left over); give another --position-stride.")
    most = longest // stride
    of_table = known.trained_window if known else most
    window = overrides.get("trained_window", min(checkpoint.window or of_table, of_table))
    if not 3 <= window <= most:
        raise ExportError(f"a trained window of {window} does not fit this model's {most} positions; give another --trained-window.")
    return window


def window_source(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint, window: int) -> str:
    """Returns where the trained window comes from, with the same precedence as `trained_window`."""
    if "trained_window" in overrides:
        return BY_COMMAND_LINE
    if known and window != checkpoint.window:
        return BY_TABLE
    return checkpoint.window_source if window == checkpoint.window else check.MODEL_POSITIONS


def pooling(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint, architecture: ModuleType) -> str:
    """Returns the pooling of the command line, the checkpoint, the table or the architecture, whichever has one first."""
    if checkpoint.multi_vector and "pooling" in overrides:
        raise ExportError("the checkpoint gives one vector per token and does not pool; leave --pooling out.")
    said = overrides.get("pooling") or checkpoint.pooling
    if said is None and checkpoint.pooling_fault:
        raise ExportError(f"{checkpoint.pooling_fault}.")
    chosen = said or (known.pooling if known else None) or architecture.DEFAULT_POOLING
    if chosen is None:
        parent = checkpoint.folder.parent if checkpoint.folder else None
        better = f", or give the folder {parent.name}, whose {MODULES_FILE} may say it" if parent and (parent / MODULES_FILE).is_file() else ""
        raise ExportError(f"the checkpoint does not say how it pools; add --pooling mean, cls or last, or splade for sparse vectors{better}.")
    if chosen == "CLS" and is_causal(architecture, checkpoint.config):
        raise ExportError("the first token of a causal model sees nothing of the text; choose --pooling last or mean.")
    return chosen


def chosen_prompts(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint) -> dict[str, str]:
    """Returns the checkpoint's own prompts, or the table's if it has none (sentence-transformers then saves empty ones), overridden by the command line's."""
    own = checkpoint.prompts if any(checkpoint.prompts.values()) or not (known and known.prompts) else known.prompts
    return {**own, **overrides.get("prompts", {})}


def refuse_long_prompts(prompts: dict[str, str], tokenizer: Tokenizer, special: dict[str, list[int]], limits: dict[str, int]) -> None:
    """Raises ExportError for a prompt that leaves no room for a text, because the server refuses every request with it. `limits` has the limit of texts with
    each prompt, in tokens."""
    for name, prompt in prompts.items():
        taken = len(tokenizer.encode(prompt, add_special_tokens=False).ids) + len(special["prefix"]) + len(special["suffix"])
        if prompt and taken >= limits[name]:
            raise ExportError(
                f"the prompt {name!r} takes {taken} of {limits[name]} tokens and leaves no room for a text; give a shorter one with --prompt '{name}=...', or another "
                "--trained-window."
            )


def default_prompt_name(overrides: dict, checkpoint: Checkpoint, prompts: dict[str, str]) -> str | None:
    name = overrides.get("default_prompt_name", checkpoint.default_prompt_name)
    if name and name not in prompts:
        raise ExportError(f"the default prompt {name!r} is not one of the model's prompts ({', '.join(prompts) or 'none'}); give another --default-prompt-name.")
    return name or None


def trained_dimensions(overrides: dict, checkpoint: Checkpoint, vector_size: int) -> list[int]:
    """Returns the sizes that the vectors are trained to be truncated to, in ascending order. The last one is the size of the whole vector."""
    sizes = overrides.get("trained_dimensions", checkpoint.dimensions)
    beyond = [size for size in sizes if size > vector_size]
    if beyond:
        raise ExportError(
            f"vectors cannot be cut to {beyond[0]} dimensions, because the model has {vector_size}; correct matryoshka_dimensions or --trained-dimensions."
        )
    return sorted({*sizes, vector_size})


def end_of_sequence(of_tokenizer: int | None, config: dict) -> int | None:
    """Returns the id of the EOS token, from the tokenizer or config.json, where it may be a list."""
    said = config.get("eos_token_id")
    said = said[0] if isinstance(said, list) and said else said
    return of_tokenizer if of_tokenizer is not None else said if isinstance(said, int) else None


def chosen_eos(overrides: dict, known: checkpoints.Known | None) -> bool | None:
    """Returns whether every text ends with EOS, or None for the behavior of the checkpoint's tokenizer."""
    return overrides.get("append_eos", known.append_eos if known else None)


def special_tokens(tokenizer: Tokenizer, append_eos: bool | None, end: int | None) -> dict[str, list[int]]:
    """Returns the special tokens that the tokenizer puts around a text. If `append_eos` is set, EOS is added at the end or removed."""
    tokens = tokenizer_file.special_tokens(tokenizer)
    if append_eos is None:
        return tokens
    if end is None:
        raise ExportError("neither tokenizer nor config.json names an EOS token (eos_token_id); add it, or leave --append-eos and --no-append-eos out.")
    ends = tokens["suffix"][-1:] == [end]
    if append_eos and not ends:
        return {**tokens, "suffix": [*tokens["suffix"], end]}
    return {**tokens, "suffix": tokens["suffix"][:-1]} if ends and not append_eos else tokens


def input_types(prompts: dict[str, str]) -> dict[str, str]:
    """Maps QUERY and DOCUMENT to the prompts with such names."""
    types = {"QUERY": ("query",), "DOCUMENT": ("document", "passage", "corpus")}  # In sentence-transformers' order.
    found = {kind: next((name for name in names if name in prompts), None) for kind, names in types.items()}
    return {kind: name for kind, name in found.items() if name}


def longest_sample(content: dict) -> int:
    """Returns the length of the longest sample in tokens. Rows beyond the trained window are checked too, except in a tuned table, where they have other
    positions."""
    rows = content.get("position_rows", content["trained_window"]) if "position_stride" not in content else content["trained_window"]
    return min(rows, max(check.LENGTHS))


def dense_layers(checkpoint: Checkpoint) -> list[heads.Dense]:
    return [heads.dense(*module, of="token_embeddings" if checkpoint.multi_vector else "sentence_embedding") for module in checkpoint.dense]


def token_vectors(checkpoint: Checkpoint, architecture: ModuleType, tokenizer_json: str, special_ids: dict[str, int]) -> dict:
    """Returns the manifest's token_vectors."""
    longest = architecture.longest_position(checkpoint.config, checkpoint.tensors)
    settings, tokenizer = checkpoint.multi_vector, Tokenizer.from_str(tokenizer_json)
    ids = {tokenizer.token_to_id(word) for word in settings.skipped_words} - {None}
    if "[UNK]" not in settings.skipped_words:
        ids -= {special_ids["unk"]}
    content = {"query_tokens": min(settings.query_limit or longest, longest), "expansion_tokens": 0, "skipped_tokens": sorted(ids)}
    if expansion := settings.expansion:
        if expansion.length > longest:
            raise ExportError(f"queries are lengthened to {expansion.length} tokens, but the model has {longest} positions; correct the length.")
        token = tokenizer.token_to_id(expansion.token) if expansion.token else special_ids["mask"] if special_ids["mask"] is not None else special_ids["eos"]
        if token is None:
            if expansion.token:
                raise ExportError(f"queries are lengthened by {expansion.token!r}, which the tokenizer does not have; correct query_expansion.")
            raise ExportError("queries are lengthened by mask tokens, but the tokenizer has neither a mask token nor an EOS; name it in tokenizer_config.json.")
        content |= {"expansion_tokens": expansion.length, "expansion_token": token, "expansion_attended": expansion.attend}
    return content


def splade_of(checkpoint: Checkpoint) -> sparse_heads.Splade:
    """Returns the settings of the checkpoint's SpladePooling, or sentence-transformers' defaults for a bare masked language model."""
    own = checkpoint.splade_config
    return sparse_heads.splade_settings(*own) if own else sparse_heads.Splade()


def sparse_head(checkpoint: Checkpoint, content: dict, special_ids: dict[str, int]) -> tuple[str, torch.nn.Module] | None:
    """Returns (the manifest's sparse_head, the graph of sparse_head.pt), or None if the checkpoint has no sparse head."""
    folder = checkpoint.folder and transformer_folder(checkpoint.folder)
    if content["pooling"] == "NONE" and not checkpoint.multi_vector:
        settings = splade_of(checkpoint)
        kind, head = settings.kind, sparse_heads.splade(checkpoint.config, checkpoint.tensors, settings)
    elif folder and sparse_heads.token_weights_file(folder):
        if checkpoint.dense:
            raise ExportError(f"{folder.name} has {sparse_heads.TOKEN_WEIGHTS_FILE} and Dense modules, which no known checkpoint has together; remove one of them.")
        kind, head = "TOKEN_WEIGHTS", sparse_heads.token_weights(folder, special_ids, content["hidden_size"], content["vocabulary_size"])
    else:
        return None
    return kind, head


def deferred_tensors(checkpoint: Checkpoint) -> dict[str, Deferred]:
    """Returns the checkpoint's tensors, each of which is read when it is written."""
    files_of = files.locate_tensors(transformer_folder(checkpoint.folder)) if checkpoint.folder else {}
    return {
        name: Deferred.of_file(files_of[name], name, tensor) if name in files_of else Deferred.of_tensor(tensor) for name, tensor in checkpoint.tensors.items()
    }


def build(architecture: ModuleType, checkpoint: Checkpoint) -> torch.nn.Module:
    graph = architecture.build(checkpoint.config, checkpoint.tensors)
    if checkpoint.dense:
        heads.attach(graph, dense_layers(checkpoint))
    if checkpoint.multi_vector and checkpoint.multi_vector.expansion and not checkpoint.multi_vector.expansion.attend:
        unattended.attach(graph, checkpoint.multi_vector.expansion.length)
    return graph


def by_layers(graph: torch.nn.Module, which_check: str) -> bool:
    """Returns whether to check layer by layer. The whole check has the weights in memory three times in float32: in the users' library, the graph, and the
    model library."""
    whole = 3 * 4 * sum(weight.numel() for weight in graph.parameters())
    available = layered_check.available_memory()
    if which_check == "auto" and whole > available:
        say(f"checking layer by layer: the whole check takes {whole / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are available")
    return which_check == "layers" or which_check == "auto" and whole > available


def contract(signature: str, architecture: str) -> dict:
    return {"format_version": CONTRACT_VERSION, "signature": signature, "architecture": architecture}


def script(architecture: ModuleType, checkpoint: Checkpoint) -> bytes:
    """Returns the bytes of encoder.pt. The TorchScript is not frozen, so that a loader can still replace parts."""
    buffer = io.BytesIO()
    archive.save(build(architecture, checkpoint), contract(architecture.SIGNATURE, architecture.ARCHITECTURE), buffer)
    return buffer.getvalue()


def library_versions() -> dict[str, str]:
    return {"torch": torch.__version__.split("+")[0], "transformers": importlib.metadata.version("transformers")}


def refuse_foreign_directory(out: Path) -> None:
    if out.exists() and not (out.is_dir() and ((out / manifest.FILE).exists() or not any(out.iterdir()))):
        raise ExportError(f"{out} exists and is not a model directory; choose another --out or remove it.")
    if os.path.ismount(out):
        raise ExportError(f"{out} is a mount point, which cannot be replaced as a whole; choose a folder in it.")


def write(out: Path, writers: dict[str, Callable[[Path], object]], content: dict, verify: Callable[[Path], None]) -> None:
    """Writes a directory next to `out`, verifies it, and then moves it into place as a whole. `writers` maps file names to functions that write them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, replaced = Path(scratch) / "fresh", Path(scratch) / "replaced"
        fresh.mkdir()
        for name, write_file in writers.items():
            write_file(fresh / name)
        manifest.write(fresh, content)
        verify(fresh)
        try:
            if out.exists():
                out.rename(replaced)
            try:
                fresh.rename(out)
            except OSError:
                if replaced.exists():
                    replaced.rename(out)
                raise
        except OSError as error:  # A mount point, for example. Moving its files one by one could lose them.
            raise ExportError(f"{out} cannot be replaced ({error.strerror}); choose another --out.") from error


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
