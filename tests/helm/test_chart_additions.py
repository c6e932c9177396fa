"""Tests additions of platform teams to the pod, and their own objects."""

import json
import shutil

import pytest
import yaml

from chart import CHART, NAME, ROOT, render, run_template
from schemas import make_schemas

PLATFORM = "platform.yaml"
VALUES = yaml.safe_load((CHART / "examples" / PLATFORM).read_text())


def test_variables():
    container = render(example=PLATFORM).container
    assert container["env"] == VALUES["env"] and container["envFrom"] == VALUES["envFrom"]
    assert any("valueFrom" in variable for variable in VALUES["env"])


def test_volumes_and_mounts_are_beside_those_of_the_chart():
    manifests = render(example=PLATFORM)
    added = VALUES["extraVolumes"]
    assert manifests.pod["volumes"][-len(added) :] == added and manifests.volume("config") and manifests.volume("tls")
    assert manifests.container["volumeMounts"][-1:] == VALUES["extraVolumeMounts"] and manifests.mount("/etc/longembed")


def test_a_model_may_lie_on_an_added_volume():
    manifests = render(example=PLATFORM)
    assert manifests.config["models"][0]["path"].startswith(manifests.container["volumeMounts"][-1]["mountPath"] + "/")


def test_init_containers_run_after_those_that_copy_models():
    model = {"name": "a", "source": {"initContainer": {"image": "models/a:1"}}}
    names = [container["name"] for container in render({"models": [model]}, example=PLATFORM).pod["initContainers"]]
    assert names == ["copy-model-0", "wait-for-models"]
    assert render(example=PLATFORM).pod["initContainers"] == VALUES["initContainers"]


def test_sidecars_come_after_the_server():
    server, *sidecars = render(example=PLATFORM).pod["containers"]
    assert server["name"] == "server" and sidecars == VALUES["extraContainers"]


def test_the_pod_takes_names_and_a_scheduler():
    manifests = render(example=PLATFORM)
    for field in ("hostAliases", "dnsPolicy", "dnsConfig", "schedulerName"):
        assert manifests.pod[field] == VALUES[field] and field not in render().pod
    assert manifests.deployment["minReadySeconds"] == 10 and "minReadySeconds" not in render().deployment
    assert manifests.one("ServiceAccount")["automountServiceAccountToken"] is True


def test_nothing_is_added_by_default():
    pod = render().pod
    assert [container["name"] for container in pod["containers"]] == ["server"] and "initContainers" not in pod and "imagePullSecrets" not in pod
    assert {"env", "envFrom"}.isdisjoint(pod["containers"][0])


def test_annotations_of_every_object():
    """The server's pods have their own annotations. Changes to these must not restart anything."""
    added = {"a/b": "c"}
    manifests = render({"commonAnnotations": added, "service": {"annotations": {"a/b": "own"}}}, example="cpu-production.yaml")
    for document in manifests.documents:
        expected = {"a/b": "own"} if (document["kind"], document["metadata"]["name"]) == ("Service", NAME) else added
        assert expected.items() <= document["metadata"]["annotations"].items(), document["metadata"]
    assert manifests.deployment["template"] == render(example="cpu-production.yaml").deployment["template"]


def test_objects_are_templates():
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: {{ .Release.Name }}-more}\n"
    manifests = render({"extraObjects": [text, *VALUES["extraObjects"]]}, example=PLATFORM)
    assert manifests.one("Secret")["metadata"]["name"] == "r-more"
    clients = manifests.one("ConfigMap", f"{NAME}-clients")
    assert clients["data"] == {"address": f"{NAME}.ns.svc:50051"} and clients["metadata"]["labels"] == {"app.kubernetes.io/instance": "r"}


def test_ids_can_be_left_to_the_cluster():
    manifests = render(example="openshift.yaml")
    for pod in (manifests.pod, manifests.test_pod("embed")["spec"]):
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_ids_can_be_left_to_the_cluster_by_a_parent_chart(tmp_path):
    shutil.copytree(CHART, tmp_path / "charts/longembed-server")
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    values = {"longembed-server": yaml.safe_load((CHART / "examples/openshift.yaml").read_text())}
    result = run_template(values, chart=tmp_path)
    assert result.returncode == 0, result.stderr
    deployment = next(document for document in yaml.safe_load_all(result.stdout) if document and document["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_security_contexts_take_values():
    values = {
        "podSecurityContext": {"runAsUser": 1000740000, "supplementalGroups": [7]},
        "securityContext": {"capabilities": None, "appArmorProfile": {"type": "RuntimeDefault"}}}
    manifests = render({**values, "models": [{"name": "a", "source": {"initContainer": {"image": "models/a:1"}}}]})
    assert manifests.pod["securityContext"]["runAsUser"] == 1000740000 and manifests.pod["securityContext"]["supplementalGroups"] == [7]
    assert "e+" not in manifests.text
    expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "appArmorProfile": {"type": "RuntimeDefault"}}
    for container in manifests.pod["containers"] + manifests.pod["initContainers"] + manifests.test_pod("embed")["spec"]["containers"]:
        assert container["securityContext"] == expected


# Maps each part of the chart's schema to the Kubernetes type it copies, and to the fields that are left out: kinds of volumes that no cluster
# supports any more, and fields that no pod of this chart may have.
KINDS = {
    "volume": ("Volume", {
        "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs",
        "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"}),
    "container": ("Container", set()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_kubernetes(kind):
    directory = ROOT / "build/helm/schemas"
    try:
        make_schemas(directory)
    except (RuntimeError, FileNotFoundError) as error:
        pytest.skip(f"Kubernetes' schemas: {error}")
    name, absent = KINDS[kind]
    kubernetes = json.loads((directory / "pod-v1.json").read_text())["definitions"][f"io.k8s.api.core.v1.{name}"]["properties"]
    ours = json.loads((CHART / "values.schema.json").read_text())["$defs"][kind]["properties"]
    assert ours.keys() == kubernetes.keys() - absent
