#!/usr/bin/env python3
"""Runs a real control plane, etcd and kube-apiserver, for the chart's tests. It has no controllers and no kubelet, so that nothing starts the pods it admits.

    tests/helm/cluster.py        builds kube-apiserver into build/tools, which takes ten minutes and needs `go`; etcd is Debian's etcd-server
"""

import contextlib
import functools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from schemas import CUSTOM, KUBERNETES, ROOT, module_directory  # noqa: E402

API_SERVER = ROOT / "build/tools/kube-apiserver"
TOKEN = "test-token"
# Objects that an administrator creates before the chart is installed.
OBJECTS = {
    "/apis/scheduling.k8s.io/v1/priorityclasses": {"metadata": {"name": "production"}, "value": 1000},
    "/apis/node.k8s.io/v1/runtimeclasses": {"metadata": {"name": "nvidia"}, "handler": "nvidia"},
}


def build() -> None:
    """Builds kube-apiserver from its Go module. That module replaces its dependencies by folders which it does not contain, so that they are replaced by
    their own modules here."""
    module, version = KUBERNETES
    text = (module_directory(module, version) / "go.mod").read_text()
    staged = re.findall(r"^\t(\S+) => \./staging/", text, re.M)
    folder = API_SERVER.parent / "kube-apiserver.module"
    folder.mkdir(parents=True, exist_ok=True)
    replaced = "".join(f"replace {name} => {name} {version.replace('v1.', 'v0.', 1)}\n" for name in staged)
    (folder / "go.mod").write_text(f"module build\n\n{re.search(r'^go .*', text, re.M)[0]}\n\nrequire {module} {version}\n\n{replaced}")
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
    command = ["go", "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", str(API_SERVER), f"{module}/cmd/kube-apiserver"]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "GOFLAGS": ""})


def missing() -> str:
    """Returns what to do before a cluster can run, or nothing."""
    if not shutil.which("etcd"):
        return "etcd is not installed (Debian: etcd-server)"
    if not API_SERVER.exists():
        return "kube-apiserver has not been built; run tests/helm/cluster.py"
    return ""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        bound = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in bound]


class Cluster:
    """A running control plane. `kubeconfig` is a file for helm."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.processes: list[subprocess.Popen] = []
        etcd, peers, self.port = free_ports(3)
        try:
            self.start("etcd", "etcd", etcd_arguments(folder / "etcd", etcd, peers))
            self.start("kube-apiserver", str(API_SERVER), self.api_server_arguments(etcd))
            self.wait_until_ready()
            self.write_kubeconfig()
            for path, body in OBJECTS.items():
                self.request("POST", path, body)
            self.define_custom_resources()
        except BaseException:
            self.stop()
            raise

    def start(self, name: str, program: str, arguments: list[str]) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        self.processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log))

    def api_server_arguments(self, etcd: int) -> list[str]:
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # It would refuse an address of loopback.
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:1::/112",
        ]

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 180
        while True:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args[0]} ended with {process.returncode}; its log is in {self.folder}")
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                if self.send("GET", "/readyz") == b"ok":
                    return
            if time.monotonic() > until:
                raise RuntimeError(f"kube-apiserver is not ready after 180 s; its log is in {self.folder}")
            time.sleep(0.3)

    def write_kubeconfig(self) -> None:
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.folder / "certificates/apiserver.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def define_custom_resources(self) -> None:
        """Defines the kinds of other projects, as the schemas for kubeconform have them, and waits until they are served."""
        for module, files in CUSTOM.items():
            for file in files:
                definition = yaml.safe_load((module_directory(*module) / file).read_text())
                self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
                spec = definition["spec"]
                self.wait_until_served(f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}")

    def wait_until_served(self, path: str) -> None:
        for _ in range(200):
            with contextlib.suppress(urllib.error.HTTPError):
                self.send("GET", path)
                return
            time.sleep(0.1)
        raise RuntimeError(f"kube-apiserver does not serve {path} after 20 s")

    def send(self, method: str, path: str, body: dict | None = None) -> bytes:
        """Returns the answer's body. Raises urllib.error.HTTPError for a refusal."""
        context = ssl.create_default_context(cafile=self.folder / "certificates/apiserver.crt")
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return answer.read()

    def request(self, method: str, path: str, body: dict | None = None) -> dict:
        """Returns the object of the answer. Raises RuntimeError with the API server's own words for a refusal."""
        try:
            return json.loads(self.send(method, path, body))
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["message"]) from error

    def create_namespace(self, name: str, labels: dict) -> None:
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        self.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})

    def listed(self) -> list[str]:
        """Returns the path of every namespaced kind that can be listed, with {} for the namespace."""
        groups = self.request("GET", "/apis")["groups"]
        bases = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
        found = []
        for base in bases:
            resources = self.request("GET", base)["resources"]
            found += [f"{base}/namespaces/{{}}/{one['name']}" for one in resources if one["namespaced"] and "list" in one["verbs"]]
        return found

    @functools.cached_property
    def collections(self) -> dict[tuple[str, str], str]:
        """Maps the version and kind of every namespaced object to its path, with {} for the namespace."""
        groups = self.request("GET", "/apis")["groups"]
        found = {}
        for version in ["v1", *(version["groupVersion"] for group in groups for version in group["versions"])]:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for one in self.request("GET", base)["resources"]:
                if one["namespaced"] and "/" not in one["name"]:
                    found[version, one["kind"]] = f"{base}/namespaces/{{}}/{one['name']}"
        return found

    def refusal(self, namespace: str, one: dict) -> str:
        """Returns why the API server would not create the object, or nothing. Creates nothing."""
        path = self.collections[one["apiVersion"], one["kind"]].format(namespace)
        try:
            self.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)
        except RuntimeError as error:
            return str(error)
        return ""

    def objects(self, namespace: str) -> dict[tuple[str, str], dict]:
        """Returns {(plural, name): object} without what the API server itself records."""
        found = {}
        for path in self.listed():
            for one in self.request("GET", path.format(namespace)).get("items", []):
                metadata = one["metadata"]
                if metadata["name"] == "default" or one.get("type") == "helm.sh/release.v1" or path.endswith("/events"):
                    continue
                kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
                found[path.rsplit("/", 1)[1], metadata["name"]] = {**one, "metadata": kept, "status": None}
        return found

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(60)


def etcd_arguments(data: Path, port: int, peers: int) -> list[str]:
    clients, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    addresses = {"listen-client-urls": clients, "advertise-client-urls": clients, "listen-peer-urls": peer, "initial-advertise-peer-urls": peer}
    return [f"--data-dir={data}", f"--initial-cluster=default={peer}", *(f"--{name}={value}" for name, value in addresses.items())]


if __name__ == "__main__":
    if not API_SERVER.exists():
        build()
    print(f"{API_SERVER} is built. Run: python -m pytest tests/helm/test_chart_in_kubernetes.py")
