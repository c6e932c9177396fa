"""A Python client generated from our protos: one that we did not write."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

from running_server import ROOT


def generate_client(out: Path) -> tuple[ModuleType, ModuleType]:
    """The modules (messages, stubs) that protoc makes of longembed/v1/embedding.proto, written to `out`."""
    return generate(out, "longembed/v1/embedding")


def generate_tei_client(out: Path) -> tuple[ModuleType, ModuleType]:
    return generate(out, "tei/v1/tei")


def generate(out: Path, stem: str) -> tuple[ModuleType, ModuleType]:
    """Below a package of its own, so that it stands beside the installed Python package `longembed`, and shares nothing with it."""
    from grpc_tools import protoc

    copy = out / "protos" / f"generated_protos/{stem}.proto"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / f"proto/{stem}.proto", copy)
    include = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = [f"-I{out / 'protos'}", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *arguments, str(copy)]) != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, str(out))
    module = f"generated_protos.{stem.replace('/', '.')}"
    return importlib.import_module(f"{module}_pb2"), importlib.import_module(f"{module}_pb2_grpc")
