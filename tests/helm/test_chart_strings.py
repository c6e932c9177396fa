"""Tests that text in values stays text in the objects. YAML reads 2024, 1e3, true and on as numbers and booleans where they are not quoted."""

import pytest
import yaml

from chart import KUBERNETES, run_template

TEXT = "98765"
PEERS = [{"podSelector": {}}]
MODELS = [
    {"name": TEXT, "source": {"persistentVolumeClaim": {"claimName": TEXT, "subPath": TEXT}}},
    {"name": "copied", "source": {"initContainer": {"image": f"a:{TEXT}", "path": f"/{TEXT}"}}},
    {"name": "image", "source": {"imageVolume": {"reference": f"a:{TEXT}", "subPath": TEXT}}},
]
SERVICE = {"type": "LoadBalancer", "annotations": {"a": TEXT}, "loadBalancerClass": TEXT, "loadBalancerIP": TEXT, "appProtocol": TEXT}
GATEWAY = {
    "enabled": True, "parentRefs": [{"name": TEXT, "namespace": TEXT}], "hostnames": [TEXT], "httpHostnames": ["a.example"],
    "backendTLS": {"caConfigMap": TEXT}}
INGRESS = {"enabled": True, "className": TEXT, "hosts": [{"host": TEXT, "paths": [{"path": f"/{TEXT}"}]}], "tls": [{"secretName": TEXT}]}
VALUES = {
    "commonLabels": {"a": TEXT}, "image": {"repository": TEXT, "tag": TEXT}, "imagePullSecrets": [TEXT, {"name": TEXT}], "models": MODELS,
    "config": {"tracing": {"service_name": TEXT}, "http": {"openai_prompt": TEXT}, "tei": {"model": TEXT, "default_prompt": TEXT}},
    "tls": {"enabled": True, "existingSecret": TEXT, "caKey": TEXT, "clientCA": {"existingSecret": TEXT, "key": TEXT}},
    "apiKeys": {"existingSecret": TEXT, "fileKey": TEXT}, "networkPolicy": {"grpc": {"from": PEERS}, "metrics": {"from": PEERS}},
    "service": SERVICE, "serviceAccount": {"name": TEXT}, "serviceMonitor": {"enabled": True, "namespace": TEXT},
    "prometheusRule": {"enabled": True, "namespace": TEXT}, "dashboard": {"enabled": True, "namespace": TEXT}, "gateway": GATEWAY, "ingress": INGRESS,
    "autoscaling": {"hpa": {"enabled": True, "queueWait": {"enabled": True, "metric": TEXT}}},
    "tests": {"text": TEXT, "apiKeySecret": {"name": TEXT, "key": TEXT}, "clientCertificateSecret": TEXT},
    "topologySpread": {"topologyKeys": [TEXT]}, "priorityClassName": TEXT, "schedulerName": TEXT}
CERT_MANAGER = {"tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": TEXT}}}}
GPU = {"models": [{"name": "a", "source": {"baked": {}}, "device": "cuda"}], "gpu": {"enabled": True, "runtimeClassName": TEXT}}
KEYS = {"apiKeys": {"allowPlaintext": True, "fileKey": TEXT, "keys": [{"name": "a", "sha256": 64 * "0"}]}}
KEDA = {
    "serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": False},
    "autoscaling": {"keda": {"enabled": True, "serverAddress": "http://p", "authenticationRef": {"name": TEXT}}}}


def not_text(node, is_lost, path=()):
    """Yields the paths of the keys and values that YAML no longer reads as text."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from not_text(value, is_lost, (*path, key))
            if not isinstance(key, str):
                yield (*path, key, "its key")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from not_text(value, is_lost, (*path, i))
    elif is_lost(node):
        yield path


def lost(values: dict, is_lost, **options) -> list[str]:
    result = run_template(values, **options)
    assert result.returncode == 0, result.stderr
    documents = [document for document in yaml.safe_load_all(result.stdout) if document]
    paths = [(document["kind"], path) for document in documents for path in not_text(document, is_lost)]
    return [".".join(map(str, (kind, *path))) for kind, path in paths]


@pytest.mark.parametrize("values", [VALUES, CERT_MANAGER, GPU, KEYS, KEDA])
def test_digits_in_values_stay_text(values):
    assert not lost(values, lambda node: node == int(TEXT))


def test_names_of_digits_stay_text():
    """A preview environment is often named by the number of its pull request."""
    values = {**VALUES, "fullnameOverride": "preview", "nameOverride": TEXT}
    assert not lost(values, lambda node: node == int(TEXT), release=TEXT, arguments=("--namespace", TEXT))
    assert not lost(CERT_MANAGER, lambda node: isinstance(node, float), release="r", arguments=("--namespace", TEXT))


@pytest.mark.parametrize("word", ["on", "true", "null"])
def test_names_that_yaml_takes_for_other_types_stay_text(word):
    def is_lost(node):
        return node in (True, None)

    # Only the pods' own flags are true.
    def named(name):
        return sorted(lost(VALUES, is_lost, release=name, arguments=("--namespace", name)))

    assert named(word) == named("plain")


@pytest.mark.parametrize(("release", "kubernetes"), [("1234", "1.35.9"), ("a.b", KUBERNETES)])
def test_names_that_no_service_may_have_are_refused(release, kubernetes):
    result = run_template({}, release=release, kubernetes=kubernetes)
    assert result.returncode != 0
    assert f"{release}-longembed-server, from the release's name, nameOverride or fullnameOverride, cannot name a service" in result.stderr
    assert "set fullnameOverride" in result.stderr


def test_an_override_of_the_name_that_no_service_may_have_is_refused():
    assert "r-a.b, from the release's name, nameOverride or fullnameOverride, cannot name a service" in run_template({"nameOverride": "a.b"}).stderr
    assert "1a, from the release's name" in run_template({"fullnameOverride": "1a"}, kubernetes="1.35.9").stderr


def test_services_may_begin_with_a_digit_since_kubernetes_1_36():
    for values, release in (({}, "1234"), ({"fullnameOverride": "1a"}, "r")):
        result = run_template(values, release=release, kubernetes="1.36.0")
        assert result.returncode == 0, result.stderr
