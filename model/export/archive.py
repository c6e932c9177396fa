"""Writes a graph as a TorchScript archive, one weight at a time: no more than the largest of them is in memory.

torch.jit.save takes a module whose weights are there. So the graph is saved with stand-ins of the right shapes and no content, and copied record by record with
the weights in their places. An archive is a zip file without compression of its tensors: data/N is the content of a storage, and data.pkl says how long each is.
"""

import io
import json
import pickletools
import struct
import sys
import warnings
from pathlib import Path
from typing import BinaryIO, Iterator

import torch
from torch import nn

from model.export.deferred import Deferred

CONTRACT_FILE = "longembed.json"  # Which arguments the graph takes. The loader reads it first.
MARK = b"deferred"  # Begins a stand-in's content; its number follows.
PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
LONG1 = b"\x8a"  # Pickle's operation for an integer of so many bytes.
PROGRESS_BYTES = 2 << 30  # A line each.


class _Content:
    """The content of one storage of the archive, computed when it is written."""

    def __init__(self, weight: Deferred, dtype: torch.dtype):
        self._weight, self.dtype = weight, dtype
        self.elements = weight.numel()
        self.bytes = self.elements * dtype.itemsize

    def storage(self) -> torch.UntypedStorage:
        value = self._weight.narrow_value() if self.dtype in PRECISIONS else self._weight.value()
        tensor = value.detach().to(self.dtype).contiguous()
        return (tensor if tensor.untyped_storage().nbytes() == self.bytes else tensor.clone()).untyped_storage()


def save(graph: nn.Module, contract: dict, to: Path | BinaryIO, narrow: bool = True) -> str:
    """Writes an archive and returns the precision of its weights, "fp32", "bf16" or "fp16". It is the checkpoint's own where every weight is exact in that and
    `narrow` allows it."""
    contents = _put_stand_ins(graph, narrow)
    skeleton = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated, and what LibTorch loads.
        torch.jit.save(torch.jit.script(graph), skeleton, _extra_files={CONTRACT_FILE: json.dumps(contract, separators=(",", ":"))})
    _copy(skeleton, contents, to)
    return PRECISIONS.get(contents[0].dtype, "fp32")


def _put_stand_ins(graph: nn.Module, narrow: bool) -> list[_Content]:
    """Replaces the graph's weights by stand-ins, and returns their contents by number. A weight that several parts share stays shared."""
    weights = {id(weight): weight for module in graph.modules() for weight in module._parameters.values() if weight is not None}
    deferred = [weight if isinstance(weight, Deferred) else Deferred.of_tensor(weight.detach()) for weight in weights.values()]
    dtype = _common_dtype(deferred) if narrow else torch.float32
    stand_ins = {key: _stand_in(number, weight.shape, dtype) for number, (key, weight) in enumerate(weights.items())}
    for module in graph.modules():
        module._parameters.update({name: stand_ins[id(weight)] for name, weight in module._parameters.items() if weight is not None})
    return [_Content(weight, dtype) for weight in deferred]


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
    """The skeleton's records with the stand-ins' content, and without debug records: these hold this machine's paths, so that no two machines would write the same
    bytes."""
    skeleton.seek(0)
    reader = torch._C.PyTorchFileReader(skeleton)
    names = reader.get_all_records()
    writer = torch._C.PyTorchFileWriter(str(to) if isinstance(to, Path) else to)
    version = ".data/version" if ".data/version" in names else "version"  # Where it stands depends on its value.
    writer.set_min_version(int(reader.get_record(version)))
    elements: dict[str, int] = {}  # By the storage's name in data.pkl.
    progress = _Progress(sum(content.bytes for content in contents))
    for name in names:
        if name.endswith(".debug_pkl") or name.startswith(".data/") or name == version:  # The writer makes these itself.
            continue
        record = reader.get_record(name)
        if name.startswith("data/") and record.startswith(MARK):
            content = contents[struct.unpack("<q", record[len(MARK) :])[0]]
            elements[name.removeprefix("data/")] = content.elements
            writer.write_record(name, content.storage(), content.bytes)
            progress.add(content.bytes)
        else:
            record = with_lengths(record, elements) if name == "data.pkl" else record  # It comes after all of data/.
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def with_lengths(pickle: bytes, elements: dict[str, int]) -> bytes:
    """data.pkl with other lengths of the storages named in `elements`. A storage is ('storage', type, name, 'cpu', length), marked by BINPERSID."""
    pieces: list[bytes] = []
    strings: list[str] = []
    for name, argument, piece in _operations(pickle):
        if name == "BINPERSID" and strings[-2] in elements:
            pieces[-2] = LONG1 + b"\x08" + struct.pack("<q", elements[strings[-2]])  # The length, which TUPLE follows.
        if isinstance(argument, str) and name in ("BINUNICODE", "BINGET", "LONG_BINGET"):
            strings.append(argument)
        pieces.append(piece)
    return b"".join(pieces)


def _operations(pickle: bytes) -> Iterator[tuple[str, object, bytes]]:
    """Name, argument and bytes of each operation; the argument of one that reads the memo is what was put there, if that was a text."""
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
    """Says how far the writing of a large archive is."""

    def __init__(self, total: int):
        self._total, self._done, self._said = total, 0, 0

    def add(self, written: int) -> None:
        self._done += written
        if self._done - self._said >= PROGRESS_BYTES:
            self._said = self._done
            print(f"  {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB of weights written", file=sys.stderr, flush=True)
