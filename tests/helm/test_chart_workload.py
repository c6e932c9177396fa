"""Tests the Deployment, the server's configuration, models, GPUs and the pods of `helm test`."""

import pytest

from chart import EXAMPLES, NAME, render

PVC = {"persistentVolumeClaim": {"claimName": "models", "subPath": "a"}}
INIT = {"initContainer": {"image": "models/a:1", "path": "/weights", "sizeLimit": "3Gi"}}
IMAGE = {"imageVolume": {"reference": "models/a:1", "subPath": "inner"}}


RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}


def with_source(source: dict, **changes) -> dict:
    return {"models": [{"name": "a", "source": source, **changes}]}


def pods(example: str) -> dict[str, dict]:
    manifests = render(example=example)
    return {"server": manifests.pod} | {pod["metadata"]["name"]: pod["spec"] for pod in manifests.all("Pod")}


@pytest.mark.parametrize("example", [path.name for path in EXAMPLES])
def test_pods_are_restricted(example):
    """Checks the Pod Security Standard "restricted", and a read-only root."""
    checked = pods(example)
    assert len(checked) >= 2
    for pod in checked.values():
        security = pod["securityContext"]
        ids = {security.get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")}
        assert security["runAsNonRoot"] is True and ids == ({None} if example == "openshift.yaml" else {10001})
        assert security["seccompProfile"] == {"type": "RuntimeDefault"} and pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is (example == "platform.yaml" and "topologySpreadConstraints" in pod)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(RESTRICTED_VOLUMES & volume.keys() for volume in pod.get("volumes", []))
        for container in pod.get("initContainers", []) + pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_only_tmp_and_copied_models_can_be_written():
    manifests = render(with_source(INIT))
    assert [mount["mountPath"] for mount in manifests.container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]


def test_probes():
    container = render().container
    assert container["startupProbe"]["grpc"] == container["readinessProbe"]["grpc"] == {"port": 50052, "service": "longembed.v1.EmbeddingService"}
    assert container["livenessProbe"]["grpc"] == {"port": 50052, "service": "longembed.liveness"}
    assert (container["startupProbe"]["periodSeconds"], container["startupProbe"]["failureThreshold"]) == (5, 60)


def test_probes_take_values():
    container = render({"probes": {"startup": {"failureThreshold": 7}, "readiness": {"periodSeconds": 2}, "liveness": {"timeoutSeconds": 9}}}).container
    assert container["startupProbe"]["failureThreshold"] == 7
    assert container["readinessProbe"]["periodSeconds"] == 2
    assert container["livenessProbe"]["timeoutSeconds"] == 9


def test_ports_are_those_that_the_config_listens_on():
    manifests = render()
    listens = {port["name"]: f"0.0.0.0:{port['containerPort']}" for port in manifests.container["ports"]}
    config = manifests.config
    assert listens == {"grpc": config["listen"], "http": config["http_listen"], "health": config["health_listen"], "metrics": config["metrics_listen"]}
    assert manifests.container["livenessProbe"]["grpc"]["port"] == 50052


def test_bind_address():
    config = render({"bindAddress": "[::]"}).config
    listens = [config[key] for key in ("listen", "http_listen", "health_listen", "metrics_listen")]
    assert listens == ["[::]:50051", "[::]:8080", "[::]:50052", "[::]:9464"]


def test_server_reads_the_mounted_config():
    manifests = render()
    assert manifests.container["command"] + manifests.container["args"] == ["/usr/local/bin/longembed-server", "--config", "/etc/longembed/config.yaml"]
    assert manifests.volume("config")["configMap"]["name"] == manifests.one("ConfigMap")["metadata"]["name"]


def test_config_is_mounted_as_a_directory():
    """With subPath the kubelet would never update the file, so log.level would need a restart."""
    mount = render().mount("/etc/longembed")
    assert mount["name"] == "config" and "subPath" not in mount


def checksum(values: dict) -> str:
    return render(values).deployment["template"]["metadata"]["annotations"]["checksum/config"]


def test_log_level_restarts_nothing():
    debug = {"config": {"log": {"level": "debug"}}}
    assert render(debug).config["log"]["level"] == "debug"
    assert render(debug).deployment["template"] == render().deployment["template"]


@pytest.mark.parametrize("config", [{"log": {"format": "text"}}, {"limits": {"max_queue_wait": "3s"}}, {"drain": {"delay": "11s"}}, {"reflection": True}])
def test_other_config_restarts(config):
    assert checksum({"config": config}) != checksum({})


def test_config_says_what_values_say():
    config = render(example="cpu-production.yaml").config
    assert config["drain"] == {"delay": "15s", "timeout": "75s"}
    assert config["connections"] == {"max_age": "10m"}
    assert config["tei"]["model"] == "e5-small-v2"
    assert config["profiles"] == {"archive": {"windows": {"tokens": 256, "aggregation": "MEAN"}}}
    assert [model["precision"] for model in config["models"]] == ["bf16", "int8"]
    assert all("source" not in model for model in config["models"])


def test_whole_numbers_stay_whole():
    """Helm reads numbers as floating point, and tends to write 2.68435456e+08."""
    limits = {"max_pending_bytes": 1 << 40, "max_request_bytes": 16777216}
    manifests = render({"config": {"limits": limits}, "progressDeadlineSeconds": 5000000, "terminationGracePeriodSeconds": 1000000})
    assert manifests.config["limits"] == limits
    assert "e+" not in manifests.text
    assert manifests.deployment["progressDeadlineSeconds"] == 5000000 and manifests.pod["terminationGracePeriodSeconds"] == 1000000


def test_image():
    assert render().container["image"] == "longembed-server:0.1.0"
    digest = "sha256:" + "0" * 64
    image = {"repository": "mirror/longembed", "tag": "x", "digest": digest, "pullPolicy": "Always"}
    pinned = render({"image": image, "imagePullSecrets": ["s", {"name": "t"}]})
    assert pinned.container["image"] == f"mirror/longembed:x@{digest}" and pinned.container["imagePullPolicy"] == "Always"
    assert pinned.pod["imagePullSecrets"] == [{"name": "s"}, {"name": "t"}] == pinned.test_pod("health")["spec"]["imagePullSecrets"]


def test_baked_model_needs_no_volume():
    manifests = render(with_source({"baked": {}}))
    assert manifests.config["models"][0]["path"] == "/models/a"
    assert [volume["name"] for volume in manifests.pod["volumes"]] == ["config", "tmp"]
    assert render(with_source({"baked": {"path": "/opt/a"}})).config["models"][0]["path"] == "/opt/a"


@pytest.mark.parametrize("source", [PVC, INIT, IMAGE])
def test_model_is_mounted_where_the_config_looks(source):
    manifests = render(with_source(source))
    mount = manifests.mount(manifests.config["models"][0]["path"])
    assert mount["mountPath"] == "/models/a" and mount["readOnly"] is True
    assert manifests.volume(mount["name"])


def test_model_from_a_claim():
    manifests = render(with_source(PVC))
    mount = manifests.mount("/models/a")
    assert mount["subPath"] == "a"
    assert manifests.volume(mount["name"])["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_two_models_on_one_claim_are_one_volume():
    """With some storage drivers, a pod that names a claim in two volumes waits forever."""
    manifests = render(example="cpu-production.yaml")
    claims = [volume for volume in manifests.pod["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == 1
    assert {mount["subPath"] for mount in manifests.container["volumeMounts"] if mount["name"] == claims[0]["name"]} == {"e5-small-v2", "bge-small-en-v1.5"}


def test_a_claim_and_a_model_of_one_name_are_two_volumes():
    manifests = render({"models": [{"name": "x", "source": INIT}, {"name": "y", "source": {"persistentVolumeClaim": {"claimName": "x"}}}]})
    names = [volume["name"] for volume in manifests.pod["volumes"]]
    assert len(names) == len(set(names)) == 4
    assert "emptyDir" in manifests.volume(manifests.mount("/models/x")["name"]) and "subPath" not in manifests.mount("/models/y")
    assert "persistentVolumeClaim" in manifests.volume(manifests.mount("/models/y")["name"])


def test_model_copied_from_an_image():
    manifests = render(with_source(INIT))
    copier, volume = manifests.pod["initContainers"][0], manifests.mount("/models/a")["name"]
    assert copier["image"] == "models/a:1" and copier["command"] == ["cp", "-RLf", "/weights/.", "/models/a/"]
    assert copier["volumeMounts"] == [{"name": volume, "mountPath": "/models/a"}]
    assert manifests.volume(volume)["emptyDir"] == {"sizeLimit": "3Gi"}
    assert copier["resources"] == manifests.container["resources"], "the pod would not be Guaranteed"


def test_model_as_image_volume():
    manifests = render(with_source(IMAGE))
    mount = manifests.mount("/models/a")
    assert manifests.volume(mount["name"])["image"] == {"reference": "models/a:1", "pullPolicy": "IfNotPresent"} and mount["subPath"] == "inner"
    assert "initContainers" not in manifests.pod


def test_default_pod_is_guaranteed():
    resources = render().container["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "2", "memory": "2Gi"}


def test_gpu():
    manifests = render({"gpu": {"count": 2, "resourceName": "amd.com/gpu"}}, example="gpu.yaml")
    resources = manifests.container["resources"]
    assert resources["limits"]["amd.com/gpu"] == resources["requests"]["amd.com/gpu"] == 2
    assert resources["limits"]["memory"] == "24Gi"
    assert manifests.pod["runtimeClassName"] == "nvidia" and manifests.config["models"][0]["device"] == "cuda"
    assert manifests.pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_no_gpu_by_default():
    assert set(render().container["resources"]["limits"]) == {"cpu", "memory"}
    assert "runtimeClassName" not in render({"gpu": {"runtimeClassName": "nvidia"}}).pod


def test_copying_a_model_asks_for_no_gpu():
    values = {"gpu": {"enabled": True}, **with_source(INIT, device="cuda")}
    manifests = render(values)
    assert manifests.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in manifests.pod["initContainers"][0]["resources"]["limits"]


def test_rollout_takes_no_pod_away():
    deployment = render().deployment
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert render(example="gpu.yaml").deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_drain_needs_no_hook():
    """The server waits for config.drain.delay by itself."""
    manifests = render()
    assert "lifecycle" not in manifests.container
    assert manifests.pod["terminationGracePeriodSeconds"] == 100 and manifests.config["drain"] == {"delay": "10s", "timeout": "75s"}


def test_topology_spread():
    constraints = render().pod["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for constraint in constraints:
        assert constraint["labelSelector"]["matchLabels"] == render().deployment["selector"]["matchLabels"]
        assert constraint["matchLabelKeys"] == ["pod-template-hash"] and constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert "topologySpreadConstraints" not in render({"topologySpread": {"enabled": False}}).pod


def test_scheduling_values():
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}}
    pod = render({"nodeSelector": {"a": "b"}, "affinity": affinity, "priorityClassName": "high", "env": [{"name": "A", "value": "b"}]}).pod
    assert pod["nodeSelector"] == {"a": "b"} and pod["affinity"] == affinity and pod["priorityClassName"] == "high"
    assert pod["containers"][0]["env"] == [{"name": "A", "value": "b"}]


def test_labels():
    values = {"commonLabels": {"team": "search"}, "podLabels": {"tier": "ml", "team": "pods"}, "podAnnotations": {"note": "x"}}
    manifests = render(values)
    assert all(document["metadata"]["labels"]["team"] == "search" for document in manifests.documents)
    template = manifests.deployment["template"]["metadata"]
    assert template["labels"]["tier"] == "ml" and template["labels"]["team"] == "pods" and template["annotations"]["note"] == "x"
    assert manifests.deployment["selector"]["matchLabels"].items() <= template["labels"].items()
    assert "team" not in manifests.deployment["selector"]["matchLabels"]


def test_new_chart_version_restarts_nothing():
    assert "helm.sh/chart" not in render().deployment["template"]["metadata"]["labels"]


def test_service_account():
    assert render().one("ServiceAccount")["metadata"]["name"] == render().pod["serviceAccountName"] == NAME
    assert render().one("ServiceAccount")["automountServiceAccountToken"] is False
    other = render({"serviceAccount": {"create": False, "name": "theirs"}})
    assert other.pod["serviceAccountName"] == "theirs" and not other.all("ServiceAccount")


def test_names():
    assert render({"fullnameOverride": "vectors"}).one("Deployment")["metadata"]["name"] == "vectors"
    assert render({"nameOverride": "vectors"}).one("Deployment")["metadata"]["name"] == "r-vectors"
    services = render({"nameOverride": "v" * 53}).all("Service")
    assert 53 < max(len(service["metadata"]["name"]) for service in services) <= 63, "a service's name is a DNS label"


def test_helm_test_pods():
    manifests = render()
    for name in ("health", "embed"):
        pod = manifests.test_pod(name)
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test" and pod["spec"]["restartPolicy"] == "Never"
        assert pod["spec"]["containers"][0]["image"] == manifests.container["image"]
        selector = manifests.deployment["selector"]["matchLabels"]
        assert not selector.items() <= pod["metadata"]["labels"].items(), "services would send calls to the test"


def arguments(manifests, name: str) -> list[str]:
    container = manifests.test_pod(name)["spec"]["containers"][0]
    return container["command"] + container["args"]


def test_helm_test_asks_for_health_and_a_vector():
    manifests = render({"tests": {"text": "a river"}})
    assert arguments(manifests, "health") == [
        "/usr/local/bin/longembed", "health", "--server", f"{NAME}-headless.ns.svc:50052", "--service", "longembed.v1.EmbeddingService",
        "--timeout", "60"]
    assert arguments(manifests, "embed") == [
        "/usr/local/bin/longembed", "embed", "--server", f"{NAME}.ns.svc:50051", "--timeout", "60", "--model", "e5-small-v2", "--text", "a river"]


def test_helm_test_has_what_the_server_asks_for():
    """Every file that the test's arguments name is in one of its volumes."""
    manifests = render(example="gateway.yaml")
    pod, words = manifests.test_pod("embed")["spec"], arguments(manifests, "embed")
    paths = {words[words.index(flag) + 1] for flag in ("--root-certificates", "--client-certificate", "--client-key", "--api-key-file")}
    volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"]}
    held = {
        f"{mount['mountPath']}/{item['path']}": (volumes[mount["name"]]["secretName"], item["key"])
        for mount in pod["containers"][0]["volumeMounts"]
        for item in volumes[mount["name"]]["items"]}
    assert paths == held.keys() and "--tls" in words
    client = "embeddings-test-certificate"
    assert set(held.values()) == {("embeddings-tls", "ca.crt"), ("embeddings-test-key", "api-key"), (client, "tls.crt"), (client, "tls.key")}


def test_helm_test_never_holds_the_servers_private_key():
    volumes = render(example="cpu-production.yaml").test_pod("embed")["spec"]["volumes"]
    secret = next(volume["secret"] for volume in volumes if volume["secret"]["secretName"] == f"{NAME}-tls")
    assert [item["key"] for item in secret["items"]] == ["ca.crt"]


def test_helm_test_takes_no_gpu():
    """The CUDA image requests all GPUs from NVIDIA's container runtime. If that is the node's default runtime, it would grant them."""
    for name in ("health", "embed"):
        (container,) = render(example="gpu.yaml").test_pod(name)["spec"]["containers"]
        assert container["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
        assert "env" not in render().test_pod(name)["spec"]["containers"][0]


@pytest.mark.parametrize("missing", [{"apiKeySecret": {"name": ""}}, {"clientCertificateSecret": ""}])
def test_helm_test_without_credentials_tests_health(missing):
    manifests = render({"tests": missing}, example="gateway.yaml")
    assert [pod["metadata"]["name"] for pod in manifests.all("Pod")] == [f"{NAME}-test-health"]
