"""Checks that openapi.json is valid and up to date, and that the page that shows it loads nothing from other hosts. openapi_test.cc compares it
with the server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HTTP = Path(__file__).resolve().parents[3] / "server/api/http"


def test_is_what_the_generator_writes():
    checked = subprocess.run([sys.executable, HTTP / "openapi.py", "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_is_valid():
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    validator.validate(json.loads((HTTP / "openapi.json").read_text(encoding="utf-8")))


def test_examples_and_defaults_fit_their_schemas():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which openapi-spec-validator brings, is not installed")
    document = json.loads((HTTP / "openapi.json").read_text(encoding="utf-8"))
    for operations in document["paths"].values():
        for operation in operations.values():
            if "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            jsonschema.validate(content["example"], {"$ref": f"#/components/schemas/{name}", "components": document["components"]})
            for schema in document["components"]["schemas"][name]["properties"].values():
                if "default" in schema:
                    jsonschema.validate(schema["default"], schema)


def test_cohere_priorities_may_be_numbers():
    """Cohere's own API knows only numbers. A client that is generated from the document could not send them."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which openapi-spec-validator brings, is not installed")
    document = json.loads((HTTP / "openapi.json").read_text(encoding="utf-8"))
    priority = document["components"]["schemas"]["CohereEmbedRequest"]["properties"]["priority"]
    for value in (0, 1, 999, "INTERACTIVE", "BULK"):
        jsonschema.validate(value, priority)
    for value in (-1, 1000, 0.5, "LOW"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, priority)


def test_page_fetches_nothing_from_elsewhere():
    page = (HTTP / "docs.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s'\"<>)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a namespace, which is not fetched, is the only address in it"
    assert not re.search(r"<(script|img|iframe)[^>]* src=|@import|\burl\(", page)
    assert "innerHTML" not in page, "what comes from a server is text, never markup"
