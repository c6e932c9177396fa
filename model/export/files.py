"""Reads the files of a checkpoint. Raises an ExportError with the file's name and the remedy if a file cannot be read."""

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Iterable

from model.export.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Weight files in the order in which transformers looks for them. It reads only the first one that exists.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
HEAD_FILES = ("sparse_linear.pt",)  # Files of supported heads, next to the weights.
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def name_of(file: Path) -> str:
    """Returns a file's name with its folder's name, which distinguishes 1_Pooling/config.json from config.json."""
    return f"{file.parent.name}/{file.name}"


def is_there(file: Path) -> bool:
    """Returns whether a file exists. Raises ExportError for a link to nothing, such as in a copy of the hub's cache without its blobs, because without the file
    a default would apply."""
    if file.is_symlink() and not file.exists():
        raise ExportError(f"{name_of(file)} is a link to {file.readlink()}, which is not there; copy the checkpoint together with the files behind its links (cp -rL).")
    return file.is_file()


def read_bytes(file: Path) -> bytes:
    refuse_pointer(file)
    return file.read_bytes()


def read_text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"{name_of(file)} is not UTF-8 text (byte {error.start}); download it again.") from None


def refuse_pointer(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ExportError(f"{name_of(file)} is a git-LFS pointer instead of the file itself; run `git lfs pull` in the checkpoint's repository.")


def read_json(file: Path, kind: type = dict):
    """Returns the file's content, which must be a JSON object (or an array if `kind` is list). Returns an empty one if the file does not exist."""
    if not is_there(file):
        return kind()
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:  # Also for numbers of thousands of digits, and for arrays nested as deeply.
        raise ExportError(f"{name_of(file)} is not JSON ({error}); download it again.") from None
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "an array"
        raise ExportError(f"{name_of(file)} holds {_kind_of(content)} instead of {wanted}; download it again.")
    return content


def value(content: dict, key: str, kind: type | tuple[type, ...], file: Path, wanted: str):
    """Returns content[key], or None if it is absent or null. `wanted` describes the expected kind in the error."""
    found = content.get(key)
    if found is None:
        return None
    if not isinstance(found, kind) or isinstance(found, bool) and kind is not bool:
        raise ExportError(f"{name_of(file)} says {key} = {json.dumps(found)[:80]}, which must be {wanted}; correct it.")
    return found


def texts(content: dict, key: str, file: Path) -> dict[str, str]:
    """Returns a mapping of names to texts. Names with null are dropped, as in sentence-transformers."""
    found = value(content, key, dict, file, "an object of names and texts") or {}
    for name, text in found.items():
        if not name:
            raise ExportError(f"{name_of(file)} has {key} with an empty name, by which no request can ask for it; name it.")
        if not is_utf8(name + (text if isinstance(text, str) else "")):
            raise ExportError(f"{name_of(file)} says {key}.{ascii(name)[1:-1]} = {json.dumps(text)[:80]}, which has half of a surrogate pair; correct it.")
        if text is not None and not isinstance(text, str):
            raise ExportError(f"{name_of(file)} says {key}.{name} = {json.dumps(text)[:80]}, which must be a string; correct it.")
    return {name: text for name, text in found.items() if text is not None}


def is_utf8(text: str) -> bool:
    """Returns whether a text can be written in UTF-8. Python reads other bytes of names and arguments, and halves of pairs in JSON, as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _kind_of(content) -> str:
    return {dict: "an object", list: "an array", str: "a string", type(None): "null"}.get(type(content), "a number or a boolean")


def weight_files(folder: Path) -> list[Path]:
    """Returns the weight files that transformers reads: a single file, or the shards in an index."""
    for name in WEIGHT_FILES:
        file = folder / name
        if is_there(file):
            return [folder / shard for shard in sorted(set(_weight_map(file).values()))] if name.endswith(".json") else [file]
    others = _weights_beside(folder, used=[])
    if others:
        raise ExportError(
            f"{folder.name} holds {', '.join(others[:3])} and none of {', '.join(WEIGHT_FILES)}, which transformers looks for; add the index of the shards "
            "or rename the file."
        )
    raise ExportError(f"{folder.name} has no weights; it needs model.safetensors or pytorch_model.bin.")


def ignored_weights(folder: Path) -> list[str]:
    """Returns the names of weight files that neither transformers nor the exporter reads, such as a backup, another precision or another framework's weights."""
    used = weight_files(folder)
    # pytorch_model files are excluded, because many repositories have them in addition to safetensors.
    return [name for name in _weights_beside(folder, used) if not name.startswith("pytorch_model")]


def _weights_beside(folder: Path, used: Iterable[Path]) -> list[str]:
    names = {*HEAD_FILES, *(file.name for file in used)}
    return sorted(file.name for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES and file.name not in names and file.name != "training_args.bin")


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) and Path(name).name == name for name in found.values()):
        raise ExportError(f"{name_of(index)} has no weight_map of tensors to files next to it; download it again.")
    return found


def read_tensors(folder: Path) -> dict[str, "Tensor"]:
    files = weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not is_there(file):
            raise ExportError(f"{name_of(file)} is not there, though the index of the weights names it; download the rest of the checkpoint.")
        refuse_pointer(file)
        tensors |= _safetensors(file) if file.suffix == ".safetensors" else pickled_tensors(file)
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            missing = set(_weight_map(folder / name)) - set(tensors) if name.endswith(".json") else ()
            if missing:
                raise ExportError(f"no shard holds {min(missing)}, though {name} names it; download the checkpoint again.")
            break
    return tensors


def locate_tensors(folder: Path) -> dict[str, Path]:
    """Returns the safetensors file of each tensor. Tensors in other kinds of files are not included."""
    import safetensors

    located: dict[str, Path] = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt") as content:
                located |= dict.fromkeys(content.keys(), file)
    return located


def _safetensors(file: Path) -> dict[str, "Tensor"]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, KeyError) as error:
        size = file.stat().st_size
        raise ExportError(f"{name_of(file)} ({size} bytes) is not a whole safetensors file ({error}); download it again.") from None


def pickled_tensors(file: Path) -> dict[str, "Tensor"]:
    import torch

    advice = "save the model with `save_pretrained(folder, safe_serialization=True)`, which writes model.safetensors, and export that folder"
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ExportError(f"{name_of(file)} holds pickled objects other than tensors, and reading it would run its code; {advice}.") from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise ExportError(f"{name_of(file)} is not a whole PyTorch file ({_first_line(error)}); download it again.") from None
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()):
        raise ExportError(f"{name_of(file)} is not a mapping of names to tensors; {advice}.")
    for name, tensor in content.items():
        if tensor.is_quantized or tensor.is_meta or tensor.layout is not torch.strided:
            kind = "quantized" if tensor.is_quantized else "without content" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            raise ExportError(f"{name_of(file)} holds the tensor {name}, which is {kind} instead of plain numbers; export the checkpoint that it was made from.")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
