"""Tests services, network policy, TLS, API keys and the gateway."""

import base64
import re

import pytest
import yaml

from chart import NAME, ROOT, render

TLS = {"tls": {"enabled": True, "existingSecret": "certificate"}}
HASH = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"


def ports(service: dict) -> list[tuple]:
    return [(port["name"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]]


def test_service():
    service = render({"service": {"port": 9090, "annotations": {"a": "b"}}}).one("Service", NAME)
    assert service["spec"]["type"] == "ClusterIP" and "clusterIP" not in service["spec"]
    assert ports(service) == [("grpc", 9090, "grpc"), ("http", 8080, "http")] and service["metadata"]["annotations"] == {"a": "b"}


def test_headless_service_names_ready_pods():
    spec = render().one("Service", f"{NAME}-headless")["spec"]
    assert spec["clusterIP"] == "None" and not spec.get("publishNotReadyAddresses")
    assert ports({"spec": spec}) == [("grpc", 50051, "grpc")]


def test_metrics_service_names_pods_that_still_load():
    service = render().one("Service", f"{NAME}-metrics")
    assert service["spec"]["publishNotReadyAddresses"] is True and ports(service) == [("metrics", 9464, "metrics")]


def test_services_select_the_servers_pods():
    manifests = render()
    assert len(manifests.all("Service")) == 3
    for service in manifests.all("Service"):
        assert service["spec"]["selector"] == manifests.deployment["selector"]["matchLabels"]


GATEWAY = {"gateway": {"enabled": True, "parentRefs": [{"name": "p"}], "backendTLS": {"systemCA": True}}, "networkPolicy": {"enabled": False}}


@pytest.mark.parametrize("service", [NAME, f"{NAME}-headless"])
@pytest.mark.parametrize(("values", "protocol"), [
    ({}, "kubernetes.io/h2c"), (TLS, "https"), ({**TLS, **GATEWAY}, None), (GATEWAY, "kubernetes.io/h2c"),
    ({**TLS, "service": {"appProtocol": "tls"}}, "tls"), ({"service": {"appProtocol": "grpc"}}, "grpc")])
def test_port_says_its_protocol(values, service, protocol):
    """A service mesh would treat TLS on a port named grpc as plaintext. Istio's gateways, however, need that name to speak HTTP/2 over TLS
    connections that they open themselves."""
    port = render(values).one("Service", service)["spec"]["ports"][0]
    assert (port["name"], port.get("appProtocol")) == ("grpc", protocol)


def test_load_balancer():
    service = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local"}
    manifests = render({**TLS, "service": service, "networkPolicy": {"grpc": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}})
    spec = manifests.one("Service", NAME)["spec"]
    assert spec["type"] == "LoadBalancer" and spec["loadBalancerSourceRanges"] == ["10.0.0.0/8"] and spec["externalTrafficPolicy"] == "Local"
    assert "externalTrafficPolicy" not in render().one("Service", NAME)["spec"]


def http_port(manifests) -> dict | None:
    return next((port for port in manifests.one("Service", NAME)["spec"]["ports"] if port["name"] == "http"), None)


def test_http_port():
    manifests = render({"http": {"port": 8443}, "service": {"type": "NodePort"}, **TLS, "networkPolicy": {"enabled": False}})
    assert http_port(manifests) == {"name": "http", "port": 8443, "targetPort": "http", "protocol": "TCP", "appProtocol": "https"}
    assert http_port(render())["appProtocol"] == "http"
    nodes = {"http": {"nodePort": 30080}, "service": {"type": "NodePort"}, **TLS, "networkPolicy": {"enabled": False}}
    assert http_port(render(nodes))["nodePort"] == 30080


def test_no_http_port():
    manifests = render({"http": {"enabled": False}})
    assert http_port(manifests) is None and "http_listen" not in manifests.config and admitted(manifests, "http") == []
    assert "http" not in [port["name"] for port in manifests.container["ports"]]


def test_network_policy_lets_callers_reach_http():
    peer = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    assert admitted(render({"networkPolicy": {"grpc": {"from": [peer]}}}), "http") == [peer]


def test_ingress():
    manifests = render(example="ingress.yaml")
    ingress = manifests.one("Ingress")
    spec = ingress["spec"]
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "public"} and spec["ingressClassName"] == "public"
    assert spec["tls"] == [{"secretName": "embeddings-ingress-tls", "hosts": ["embeddings.example.com"]}]
    (rule,) = spec["rules"]
    backend = {"service": {"name": NAME, "port": {"name": "http"}}}
    assert rule == {"host": "embeddings.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    assert http_port(manifests) and not render().all("Ingress")


def test_ingress_to_grpc_and_by_path():
    values = {"enabled": True, "port": "grpc", "hosts": [{"host": "a.example", "paths": [{"path": "/x", "pathType": "Exact"}]}]}
    spec = render({"ingress": values, "http": {"enabled": False}, "networkPolicy": {"enabled": False}}).one("Ingress")["spec"]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"], path["backend"]["service"]["port"]) == ("/x", "Exact", {"name": "grpc"}) and "ingressClassName" not in spec


def test_http_route():
    manifests = render(example="gateway.yaml")
    route, grpc_route = manifests.one("HTTPRoute")["spec"], manifests.one("GRPCRoute")["spec"]
    assert route["parentRefs"] == grpc_route["parentRefs"] and set(route["hostnames"]).isdisjoint(grpc_route["hostnames"])
    assert route["rules"] == [{"backendRefs": [{"name": NAME, "port": http_port(manifests)["port"]}]}]
    without = render({"gateway": {"httpHostnames": []}}, example="gateway.yaml")
    assert not without.all("HTTPRoute") and len(without.one("BackendTLSPolicy")["spec"]["targetRefs"]) == 1


def test_node_port():
    spec = render(example="platform.yaml").one("Service", NAME)["spec"]
    assert (spec["type"], spec["ports"][0]["nodePort"], spec["externalTrafficPolicy"]) == ("NodePort", 30051, "Local")
    assert "nodePort" not in render().one("Service", NAME)["spec"]["ports"][0]


def test_fields_of_the_service():
    fields = {"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose", "loadBalancerClass": "a/b", "loadBalancerIP": "10.0.0.9"}
    service = {"type": "LoadBalancer", **fields, "allocateLoadBalancerNodePorts": False}
    spec = render({**TLS, "service": service, "networkPolicy": {"enabled": False}}).one("Service", NAME)["spec"]
    assert fields.items() <= spec.items() and spec["allocateLoadBalancerNodePorts"] is False
    assert (fields.keys() | {"allocateLoadBalancerNodePorts", "ipFamilies", "ipFamilyPolicy"}).isdisjoint(render().one("Service", NAME)["spec"])


def test_every_service_gets_the_address_families():
    families = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    services = render({"service": families, "bindAddress": "[::]"}).all("Service")
    assert len(services) == 3 and all(families.items() <= service["spec"].items() for service in services)


def admitted(manifests, port: str) -> list[dict]:
    """Returns the peers that may reach a port."""
    rules = manifests.one("NetworkPolicy")["spec"]["ingress"]
    return [peer for rule in rules if port in [entry["port"] for entry in rule["ports"]] for peer in rule["from"]]


def test_network_policy_shuts_the_pods():
    manifests = render()
    spec = manifests.one("NetworkPolicy")["spec"]
    assert spec["podSelector"]["matchLabels"] == manifests.deployment["selector"]["matchLabels"]
    assert spec["policyTypes"] == ["Ingress", "Egress"] and spec["egress"] == []
    assert all(rule["from"] and rule["ports"] for rule in spec["ingress"]), "an empty list would admit every peer"


def test_network_policy_lets_in_the_namespace_and_the_test():
    manifests = render()
    test_labels = manifests.test_pod("embed")["metadata"]["labels"]
    namespace, test = admitted(manifests, "grpc")
    assert namespace == {"podSelector": {}} and test["podSelector"]["matchLabels"].items() <= test_labels.items()
    assert admitted(manifests, "metrics") == []


def test_network_policy_lets_in_the_peers_of_the_values():
    client, prometheus = {"ipBlock": {"cidr": "10.0.0.0/8"}}, {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    manifests = render({"networkPolicy": {"grpc": {"from": [client]}, "metrics": {"from": [prometheus]}}})
    assert client in admitted(manifests, "grpc") and {"podSelector": {}} not in admitted(manifests, "grpc")
    assert admitted(manifests, "metrics") == [prometheus]


@pytest.mark.parametrize("values", [{}, {"networkPolicy": {"grpc": {"from": [{"podSelector": {"matchLabels": {"app": "haproxy"}}}]}}}])
def test_network_policy_lets_balancers_ask_for_health(values):
    manifests = render(values)
    assert admitted(manifests, "health") == admitted(manifests, "grpc")


def test_network_policy_names_ports_of_the_container():
    manifests = render(example="cpu-production.yaml")
    named = {port["port"] for rule in manifests.one("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]}
    assert named == {port["name"] for port in manifests.container["ports"]}


def test_network_policy_takes_egress_and_can_be_off():
    rule = {"ports": [{"port": 15012, "protocol": "TCP"}]}
    assert render({"networkPolicy": {"egress": [rule]}}).one("NetworkPolicy")["spec"]["egress"] == [rule]
    assert not render({"networkPolicy": {"enabled": False}}).all("NetworkPolicy")


def test_network_policy_takes_more_rules():
    peer = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    manifests = render({"networkPolicy": {"ingress": [{"from": [peer], "ports": [{"port": "proxy"}]}]}})
    assert admitted(manifests, "proxy") == [peer] and peer not in admitted(manifests, "grpc")


def files_in(manifests) -> dict[str, tuple]:
    """Returns every file of a secret in the server's container: {path: (secret, key, mode)}."""
    found = {}
    for mount in manifests.container["volumeMounts"]:
        secret = manifests.volume(mount["name"]).get("secret")
        for item in secret["items"] if secret else []:
            assert "subPath" not in mount, "a subPath is never updated"
            found[f"{mount['mountPath']}/{item['path']}"] = (secret["secretName"], item["key"], secret["defaultMode"])
    return found


def test_plaintext_by_default():
    assert "tls" not in render().config and "api_keys" not in render().config and files_in(render()) == {}


def test_tls_files_are_where_the_config_looks():
    manifests = render(TLS)
    tls = manifests.config["tls"]
    assert files_in(manifests) == {tls["certificate"]: ("certificate", "tls.crt", 0o440), tls["key"]: ("certificate", "tls.key", 0o440)}


def test_client_ca_is_where_the_config_looks():
    manifests = render({"tls": {**TLS["tls"], "clientCA": {"existingSecret": "clients", "key": "authority.pem"}}})
    assert files_in(manifests)[manifests.config["tls"]["client_ca"]] == ("clients", "authority.pem", 0o440)
    assert "client_ca" not in render(TLS).config["tls"]


def test_api_keys_in_a_secret_of_theirs():
    manifests = render({**TLS, "apiKeys": {"existingSecret": "theirs", "fileKey": "k.yaml"}})
    assert files_in(manifests)[manifests.config["api_keys"]] == ("theirs", "k.yaml", 0o440)
    assert not manifests.all("Secret")


def test_api_keys_of_the_values():
    keys = [{"name": "a", "sha256": HASH, "max_queued_tokens": 200000}]
    manifests = render({**TLS, "apiKeys": {"keys": keys}})
    secret = manifests.one("Secret")
    name, key, _ = files_in(manifests)[manifests.config["api_keys"]]
    assert name == secret["metadata"]["name"]
    assert yaml.safe_load(base64.b64decode(secret["data"][key])) == {"keys": keys}


def test_hashes_are_nowhere_but_in_the_secret():
    manifests = render({**TLS, "apiKeys": {"keys": [{"name": "a", "sha256": HASH}]}})
    assert HASH not in manifests.text


def test_new_keys_restart_nothing():
    templates = [render({**TLS, "apiKeys": {"keys": [{"name": name, "sha256": HASH}]}}).deployment["template"] for name in "ab"]
    assert templates[0] == templates[1]


def test_certificate():
    manifests = render(example="cpu-production.yaml")
    spec = manifests.one("Certificate")["spec"]
    assert spec["secretName"] == manifests.volume("tls")["secret"]["secretName"] == f"{NAME}-tls"
    assert spec["issuerRef"] == {"name": "internal", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert "embeddings.example.com" in spec["dnsNames"]
    assert not render(TLS).all("Certificate")


def test_certificate_covers_the_names_that_clients_use():
    manifests = render(example="cpu-production.yaml")
    words = manifests.test_pod("embed")["spec"]["containers"][0]["args"]
    names = manifests.one("Certificate")["spec"]["dnsNames"]
    assert words[words.index("--server") + 1].split(":")[0] in names
    assert {f"{NAME}-headless.ns.svc", f"{NAME}-headless.ns.svc.cluster.local", NAME} <= set(names)


def test_route():
    manifests = render(example="gateway.yaml")
    spec = manifests.one("GRPCRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}] and spec["hostnames"] == ["embeddings.example.com"]
    (rule,) = spec["rules"]
    (backend,) = rule["backendRefs"]
    service = manifests.one("Service", backend["name"])
    assert backend["port"] == service["spec"]["ports"][0]["port"] and backend["name"] == NAME
    assert not render().all("GRPCRoute")


def test_route_passes_only_services_that_exist():
    declared = set()
    for proto in (ROOT / "proto").rglob("*.proto"):
        text = proto.read_text()
        package = re.search(r"^package (\S+);", text, re.M)[1]
        declared |= {f"{package}.{service}" for service in re.findall(r"^service (\w+)", text, re.M)}
    matches = render(example="gateway.yaml").one("GRPCRoute")["spec"]["rules"][0]["matches"]
    passed = {match["method"]["service"] for match in matches}
    assert "longembed.v1.EmbeddingService" in passed and "tei.v1.Embed" in passed
    assert passed - {"grpc.health.v1.Health"} <= declared


def test_gateway_speaks_tls_to_pods_with_tls():
    policy = render(example="gateway.yaml").one("BackendTLSPolicy")["spec"]
    assert policy["targetRefs"] == [{"group": "", "kind": "Service", "name": NAME, "sectionName": port} for port in ("grpc", "http")]
    assert policy["validation"] == {"hostname": f"{NAME}.ns.svc", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "embeddings-ca"}]}


def test_gateway_with_its_own_authorities():
    policy = render({"gateway": {"backendTLS": {"caConfigMap": "", "systemCA": True}}}, example="gateway.yaml").one("BackendTLSPolicy")["spec"]
    assert policy["validation"]["wellKnownCACertificates"] == "System" and "caCertificateRefs" not in policy["validation"]


@pytest.mark.parametrize("values", [{}, {"gateway": {"enabled": True, "parentRefs": [{"name": "p"}]}, "networkPolicy": {"enabled": False}}])
def test_no_backend_tls_without_tls(values):
    assert not render(values).all("BackendTLSPolicy")
