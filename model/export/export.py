"""One export: load, describe, build, check, write."""

import importlib.metadata
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import torch
from tokenizers import Tokenizer

from model.export import architectures, check, checkpoints, manifest, text_side
from model.export.errors import ExportError
from model.export.sources import Checkpoint, Source

CONTRACT_FILE = "longembed.json"  # Inside encoder.pt: which arguments the graph takes. The loader reads it first.
CONTRACT_VERSION = 1


def export(source: Source, overrides: dict, request: dict, out: Path) -> None:
    """Writes a model directory to `out`, or raises ExportError and leaves `out` as it was. `overrides` and `request` come from the command line."""
    refuse_foreign_directory(out)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # OpenMP's threads spin: as many as cores crawl beside any other busy process.
    checkpoint = source.load()
    architecture = architectures.find(checkpoint.config)
    name = overrides.get("name", source.default_name)
    say(f"{name}: {architecture.ARCHITECTURE}, {len(checkpoint.tensors)} tensors")

    tokenizer_json = text_side.strip(checkpoint.tokenizer)
    content = describe(checkpoint, architecture, source, overrides, tokenizer_json)
    encoder = script(architecture, checkpoint)
    say("graph compiled; comparing it with transformers")
    report = check.check(
        torch.jit.load(io.BytesIO(encoder)), architecture.reference(checkpoint.config, checkpoint.tensors),
        Tokenizer.from_str(tokenizer_json), content, longest_sample(content),
    )  # fmt: skip
    say(str(report))

    content["exporter"] = {"version": manifest.EXPORTER_VERSION, **library_versions(), "request": request}
    write(out, encoder, tokenizer_json, content)


def describe(checkpoint: Checkpoint, architecture: ModuleType, source: Source, overrides: dict, tokenizer_json: str) -> dict:
    """The manifest without its version, exporter and files. The command line outranks the table of known checkpoints, that the checkpoint's own files."""
    name = overrides.get("name", source.default_name)
    known = checkpoints.find(source.default_name) or checkpoints.find(name)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    sizes = architecture.sizes(checkpoint.config, checkpoint.tensors)
    if tokenizer.get_vocab_size() > sizes["vocabulary_size"]:
        raise ExportError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens and the model {sizes['vocabulary_size']}; they do not belong together.")
    refuse_lost_layers(checkpoint.config, sizes)
    longest = architecture.longest_position(checkpoint.config, checkpoint.tensors)
    stride = overrides.get("position_stride", known.position_stride if known else 1)
    if stride < 1 or (stride > 1 and architecture.FAMILY != "APE"):
        raise ExportError(f"a position stride of {stride} fits no position table of this model; leave --position-stride out.")
    window = trained_window(overrides, known, checkpoint, longest, stride)
    pooled = pooling(overrides, known, checkpoint, architecture)
    prompts = {**(known.prompts if known else checkpoint.prompts), **overrides.get("prompts", {})}
    return {
        "name": name,
        "architecture": architecture.ARCHITECTURE,
        "family": architecture.FAMILY,
        **sizes,
        **({"position_stride": stride} if stride > 1 else {}),
        "trained_window": window,
        "plain_limit": longest if stride > 1 else window,
        "causal": architecture.CAUSAL,
        "pooling": pooled,
        "special_tokens": special_tokens(tokenizer, pooled, checkpoint.config),
        "prompts": prompts,
        "input_types": input_types(prompts),
        "trained_dimensions": [sizes["hidden_size"]],
        "recommended_extension": overrides.get("recommended_extension", known.recommended_extension if known else checkpoints.WINDOWS),
        "recommended_multi_vector_extension": overrides.get("recommended_multi_vector_extension", checkpoints.multi_vector_windows(known, window)),
        "precision": "fp32",
        "source": source.label,
        "licence": overrides.get("licence", known.licence if known else "unknown"),
    }


def refuse_lost_layers(config: dict, sizes: dict) -> None:
    """Sizes are read off the tensors; a file that lost some, or holds more than its configuration keeps, would give another model."""
    said = {
        "num_hidden_layers": "layers", "n_layer": "layers", "hidden_size": "hidden_size", "n_embd": "hidden_size",
        "intermediate_size": "intermediate_size", "n_inner": "intermediate_size",
    }  # fmt: skip
    for key, size in said.items():
        if config.get(key) not in (None, sizes[size]):
            raise ExportError(f"config.json says {key} = {config[key]} and the tensors are for {sizes[size]}; the checkpoint is not whole.")


def trained_window(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint, longest: int, stride: int) -> int:
    """Lo. A tuned position table has `stride` rows for each position that the model was trained on before."""
    if stride > 1 and (left_over := longest % stride):
        raise ExportError(f"a position table of {longest} rows has no stride of {stride} ({left_over} rows are left over); give another --position-stride.")
    most = longest // stride
    window = overrides.get("trained_window", known.trained_window if known else min(checkpoint.window or most, most))
    if not 3 <= window <= most:
        raise ExportError(f"a trained window of {window} does not fit this model's {most} positions; give another --trained-window.")
    return window


def pooling(overrides: dict, known: checkpoints.Known | None, checkpoint: Checkpoint, architecture: ModuleType) -> str:
    chosen = overrides.get("pooling") or (known.pooling if known else None) or checkpoint.pooling or architecture.DEFAULT_POOLING
    if chosen is None:
        raise ExportError("the checkpoint does not say how it pools; add --pooling mean, cls or last.")
    if chosen == "CLS" and architecture.CAUSAL:
        raise ExportError("the first token of a causal model sees nothing of the text; choose --pooling last or mean.")
    return chosen


def special_tokens(tokenizer: Tokenizer, pooled: str, config: dict) -> dict[str, list[int]]:
    """What the tokenizer itself puts around a text; and where the last token is the vector, an end of sequence to be it, as E5-Mistral was trained."""
    tokens = text_side.special_tokens(tokenizer)
    if pooled != "LAST" or tokens["suffix"]:
        return tokens
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    if end is None:
        raise ExportError("this model pools its last token, and its config.json names no eos_token_id to append; add one.")
    return {**tokens, "suffix": [end]}


def input_types(prompts: dict[str, str]) -> dict[str, str]:
    """QUERY and DOCUMENT, mapped to the prompts that are called so."""
    types = {"QUERY": ("query",), "DOCUMENT": ("passage", "document")}
    found = {kind: next((name for name in names if name in prompts), None) for kind, names in types.items()}
    return {kind: name for kind, name in found.items() if name}


def longest_sample(content: dict) -> int:
    """In tokens. Rows beyond the trained window are checked too, but those of a tuned table stand for other positions."""
    rows = content.get("position_rows", content["trained_window"]) if "position_stride" not in content else content["trained_window"]
    return min(rows, max(check.LENGTHS))


def script(architecture: ModuleType, checkpoint: Checkpoint) -> bytes:
    """The bytes of encoder.pt: TorchScript, not frozen, so that a loader can still replace parts."""
    contract = {"format_version": CONTRACT_VERSION, "signature": architecture.SIGNATURE, "architecture": architecture.ARCHITECTURE}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated, and what LibTorch loads.
        graph = torch.jit.script(architecture.build(checkpoint.config, checkpoint.tensors))
        torch.jit.save(graph, buffer, _extra_files={CONTRACT_FILE: json.dumps(contract, separators=(",", ":"))})
    return without_source_paths(buffer)


def without_source_paths(archive: io.BytesIO) -> bytes:
    """The same TorchScript file without debug records. They hold this machine's paths, so that no two machines would write the same bytes."""
    archive.seek(0)
    reader = torch._C.PyTorchFileReader(archive)
    kept = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(kept)
    names = reader.get_all_records()
    version = ".data/version" if ".data/version" in names else "version"  # Where it stands depends on its value.
    writer.set_min_version(int(reader.get_record(version)))
    for name in names:
        if not name.endswith(".debug_pkl") and not name.startswith(".data/") and name != version:  # The writer makes these itself.
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return kept.getvalue()


def library_versions() -> dict[str, str]:
    return {"torch": torch.__version__.split("+")[0], "transformers": importlib.metadata.version("transformers")}


def refuse_foreign_directory(out: Path) -> None:
    if out.exists() and not (out.is_dir() and ((out / manifest.FILE).exists() or not any(out.iterdir()))):
        raise ExportError(f"{out} exists and is not a model directory; choose another --out or remove it.")


def write(out: Path, encoder: bytes, tokenizer_json: str, content: dict) -> None:
    """Puts the whole directory in place at once: written beside `out`, then renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, replaced = Path(scratch) / "fresh", Path(scratch) / "replaced"
        fresh.mkdir()
        (fresh / manifest.ENCODER).write_bytes(encoder)
        (fresh / manifest.TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        manifest.write(fresh, content)
        if out.exists():
            shutil.move(out, replaced)
        fresh.rename(out)


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
