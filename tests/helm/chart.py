"""Renders the chart with helm, and gives the tests access to the result."""

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/longembed-server"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
TOOLS = ROOT / "build/tools"
KUBERNETES = "1.37.2"  # Passed to helm, which would otherwise assume a version of its own when there is no cluster.
RELEASE, NAMESPACE = "r", "ns"
NAME = "r-longembed-server"

# The versions that these tests were written with.
MODULES = {"helm": "helm.sh/helm/v3/cmd/helm@v3.22.0", "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"}


@functools.cache
def tool(name: str) -> str:
    """Returns the program's path, which is on PATH or in build/tools. Missing programs are built there, which takes two minutes for helm. If that
    is not possible, skips the test and names the missing program."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{TOOLS}")
    if found:
        return found
    if name not in MODULES:
        pytest.skip(f"{name} is not installed")
    if not shutil.which("go"):
        pytest.skip(f"{name} is not installed, and there is no go to build it with")
    environment = {**os.environ, "GOBIN": str(TOOLS), "GOFLAGS": ""}
    built = subprocess.run(["go", "install", MODULES[name]], env=environment, capture_output=True, text=True, timeout=900)
    if built.returncode != 0:
        pytest.skip(f"{name} cannot be built from {MODULES[name]}: {built.stderr.strip().splitlines()[-1]}")
    return str(TOOLS / name)


def program(name: str) -> str:
    """Returns the path of one of our programs."""
    path = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release") / name
    if not path.exists():
        pytest.skip(f"{name} has not been built; run tests/run.sh")
    return str(path)


@dataclass(frozen=True)
class Manifests:
    text: str
    documents: tuple[dict, ...]

    def all(self, kind: str) -> list[dict]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str = "") -> dict:
        found = [document for document in self.all(kind) if not name or document["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects of kind {kind} with name {name or 'any'}"
        return found[0]

    @property
    def deployment(self) -> dict:
        return self.one("Deployment")["spec"]

    @property
    def pod(self) -> dict:
        return self.deployment["template"]["spec"]

    @property
    def container(self) -> dict:
        return self.pod["containers"][0]

    @property
    def config(self) -> dict:
        return yaml.safe_load(self.one("ConfigMap", NAME)["data"]["config.yaml"])

    def volume(self, name: str) -> dict:
        return next(volume for volume in self.pod["volumes"] if volume["name"] == name)

    def mount(self, path: str) -> dict:
        return next(mount for mount in self.container["volumeMounts"] if mount["mountPath"] == path)

    def test_pod(self, name: str) -> dict:
        return self.one("Pod", f"{NAME}-test-{name}")


def run_template(
    values: dict, example: str = "", kubernetes: str = KUBERNETES, arguments: tuple[str, ...] = (), chart: Path = CHART, release: str = RELEASE
) -> subprocess.CompletedProcess:
    files = ["--values", str(CHART / "examples" / example)] if example else []
    command = [tool("helm"), "template", release, str(chart), "--namespace", NAMESPACE, "--kube-version", kubernetes, *files, "--values", "-", *arguments]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60)


@functools.cache
def render_cached(values: str, example: str, arguments: tuple[str, ...]) -> Manifests:
    result = run_template(json.loads(values), example, arguments=arguments)
    assert result.returncode == 0, result.stderr
    return Manifests(result.stdout, tuple(document for document in yaml.load_all(result.stdout, Loader=UniqueKeyLoader) if document))


def render(values: dict | None = None, example: str = "", arguments: tuple[str, ...] = ()) -> Manifests:
    """Renders the chart with the values, on top of those of an example if one is named."""
    return render_cached(json.dumps(values or {}), example, arguments)


def refusal(values: dict, example: str = "", kubernetes: str = KUBERNETES) -> str:
    """Returns helm's error for values that it must refuse."""
    result = run_template(values, example, kubernetes)
    assert result.returncode != 0, "the chart accepts these values and should refuse them"
    return result.stderr


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML would use the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key appears twice{node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)
