"""Installs, upgrades and rolls back the chart in a real control plane, with the default values and those of every example. Needs etcd and a kube-apiserver
that tests/helm/cluster.py builds; both are too slow to build in CI, where these tests are skipped."""

import copy
import json
import subprocess

import pytest

from chart import CHART, EXAMPLES, NAME, tool
from cluster import Cluster, missing

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
NAMES = ["", *(path.name for path in EXAMPLES)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing():
        pytest.skip(missing())
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    running.create_namespace("monitoring", {})
    yield running
    running.stop()


@pytest.fixture
def namespace(cluster, request):
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower()).strip("-")[:60]
    cluster.create_namespace(name, RESTRICTED)
    return name


def helm(cluster, namespace: str, *words: str) -> str:
    command = [tool("helm"), "--kubeconfig", cluster.kubeconfig, "--namespace", namespace, *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    # The warnings of Pod Security, and those of deprecated or unknown fields.
    assert "Warning" not in result.stderr and "warning" not in result.stderr and "unknown field" not in result.stderr, result.stderr
    return result.stdout


def values_of(example: str) -> tuple[str, ...]:
    return ("--values", str(CHART / "examples" / example)) if example else ()


def pod_of(cluster, namespace: str) -> dict:
    """Returns the pod that the Deployment's controller would create."""
    deployment = cluster.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{NAME}")
    return {"metadata": {**deployment["spec"]["template"]["metadata"], "name": "pod"}, "spec": deployment["spec"]["template"]["spec"]}


@pytest.mark.parametrize("example", NAMES)
def test_install(cluster, namespace, example):
    """Every object is accepted, and the pod is admitted under Pod Security's level `restricted`."""
    helm(cluster, namespace, "install", "r", str(CHART), *values_of(example))
    admitted = cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod_of(cluster, namespace))
    assert admitted["status"]["phase"] == "Pending"
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/pod?gracePeriodSeconds=0")
    helm(cluster, namespace, "uninstall", "r")
    assert cluster.objects(namespace) == {}


@pytest.mark.parametrize("example", NAMES[1:])
def test_upgrade_and_roll_back(cluster, namespace, example):
    """An upgrade from the default values changes no field that cannot change. A rollback leaves what the first installation left."""
    helm(cluster, namespace, "install", "r", str(CHART))
    first = cluster.objects(namespace)
    helm(cluster, namespace, "upgrade", "r", str(CHART), *values_of(example))
    assert cluster.objects(namespace) != first
    helm(cluster, namespace, "rollback", "r", "1")
    assert cluster.objects(namespace) == first
    revisions = json.loads(helm(cluster, namespace, "history", "r", "--output", "json"))
    assert [revision["status"] for revision in revisions] == ["superseded", "superseded", "deployed"]


def test_a_new_config_restarts_the_pods(cluster, namespace):
    """The pod's template changes with the config and with nothing else."""
    helm(cluster, namespace, "install", "r", str(CHART))
    first = pod_of(cluster, namespace)
    helm(cluster, namespace, "upgrade", "r", str(CHART), "--set", "replicas=5")
    assert pod_of(cluster, namespace) == first
    helm(cluster, namespace, "upgrade", "r", str(CHART), "--set", "config.limits.max_queue_wait=7s")
    assert pod_of(cluster, namespace) != first


def test_pod_security_refuses_less(cluster, namespace):
    """Shows that the admission above can fail."""
    helm(cluster, namespace, "install", "r", str(CHART))
    pod = copy.deepcopy(pod_of(cluster, namespace))
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(RuntimeError, match="violates PodSecurity.*restricted"):
        cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)


def test_two_releases_in_one_namespace(cluster, namespace):
    helm(cluster, namespace, "install", "r", str(CHART))
    first = cluster.objects(namespace)
    helm(cluster, namespace, "install", "other", str(CHART))
    assert len(cluster.objects(namespace)) == 2 * len(first)
    helm(cluster, namespace, "uninstall", "other")
    assert cluster.objects(namespace) == first
