"""Tests replicas, disruption budget, HPA and KEDA."""

import http.server
import json
import re
import threading

import pytest

from chart import NAME, ROOT, render

HPA = {"autoscaling": {"hpa": {"enabled": True}}}
WATCHED = {"serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": False}}


def test_replicas():
    assert render().deployment["replicas"] == 2
    assert render({"replicas": 5}).deployment["replicas"] == 5


@pytest.mark.parametrize("example", ["cpu-production.yaml", "keda.yaml"])
def test_autoscaler_owns_the_replicas(example):
    assert "replicas" not in render(example=example).deployment


class FakeKubernetes(http.server.BaseHTTPRequestHandler):
    """An API server that supports Deployments, and has one with `replicas`, or none if it is None."""

    replicas: int | None = None

    def do_GET(self):
        resources = [{"name": "deployments", "kind": "Deployment", "namespaced": True, "verbs": ["get"]}]
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": self.replicas}}
        answers = {"/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": resources}}
        if self.replicas is not None:
            answers[f"/apis/apps/v1/namespaces/ns/deployments/{NAME}"] = deployment
        answer = answers.get(self.path.split("?")[0])
        self.send_response(200 if answer else 404)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("replicas", [7, 0, None])
def test_upgrade_keeps_the_replicas_of_the_autoscaler(replicas):
    """Without a number, Helm would remove the one from before the autoscaler, and Kubernetes would fall back to its default of 1."""
    handler = type("Handler", (FakeKubernetes,), {"replicas": replicas})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as kubernetes:
        threading.Thread(target=kubernetes.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{kubernetes.server_port}"
        deployments = [render(values, arguments=("--dry-run=server", "--kube-apiserver", url)).deployment for values in (HPA, {"replicas": 3})]
        kubernetes.shutdown()
    assert [deployment.get("replicas") for deployment in deployments] == [replicas, 3]


@pytest.mark.parametrize(("kind", "example"), [("HorizontalPodAutoscaler", "cpu-production.yaml"), ("ScaledObject", "keda.yaml")])
def test_autoscaler_scales_the_deployment(kind, example):
    manifests = render(example=example)
    name = manifests.one("Deployment")["metadata"]["name"]
    assert manifests.one(kind)["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    others = {"HorizontalPodAutoscaler", "ScaledObject"} - {kind}
    assert not manifests.all(others.pop())


def metrics(values: dict) -> list[dict]:
    return render(values).one("HorizontalPodAutoscaler")["spec"]["metrics"]


def test_hpa_by_cpu_of_the_server_alone():
    (metric,) = metrics({"autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 55}}})
    assert metric["containerResource"] == {"name": "cpu", "container": render().container["name"], "target": {"type": "Utilization", "averageUtilization": 55}}


def test_hpa_by_queue_wait_of_pods():
    (metric,) = metrics({"autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 0, "queueWait": {"enabled": True, "target": "2"}}}})
    assert metric["pods"] == {"metric": {"name": "longembed_expected_wait_seconds"}, "target": {"type": "AverageValue", "averageValue": "2"}}


def test_hpa_by_an_external_metric():
    wait = {"enabled": True, "type": "External", "metric": "wait", "matchLabels": {"release": "r"}}
    cpu, metric = metrics({"autoscaling": {"hpa": {"enabled": True, "queueWait": wait}}})
    assert cpu["type"] == "ContainerResource"
    assert metric["external"] == {"metric": {"name": "wait", "selector": {"matchLabels": {"release": "r"}}}, "target": {"type": "Value", "value": "500m"}}


def test_hpa_bounds_and_behavior():
    values = {"autoscaling": {**HPA["autoscaling"], "minReplicas": 3, "maxReplicas": 9, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 42}}}}
    spec = render(values).one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 9)
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 42
    assert spec["behavior"]["scaleUp"]["policies"][0] == {"type": "Percent", "value": 100, "periodSeconds": 60}


def keda(**changes) -> dict:
    manifests = render({**WATCHED, "autoscaling": {"keda": {"enabled": True, "serverAddress": "http://prometheus:9090", **changes}}})
    return manifests.one("ScaledObject")["spec"]


def triggers(**changes) -> dict[str, dict]:
    return {trigger.get("name", trigger["type"]): trigger for trigger in keda(**changes)["triggers"]}


def test_keda_bounds_and_behavior():
    spec = keda()
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 6)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]


def test_keda_by_expected_wait():
    trigger = triggers(expectedWaitSeconds="1.5")["expected-wait"]
    assert trigger["type"] == "prometheus" and trigger["metricType"] == "Value"
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090", "threshold": "1.5", "ignoreNullValues": "false",
        "query": f'avg(max by (pod) (longembed_expected_wait_seconds{{namespace="ns",service="{NAME}-metrics"}}))'}


def test_keda_asks_for_the_service_that_prometheus_scrapes():
    manifests = render(example="keda.yaml")
    query = manifests.one("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    selected = manifests.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    scraped = [service["metadata"]["name"] for service in manifests.all("Service") if selected.items() <= service["metadata"]["labels"].items()]
    assert re.findall(r'service="([^"]+)"', query) == scraped


def test_keda_takes_a_query():
    assert triggers(query='max(x{a="b"})')["expected-wait"]["metadata"]["query"] == 'max(x{a="b"})'


def test_keda_keeps_busy_pods():
    assert triggers()["cpu"] == {"type": "cpu", "metricType": "Utilization", "metadata": {"containerName": "server", "value": "70"}}
    assert "cpu" not in triggers(cpuUtilization=0)


def test_keda_by_running_batches():
    assert "running-batches" not in triggers()
    trigger = triggers(runningBatches="1.4")["running-batches"]
    assert trigger["metadata"]["threshold"] == "1.4" and "rate(longembed_inference_duration_seconds_sum{" in trigger["metadata"]["query"]


def test_keda_authentication():
    assert "authenticationRef" not in triggers()["expected-wait"]
    found = triggers(authenticationRef={"name": "a"}, authModes="bearer", runningBatches="1")
    for name in ("expected-wait", "running-batches"):
        assert found[name]["authenticationRef"] == {"name": "a", "kind": "TriggerAuthentication"} and found[name]["metadata"]["authModes"] == "bearer"
    assert "authenticationRef" not in found["cpu"]


def test_scaling_reads_metrics_that_exist():
    names = (ROOT / "server/telemetry/metric_names.h").read_text()
    queries = [trigger["metadata"]["query"] for trigger in keda(runningBatches="1")["triggers"] if trigger["type"] == "prometheus"]
    used = {re.sub(r"_sum$", "", name) for query in queries for name in re.findall(r"longembed_\w+", query)}
    used.add(metrics({"autoscaling": {"hpa": {"enabled": True, "queueWait": {"enabled": True}}}})[1]["pods"]["metric"]["name"])
    assert len(used) == 2 and all(f'"{name}"' in names for name in used)


def budget(values: dict) -> dict:
    return render(values).one("PodDisruptionBudget")["spec"]


def test_budget():
    manifests = render()
    spec = manifests.one("PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1 and "minAvailable" not in spec
    assert spec["selector"]["matchLabels"] == manifests.deployment["selector"]["matchLabels"]
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_budget_of_values():
    assert budget({"replicas": 5, "podDisruptionBudget": {"maxUnavailable": "40%"}})["maxUnavailable"] == "40%"
    kept = budget({"replicas": 5, "podDisruptionBudget": {"minAvailable": 4}})
    assert kept["minAvailable"] == 4 and "maxUnavailable" not in kept
    assert budget({"podDisruptionBudget": {"minAvailable": 0}})["minAvailable"] == 0


def test_numbers_from_a_million_up_stay_numbers():
    """Helm reads numbers of values files as floating point, which its templates write as 1e+06: text to Kubernetes."""
    most = {"minReplicas": 2000000, "maxReplicas": 2147483647}
    hpa = render({"autoscaling": {**most, **HPA["autoscaling"]}}).one("HorizontalPodAutoscaler")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2000000, 2147483647)
    keda = render({**WATCHED, "autoscaling": {**most, "keda": {"enabled": True, "serverAddress": "http://p"}}}).one("ScaledObject")["spec"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (2000000, 2147483647)
    assert budget({"podDisruptionBudget": {"maxUnavailable": 1000000}})["maxUnavailable"] == 1000000
    kept = budget({"autoscaling": {**most, **HPA["autoscaling"]}, "podDisruptionBudget": {"minAvailable": 1000000}})
    assert kept["minAvailable"] == 1000000
    assert not render({"podDisruptionBudget": {"enabled": False}}).all("PodDisruptionBudget")
