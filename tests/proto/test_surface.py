"""Tests the rules of proto/README.md: released items do not change, names are valid in every language, and copies equal the originals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, text_format

sys.path.insert(0, str(Path(__file__).resolve().parent))

import surface  # noqa: E402

BUF = shutil.which("buf") or shutil.which("buf", path=str(surface.ROOT / "build/buf/node_modules/.bin"))


def broken(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns a sentence for each thing that clients rely on and that is gone or different."""
    gone = [f"{name} ({value}) is gone" for name, value in before.items() if name not in now]
    changed = [f"{name} was {value} and is {now[name]}" for name, value in before.items() if now.get(name, value) != value]
    return gone + changed


def test_nothing_that_was_released_has_changed():
    changes = broken(surface.released(), surface.surface())
    assert not changes, "this breaks clients that exist; add a field or a package v2 instead (proto/README.md): " + "; ".join(changes)


def test_new_elements_are_recorded():
    new = [name for name in surface.surface() if name not in surface.released()]
    assert not new, "from now on clients may rely on these; record them with python tests/proto/surface.py --record: " + "; ".join(new)


def test_a_breaking_change_is_reported():
    before = surface.released()
    name = "field longembed.v1.EmbedRequest.inputs"
    assert broken(before, {key: value for key, value in before.items() if key != name}) == [f"{name} (2 repeated longembed.v1.Input) is gone"]
    renumbered = broken(before, {**before, name: "7 repeated longembed.v1.Input"})
    assert renumbered == [f"{name} was 2 repeated longembed.v1.Input and is 7 repeated longembed.v1.Input"]
    assert broken(before, {**before, "field longembed.v1.EmbedRequest.more": "9 string"}) == []


@pytest.mark.parametrize("file", surface.files(), ids=lambda file: file.name)
def test_every_language_finds_its_names(file):
    folder, stem = file.package.replace(".", "/"), Path(file.name).stem
    assert file.options.go_package == f"{folder};{file.package.replace('.', '')}"
    assert file.options.java_package == f"com.{file.package}" and file.options.java_multiple_files
    assert file.options.java_outer_classname == f"{stem.capitalize()}Proto"
    assert file.options.csharp_namespace == ".".join(part.capitalize() for part in file.package.split("."))
    assert file.options.objc_class_prefix


def enums(parts):
    for part in parts:
        yield from part.enum_type
        yield from enums(part.nested_type)


@pytest.mark.parametrize("file", surface.files(), ids=lambda file: file.name)
def test_enums_begin_at_zero_and_use_no_number_twice(file):
    for enum in (*file.enum_type, *enums(file.message_type)):
        numbers = [value.number for value in enum.value]
        assert numbers[0] == 0 and len(set(numbers)) == len(numbers), enum.name


def originals() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    from google.rpc import error_details_pb2, status_pb2
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    found = {}
    for copy, module in zip(surface.COPIES, (status_pb2, error_details_pb2, health_pb2, reflection_pb2), strict=True):
        found[copy] = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(found[copy])
    return found


def test_copies_are_the_originals():
    """A copy that a client compiles then hides nothing of the package that the client has installed."""
    known = originals()
    for copy in surface.files(surface.COPIES):
        original = known[copy.name]
        original.name = copy.name
        if copy.package == "grpc.health.v1":  # The gRPC version of the server does not have List yet.
            del original.message_type[2:], original.service[0].method[1]
        assert [method.name for service in original.service for method in service.method] in ([], ["Check", "Watch"], ["ServerReflectionInfo"])
        copy.ClearField("source_code_info"), original.ClearField("source_code_info")
        assert without_json_names(copy) == without_json_names(original), f"{copy.name} is not the original's text any more; copy it again"


def test_reflection_v1_is_v1alpha_under_another_name():
    """No Python package has v1. The server answers both with the same messages."""
    v1, alpha = surface.files(("grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto"))
    for file in (v1, alpha):
        file.ClearField("options"), file.ClearField("source_code_info")
    renamed = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(text_format.MessageToString(v1).replace("reflection.v1.", "reflection.v1alpha.").replace('reflection.v1"', 'reflection.v1alpha"'), renamed)
    renamed.name = alpha.name
    assert renamed == alpha


def without_json_names(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Removes JSON names, which generated modules lack and protoc's descriptor sets have."""
    bare = descriptor_pb2.FileDescriptorProto()
    bare.CopyFrom(file)

    def strip(messages):
        for message in messages:
            strip(message.nested_type)
            for field in message.field:
                field.ClearField("json_name")

    strip(bare.message_type)
    return bare


@pytest.mark.skipif(BUF is None, reason="buf is not installed; npm install --prefix build/buf @bufbuild/buf brings it")
def test_buf_finds_nothing():
    done = subprocess.run([BUF, "lint", "--config", "proto/buf.yaml"], cwd=surface.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
