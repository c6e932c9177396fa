"""Writes a graph as a TorchScript archive, with at most one weight in memory at a time.

torch.jit.save needs a module whose weights are in memory. Therefore the graph is first saved with stand-ins, which have the right shapes but no content. This
archive is then copied record by record, with the stand-ins replaced by the weights. An archive is a zip file whose tensors are not compressed: data/N is the
content of a storage, and data.pkl has its length.
"""

import io
import json
import math
import pickletools
import shutil
import struct
import sys
import warnings
from pathlib import Path
from typing import BinaryIO, Iterator

import torch
from torch import nn

from model.export.deferred import Deferred
from model.export.errors import ExportError

CONTRACT_FILE = "longembed.json"  # Describes the arguments of the graph. The loader reads it first.
MARK = b"deferred"  # Beginning of a stand-in's content, followed by its number.
PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
LONG1 = b"\x8a"  # Pickle's operation for an integer with a given number of bytes.
PROGRESS_BYTES = 2 << 30  # Bytes per line of progress.


class _Content:
    """The content of one storage of the archive, computed when it is written."""

    def __init__(self, name: str, weight: Deferred, dtype: torch.dtype):
        self._name, self._weight, self.dtype = name, weight, dtype
        self.elements = weight.numel()
        self.bytes = self.elements * dtype.itemsize

    def storage(self) -> torch.UntypedStorage:
        value = self._weight.narrow_value() if self.dtype in PRECISIONS else self._weight.value()
        tensor = value.detach().to(self.dtype).contiguous()
        self._refuse_unusable(tensor)
        return (tensor if tensor.untyped_storage().nbytes() == self.bytes else tensor.clone()).untyped_storage()

    def _refuse_unusable(self, tensor: torch.Tensor) -> None:
        """Raises ExportError for an empty weight, NaN and infinity. The check would not find them in a row that none of its texts needs. Makes no copy of the tensor."""
        if not tensor.numel():
            raise ExportError(f"the checkpoint has an empty weight ({self._name} of the graph); take its weights from the original checkpoint.")
        if not all(math.isfinite(bound) for bound in tensor.aminmax()):  # Both bounds are NaN if one of the numbers is.
            raise ExportError(
                f"the checkpoint's weights are not all finite numbers ({self._name} of the graph has NaN or infinity), so some texts would get no vector; take them from "
                "the original checkpoint, or save it again in float32 or bfloat16."
            )


def save(graph: nn.Module, contract: dict, to: Path | BinaryIO, narrow: bool = True) -> str:
    """Writes an archive and returns the precision of its weights, "fp32", "bf16" or "fp16". If `narrow`, this is the checkpoint's own precision, provided that
    it represents every weight exactly."""
    contents = _put_stand_ins(graph, narrow)
    if isinstance(to, Path):
        _refuse_full_disk(to.parent, sum(content.bytes for content in contents))
    skeleton = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated, but it is what LibTorch loads.
        torch.jit.save(torch.jit.script(graph), skeleton, _extra_files={CONTRACT_FILE: json.dumps(contract, separators=(",", ":"))})
    _copy(skeleton, contents, to)
    return PRECISIONS.get(contents[0].dtype, "fp32")


def _refuse_full_disk(folder: Path, needed: int) -> None:
    """Raises ExportError if the disk has no room. LibTorch's writer would end the process with SIGABRT."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExportError(f"{folder} has {free >> 20} MiB free, and the model needs {(needed >> 20) + 1} MiB; free some, or give a folder on another disk.")


def _put_stand_ins(graph: nn.Module, narrow: bool) -> list[_Content]:
    """Replaces the graph's weights by stand-ins, and returns their contents by number. A weight that several parts share remains shared."""
    named = {id(weight): (name, weight) for name, weight in graph.named_parameters()}  # Each weight once, with the first of its names.
    weights = {key: weight for key, (_, weight) in named.items()}
    deferred = [weight if isinstance(weight, Deferred) else Deferred.of_tensor(weight.detach()) for weight in weights.values()]
    dtype = _common_dtype(deferred) if narrow else torch.float32
    stand_ins = {key: _stand_in(number, weight.shape, dtype) for number, (key, weight) in enumerate(weights.items())}
    for module in graph.modules():
        module._parameters.update({name: stand_ins[id(weight)] for name, weight in module._parameters.items() if weight is not None})
    return [_Content(name, weight, dtype) for (name, _), weight in zip(named.values(), deferred)]


def _common_dtype(weights: list[Deferred]) -> torch.dtype:
    kinds = {weight.narrow for weight in weights}
    return kinds.pop() if len(kinds) == 1 and None not in kinds else torch.float32


def _stand_in(number: int, shape: torch.Size, dtype: torch.dtype) -> nn.Parameter:
    tensor = torch.empty(shape, dtype=dtype)
    content = tensor.untyped_storage()
    content.resize_(len(MARK) + 8)
    torch.tensor([], dtype=torch.uint8).set_(content)[:] = torch.frombuffer(bytearray(MARK + struct.pack("<q", number)), dtype=torch.uint8)
    return nn.Parameter(tensor, requires_grad=False)


def _copy(skeleton: io.BytesIO, contents: list[_Content], to: Path | BinaryIO) -> None:
    """Copies the skeleton's records, replaces stand-ins by their content, and drops debug records. Debug records hold paths of this machine, so different
    machines would write different bytes."""
    skeleton.seek(0)
    reader = torch._C.PyTorchFileReader(skeleton)
    names = reader.get_all_records()
    writer = torch._C.PyTorchFileWriter(str(to) if isinstance(to, Path) else to)
    version = ".data/version" if ".data/version" in names else "version"  # The record's name depends on the version.
    writer.set_min_version(int(reader.get_record(version)))
    elements: dict[str, int] = {}  # Number of elements, by the storage's name in data.pkl.
    progress = _Progress(sum(content.bytes for content in contents))
    for name in names:
        if name.endswith(".debug_pkl") or name.startswith(".data/") or name == version:  # The writer creates these itself.
            continue
        record = reader.get_record(name)
        if name.startswith("data/") and record.startswith(MARK):
            content = contents[struct.unpack("<q", record[len(MARK) :])[0]]
            elements[name.removeprefix("data/")] = content.elements
            writer.write_record(name, content.storage(), content.bytes)
            progress.add(content.bytes)
        else:
            record = with_lengths(record, elements) if name == "data.pkl" else record  # data.pkl comes after all records of data/.
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def with_lengths(pickle: bytes, elements: dict[str, int]) -> bytes:
    """Returns data.pkl with the lengths of the storages replaced by those in `elements`. A storage is the tuple ('storage', type, name, 'cpu', length),
    followed by the operation BINPERSID."""
    pieces: list[bytes] = []
    strings: list[str] = []
    for name, argument, piece in _operations(pickle):
        if name == "BINPERSID" and strings[-2] in elements:
            pieces[-2] = LONG1 + b"\x08" + struct.pack("<q", elements[strings[-2]])  # The length, which is before the operation TUPLE.
        if isinstance(argument, str) and name in ("BINUNICODE", "BINGET", "LONG_BINGET"):
            strings.append(argument)
        pieces.append(piece)
    return b"".join(pieces)


def _operations(pickle: bytes) -> Iterator[tuple[str, object, bytes]]:
    """Yields name, argument and bytes of each operation. The argument of an operation that reads the memo is the memo's entry if that is a text."""
    memo: dict[int, object] = {}
    found = [(operation.name, argument, position) for operation, argument, position in pickletools.genops(pickle)]
    last: object = None
    for (name, argument, start), (_, _, end) in zip(found, [*found[1:], ("", None, len(pickle))]):
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = last
        elif name in ("BINGET", "LONG_BINGET"):
            argument = memo.get(argument)
        last = argument if name == "BINUNICODE" else None
        yield name, argument, pickle[start:end]


class _Progress:
    """Reports the progress of writing a large archive."""

    def __init__(self, total: int):
        self._total, self._done, self._said = total, 0, 0

    def add(self, written: int) -> None:
        self._done += written
        if self._done - self._said >= PROGRESS_BYTES:
            self._said = self._done
            print(f"  {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB of weights written", file=sys.stderr, flush=True)
