"""Writes openapi.json: longembed.v1 from its proto, comments included, and the other dialects from dialects.py.

    build/venv/bin/python server/api/http/openapi.py [--check]

--check writes nothing, and fails if the file would change.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

import dialects

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OUT = HERE / "openapi.json"
PACKAGE = ".longembed.v1."
SERVICE = "EmbeddingService"
# JSON forms of protobuf's own messages, and of google.rpc.Status, whose details each have a type.
WELL_KNOWN = {
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["0.25s"]},
    ".google.rpc.Status": {"$ref": "#/components/schemas/Status"},
}
STATUS = {
    "type": "object",
    "description": "google.rpc.Status.",
    "properties": {
        "code": {"type": "integer", "description": "google.rpc.Code; 3 is INVALID_ARGUMENT."},
        "message": {"type": "string", "description": "A sentence that names field, value and limit."},
        "details": {
            "type": "array",
            "description": "google.rpc.BadRequest, ErrorInfo and RetryInfo, each with its type under @type.",
            "items": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
        },
    },
}
UINT32 = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_UINT32: UINT32,
    Field.TYPE_UINT64: {"type": "string", "pattern": r"^\d+$", "format": "uint64"},  # Many readers parse numbers as doubles, which lose digits.
    Field.TYPE_FLOAT: {"type": "number"},
    Field.TYPE_DOUBLE: {"type": "number"},
}


class Proto:
    """The descriptors of longembed.v1, with all their comments."""

    def __init__(self):
        with tempfile.NamedTemporaryFile(suffix=".pb") as out:
            includes = [f"-I{ROOT / 'proto'}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
            flags = ["--include_source_info", f"--descriptor_set_out={out.name}", "longembed/v1/embedding.proto"]
            if protoc.main(["protoc", *includes, *flags]) != 0:
                raise SystemExit("protoc failed")
            [self.file] = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
        self.comments = {tuple(place.path): self.comment(place) for place in self.file.source_code_info.location}
        self.messages, self.enums = {}, {}
        for i, message in enumerate(self.file.message_type):
            self.add(message, (4, i), "")

    @staticmethod
    def comment(place) -> str:
        parts = [place.leading_comments, place.trailing_comments]
        return " ".join(" ".join(part.split()) for part in parts if part.strip())

    def add(self, message, path: tuple, outer: str) -> None:
        name = outer + message.name
        self.messages[name] = (message, path)
        for i, enum in enumerate(message.enum_type):
            self.enums[f"{name}.{enum.name}"] = (enum, (*path, 4, i))
        for i, nested in enumerate(message.nested_type):
            self.add(nested, (*path, 3, i), name + ".")

    def rpc(self, name: str) -> str:
        """The service's comment on a method."""
        for s, service in enumerate(self.file.service):
            for m, method in enumerate(service.method):
                if service.name == SERVICE and method.name.lower() == name.lower():
                    return self.comments.get((6, s, 2, m), "")
        raise SystemExit(f"{SERVICE} has no method {name}")

    def said(self, path: tuple) -> str:
        return self.comments.get(path, "")

    def enum_schema(self, name: str) -> dict:
        enum, path = self.enums[name]
        values = [f"- `{value.name}`: {self.said((*path, 2, i))}" for i, value in enumerate(enum.value) if self.said((*path, 2, i))]
        said = "\n".join(values if not self.said(path) else [self.said(path), *values])
        return {"type": "string", "enum": [value.name for value in enum.value]} | dialects.said(said)

    def field_schema(self, field, path: tuple) -> dict:
        schema = self.type_schema(field)
        said = "\n".join(part for part in (self.said(path), schema.pop("description", "")) if part)
        if field.label == Field.LABEL_REPEATED and "additionalProperties" not in schema:
            schema = {"type": "array", "items": schema}
        schema |= dialects.said(said)
        default = self.default(field, said, schema)
        return schema | ({} if default is None else {"default": default})

    def type_schema(self, field) -> dict:
        if field.type_name in WELL_KNOWN:
            return dict(WELL_KNOWN[field.type_name])
        name = field.type_name.removeprefix(PACKAGE)
        if field.type == Field.TYPE_ENUM:
            return self.enum_schema(name)
        if field.type != Field.TYPE_MESSAGE:
            return dict(SCALARS[field.type])
        message, _ = self.messages[name]
        if message.options.map_entry:
            return {"type": "object", "additionalProperties": self.type_schema(message.field[1])}
        return {"$ref": f"#/components/schemas/{name}"}

    def default(self, field, said: str, schema: dict):
        """Returns a field's default value: with presence the one that its comment states, else the type's. None if there is none."""
        if field.label == Field.LABEL_REPEATED or field.type == Field.TYPE_MESSAGE:
            return None
        if not field.proto3_optional:
            if field.HasField("oneof_index"):
                return None
            return schema["enum"][0] if "enum" in schema else False if field.type == Field.TYPE_BOOL else None
        found = re.search(r"[Dd]efault (true|false|[A-Z_]+|\d+(?:\.\d+)?)(?=[.,;:]|$)", said)
        if found is None or ("enum" in schema and found[1] not in schema["enum"]):
            return None
        return found[1] if "enum" in schema else json.loads(found[1])

    def message_schema(self, name: str, is_request: bool) -> dict:
        message, path = self.messages[name]
        properties = {field.name: self.field_schema(field, (*path, 2, i)) for i, field in enumerate(message.field)}
        if not is_request:
            for schema in properties.values():
                schema.pop("default", None)
        said = [self.said(path)] if self.said(path) else []
        for i, oneof in enumerate(message.oneof_decl):
            members = [field.name for field in message.field if field.HasField("oneof_index") and field.oneof_index == i and not field.proto3_optional]
            if members:
                said.append(f"At most one of {', '.join(members)}.")
        schema = {"type": "object"} | dialects.said(" ".join(said)) | {"properties": properties}
        return schema | ({"additionalProperties": False} if is_request else {})


def names_in(value) -> set[str]:
    """The schemas that a part of the document refers to."""
    if isinstance(value, list):
        return set().union(*map(names_in, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(names_in, value.values())) if value else set()
    return found | ({value["$ref"].rsplit("/", 1)[1]} if "/schemas/" in value.get("$ref", "") else set())


def add_messages(proto: Proto, schemas: dict, wanted: set[str], is_request: bool) -> None:
    """Adds the messages of the proto in `wanted`, and those that they are made of."""
    while wanted := {name for name in wanted if name not in schemas}:
        for name in sorted(wanted):
            schemas[name] = STATUS if name == "Status" else proto.message_schema(name, is_request)
        wanted = set().union(*(names_in(schemas[name]) for name in wanted))


def request_schema(proto: Proto, name: str) -> dict:
    request = dialects.REQUESTS[name]
    base = dialects.REQUESTS[request["like"]] if "like" in request else request
    properties = {key: value for key, value in base["properties"].items() if key not in request.get("without", [])}
    options = proto.message_schema("EmbedOptions", True)["properties"]
    properties |= {key: options[key] for key in base.get("options", [])}
    return {
        "type": "object",
        "description": request["description"],
        "properties": properties,
        "required": base["required"],
        "additionalProperties": False,
    }


def all_schemas(proto: Proto) -> dict:
    schemas = {name: request_schema(proto, name) for name in dialects.REQUESTS}
    routes = [route for api in dialects.APIS for route in api["routes"]]
    requests = {route[4] for route in routes if route[4]} - set(schemas)
    add_messages(proto, schemas, requests | set().union(*map(names_in, schemas.values())), True)
    schemas |= dialects.ANSWERS
    add_messages(proto, schemas, {"Status"} | {route[5] for route in routes}, False)
    return dict(sorted(schemas.items()))


def operation(proto: Proto, api: dict, route: tuple) -> dict:
    method, path, name, summary, request, answer, example = route
    said = proto.rpc(name) if summary is None else ""
    first, _, rest = said.partition(". ")
    parameters = [{"$ref": "#/components/parameters/Model"}] if "{model}" in path else []
    if not api.get("open"):
        parameters.append({"$ref": "#/components/parameters/Timeout"})
    made = {"operationId": name, "tags": [api["name"]], "summary": (summary or first).rstrip(".")}
    made |= {"description": rest} if rest else {}
    made |= {"security": []} if api.get("open") else {}
    made |= {"parameters": parameters} if parameters else {}
    if request:
        content = {"schema": {"$ref": f"#/components/schemas/{request}"}, "example": example}
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    made["responses"] = {
        "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}},
        **({} if api.get("open") else {"429": {"$ref": f"#/components/responses/{api['error']}Overload"}}),
        "default": {"$ref": f"#/components/responses/{api['error']}"},
    }
    return made


def error_responses() -> dict:
    whole = {"type": "integer", "minimum": 1}
    headers = {
        "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": whole},
        "retry-after-ms": {"description": "Milliseconds to wait before the next attempt.", "schema": whole},
    }
    responses = {}
    for api in dialects.APIS:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{api['error']}"}}}
        bad = "400 (an empty list of inputs), 422 (TEI's, for any other invalid request), 424 (the model cannot do this, or the encoder failed)" if api["name"] == "TEI" else "400 (an invalid request)"
        also = f"{bad}, 401 (no key, or an unknown one), 404, 405, 408, 413, 415, 431, 499, 500, 501, 503 (draining, or unable to encode), 504 (too late)"
        responses[api["error"]] = {"description": "503." if api.get("open") else f"Any other error: {also}.", "content": content}
        if not api.get("open"):
            said = "Overload: the server has too much waiting work to answer this request in time, or a limit is reached."
            responses[api["error"] + "Overload"] = {"description": said, "headers": headers, "content": content}
    return responses


def document() -> dict:
    proto = Proto()
    paths: dict = {}
    for api in dialects.APIS:
        for route in api["routes"]:
            paths.setdefault(route[1], {})[route[0]] = operation(proto, api, route)
    [version] = re.findall(r"^project\(.* VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    about = "Text embeddings, where each request chooses how to embed a text longer than the model's context. The same port serves the APIs of OpenAI, TEI and " \
            "Cohere: their clients only need another address. Every refusal names field, value and limit."
    model = {"name": "model", "in": "path", "required": True, "description": "A model's name.", "schema": {"type": "string"}}
    timeout = {"name": "X-Request-Timeout", "in": "header", "description": "Seconds that the client waits. The server then cancels the request.",
               "schema": {"type": "number", "exclusiveMinimum": 0}}
    keys = "One of the server's API keys. Required if the server has any."
    return {
        "openapi": "3.1.0",
        "info": {"title": "longembed-server", "version": version, "summary": "Text embeddings", "description": about},
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"header": []}],
        "tags": [{"name": api["name"], "description": api["description"]} for api in dialects.APIS],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": keys},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": keys},
            },
            "parameters": {"Model": model, "Timeout": timeout},
            "responses": error_responses(),
            "schemas": all_schemas(proto),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file would change")
    check = parser.parse_args().check
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if not check:
        OUT.write_text(text, encoding="utf-8")
    elif not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
        print("server/api/http/openapi.json is not what the proto and dialects.py say; run build/venv/bin/python server/api/http/openapi.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
