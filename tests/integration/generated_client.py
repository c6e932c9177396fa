"""A Python client generated from our protos: one that we did not write."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from running_server import ROOT


def generate_client(out: Path) -> tuple[ModuleType, ModuleType]:
    """The modules (messages, stubs) that protoc makes of longembed/v1/embedding.proto, written to `out`."""
    from grpc_tools import protoc

    include = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = [f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *arguments, str(ROOT / "proto/longembed/v1/embedding.proto")]) != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, str(out))
    return importlib.import_module("longembed.v1.embedding_pb2"), importlib.import_module("longembed.v1.embedding_pb2_grpc")
