"""Lists the surface of our protos as lines of text, for comparison with released versions.

    python tests/proto/surface.py --record    writes tests/golden/proto_surface.txt
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "proto"
GOLDEN = ROOT / "tests/golden/proto_surface.txt"
OURS = ("longembed/v1/embedding.proto", "tei/v1/tei.proto")
COPIES = ("google/rpc/status.proto", "google/rpc/error_details.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1alpha/reflection.proto")

Field = descriptor_pb2.FieldDescriptorProto


def files(names: tuple[str, ...] = OURS) -> list[descriptor_pb2.FileDescriptorProto]:
    """Returns the descriptors that protoc makes of these files, without their imports."""
    from grpc_tools import protoc

    well_known = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.pb"
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--descriptor_set_out={out}", *names]) != 0:
            raise RuntimeError("protoc failed; the lines above say why")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def type_of(field: Field) -> str:
    return field.type_name.lstrip(".") or Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def presence_of(message: descriptor_pb2.DescriptorProto, field: Field) -> str:
    if field.label == Field.LABEL_REPEATED:
        return "repeated "
    if field.proto3_optional:
        return "optional "
    return f"oneof {message.oneof_decl[field.oneof_index].name} " if field.HasField("oneof_index") else ""


def of_enum(scope: str, enum: descriptor_pb2.EnumDescriptorProto):
    for value in enum.value:
        yield f"value {scope}.{enum.name}.{value.name}", str(value.number)


def of_message(scope: str, message: descriptor_pb2.DescriptorProto):
    name = f"{scope}.{message.name}"
    yield f"message {name}", "{}"
    for field in message.field:
        yield f"field {name}.{field.name}", f"{field.number} {presence_of(message, field)}{type_of(field)}"
    for nested in message.nested_type:
        yield from of_message(name, nested)
    for enum in message.enum_type:
        yield from of_enum(name, enum)


def of_service(scope: str, service: descriptor_pb2.ServiceDescriptorProto):
    for method in service.method:
        request, response = (
            ("stream " if streaming else "") + name.lstrip(".")
            for streaming, name in ((method.client_streaming, method.input_type), (method.server_streaming, method.output_type))
        )
        yield f"rpc {scope}.{service.name}.{method.name}", f"({request}) returns ({response})"


def surface() -> dict[str, str]:
    """Returns {name: what clients rely on}."""
    found = {}
    for file in files():
        for option, value in file.options.ListFields():
            found[f"option {file.name} {option.name}"] = str(value)
        for part in (*file.message_type, *file.enum_type, *file.service):
            make = {"DescriptorProto": of_message, "EnumDescriptorProto": of_enum, "ServiceDescriptorProto": of_service}[type(part).__name__]
            found.update(make(file.package, part))
    return found


def released() -> dict[str, str]:
    lines = (line.partition(" = ") for line in GOLDEN.read_text(encoding="utf-8").splitlines())
    return {name: value for name, _, value in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", required=True, help=f"write {GOLDEN.relative_to(ROOT)}")
    parser.parse_args()
    GOLDEN.write_text("".join(f"{name} = {value}\n" for name, value in surface().items()), encoding="utf-8")


if __name__ == "__main__":
    main()
