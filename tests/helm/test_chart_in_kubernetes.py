"""Installs, upgrades and rolls back the chart in a real control plane, with the default values and those of every example. Needs etcd and a kube-apiserver
that tests/helm/cluster.py builds; both are too slow to build in CI, where these tests are skipped."""

import copy
import json
import re
import shutil
import subprocess

import pytest
import test_chart_for_kubernetes as for_kubernetes
import test_chart_refusals as refusals
import yaml

from chart import CHART, EXAMPLES, NAME, run_template, tool
from cluster import Cluster, missing

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
NAMES = ["", *(path.name for path in EXAMPLES)]
TAKEN = {**refusals.TAKEN, **for_kubernetes.TAKEN}
# Of the chart's other refusals, those whose reason is that Kubernetes refuses the values, too.
REFUSED = {**for_kubernetes.REFUSED} | {
    case: refusals.REFUSED[case] for case in (
        "one node port for both ports", "two families in one stack", "a rollout that fails before a pod counts", "no DNS at all", "scaling by no policy",
        "a memory limit below the default's request", "a request of CPU above the limit", "a request of disk above the limit")}  # fmt: skip


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
    """Every object is accepted, and the pod is admitted under Pod Security's level `restricted`, as are those of `helm test`."""
    helm(cluster, namespace, "install", "r", str(CHART), *values_of(example))
    admitted = cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod_of(cluster, namespace))
    assert admitted["status"]["phase"] == "Pending"
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/pod?gracePeriodSeconds=0")
    tests = [one for one in yaml.safe_load_all(helm(cluster, namespace, "get", "hooks", "r")) if one]
    assert tests and [cluster.refusal(namespace, one) for one in tests] == [""] * len(tests)
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


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory):
    """The chart without the refusals of its schema and templates."""
    chart = tmp_path_factory.mktemp("unchecked") / CHART.name
    shutil.copytree(CHART, chart)
    (chart / "values.schema.json").unlink()
    refusals = chart / "templates/_refusals.tpl"
    refusals.write_text(re.sub(r'^\{\{- include "longembed\.refuse\w+" \. -\}\}\n', "", refusals.read_text(), flags=re.M))
    return chart


def refused(cluster, values: dict, chart=CHART) -> list[str]:
    """Returns what the API server says against the objects of these values, and against the server's pod."""
    result = run_template(values, chart=chart)
    assert result.returncode == 0, result.stderr
    objects = [one for one in yaml.safe_load_all(result.stdout) if one]
    template = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]
    objects.append({"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "pod"}})
    for pod in (one for one in objects if one["kind"] == "Pod"):
        pod["spec"]["serviceAccountName"] = "default"  # Nothing is created, so that the release's own does not exist.
    return [reason for one in objects if (reason := cluster.refusal(one["metadata"].get("namespace", "ns"), one))]


@pytest.fixture(scope="module")
def ns(cluster):
    """The namespace that run_template renders for."""
    cluster.create_namespace("ns", {})


@pytest.mark.parametrize("case", TAKEN)
def test_kubernetes_takes_what_the_chart_takes(cluster, ns, case):
    assert refused(cluster, TAKEN[case]) == []


@pytest.mark.parametrize("case", REFUSED)
def test_kubernetes_refuses_what_the_chart_refuses_for_it(cluster, ns, unchecked, case):
    values, _ = REFUSED[case]
    assert refused(cluster, values, unchecked)


def test_a_name_that_the_selector_has_does_not_change(cluster, namespace):
    """Helm would give the services the new name first, so that they lose their pods, and then fail at the Deployment, which the API server does not change."""
    full = ("--set", f"fullnameOverride={NAME}")
    helm(cluster, namespace, "install", "r", str(CHART))
    first = cluster.objects(namespace)
    with pytest.raises(AssertionError, match=f"nameOverride: the Deployment {NAME} selects its pods by the name longembed-server, which cannot change to other"):
        helm(cluster, namespace, "upgrade", "r", str(CHART), *full, "--set", "nameOverride=other")
    assert cluster.objects(namespace) == first
    helm(cluster, namespace, "upgrade", "r", str(CHART), *full)
    helm(cluster, namespace, "upgrade", "r", str(CHART), "--set", "nameOverride=other")


def test_a_rollback_after_an_upgrade_that_failed_half_way(cluster, namespace):
    """The API server refuses the service's port when the objects before it have been changed."""
    helm(cluster, namespace, "install", "r", str(CHART))
    first = cluster.objects(namespace)
    outside = ("service.type=NodePort", "service.nodePort=80", "service.allowPlaintext=true", "networkPolicy.enabled=false", "replicas=3")
    with pytest.raises(AssertionError, match="not in the valid range"):
        helm(cluster, namespace, "upgrade", "r", str(CHART), *(word for value in outside for word in ("--set", value)))
    helm(cluster, namespace, "rollback", "r", "1")
    assert cluster.objects(namespace) == first
