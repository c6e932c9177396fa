"""Tests values that the chart refuses because Kubernetes would, after some of the release's objects have been created.
test_chart_in_kubernetes.py shows that Kubernetes does."""

import pytest

from chart import refusal, render

PEERS = {"from": [{"podSelector": {}}]}
LET_IN = {"networkPolicy": {"grpc": PEERS, "metrics": PEERS}}
KEYS = {"allowPlaintext": True, "keys": [{"name": "a", "sha256": 64 * "0"}]}
TLS = {"tls": {"enabled": True, "existingSecret": "certificate"}}
LONG = 64 * "x"


def gpu(name: str) -> dict:
    return {"models": [{"name": "a", "source": {"baked": {}}, "device": "cuda"}], "gpu": {"enabled": True, "resourceName": name}}


# Maps the name of a case to (values, words of the chart's error).
NAMES = {
    "a label with spaces": ({"commonLabels": {"team": "a b"}}, "/commonLabels/team"),
    "a label of 64 characters": ({"podLabels": {"team": LONG}}, "/podLabels/team"),
    "a label whose key has spaces": ({"commonLabels": {"the team": "a"}}, "at '/commonLabels': additional properties 'the team' not allowed"),
    "a label whose prefix has capitals": ({"commonLabels": {"A.example/team": "a"}}, "at '/commonLabels'"),
    "an annotation whose key has spaces": ({"service": {"annotations": {"the team": "a"}}}, "at '/service/annotations'"),
    "a node's label with spaces": ({"nodeSelector": {"zone": "a b"}}, "/nodeSelector/zone"),
    "a peer's label with spaces": ({"networkPolicy": {"grpc": {"from": [{"podSelector": {"matchLabels": {"a": "b c"}}}]}}}, "/podSelector/matchLabels/a"),
    "a topology key with spaces": ({"topologySpread": {"topologyKeys": ["the zone"]}}, "/topologySpread/topologyKeys/0"),
    "a name that is cut off after a dot": ({"nameOverride": 52 * "a" + ".b", "fullnameOverride": "x"}, "at '/nameOverride': maxLength: got 54, want 53"),
    "a name with an empty part": ({"serviceAccount": {"name": "a..b"}}, "/serviceAccount/name"),
    "a class with an empty part": ({**LET_IN, "ingress": {"enabled": True, "className": "a..b", "hosts": [{"host": "a"}]}}, "/ingress/className"),
    "a secret's name with capitals": ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "A", "key": "a"}}}]}, "/secretKeyRef/name"),
    "a key of a secret with a slash": ({"apiKeys": {**KEYS, "fileKey": "a/b"}}, "at '/apiKeys/fileKey'"),
    "a key of a secret that is a parent folder": ({"apiKeys": {"allowPlaintext": True, "existingSecret": "a", "fileKey": ".."}}, "at '/apiKeys/fileKey'"),
    "a key of a client CA with a slash": ({"tls": {**TLS["tls"], "clientCA": {"existingSecret": "a", "key": "/a"}}}, "at '/tls/clientCA/key'"),
    "a protocol that is no name": ({"service": {"appProtocol": "-"}}, "/service/appProtocol"),
    "a protocol of 64 characters": ({"service": {"appProtocol": LONG}}, "/service/appProtocol"),
    "a class of load balancers with spaces": (
        {**LET_IN, **TLS, "service": {"type": "LoadBalancer", "loadBalancerClass": "a b"}}, "/service/loadBalancerClass"),
    "a GPU whose name ends in a dash": (gpu("a/b-"), "/gpu/resourceName"),
    "a GPU that is a quota": (gpu("requests.nvidia.com/gpu"), "/gpu/resourceName"),
}  # fmt: skip
REFUSED = {**NAMES}

TAKEN = {
    "labels and annotations of clouds": {
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a b", "EKS.example/x": ""}},
        "service": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-type": "external"}},
        "nodeSelector": {"node.kubernetes.io/instance-type": "g4dn.xlarge", "Pool": ""}, "commonLabels": {63 * "x": 63 * "y", "a.b/c_D.e": "1"}},
    "the longest name": {"nameOverride": "9" + 52 * "a", "fullnameOverride": 53 * "a"},
    "a key that begins with a dot": {"apiKeys": {"allowPlaintext": True, "existingSecret": "a.b", "fileKey": ".keys_A-1.yaml"}},
    "a GPU's slice": gpu("nvidia.com/mig-1g.10gb"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, words = REFUSED[case]
    assert words in refusal(values)


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case):
    assert render(TAKEN[case]).deployment
