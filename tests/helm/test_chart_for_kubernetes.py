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


def peer(**one) -> dict:
    return {"networkPolicy": {"grpc": {"from": [one]}}}


def chosen(**expression) -> dict:
    return peer(podSelector={"matchExpressions": [{"key": "a", **expression}]})


def egress(**port) -> dict:
    return {"networkPolicy": {"egress": [{"ports": [port]}]}}


NETWORK = {
    "an address that is none": (peer(ipBlock={"cidr": "example.com/8"}), "/ipBlock/cidr"),
    "an address without a prefix": (peer(ipBlock={"cidr": "10.0.0.1"}), "/ipBlock/cidr"),
    "an address beyond its prefix": (peer(ipBlock={"cidr": "10.0.0.1/8"}), "networkPolicy.grpc.from[0].ipBlock.cidr 10.0.0.1/8 has bits beyond its prefix"),
    "an exception beyond its prefix": (peer(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.64/25"]}), "ipBlock.except[0] 10.1.0.64/25 has bits"),
    "a prefix that is too long": (peer(ipBlock={"cidr": "10.0.0.0/33"}), "/ipBlock/cidr"),
    "an address in octal": (peer(ipBlock={"cidr": "010.0.0.0/8"}), "/ipBlock/cidr"),
    "addresses of pods": (peer(ipBlock={"cidr": "10.0.0.0/8"}, podSelector={}), "/networkPolicy/grpc/from/0': maxProperties"),
    "one of no values": (chosen(operator="In"), "/podSelector/matchExpressions/0"),
    "existence of a value": (chosen(operator="Exists", values=["b"]), "/podSelector/matchExpressions/0/values"),
    "a port of 0": (egress(port=0), "/egress/0/ports/0/port"),
    "a port of 65536": (egress(port=65536), "/egress/0/ports/0/port"),
    "a port by a number in text": (egress(port="53"), "/egress/0/ports/0/port"),
    "a port's name with capitals": (egress(port="A_B"), "/egress/0/ports/0/port"),
    "an end without a port": (egress(endPort=5), "/egress/0/ports/0"),
    "an end beside a name": (egress(port="a", endPort=5), "/egress/0/ports/0/port"),
    "an end before its port": (egress(port=10, endPort=5), "networkPolicy.egress[0].ports[0].endPort 5 is less than port 10"),
    "a source that is no range": (
        {**LET_IN, **TLS, "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}}, "/service/loadBalancerSourceRanges/0"),
    "a source beyond its prefix": (
        {**LET_IN, **TLS, "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "192.168.1.1/24"]}},
        "service.loadBalancerSourceRanges[1] 192.168.1.1/24 has bits beyond its prefix; clear them"),
}  # fmt: skip


def ingress(host: str, **path) -> dict:
    return {**LET_IN, "ingress": {"enabled": True, "hosts": [{"host": host, **({"paths": [path]} if path else {})}]}}


def gateway(**changes) -> dict:
    return {**LET_IN, "gateway": {"enabled": True, "parentRefs": [{"name": "public"}], **changes}}


ROUTES = {
    "an Ingress for a name with capitals": (ingress("A.example"), "/ingress/hosts/0/host"),
    "an Ingress for an address": (ingress("10.0.0.1"), "/ingress/hosts/0/host"),
    "an Ingress for a mere star": (ingress("*"), "/ingress/hosts/0/host"),
    "an Ingress to an empty folder": (ingress("a", path="/a//b"), "/ingress/hosts/0/paths/0/path"),
    "an Ingress to a parent folder": (ingress("a", path="/a/..", pathType="Exact"), "/ingress/hosts/0/paths/0/path"),
    "an Ingress to a slash in disguise": (ingress("a", path="/a%2Fb"), "/ingress/hosts/0/paths/0/path"),
    "a certificate for a port": (
        {**LET_IN, "ingress": {"enabled": True, "hosts": [{"host": "a"}], "tls": [{"hosts": ["a:443"]}]}}, "/ingress/tls/0/hosts/0"),
    "a route for a name with capitals": (gateway(hostnames=["A.example"]), "/gateway/hostnames/0"),
    "a route for a port": (gateway(hostnames=["a.example:443"]), "/gateway/hostnames/0"),
    "routes for 17 names": (gateway(hostnames=[f"a{i}.example" for i in range(17)]), "/gateway/hostnames': maxItems"),
    "HTTP routes for 17 names": (gateway(hostnames=["b"], httpHostnames=[f"a{i}.example" for i in range(17)]), "/gateway/httpHostnames': maxItems"),
    "one gateway twice": (gateway(parentRefs=[{"name": "public"}, {"name": "public"}]), "/gateway/parentRefs"),
    "33 gateways": (gateway(parentRefs=[{"name": f"g{i}"} for i in range(33)]), "/gateway/parentRefs': maxItems"),
    "a gateway in no namespace": (gateway(parentRefs=[{"name": "public", "namespace": ""}]), "/gateway/parentRefs/0/namespace"),
    "a gateway in a namespace with a dot": (gateway(parentRefs=[{"name": "public", "namespace": "a.b"}]), "/gateway/parentRefs/0/namespace"),
    "a listener with capitals": (gateway(parentRefs=[{"name": "public", "sectionName": "HTTPS"}]), "/gateway/parentRefs/0/sectionName"),
    "a service with a slash": (gateway(services=["tei.v1.Embed/Embed"]), "/gateway/services/0"),
}  # fmt: skip


def variable(**source) -> dict:
    return {"env": [{"name": "A", "valueFrom": source}]}


def mount(**changes) -> dict:
    return {"extraVolumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v", **changes}]}


PODS = {
    "a toleration of a value that need only exist": ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "/tolerations/0/value"),
    "a toleration of everything that is equal": ({"tolerations": [{"operator": "Equal", "value": "b"}]}, "/tolerations/0"),
    "an empty toleration": ({"tolerations": [{}]}, "/tolerations/0"),
    "a toleration that ends without effect": ({"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]}, "/tolerations/0"),
    "a toleration that ends before it counts": (
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]}, "/tolerations/0/effect"),
    "a toleration of a key with spaces": ({"tolerations": [{"key": "a b", "operator": "Exists"}]}, "/tolerations/0/key"),
    "a toleration of a value with spaces": ({"tolerations": [{"key": "a", "value": "b c"}]}, "/tolerations/0/value"),
    "four name servers": ({"dnsConfig": {"nameservers": [f"10.0.0.{i}" for i in range(4)]}}, "/dnsConfig/nameservers': maxItems"),
    "a name server by name": ({"dnsConfig": {"nameservers": ["dns.example"]}}, "/dnsConfig/nameservers/0"),
    "a search of a name with spaces": ({"dnsConfig": {"searches": ["a b"]}}, "/dnsConfig/searches/0"),
    "33 searches": ({"dnsConfig": {"searches": [f"a{i}.example" for i in range(33)]}}, "/dnsConfig/searches': maxItems"),
    "an alias of a name": ({"hostAliases": [{"ip": "a.example", "hostnames": ["a"]}]}, "/hostAliases/0/ip"),
    "an alias with an underscore": ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a_b"]}]}, "/hostAliases/0/hostnames/0"),
    "a field that is none": (variable(fieldRef={"fieldPath": "spec.node"}), "/env/0/valueFrom/fieldRef/fieldPath"),
    "a field of another version": (variable(fieldRef={"apiVersion": "v2", "fieldPath": "metadata.name"}), "/env/0/valueFrom/fieldRef/apiVersion"),
    "a resource that is none": (variable(resourceFieldRef={"resource": "cpu"}), "/env/0/valueFrom/resourceFieldRef/resource"),
    "a prefix with a sign": ({"envFrom": [{"prefix": "A=", "secretRef": {"name": "a"}}]}, "/envFrom/0/prefix"),
    "a mount of two folders": (mount(subPath="a", subPathExpr="b"), "at '/extraVolumeMounts/0': 'not' failed"),
    "a mount that spreads to the node": (mount(mountPropagation="Bidirectional"), "/extraVolumeMounts/0/mountPropagation"),
    "a mount below which nothing is writable, but itself": (mount(recursiveReadOnly="Enabled"), "/extraVolumeMounts/0"),
    "a profile of the node without its name": ({"podSecurityContext": {"seccompProfile": {"type": "Localhost"}}}, "/podSecurityContext/seccompProfile"),
    "a name of the default profile": (
        {"podSecurityContext": {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a"}}}, "/podSecurityContext/seccompProfile/localhostProfile"),
    "an AppArmor profile of the node without its name": ({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}, "/securityContext/appArmorProfile"),
    "a group of more than 31 bits": ({"podSecurityContext": {"supplementalGroups": [2147483648]}}, "/podSecurityContext/supplementalGroups/0"),
    "a metric whose name is a path": ({"autoscaling": {"hpa": {"enabled": True, "queueWait": {"enabled": True, "metric": "a/b"}}}}, "/hpa/queueWait/metric"),
}  # fmt: skip


def monitor(**changes) -> dict:
    return {**LET_IN, "serviceMonitor": {"enabled": True, **changes}}


MONITORS = {
    "seconds before minutes": (monitor(interval="15s1m"), "/serviceMonitor/interval"),
    "seconds twice": (monitor(scrapeTimeout="5s5s"), "/serviceMonitor/scrapeTimeout"),
    "an action that is none": (monitor(relabelings=[{"action": "rename", "targetLabel": "a"}]), "/serviceMonitor/relabelings/0/action"),
    "a source that is no label": (monitor(metricRelabelings=[{"sourceLabels": ["a-b"], "targetLabel": "a"}]), "/serviceMonitor/metricRelabelings/0/sourceLabels/0"),
}  # fmt: skip
REFUSED = {**NAMES, **NETWORK, **ROUTES, **PODS, **MONITORS}

TAKEN = {
    "labels and annotations of clouds": {
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a b", "EKS.example/x": ""}},
        "service": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-type": "external"}},
        "nodeSelector": {"node.kubernetes.io/instance-type": "g4dn.xlarge", "Pool": ""}, "commonLabels": {63 * "x": 63 * "y", "a.b/c_D.e": "1"}},
    "a name that begins with a digit": {"fullnameOverride": "1a"},
    "the longest name": {"nameOverride": "9" + 52 * "a", "fullnameOverride": 53 * "a"},
    "a key that begins with a dot": {"apiKeys": {"allowPlaintext": True, "existingSecret": "a.b", "fileKey": ".keys_A-1.yaml"}},
    "addresses": peer(ipBlock={"cidr": "10.128.0.0/9", "except": ["10.200.255.255/32", "10.192.0.0/10"]}),
    "every address": {"networkPolicy": {"grpc": {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}, {"ipBlock": {"cidr": "fd00:1::/64"}}]}}},
    "one of two values": chosen(operator="NotIn", values=["b", ""]),
    "ports": {"networkPolicy": {"egress": [{"ports": [{"port": 10, "endPort": 65535}, {"port": "a-1"}, {"port": 53, "protocol": "UDP"}, {"protocol": "SCTP"}]}]}},
    "an Ingress": ingress("*.a-1.example", path="/.well-known/a..b", pathType="Exact"),
    "an Ingress of a path that a controller reads": ingress("a", path="/(.*)//[a-z]+", pathType="ImplementationSpecific"),
    "routes": gateway(
        hostnames=["*.grpc.example", "1.example"], httpHostnames=["*.http.example"], services=["a.b_c.D1"],
        parentRefs=[{"name": "public", "sectionName": "https"}, {"name": "public", "sectionName": "a.b"}, {"name": "public", "namespace": "other"}]),
    "tolerations": {"tolerations": [
        {"operator": "Exists"}, {"key": "a.example/b", "operator": "Exists", "value": "", "effect": "NoExecute", "tolerationSeconds": 0},
        {"key": "a"}, {"key": "a", "operator": "Equal", "value": "b", "effect": "PreferNoSchedule"}]},
    "DNS": {"dnsConfig": {"nameservers": ["10.0.0.1", "fd00::1", "::ffff"], "searches": ["_a.b_c", ".", "a.example."], "options": [{"name": "ndots", "value": "2"}]}},
    "aliases": {"hostAliases": [{"ip": "fd00::1", "hostnames": ["a.example", "b"]}]},
    "fields": {"env": [
        {"name": f"A{i}", "valueFrom": {"fieldRef": {"fieldPath": path}}} for i, path in enumerate([
            "metadata.name", "metadata.uid", "metadata.labels['a.b/c']", "metadata.annotations['a']", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
            "status.hostIPs", "status.podIP", "status.podIPs"])]},
    "resources of the container": variable(resourceFieldRef={"resource": "limits.ephemeral-storage", "divisor": "1Mi"}),
    "a prefix": {"envFrom": [{"prefix": "a-b.C ", "configMapRef": {"name": "a.b"}}]},
    "a mount below which nothing is writable": mount(readOnly=True, recursiveReadOnly="Enabled", mountPropagation="None"),
    "a mount by a variable": mount(subPathExpr="$(POD)", mountPropagation="HostToContainer"),
    "profiles of the node": {
        "podSecurityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}, "supplementalGroups": [0, 2147483647]},
        "securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}, "seccompProfile": {"type": "RuntimeDefault"}}},
    "an interval in two units": monitor(interval="1m30s", scrapeTimeout="0m10s"),
    "a GPU's slice": gpu("nvidia.com/mig-1g.10gb"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, words = REFUSED[case]
    assert words in refusal(values)


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case):
    assert render(TAKEN[case]).deployment
