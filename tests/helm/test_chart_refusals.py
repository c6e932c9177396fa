"""Tests values that the chart refuses, with the reason."""

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
INGRESS = {"ingress": {"enabled": True, "hosts": [{"host": "a.example"}]}}
HTTP_ROUTE = {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["b.example"], "httpHostnames": ["a.example"]}}
LOAD_BALANCER = {"service": {"type": "LoadBalancer"}}
# The default of limits.max_bulk_queue_wait.
BULK_WAIT = int(yaml.safe_load((ROOT / "deploy/config.yaml").read_text())["limits"]["max_bulk_queue_wait"].removesuffix("s"))


def drain(timeout: str, **limits) -> dict:
    return {"config": {"drain": {"timeout": timeout}, "limits": limits}}


def model(**changes) -> dict:
    return {"models": [{**MODEL, **changes}]}


def relabeled(**monitor) -> dict:
    return {"serviceMonitor": {"enabled": True, **monitor}, **LET_IN}


def renewed(duration: str, before: str) -> dict:
    return {"tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "i"}, "duration": duration, "renewBefore": before}}}


# Maps the name of a case to (values, words of the error). The table "What is refused, and why" in README.md gives the reasons.
REFUSED = {
    "a grace period that drain uses up": (
        {"terminationGracePeriodSeconds": 85}, "terminationGracePeriodSeconds 85 must be more than config.drain.delay + config.drain.timeout = 85"),
    "a drain written in minutes": ({"config": {"drain": {"delay": "30s", "timeout": "2m"}}}, "= 150"),
    "a drain written in hours": ({"config": {"drain": {"delay": "0s", "timeout": "1h1m1s"}}}, "= 3661"),
    "a drain that cannot be added up": ({"config": {"drain": {"delay": "1.5s"}}}, "/config/drain/delay"),
    "a drain that cuts off bulk calls": (
        drain(f"{BULK_WAIT - 1}s"), f"config.drain.timeout {BULK_WAIT - 1}s is shorter than config.limits.max_bulk_queue_wait {BULK_WAIT}s"),
    "a drain that cuts off bulk calls, whose wait is in the values": (
        drain("1m29s", max_bulk_queue_wait="1m30s"), "config.drain.timeout 1m29s is shorter than config.limits.max_bulk_queue_wait 1m30s"),
    "a bulk wait that cannot be compared": ({"config": {"limits": {"max_bulk_queue_wait": "500ms"}}}, "/config/limits/max_bulk_queue_wait"),
    "keys on plaintext": (KEYS, "/apiKeys/allowPlaintext"),
    "keys in a secret on plaintext": ({"apiKeys": {"existingSecret": "keys"}}, "/apiKeys/allowPlaintext"),
    "keys on plaintext with channelz": ({"apiKeys": {**KEYS["apiKeys"], "allowPlaintext": True}, "config": {"channelz": True}}, "/config/channelz"),
    "keys in two places": ({**TLS, "apiKeys": {**KEYS["apiKeys"], "existingSecret": "keys"}}, "/apiKeys/keys"),
    "a plain key": ({**TLS, "apiKeys": {"keys": [{"name": "search", "key": "hunter2"}]}}, "'key' not allowed"),
    "half a hash": ({**TLS, "apiKeys": {"keys": [{"name": "search", "sha256": HASH[:32]}]}}, "/apiKeys/keys/0/sha256"),
    "one key name twice": (
        {**TLS, "apiKeys": {"keys": [{"name": "a", "sha256": HASH}, {"name": "a", "sha256": HASH[::-1]}]}}, "apiKeys.keys[1].name a appears twice"),
    "a client CA without TLS": ({"tls": {"clientCA": {"existingSecret": "ca"}}}, "/tls/clientCA/existingSecret"),
    "a certificate without TLS": ({"tls": {"existingSecret": "certificate"}}, "/tls/existingSecret"),
    "a certificate of cert-manager without TLS": ({"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "i"}}}}, "/tls/certManager/enabled"),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "at '/tls"),
    "TLS with two certificates": ({"tls": {**TLS["tls"], "certManager": {"enabled": True, "issuerRef": {"name": "i"}}}}, "oneOf"),
    "a certificate that is renewed before it is there": (
        renewed("24h", "720h"), "tls.certManager.renewBefore 720h must be less than tls.certManager.duration 24h"),
    "a certificate for minutes": (renewed("59m", "5m"), "tls.certManager.duration 59m is less than 1h"),
    "a certificate that is renewed in the last minute": (renewed("1h", "299s"), "tls.certManager.renewBefore 299s is less than 5m"),
    "cert-manager without an issuer": ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "/tls/certManager/issuerRef/name"),
    "a load balancer without TLS": ({**LOAD_BALANCER, **LET_IN}, "service.type LoadBalancer leads out of the cluster in plaintext; set tls.enabled"),
    "a load balancer that the network policy keeps out": (
        {**LOAD_BALANCER, **TLS},
        "service.type LoadBalancer: the network policy keeps callers from outside of the namespace out, because networkPolicy.grpc.from is empty"),
    "outside traffic without a load balancer": (
        {"service": {"externalTrafficPolicy": "Local"}}, "service.externalTrafficPolicy Local has no meaning for service.type ClusterIP; set service.type to"),
    "a fixed node port on a service without node ports": ({"service": {"nodePort": 30051}}, "service.nodePort 30051 has no meaning for service.type ClusterIP"),
    "ranges without a load balancer": (
        {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}, "service.loadBalancerSourceRanges has no meaning for service.type ClusterIP"),
    "a class without a load balancer": (
        {**TLS, **LET_IN, "service": {"type": "NodePort", "loadBalancerClass": "x"}}, "service.loadBalancerClass has no meaning for service.type NodePort"),
    "an address without a load balancer": ({"service": {"loadBalancerIP": "10.0.0.1"}}, "service.loadBalancerIP has no meaning for service.type ClusterIP"),
    "node ports turned off without a load balancer": (
        {"service": {"allocateLoadBalancerNodePorts": False}}, "service.allocateLoadBalancerNodePorts false has no meaning for service.type ClusterIP"),
    "a service by IPv6 alone to pods without": ({"service": {"ipFamilies": ["IPv6"]}}, "service.ipFamilies IPv6: the pods would not answer by IPv6, because bindAddress"),
    "a service with IPv6 to pods without": ({"service": {"ipFamilyPolicy": "PreferDualStack"}}, "service.ipFamilyPolicy PreferDualStack: the pods would not"),
    "a port that there is not": ({"service": {"port": 65536}}, "/service/port"),
    "more connections than the server takes": ({"config": {"connections": {"max": 1048577}}}, "/config/connections/max"),
    "a limit of nothing": ({"config": {"limits": {"max_request_bytes": 0}}}, "/config/limits/max_request_bytes"),
    "a duration without a unit": ({"config": {"limits": {"max_queue_wait": "5"}}}, "/config/limits/max_queue_wait"),
    "an age that the server refuses": ({"config": {"connections": {"max_age": "50ms"}}}, "/config/connections/max_age"),
    "a time of idleness that the server refuses": ({"config": {"connections": {"max_idle": "99ms"}}}, "/config/connections/max_idle"),
    "a duration in microseconds": ({"config": {"connections": {"max_age": "500000us"}}}, "/config/connections/max_age"),
    "a wait below the server's least": ({"config": {"limits": {"max_queue_wait": "99ms"}}}, "/config/limits/max_queue_wait"),
    "a wait of nothing": ({"config": {"connections": {"handshake_timeout": "0s"}}}, "/config/connections/handshake_timeout"),
    "a bulk wait of nothing": ({"config": {"limits": {"max_bulk_queue_wait": "0s"}}}, "/config/limits/max_bulk_queue_wait"),
    "a log level that there is not": ({"config": {"log": {"level": "trace"}}}, "/config/log/level"),
    "a node port without TLS": ({"service": {"type": "NodePort"}, **LET_IN}, "service.type NodePort leads out of the cluster in plaintext"),
    "a node port that the network policy keeps out": ({"service": {"type": "NodePort"}, **TLS}, "networkPolicy.grpc.from is empty; name the callers there"),
    "a service type that there is not": ({"service": {"type": "ExternalName"}}, "/service/type"),
    "HPA and KEDA": ({"autoscaling": {"hpa": {"enabled": True}, "keda": KEDA}}, "/autoscaling/keda/enabled"),
    "HPA with fixed replicas": ({"replicas": 3, "autoscaling": {"hpa": {"enabled": True}}}, "at '/replicas'"),
    "KEDA with fixed replicas": ({"replicas": 3, "autoscaling": {"keda": KEDA}}, "at '/replicas'"),
    "HPA with connections of unlimited age": ({"autoscaling": {"hpa": {"enabled": True}}, "config": {"connections": {"max_age": "0s"}}}, "/config/connections/max_age"),
    "HPA without a metric": ({"autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 0}}}, "/autoscaling/hpa"),
    "HPA by CPU without a request": ({"autoscaling": {"hpa": {"enabled": True}}, "resources": {"requests": {"cpu": None}}}, "/resources/requests"),
    "KEDA by CPU without a request": ({"autoscaling": {"keda": KEDA}, "resources": {"requests": {"cpu": None}}}, "/resources/requests"),
    "KEDA without Prometheus": ({"autoscaling": {"keda": {"enabled": True}}}, "/autoscaling/keda/serverAddress"),
    "KEDA with a target of nothing": ({"autoscaling": {"keda": {**KEDA, "expectedWaitSeconds": "0.0"}}}, "/autoscaling/keda/expectedWaitSeconds"),
    "HPA with a target of nothing": ({"autoscaling": {"hpa": {"enabled": True, "queueWait": {"enabled": True, "target": "0m"}}}}, "/autoscaling/hpa/queueWait/target"),
    "KEDA that authenticates itself by nothing": ({"autoscaling": {"keda": {**KEDA, "authModes": "bearer"}}}, "/autoscaling/keda/authenticationRef/name"),
    "KEDA that authenticates itself in no way": (
        {"autoscaling": {"keda": {**KEDA, "authModes": "bearr", "authenticationRef": {"name": "a"}}}}, "/autoscaling/keda/authModes"),
    "KEDA by labels that are never set": ({"autoscaling": {"keda": {**KEDA, "query": ""}}}, "/autoscaling/keda/query"),
    "KEDA by running batches and labels that are never set": ({"autoscaling": {"keda": {**KEDA, "runningBatches": "1.4"}}}, "/autoscaling/keda/runningBatches"),
    "no rules at all": ({"prometheusRule": {"enabled": True, "shippedRules": False}}, "/prometheusRule/shippedRules"),
    "more replicas at least than at most": ({"autoscaling": {"minReplicas": 7}}, "autoscaling.minReplicas 7 is more than autoscaling.maxReplicas 6"),
    "no replicas": ({"replicas": 0}, "/replicas"),
    "a memory limit below the default's request": (
        {"resources": {"limits": {"memory": "1536Mi"}}},
        "resources.requests.memory 2Gi is more than resources.limits.memory 1536Mi: Kubernetes would refuse the pods; set both"),
    "a request of CPU above the limit": ({"resources": {"requests": {"cpu": "2001m"}}}, "resources.requests.cpu 2001m is more than resources.limits.cpu 2"),
    "a request in bytes above the limit": ({"resources": {"requests": {"memory": 2147483649}}}, "is more than resources.limits.memory 2Gi"),
    "a request of disk above the limit": (
        {"resources": {"requests": {"ephemeral-storage": "1.5G"}, "limits": {"ephemeral-storage": "1Gi"}}}, "resources.requests.ephemeral-storage 1.5G is more"),
    "fewer replicas than the budget keeps": ({"replicas": 2, "podDisruptionBudget": {"minAvailable": 3}}, "minAvailable 3 leaves none of 2 replicas to evict"),
    "as many replicas as the budget keeps": ({"replicas": 2, "podDisruptionBudget": {"minAvailable": 2}}, "minAvailable 2 leaves none of 2 replicas to evict"),
    "the default's replicas are fewer than the budget keeps": ({"podDisruptionBudget": {"minAvailable": 2}}, "leaves none of 2 replicas"),
    "a share that rounds up to all": ({"replicas": 3, "podDisruptionBudget": {"minAvailable": "67%"}}, "minAvailable 67% leaves none of 3 replicas"),
    "an autoscaler that goes below the budget": (
        {"autoscaling": {"minReplicas": 2, "hpa": {"enabled": True}}, "podDisruptionBudget": {"minAvailable": 2}}, "none of 2 replicas"),
    "two budgets": ({"replicas": 5, "podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}, "/podDisruptionBudget"),
    "a budget of nothing": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
    "a budget that no number of Kubernetes holds": ({"podDisruptionBudget": {"maxUnavailable": 2147483648}}, "/podDisruptionBudget/maxUnavailable"),
    "a rollout that cannot move": ({"strategy": {"maxSurge": 0, "maxUnavailable": 0}}, "/strategy"),
    "a rollout that fails while models load": ({"progressDeadlineSeconds": 300}, "progressDeadlineSeconds 300 must be more than what probes.startup allows"),
    "CUDA without a GPU": (model(device="cuda"), "/gpu/enabled"),
    "a numbered GPU without a GPU": (model(device="cuda:0"), "/gpu/enabled"),
    "a GPU that is not used": ({"gpu": {"enabled": True}}, "/models"),
    "a GPU beyond the last": ({**model(device="cuda:2"), "gpu": {"enabled": True, "count": 2}}, "models[0].device cuda:2: the pod has gpu.count 2"),
    "fp16 on a CPU": (model(precision="fp16"), "/models/0/precision"),
    "int8 on a GPU": ({**model(device="cuda", precision="int8"), "gpu": {"enabled": True}}, "/models/0/precision"),
    "a device of another kind": (model(device="tpu"), "/models/0/device"),
    "no models": ({"models": []}, "/models"),
    "a model from nowhere": (model(source={}), "/models/0/source"),
    "a model from two places": (model(source={"baked": {}, "persistentVolumeClaim": {"claimName": "c"}}), "/models/0/source"),
    "one model name twice": ({"models": [MODEL, MODEL]}, "models[1].name m appears twice"),
    "a model name that leaves its directory": (model(name="../etc"), "/models/0/name"),
    "a model path that climbs": (
        model(source={"persistentVolumeClaim": {"claimName": "c", "subPath": "../other"}}), "/models/0/source/persistentVolumeClaim/subPath"),
    "a model image with a mutable tag": (model(source={"imageVolume": {"reference": "models/m:latest"}}), "/models/0/source/imageVolume/reference"),
    "a model image without a version": (model(source={"initContainer": {"image": "models/m"}}), "/models/0/source/initContainer/image"),
    "a tei model that is not served": ({"config": {"tei": {"model": "other"}}}, "config.tei.model other is not one of models: e5-small-v2"),
    "a tei profile of a model that is not served": ({"config": {"tei": {"model": "other:archive"}}}, "config.tei.model other:archive is not one of models"),
    "an image's name with its tag": ({"image": {"repository": "registry:5000/longembed:0.2.0"}}, "/image/repository"),
    "an image's name with its digest": ({"image": {"repository": f"registry/longembed@sha256:{HASH}"}}, "/image/repository"),
    "an image with a mutable tag": ({"image": {"tag": "latest"}}, "/image/tag"),
    "memory without a limit": ({"resources": {"limits": {"memory": None}}}, "/resources/limits"),
    "a memory limit of zero": ({"resources": {"limits": {"memory": "0Gi"}}}, "/resources/limits/memory"),
    "a memory limit of zero, as a number": ({"resources": {"limits": {"memory": 0}}}, "/resources/limits/memory"),
    "a CPU limit of zero": ({"resources": {"limits": {"cpu": "0"}}}, "/resources/limits/cpu"),
    "a CPU limit of zero, as a number": ({"resources": {"limits": {"cpu": 0}}}, "/resources/limits/cpu"),
    "as many threads as the node has cores": ({"resources": {"limits": {"cpu": None}}}, "at '/config'"),
    "a gateway without a parent": ({"gateway": {"enabled": True}}, "/gateway/parentRefs"),
    "a gateway that the network policy keeps out": (GATEWAY, "gateway.enabled: the network policy keeps the gateway out, because networkPolicy.grpc.from is empty"),
    "a gateway that cannot check the pods": ({**GATEWAY, **TLS, **LET_IN}, "/gateway/backendTLS"),
    "a gateway with two authorities": ({"gateway": {**GATEWAY["gateway"], "backendTLS": {"caConfigMap": "ca", "systemCA": True}}, **TLS, **LET_IN}, "oneOf"),
    "Prometheus that the network policy keeps out": (
        MONITOR, "serviceMonitor.enabled: the network policy keeps Prometheus out, because networkPolicy.metrics.from is empty; name its namespace there"),
    "a rule that admits every peer": ({"networkPolicy": {"ingress": [{"ports": [{"port": 1}]}]}}, "/networkPolicy/ingress/0"),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
    "a container as root": ({"securityContext": {"runAsUser": 0}}, "/securityContext/runAsUser"),
    "a pod that may run as root": ({"podSecurityContext": {"runAsNonRoot": False}}, "/podSecurityContext/runAsNonRoot"),
    "a privileged container": ({"securityContext": {"privileged": True}}, "'privileged' not allowed"),
    "more privileges": ({"securityContext": {"allowPrivilegeEscalation": True}}, "/securityContext/allowPrivilegeEscalation"),
    "a capability": ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "'add' not allowed"),
    "pull secrets by their old name": ({"image": {"pullSecrets": [{"name": "registry"}]}}, "'pullSecrets' not allowed"),
    "a variable twice": ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env[1].name A appears twice"),
    "a variable that turns keys off": (
        {**TLS, **KEYS, "env": [{"name": "LONGEMBED__API_KEYS", "value": ""}]}, "env[0].name LONGEMBED__API_KEYS would override what the chart sets or checks"),
    "a variable that moves the API": ({"env": [{"name": "LONGEMBED__LISTEN", "value": "0.0.0.0:9"}]}, "env[0].name LONGEMBED__LISTEN would override"),
    "a variable that turns TLS off": (
        {**TLS, "env": [{"name": "LONGEMBED__TLS__CERTIFICATE", "value": ""}]}, "env[0].name LONGEMBED__TLS__CERTIFICATE would override"),
    "a variable that drains for longer": (
        {"env": [{"name": "LONGEMBED__DRAIN__TIMEOUT", "value": "5m"}]}, "set bindAddress, http, tls, apiKeys or the key below config instead"),
    "a variable without a value": ({"env": [{"name": "A"}]}, "env[0], A, needs one of value and valueFrom"),
    "a variable with two values": (
        {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}, "env[0], A, needs one of value and valueFrom"),
    "a misspelt source of a variable": ({"env": [{"name": "A", "valueFrom": {"secretKeyRf": {}}}]}, "'secretKeyRf' not allowed"),
    "a misspelt source of variables": ({"envFrom": [{"secretRf": {"name": "a"}}]}, "'secretRf' not allowed"),
    "a misspelt kind of volume": ({"extraVolumes": [{"name": "a", "emptyDri": {}}]}, "'emptyDri' not allowed"),
    "a volume of the chart's": ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "extraVolumes[0].name tmp is the name of another volume of the pod"),
    "a volume twice": (
        {"extraVolumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}, "extraVolumes[1].name a is the name of another volume of the pod"),
    "a mount of no volume": ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]}, "extraVolumeMounts[0].name a is not one of extraVolumes: "),
    "a mount over the chart's": (
        {"extraVolumes": [{"name": "a", "emptyDir": {}}], "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/longembed/"}]},
        "extraVolumeMounts[0].mountPath /etc/longembed/ is mounted already"),
    "a sidecar with the name of the server": (
        {"extraContainers": [{"name": "server", "image": "a:1"}]}, "extraContainers[0].name server is the name of another container of the pod"),
    "a sidecar with the name of an init container": (
        {"initContainers": [{"name": "a", "image": "a:1"}], "extraContainers": [{"name": "a", "image": "a:1"}]},
        "extraContainers[0].name a is the name of another container of the pod"),
    "a sidecar's image with a mutable tag": ({"extraContainers": [{"name": "a", "image": "a:latest"}]}, "/extraContainers/0/image"),
    "a misspelt field of a sidecar": ({"extraContainers": [{"name": "a", "image": "a:1", "commnad": []}]}, "'commnad' not allowed"),
    "an object of no kind": ({"extraObjects": [{"apiVersion": "v1"}]}, "/extraObjects/0"),
    "a misspelt relabeling": ({"serviceMonitor": {"enabled": False, "relabelings": [{"targetLable": "a"}]}}, "'targetLable' not allowed"),
    "a misspelt DNS option": ({"dnsConfig": {"options": [{"nmae": "ndots"}]}}, "'nmae' not allowed"),
    "an ingress that the network policy keeps out": (INGRESS, "ingress.enabled: the network policy keeps the ingress controller out"),
    "an ingress to no port": ({**INGRESS, **LET_IN, "http": {"enabled": False}}, "ingress.enabled: there is no HTTP port to pass calls to; set http.enabled"),
    "an ingress for no host": ({"ingress": {"enabled": True}, **LET_IN}, "ingress.hosts is empty"),
    "a route to no port": (
        {"gateway": {**HTTP_ROUTE["gateway"]}, **LET_IN, "http": {"enabled": False}}, "gateway.httpHostnames: there is no HTTP port to pass calls to"),
    "a name of two routes": (
        {"gateway": {**HTTP_ROUTE["gateway"], "hostnames": ["a.example"]}, **LET_IN}, "gateway.httpHostnames: a.example is a name of the GRPCRoute, too"),
    "a GRPCRoute for every host and an HTTPRoute": (
        {"gateway": {**HTTP_ROUTE["gateway"], "hostnames": []}, **LET_IN}, "gateway.httpHostnames: a.example is a name of the GRPCRoute, too"),
    "a GRPCRoute for a wildcard and an HTTPRoute below it": (
        {"gateway": {**HTTP_ROUTE["gateway"], "hostnames": ["*.example"]}, **LET_IN},
        "gateway.httpHostnames: a.example is a name of the GRPCRoute, too (gateway.hostnames: *.example;"),
    "an HTTPRoute for a wildcard and a GRPCRoute below it": (
        {"gateway": {**HTTP_ROUTE["gateway"], "httpHostnames": ["*.example"]}, **LET_IN},
        "gateway.httpHostnames: *.example is a name of the GRPCRoute, too (gateway.hostnames: b.example;"),
    "one wildcard below another": (
        {"gateway": {**HTTP_ROUTE["gateway"], "hostnames": ["*.a.example"], "httpHostnames": ["*.example"]}, **LET_IN},
        "gateway.httpHostnames: *.example is a name of the GRPCRoute, too"),
    "a scrape that takes longer than to the next one": (
        {"serviceMonitor": {"enabled": True, "interval": "5s"}, **LET_IN},
        "serviceMonitor.scrapeTimeout 10s is more than serviceMonitor.interval 5s: Prometheus' operator would skip the ServiceMonitor"),
    "scrapes too far apart for the rules": (
        {"serviceMonitor": {"enabled": True, "interval": "2m1s"}, **LET_IN}, "serviceMonitor.interval 2m1s is more than 2m: the rules take rates over 5m"),
    "scrapes too far apart for KEDA": (
        {"serviceMonitor": {"enabled": True, "interval": "61s"}, "autoscaling": {"keda": {**KEDA, "runningBatches": "1.4"}}, **LET_IN},
        "serviceMonitor.interval 61s is more than 1m: autoscaling.keda.runningBatches takes a rate over 2m"),
    "a job that the alert of the release does not know": (
        {"serviceMonitor": {"enabled": True, "relabelings": [{"targetLabel": "a", "replacement": "b"}, {"targetLabel": "job", "replacement": "x"}]}, **LET_IN},
        "serviceMonitor.relabelings[1].targetLabel job: the chart's alert, its dashboard and its queries for KEDA go by this label"),
    "a label of series that the chart's queries go by": (
        relabeled(metricRelabelings=[{"action": "Lowercase", "sourceLabels": ["pod"], "targetLabel": "pod"}]), "serviceMonitor.metricRelabelings[0].targetLabel pod"),
    "a label that is dropped": (
        relabeled(relabelings=[{"action": "LabelDrop", "regex": "po.|endpoint"}]), "serviceMonitor.relabelings[0].regex po.|endpoint with the action labeldrop takes pod"),
    "labels that are not kept": (
        relabeled(metricRelabelings=[{"action": "labelkeep", "regex": "__name__|job|namespace|pod|model"}]), "the action labelkeep takes service away"),
    "a relabeling to nothing": (relabeled(relabelings=[{"replacement": "a"}]), "serviceMonitor.relabelings[0] needs targetLabel for the action replace"),
    "a hash without a modulus": (
        relabeled(relabelings=[{"action": "hashmod", "targetLabel": "shard"}]), "serviceMonitor.relabelings[0] needs modulus for the action hashmod"),
    "scrapes without an interval": (relabeled(interval="0s", scrapeTimeout="0s"), "/serviceMonitor/interval"),
    "an alert that there is not": (
        {"prometheusRule": {"disabled": ["LongembedSlow", "LongembedSlo"]}}, "prometheusRule.disabled[1] LongembedSlo is not one of the alerts: LongembedAbsent, "),
    "spans that the network policy keeps in": (
        {"config": {"tracing": {"endpoint": "collector:4317"}}},
        "config.tracing.endpoint collector:4317: the network policy blocks the export of spans, because networkPolicy.egress is empty; name the collector"),
    "spans to a name that begins like this machine's": (
        {"config": {"tracing": {"endpoint": "localhost.example:4317"}}}, "config.tracing.endpoint localhost.example:4317: the network policy blocks the export of spans"),
    "spans to a variable's collector that the network policy keeps in": (
        {"env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://$(NODE):4317"}]},
        "env[0], OTEL_EXPORTER_OTLP_ENDPOINT http://$(NODE):4317: the network policy blocks the export of spans"),
    "spans to a secret's collector that the network policy keeps in": (
        {"env": [{"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "env[0], OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (valueFrom): the network policy blocks the export of spans"),
    "a variable that moves the collector out of the pod": (
        {"config": {"tracing": {"endpoint": "localhost:4317"}}, "env": [{"name": "LONGEMBED__TRACING__ENDPOINT", "value": "collector:4317"}]},
        "env[0], LONGEMBED__TRACING__ENDPOINT collector:4317: the network policy blocks the export of spans"),
    "a variable that keeps new pods without load": (
        {"autoscaling": {"hpa": {"enabled": True}}, "env": [{"name": "LONGEMBED__CONNECTIONS__MAX_AGE", "value": "0s"}]},
        "env[0].name LONGEMBED__CONNECTIONS__MAX_AGE would override what the chart sets or checks"),
    "a variable that starts as many threads as the node has cores": (
        {"env": [{"name": "LONGEMBED__COMPUTE_THREADS", "value": "0"}]}, "env[0].name LONGEMBED__COMPUTE_THREADS would override"),
    "HTTP on the port of health": ({"http": {"port": 50052}}, "http.port 50052 is the pods' port of gRPC, health or metrics"),
    "HTTP on the service's port of gRPC": ({"service": {"port": 8080}}, "http.port 8080 is service.port, where gRPC is"),
    "a fixed node port for HTTP on a service without node ports": ({"http": {"nodePort": 30080}}, "http.nodePort 30080 has no meaning for service.type ClusterIP"),
    "one node port for both ports": (
        {**TLS, **LET_IN, "service": {"type": "NodePort", "nodePort": 30051}, "http": {"nodePort": 30051}}, "http.nodePort 30051 is service.nodePort, too"),
    "two families in one stack": (
        {"bindAddress": "[::]", "service": {"ipFamilies": ["IPv4", "IPv6"]}}, "service.ipFamilies has two families, which need service.ipFamilyPolicy PreferDualStack"),
    "a rollout that fails before a pod counts": (
        {"minReadySeconds": 600}, "progressDeadlineSeconds 600 must be more than minReadySeconds 600: Kubernetes would refuse the Deployment"),
    "no DNS at all": ({"dnsPolicy": "None", "dnsConfig": {"options": [{"name": "ndots"}]}}, "dnsPolicy None: Kubernetes would refuse the pods"),
    "spread over what no node has": ({"topologySpread": {"topologyKeys": ["the zone"]}}, "/topologySpread/topologyKeys/0"),
    "scaling by no policy": ({"autoscaling": {"hpa": {"enabled": True}, "behavior": {"scaleUp": {"policies": []}}}}, "/autoscaling/behavior/scaleUp/policies"),
    "a misspelt key of HTTP": ({"config": {"http": {"allowed_orgin": "*"}}}, "'allowed_orgin' not allowed"),
    "an empty peer": ({"networkPolicy": {"grpc": {"from": [{}]}}}, "/networkPolicy/grpc/from/0"),
    "an annotation that the chart sets": ({"podAnnotations": {"checksum/config": "a"}}, "/podAnnotations/checksum~1config"),
    "the container that kubectl takes": (
        {"podAnnotations": {"kubectl.kubernetes.io/default-container": "a"}}, "/podAnnotations/kubectl.kubernetes.io~1default-container"),
    "a label that services select by": ({"podLabels": {"app.kubernetes.io/name": "other"}}, "/podLabels/app.kubernetes.io~1name"),
    "the server's address": ({"config": {"listen": "0.0.0.0:1"}}, "'listen' not allowed"),
    "the server's keys": ({"config": {"api_keys": "/keys"}}, "'api_keys' not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, words = REFUSED[case]
    assert words in refusal(values)


# The closest valid values. They show that each refusal above is caused by what it names and by nothing else.
TAKEN = {
    "a grace period of a second more": {"terminationGracePeriodSeconds": 86},
    "a drain as long as bulk calls may wait": drain(f"{BULK_WAIT}s"),
    "a drain as long as bulk calls may wait, which is in the values": drain("20s", max_bulk_queue_wait="20s"),
    "as many connections as the server takes": {"config": {"connections": {"max": 1048576}}},
    "little of everything": {"resources": {"requests": {"cpu": "0.5", "memory": "0.5Gi"}, "limits": {"cpu": "0.5", "memory": "0.5Gi"}}},
    "keys with TLS and reflection": {**KEYS, **TLS, "config": {"reflection": True, "channelz": True}},
    "keys where a mesh encrypts": {"apiKeys": {**KEYS["apiKeys"], "allowPlaintext": True}},
    "a client CA with TLS": {"tls": {**TLS["tls"], "clientCA": {"existingSecret": "ca"}}},
    "a load balancer with TLS": {**LOAD_BALANCER, **TLS, **LET_IN},
    "a tei profile": {"config": {"profiles": {"archive": {"windows": {"tokens": 256}}}, "tei": {"model": "e5-small-v2:archive"}}},
    "a tei extension": {"config": {"tei": {"extension": {"windows": {"tokens": 256}}}}},
    "an ingress": {**INGRESS, **LET_IN},
    "routes of two names": {**HTTP_ROUTE, **LET_IN},
    "gRPC where HTTP would be, and no HTTP": {"service": {"port": 8080}, "http": {"enabled": False}},
    "a load balancer behind TLS of its own": {"service": {"type": "LoadBalancer", "allowPlaintext": True}, **LET_IN},
    "a node port with TLS": {"service": {"type": "NodePort", "nodePort": 30051}, **TLS, **LET_IN},
    "no IDs": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "seccompProfile": None}},
    "a load balancer without network policy": {**LOAD_BALANCER, **TLS, "networkPolicy": {"enabled": False}},
    "HPA alone": {"autoscaling": {"hpa": {"enabled": True}}},
    "KEDA alone": {"autoscaling": {"keda": KEDA}},
    "KEDA that authenticates itself": {"autoscaling": {"keda": {**KEDA, "authModes": "tls,bearer", "authenticationRef": {"name": "a"}}}},
    "relabelings that leave the labels of queries": relabeled(
        relabelings=[{"action": "labeldrop", "regex": "pod_.*"}, {"action": "keepequal", "sourceLabels": ["__a"], "targetLabel": "namespace"}, {"action": "labelmap"}],
        metricRelabelings=[{"action": "LabelKeep", "regex": "__name__|job|namespace|pod|service|model|le"}, {"action": "drop", "regex": "a", "targetLabel": "job"}]),
    "a certificate for an hour": renewed("60m", "5m"),
    "KEDA by labels of the ServiceMonitor": {**MONITOR, **LET_IN, "autoscaling": {"keda": {**KEDA, "query": "", "runningBatches": "1.4"}}},
    "the rule of this release alone": {**MONITOR, **LET_IN, "prometheusRule": {"enabled": True, "shippedRules": False}},
    "HPA by queue wait alone": {
        "autoscaling": {"hpa": {"enabled": True, "cpuUtilization": 0, "queueWait": {"enabled": True}}}, "resources": {"requests": {"cpu": None}}},
    "requests as large as limits, in other units": {"resources": {"requests": {"cpu": "4000m", "memory": "2048Mi"}, "limits": {"cpu": 4, "memory": 2147483648}}},
    "a limit above the request, in smaller units": {"resources": {"limits": {"memory": "2200M", "cpu": "2500m"}}},
    "a budget that leaves a pod": {"replicas": 3, "podDisruptionBudget": {"minAvailable": 2}},
    "a share that leaves a pod": {"replicas": 3, "podDisruptionBudget": {"minAvailable": "66%"}},
    "the default budget with one replica": {"replicas": 1},
    "the second of two GPUs": {**model(device="cuda:1", precision="fp16"), "gpu": {"enabled": True, "count": 2}},
    "threads without a CPU limit": {"resources": {"limits": {"cpu": None}}, "config": {"compute_threads": 4}},
    "a gateway without network policy": {**GATEWAY, "networkPolicy": {"enabled": False}},
    "a gateway with its own authorities": {"gateway": {**GATEWAY["gateway"], "backendTLS": {"systemCA": True}}, **TLS, **LET_IN},
    "a key of the config by a variable": {"env": [{"name": "LONGEMBED__TRACING__SAMPLE_RATIO", "value": "0.1"}]},
    "a node's collector with a rule": {
        "env": [{"name": "LONGEMBED__TRACING__ENDPOINT", "value": "$(NODE):4317"}], "networkPolicy": {"egress": [{"ports": [{"port": 4317}]}]}},
    "a sidecar's collector, and a variable that is not read beside it": {
        "config": {"tracing": {"endpoint": "http://localhost:4317/"}}, "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4317"}]},
    "tracing turned off by a variable": {
        "config": {"tracing": {"endpoint": "collector:4317"}}, "env": [{"name": "LONGEMBED__TRACING__ENDPOINT", "value": ""}]},
    "durations that the server takes": {
        "config": {"connections": {"max_age": "0s", "keepalive": "1.5s"}, "limits": {"max_queue_wait": "100ms", "max_bulk_queue_wait": "1s"}}},
    "a registry with a port": {"image": {"repository": "registry:5000/longembed"}},
    "both families": {"bindAddress": "[::]", "service": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}},
    "a node port of its own for each port": {**TLS, **LET_IN, "service": {"type": "NodePort", "nodePort": 30051}, "http": {"nodePort": 30080}},
    "DNS of its own": {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"]}},
    "pods that count after a while": {"minReadySeconds": 599},
    "IPv4 by name": {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}},
    "names beside a wildcard": (
        {"gateway": {**HTTP_ROUTE["gateway"], "hostnames": ["*.b.example", "b.example"], "httpHostnames": ["ab.example", "*.a.example"]}, **LET_IN}),
    "scrapes two minutes apart": {"serviceMonitor": {"enabled": True, "interval": "2m"}, **LET_IN},
    "alerts that are left out": {"prometheusRule": {"enabled": True, "disabled": ["LongembedSlow", "LongembedReleaseAbsent"]}},
    "tracing with a rule": {"config": {"tracing": {"endpoint": "collector:4317"}}, "networkPolicy": {"egress": [{"ports": [{"port": 4317}]}]}},
    "tracing to a sidecar": {"config": {"tracing": {"endpoint": "http://127.0.0.1:4317"}}, "extraContainers": [{"name": "collector", "image": "a:1"}]},
    "tracing to a sidecar by IPv6": {"config": {"tracing": {"endpoint": "[::1]:4317"}}},
    "tracing to a sidecar by name": {"config": {"tracing": {"endpoint": "localhost:4317"}}},
    "tracing without network policy": {"config": {"tracing": {"endpoint": "collector:4317"}}, "networkPolicy": {"enabled": False}},
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
    """Yields (path, part) for every part of the schema that describes an object."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from objects(part, f"{path}/{index}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, part in schema.items():
            yield from objects(part, f"{path}/{key}")


# Values that are defined elsewhere: the parent chart, Kubernetes' affinity below its three kinds, and longembed.v1.Extension below its name.
OPEN = {
    "/properties/global",
    "/properties/config/properties/profiles/additionalProperties",
    "/properties/config/properties/tei/properties/extension",
} | {
    f"/properties/affinity/properties/{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
} | {"/properties/extraObjects/items/anyOf/1"}


def test_unknown_keys_are_refused_everywhere():
    schema = json.loads((CHART / "values.schema.json").read_text())
    parts = dict(objects(schema))
    assert len(parts) > 50
    assert {path for path, part in parts.items() if part.get("additionalProperties", True) is True} == OPEN


def mappings(values: dict, path: tuple[str, ...] = ()):
    """Yields the paths of the mappings in values.yaml, except for labels and similar mappings with free keys."""
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


# Values that templates or Kubernetes need. A null removes a default, and Go's templates then write nothing, 0 or "%!s(<nil>)".
NEEDED = """
    apiKeys.existingSecret apiKeys.fileKey autoscaling.hpa.queueWait autoscaling.hpa.queueWait.metric autoscaling.hpa.queueWait.target
    autoscaling.hpa.queueWait.type autoscaling.keda.expectedWaitSeconds commonAnnotations commonLabels extraContainers gateway.hostnames
    gateway.parentRefs gateway.services gpu.count gpu.resourceName ingress.hosts initContainers networkPolicy.egress podLabels
    prometheusRule.alertLabels prometheusRule.disabled revisionHistoryLimit serviceMonitor.interval serviceMonitor.scrapeTimeout tests.apiKeySecret
    tests.apiKeySecret.key tests.text tls.certManager.duration tls.certManager.issuerRef tls.certManager.renewBefore tls.clientCA
    tls.clientCA.key topologySpread.maxSkew topologySpread.topologyKeys topologySpread.whenUnsatisfiable
""".split()


@pytest.mark.parametrize("path", NEEDED)
def test_a_null_for_a_needed_value_is_refused(path):
    *parents, key = path.split(".")
    values = {key: None}
    for parent in reversed(parents):
        values = {parent: values}
    assert f"at '{'/'.join(['', *parents])}': missing property '{key}'" in refusal(values)


# Keys that the chart itself writes into config.yaml.
OWNED = {"listen", "http_listen", "health_listen", "metrics_listen", "tls", "api_keys", "models"}


def keys_of_config(config: dict) -> set[str]:
    return set(config) | {f"{key}.{below}" for key, section in config.items() if isinstance(section, dict) for below in section}


def test_values_take_exactly_the_keys_of_the_servers_config():
    sample = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    taken = {key: part.get("properties", {}) for key, part in properties.items()}
    assert keys_of_config(taken) == keys_of_config({key: value for key, value in sample.items() if key not in OWNED})


def test_models_take_exactly_the_keys_of_the_servers_models():
    sample = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())["models"][0]
    properties = json.loads((CHART / "values.schema.json").read_text())["$defs"]["model"]["properties"]
    assert properties.keys() - {"source"} == sample.keys() - {"path"}
