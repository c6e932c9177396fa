"""Tests that there is one version and one license, and that the notice names every third party."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = yaml.safe_load((ROOT / "helm/longembed-server/Chart.yaml").read_text(encoding="utf-8"))
PACKAGE = tomllib.loads((ROOT / "client/python/pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
# Maps CMake's names of packages and libraries to those in NOTICE. "" stands for the system's libraries.
THIRD_PARTIES = {
    "absl": "Abseil", "Boost": "Boost", "CLI11": "CLI11", "GTest": "GoogleTest", "OpenSSL": "OpenSSL", "Protobuf": "Protocol Buffers", "Threads": "", "gRPC": "gRPC",
    "jemalloc": "jemalloc", "microhttpd": "libmicrohttpd", "nlohmann_json": "nlohmann/json", "prometheus-cpp": "prometheus-cpp", "torch_cpu": "PyTorch", "c10": "PyTorch", "Torch": "PyTorch",
    "yaml-cpp": "yaml-cpp", "benchmark": "Google Benchmark", "longembed": "",
}  # fmt: skip


def test_there_is_one_version():
    version = re.search(r"project\(longembed-server VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))[1]
    openapi = json.loads((ROOT / "server/api/http/openapi.json").read_text(encoding="utf-8"))
    assert {PACKAGE["version"], CHART["version"], CHART["appVersion"], openapi["info"]["version"], re.search(r"^ARG VERSION=(\S+)", DOCKERFILE, re.M)[1]} == {version}


def test_there_is_one_license():
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    label = re.search(r'org\.opencontainers\.image\.licenses="([^"]+)"', DOCKERFILE)[1]
    assert {PACKAGE["license"], CHART["annotations"]["artifacthub.io/license"], label} == {"Apache-2.0"}


def test_the_notice_names_what_is_linked():
    files = [path for path in [*ROOT.rglob("CMakeLists.txt"), *ROOT.glob("model/**/*.cmake")] if not {"build", "models"} & set(path.relative_to(ROOT).parts)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    found = set(re.findall(r"find_package\(([\w-]+)", text)) | set(re.findall(r"find_library\(\w+ ([\w-]+)", text))
    assert found - THIRD_PARTIES.keys() == set(), "say in NOTICE whose these are, under which license"
    assert [name for name in sorted(found) if THIRD_PARTIES[name] not in NOTICE] == []


def test_the_notice_names_what_is_installed():
    names = re.findall(r"^([A-Za-z][\w.-]*)", (ROOT / "model/export/requirements.txt").read_text(encoding="utf-8"), re.M)
    names += [re.match(r"[\w-]+", requirement)[0] for requirement in PACKAGE["dependencies"]]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", NOTICE, re.I)] == []


def test_the_notice_names_what_is_copied():
    copies = [path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").iterdir() if path.is_dir() and path.name not in ("longembed", "build")]
    assert [copy for copy in copies if f"{copy}/" not in NOTICE] == []
