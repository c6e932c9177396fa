"""What the chart refuses, and that it says why."""

import json

import pytest
import yaml

from chart import CHART, ROOT, refusal, render

MODEL = {"name": "m", "source": {"baked": {}}}
HASH = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
KEYS = {"apiKeys": {"keys": [{"name": "search", "sha256": HASH}]}}
TLS = {"tls": {"enabled": True, "existingSecret": "certificate"}}
PEERS = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
LET_IN = {"networkPolicy": {"grpc": {"from": PEERS}, "metrics": {"from": PEERS}}}
GATEWAY = {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}}
KEDA = {"enabled": True, "serverAddress": "http://prometheus:9090", "query": "max(x)"}
MONITOR = {"serviceMonitor": {"enabled": True}}
LOAD_BALANCER = {"service": {"type": "LoadBalancer"}}
# What calls of priority BULK may wait by default.
BULK_WAIT = int(yaml.safe_load((ROOT / "deploy/config.yaml").read_text())["limits"]["max_bulk_queue_wait"].removesuffix("s"))


def drain(timeout: str, **limits) -> dict:
    return {"config": {"drain": {"timeout": timeout}, "limits": limits}}


def model(**changes) -> dict:
    return {"models": [{**MODEL, **changes}]}


# Name of the case -> (values, words of the answer). Each of them is also a sentence of README.md.
REFUSED = {
    "a grace period that drain uses up": (
        {"terminationGracePeriodSeconds": 85}, "terminationGracePeriodSeconds 85 must be more than config.drain.delay + config.drain.timeout = 85"),
    "a drain written in minutes": ({"config": {"drain": {"delay": "30s", "timeout": "2m"}}}, "= 150"),
    "a drain written in hours": ({"config": {"drain": {"delay": "0s", "timeout": "1h1m1s"}}}, "= 3661"),
    "a drain that cannot be added up": ({"config": {"drain": {"delay": "1.5s"}}}, "/config/drain/delay"),
    "a drain that cuts off bulk calls": (
        drain(f"{BULK_WAIT - 1}s"), f"config.drain.timeout {BULK_WAIT - 1}s is shorter than config.limits.max_bulk_queue_wait {BULK_WAIT}s"),
    "a drain that cuts off bulk calls of these values": (
        drain("1m29s", max_bulk_queue_wait="1m30s"), "config.drain.timeout 1m29s is shorter than config.limits.max_bulk_queue_wait 1m30s"),
    "a bulk wait that cannot be compared": ({"config": {"limits": {"max_bulk_queue_wait": "500ms"}}}, "/config/limits/max_bulk_queue_wait"),
    "keys on plaintext": (KEYS, "/apiKeys/allowPlaintext"),
    "keys in a secret on plaintext": ({"apiKeys": {"existingSecret": "keys"}}, "/apiKeys/allowPlaintext"),
    "keys on plaintext with reflection": ({"apiKeys": {**KEYS["apiKeys"], "allowPlaintext": True}, "config": {"reflection": True}}, "/config/reflection"),
    "keys on plaintext with channelz": ({"apiKeys": {**KEYS["apiKeys"], "allowPlaintext": True}, "config": {"channelz": True}}, "/config/channelz"),
    "keys in two places": ({**TLS, "apiKeys": {**KEYS["apiKeys"], "existingSecret": "keys"}}, "/apiKeys/keys"),
    "a plain key": ({**TLS, "apiKeys": {"keys": [{"name": "search", "key": "hunter2"}]}}, "'key' not allowed"),
    "half a hash": ({**TLS, "apiKeys": {"keys": [{"name": "search", "sha256": HASH[:32]}]}}, "/apiKeys/keys/0/sha256"),
    "one key name twice": (
        {**TLS, "apiKeys": {"keys": [{"name": "a", "sha256": HASH}, {"name": "a", "sha256": HASH[::-1]}]}}, "apiKeys.keys[1].name a is there twice"),
    "a client CA without TLS": ({"tls": {"clientCA": {"existingSecret": "ca"}}}, "/tls/clientCA/existingSecret"),
    "a certificate without TLS": ({"tls": {"existingSecret": "certificate"}}, "/tls/existingSecret"),
    "a certificate of cert-manager without TLS": ({"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "i"}}}}, "/tls/certManager/enabled"),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "at '/tls"),
    "TLS with two certificates": ({"tls": {**TLS["tls"], "certManager": {"enabled": True, "issuerRef": {"name": "i"}}}}, "oneOf"),
    "cert-manager without an issuer": ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "/tls/certManager/issuerRef/name"),
    "a load balancer without TLS": ({**LOAD_BALANCER, **LET_IN}, "/tls/enabled"),
    "a load balancer that the network policy keeps out": ({**LOAD_BALANCER, **TLS}, "/networkPolicy/grpc/from"),
    "outside traffic without a load balancer": ({"service": {"externalTrafficPolicy": "Local"}}, "/service/externalTrafficPolicy"),
    "a port that there is not": ({"service": {"port": 65536}}, "/service/port"),
    "more connections than the server takes": ({"config": {"connections": {"max": 1048577}}}, "/config/connections/max"),
    "a limit of nothing": ({"config": {"limits": {"max_request_bytes": 0}}}, "/config/limits/max_request_bytes"),
    "a duration without a unit": ({"config": {"limits": {"max_queue_wait": "5"}}}, "/config/limits/max_queue_wait"),
    "a log level that there is not": ({"config": {"log": {"level": "trace"}}}, "/config/log/level"),
    "a node port": ({"service": {"type": "NodePort"}}, "/service/type"),
    "HPA and KEDA": ({"autoscaling": {"hpa": {"enabled": True}, "keda": KEDA}}, "/autoscaling/keda/enabled"),
    "HPA with fixed replicas": ({"replicas": 3, "autoscaling": {"hpa": {"enabled": True}}}, "at '/replicas'"),
    "KEDA with fixed replicas": ({"replicas": 3, "autoscaling": {"keda": KEDA}}, "at '/replicas'"),
    "HPA with connections for ever": ({"autoscaling": {"hpa": {"enabled": True}}, "config": {"connections": {"max_age": "0s"}}}, "/config/connections/max_age"),
    "HPA without a metric": ({"autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 0}}}, "/autoscaling/hpa"),
    "HPA by CPU without a request": ({"autoscaling": {"hpa": {"enabled": True}}, "resources": {"requests": {"cpu": None}}}, "/resources/requests"),
    "KEDA by CPU without a request": ({"autoscaling": {"keda": KEDA}, "resources": {"requests": {"cpu": None}}}, "/resources/requests"),
    "KEDA without Prometheus": ({"autoscaling": {"keda": {"enabled": True}}}, "/autoscaling/keda/serverAddress"),
    "KEDA by labels that nobody gives": ({"autoscaling": {"keda": {**KEDA, "query": ""}}}, "/autoscaling/keda/query"),
    "KEDA by running batches and labels that nobody gives": ({"autoscaling": {"keda": {**KEDA, "runningBatches": "1.4"}}}, "/autoscaling/keda/runningBatches"),
    "no rules at all": ({"prometheusRule": {"enabled": True, "shippedRules": False}}, "/prometheusRule/shippedRules"),
    "more replicas at least than at most": ({"autoscaling": {"minReplicas": 7}}, "autoscaling.minReplicas 7 is more than autoscaling.maxReplicas 6"),
    "no replicas": ({"replicas": 0}, "/replicas"),
    "fewer replicas than the budget keeps": ({"replicas": 2, "podDisruptionBudget": {"minAvailable": 3}}, "minAvailable 3 leaves none of 2 replicas to evict"),
    "as many replicas as the budget keeps": ({"replicas": 2, "podDisruptionBudget": {"minAvailable": 2}}, "minAvailable 2 leaves none of 2 replicas to evict"),
    "the default's replicas are fewer than the budget keeps": ({"podDisruptionBudget": {"minAvailable": 2}}, "leaves none of 2 replicas"),
    "a share that rounds up to all": ({"replicas": 3, "podDisruptionBudget": {"minAvailable": "67%"}}, "minAvailable 67% leaves none of 3 replicas"),
    "an autoscaler that goes below the budget": (
        {"autoscaling": {"minReplicas": 2, "hpa": {"enabled": True}}, "podDisruptionBudget": {"minAvailable": 2}}, "none of 2 replicas"),
    "two budgets": ({"replicas": 5, "podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}, "/podDisruptionBudget"),
    "a budget of nothing": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
    "a rollout that cannot move": ({"strategy": {"maxSurge": 0, "maxUnavailable": 0}}, "/strategy"),
    "a rollout that fails while models load": ({"progressDeadlineSeconds": 300}, "progressDeadlineSeconds 300 must be more than what probes.startup allows"),
    "CUDA without a GPU": (model(device="cuda"), "/gpu/enabled"),
    "a numbered GPU without a GPU": (model(device="cuda:0"), "/gpu/enabled"),
    "a GPU that nobody uses": ({"gpu": {"enabled": True}}, "/models"),
    "a GPU beyond the last": ({**model(device="cuda:2"), "gpu": {"enabled": True, "count": 2}}, "models[0].device cuda:2: the pod has gpu.count 2"),
    "fp16 on a CPU": (model(precision="fp16"), "/models/0/precision"),
    "int8 on a GPU": ({**model(device="cuda", precision="int8"), "gpu": {"enabled": True}}, "/models/0/precision"),
    "a device of another kind": (model(device="tpu"), "/models/0/device"),
    "no models": ({"models": []}, "/models"),
    "a model from nowhere": (model(source={}), "/models/0/source"),
    "a model from two places": (model(source={"baked": {}, "persistentVolumeClaim": {"claimName": "c"}}), "/models/0/source"),
    "one model name twice": ({"models": [MODEL, MODEL]}, "models[1].name m is there twice"),
    "a model name that leaves its directory": (model(name="../etc"), "/models/0/name"),
    "a model path that climbs": (
        model(source={"persistentVolumeClaim": {"claimName": "c", "subPath": "../other"}}), "/models/0/source/persistentVolumeClaim/subPath"),
    "a model image that moves": (model(source={"imageVolume": {"reference": "models/m:latest"}}), "/models/0/source/imageVolume/reference"),
    "a model image without a version": (model(source={"initContainer": {"image": "models/m"}}), "/models/0/source/initContainer/image"),
    "a tei model that is not served": ({"config": {"tei": {"model": "other"}}}, "config.tei.model other is none of models: e5-small-v2"),
    "an image that moves": ({"image": {"tag": "latest"}}, "/image/tag"),
    "memory without a limit": ({"resources": {"limits": {"memory": None}}}, "/resources/limits"),
    "a memory limit that is none": ({"resources": {"limits": {"memory": "0Gi"}}}, "/resources/limits/memory"),
    "a memory limit that is none, as a number": ({"resources": {"limits": {"memory": 0}}}, "/resources/limits/memory"),
    "a CPU limit that is none": ({"resources": {"limits": {"cpu": "0"}}}, "/resources/limits/cpu"),
    "a CPU limit that is none, as a number": ({"resources": {"limits": {"cpu": 0}}}, "/resources/limits/cpu"),
    "as many threads as the node has cores": ({"resources": {"limits": {"cpu": None}}}, "at '/config'"),
    "a gateway without a parent": ({"gateway": {"enabled": True}}, "/gateway/parentRefs"),
    "a gateway that the network policy keeps out": (GATEWAY, "/networkPolicy/grpc/from"),
    "a gateway that cannot check the pods": ({**GATEWAY, **TLS, **LET_IN}, "/gateway/backendTLS"),
    "a gateway with two authorities": ({"gateway": {**GATEWAY["gateway"], "backendTLS": {"caConfigMap": "ca", "systemCA": True}}, **TLS, **LET_IN}, "oneOf"),
    "Prometheus that the network policy keeps out": (MONITOR, "/networkPolicy/metrics/from"),
    "a peer that names nobody": ({"networkPolicy": {"grpc": {"from": [{}]}}}, "/networkPolicy/grpc/from/0"),
    "a label that services select by": ({"podLabels": {"app.kubernetes.io/name": "other"}}, "invalid propertyName 'app.kubernetes.io/name'"),
    "the server's address": ({"config": {"listen": "0.0.0.0:1"}}, "'listen' not allowed"),
    "the server's keys": ({"config": {"api_keys": "/keys"}}, "'api_keys' not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, words = REFUSED[case]
    assert words in refusal(values)


# The nearest that is taken, so that a refusal above is of what it names and of nothing else.
TAKEN = {
    "a grace period of a second more": {"terminationGracePeriodSeconds": 86},
    "a drain as long as bulk calls may wait": drain(f"{BULK_WAIT}s"),
    "a drain as long as bulk calls of these values may wait": drain("20s", max_bulk_queue_wait="20s"),
    "as many connections as the server takes": {"config": {"connections": {"max": 1048576}}},
    "little of everything": {"resources": {"limits": {"cpu": "0.5", "memory": "0.5Gi"}}},
    "keys with TLS and reflection": {**KEYS, **TLS, "config": {"reflection": True, "channelz": True}},
    "keys where a mesh encrypts": {"apiKeys": {**KEYS["apiKeys"], "allowPlaintext": True}},
    "a client CA with TLS": {"tls": {**TLS["tls"], "clientCA": {"existingSecret": "ca"}}},
    "a load balancer with TLS": {**LOAD_BALANCER, **TLS, **LET_IN},
    "a load balancer without network policy": {**LOAD_BALANCER, **TLS, "networkPolicy": {"enabled": False}},
    "HPA alone": {"autoscaling": {"hpa": {"enabled": True}}},
    "KEDA alone": {"autoscaling": {"keda": KEDA}},
    "KEDA by labels of the ServiceMonitor": {**MONITOR, **LET_IN, "autoscaling": {"keda": {**KEDA, "query": "", "runningBatches": "1.4"}}},
    "the rule of this release alone": {**MONITOR, **LET_IN, "prometheusRule": {"enabled": True, "shippedRules": False}},
    "HPA by queue wait alone": {
        "autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 0, "queueWait": {"enabled": True}}}, "resources": {"requests": {"cpu": None}}},
    "a budget that leaves a pod": {"replicas": 3, "podDisruptionBudget": {"minAvailable": 2}},
    "a share that leaves a pod": {"replicas": 3, "podDisruptionBudget": {"minAvailable": "66%"}},
    "a budget of none of one": {"replicas": 1},
    "the second of two GPUs": {**model(device="cuda:1", precision="fp16"), "gpu": {"enabled": True, "count": 2}},
    "threads without a CPU limit": {"resources": {"limits": {"cpu": None}}, "config": {"compute_threads": 4}},
    "a gateway without network policy": {**GATEWAY, "networkPolicy": {"enabled": False}},
    "a gateway with its own authorities": {"gateway": {**GATEWAY["gateway"], "backendTLS": {"systemCA": True}}, **TLS, **LET_IN},
    "Prometheus without network policy": {**MONITOR, "networkPolicy": {"enabled": False}},
    "values for all charts of a parent": {"global": {"registry": "registry.example"}},
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case):
    assert render(TAKEN[case]).deployment


def test_image_volume_needs_kubernetes_1_33():
    values = model(source={"imageVolume": {"reference": "models/m:1"}})
    assert "imageVolume needs Kubernetes 1.33" in refusal(values, kubernetes="1.32.9")
    assert render(values).volume("config")


def test_kubernetes_without_grpc_probes_is_refused():
    assert "requires kubeVersion: >=1.27" in refusal({}, kubernetes="1.26.0")


def objects(schema, path=""):
    """Every part of the schema that describes an object: (path, part)."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from objects(part, f"{path}/{index}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, part in schema.items():
            yield from objects(part, f"{path}/{key}")


# What others define: the parent chart, affinity of Kubernetes below its three kinds, longembed.v1.Extension below its name.
OPEN = {
    "/properties/global",
    "/properties/config/properties/profiles/additionalProperties",
    "/properties/config/properties/tei/properties/extension",
} | {
    f"/properties/affinity/properties/{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
}


def test_unknown_keys_are_refused_everywhere():
    schema = json.loads((CHART / "values.schema.json").read_text())
    parts = dict(objects(schema))
    assert len(parts) > 50
    assert {path for path, part in parts.items() if part.get("additionalProperties", True) is True} == OPEN


def mappings(values: dict, path: tuple[str, ...] = ()):
    """Paths of the mappings in values.yaml, those of labels and the like left out, whose keys are free."""
    yield path
    for key, value in values.items():
        if isinstance(value, dict) and key not in ("global", "affinity", "nodeSelector") and not key.lower().endswith(("labels", "annotations")):
            yield from mappings(value, (*path, key))


@pytest.mark.parametrize("path", list(mappings(yaml.safe_load((CHART / "values.yaml").read_text()))), ids=lambda path: ".".join(path) or "top")
def test_unknown_key_is_refused(path):
    values = {"unknwon": 1}
    for key in reversed(path):
        values = {key: values}
    assert "'unknwon' not allowed" in refusal(values)


# What the chart writes into config.yaml by itself.
OWNED = {"listen", "health_listen", "metrics_listen", "tls", "api_keys", "models"}


def keys_of_config(config: dict) -> set[str]:
    nested = ("log", "connections", "drain", "limits", "tei")
    return {f"{key}.{below}" for key in nested for below in config.get(key, {})} | {key for key in config if key not in nested}


def test_values_take_exactly_the_keys_of_the_servers_config():
    sample = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    taken = {key: part.get("properties", {}) for key, part in properties.items()}
    assert keys_of_config(taken) == keys_of_config({key: value for key, value in sample.items() if key not in OWNED})


def test_models_take_exactly_the_keys_of_the_servers_models():
    sample = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())["models"][0]
    properties = json.loads((CHART / "values.schema.json").read_text())["$defs"]["model"]["properties"]
    assert properties.keys() - {"source"} == sample.keys() - {"path"}
