"""Generates a Python client from our protos. It contains no code that we wrote."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

from running_server import ROOT


def generate_client(out: Path) -> tuple[ModuleType, ModuleType]:
    """Writes the modules that protoc generates from longembed/v1/embedding.proto to `out`. Returns them as (messages, stubs)."""
    return generate(out, "longembed/v1/embedding")


def generate_tei_client(out: Path) -> tuple[ModuleType, ModuleType]:
    return generate(out, "tei/v1/tei")


def generate(out: Path, stem: str) -> tuple[ModuleType, ModuleType]:
    """Generates modules in a package of their own, so that they coexist with the installed Python package `longembed` and share nothing with it."""
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
