#!/usr/bin/env python3
"""Generates JSON schemas for kubeconform from Go modules: from Kubernetes' own OpenAPI document, and from the custom resource definitions of other projects.

    tests/helm/schemas.py [DIRECTORY]        default: build/helm/schemas

Needs `go` and its module proxy the first time. Later runs find DIRECTORY complete. Schemas refuse unknown fields. They do not contain the further rules that an API
server checks (CEL in custom resource definitions, and Kubernetes' own validation).
"""

import copy
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]

KUBERNETES = ("k8s.io/kubernetes", "v1.37.2")
CUSTOM = {
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0"): [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    ("sigs.k8s.io/gateway-api", "v1.4.1"): [
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml",
    ],
    ("github.com/kedacore/keda/v2", "v2.21.0"): ["config/crd/bases/keda.sh_scaledobjects.yaml"],
    ("github.com/cert-manager/cert-manager", "v1.21.2"): ["deploy/crds/cert-manager.io_certificates.yaml"],
}
VERSIONS = "\n".join(sorted([f"{module}@{version}" for module, version in [KUBERNETES, *CUSTOM]] + sum(CUSTOM.values(), []))) + "\n"

# OpenAPI declares these as strings, but numbers are valid as well.
EITHER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}


def module_directory(module: str, version: str) -> Path:
    with tempfile.TemporaryDirectory() as outside_of_modules:
        result = subprocess.run(["go", "mod", "download", "-json", f"{module}@{version}"], cwd=outside_of_modules, capture_output=True, text=True, timeout=300)
    answer = json.loads(result.stdout or "{}")
    if result.returncode != 0 or "Dir" not in answer:
        raise RuntimeError(f"{module}@{version} cannot be downloaded: {answer.get('Error') or result.stderr.strip()}")
    return Path(answer["Dir"])


def close(schema):
    """Makes a schema refuse unknown fields at every depth, unless it says that they are kept."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {}
    for key, part in schema.items():
        if key != "description":
            closed[key] = {name: close(value) for name, value in part.items()} if key == "properties" else close(part)
    if "properties" in closed and "additionalProperties" not in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    if closed.pop("nullable", False) and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    return closed


def references(schema) -> set[str]:
    if isinstance(schema, list):
        return set().union(*(references(item) for item in schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix("#/definitions/")} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*(references(part) for part in schema.values()))


def kubernetes_schemas(document: dict):
    """Yields (file name, schema with the definitions that it references) for every kind with a group and version."""
    definitions = {name: close(EITHER.get(name, definition)) for name, definition in document["definitions"].items()}
    for name, definition in document["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            reached, ahead = {}, {name}
            while ahead:
                current = ahead.pop()
                reached[current] = definitions[current]
                ahead |= references(definitions[current]) - reached.keys()
            root = with_identity(copy.deepcopy(definitions[name]), kind["group"], kind["version"], kind["kind"])
            yield file_name(kind["group"], kind["version"], kind["kind"]), {**root, "definitions": dict(sorted(reached.items()))}


def custom_schemas(definition: dict):
    spec = definition["spec"]
    for version in spec["versions"]:
        group, kind = spec["group"], spec["names"]["kind"]
        schema = with_identity(close(version["schema"]["openAPIV3Schema"]), group, version["name"], kind)
        yield file_name(group, version["name"], kind), schema


def with_identity(schema: dict, group: str, version: str, kind: str) -> dict:
    properties = schema.setdefault("properties", {})
    properties["apiVersion"] = {"enum": [f"{group}/{version}" if group else version]}
    properties["kind"] = {"enum": [kind]}
    schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind"})
    return schema


def file_name(group: str, version: str, kind: str) -> str:
    """Returns the name that kubeconform's {{.ResourceKind}}{{.KindSuffix}} produces."""
    return "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part) + ".json"


def make_schemas(directory: Path) -> int:
    """Fills `directory` unless it is complete. Returns the number of schemas."""
    stamp = directory / "versions.txt"
    if not stamp.exists() or stamp.read_text() != VERSIONS:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        swagger = json.loads((module_directory(*KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
        made = list(kubernetes_schemas(swagger))
        for module, files in CUSTOM.items():
            folder = module_directory(*module)
            for file in files:
                made += custom_schemas(yaml.safe_load((folder / file).read_text()))
        for name, schema in made:
            (directory / name).write_text(json.dumps(schema))
        stamp.write_text(VERSIONS)  # Written last, so that its existence means that all other files are there.
    return len(list(directory.glob("*.json")))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/helm/schemas"
    print(f"{make_schemas(target)} schemas in {target}, from:\n{VERSIONS}", end="")
