"""Tests helm lint, every example against Kubernetes' schemas, the real server and client against the chart's output, and the documents."""

import copy
import json
import re
import shutil
import subprocess

import pytest
import yaml

from chart import CHART, EXAMPLES, KUBERNETES, NAME, ROOT, program, render, run_template, tool
from schemas import CUSTOM, KUBERNETES as KUBERNETES_MODULE, make_schemas

NAMES = [path.name for path in EXAMPLES]
KINDS = sorted({kind for path in (CHART / "templates").rglob("*.yaml") for kind in re.findall(r"^kind: (\w+)", path.read_text(), re.M)})


@pytest.mark.parametrize("example", ["", *NAMES])
def test_lint(example):
    files = ["--values", CHART / "examples" / example] if example else []
    result = subprocess.run([tool("helm"), "lint", "--strict", CHART, "--kube-version", KUBERNETES, *files], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "1 chart(s) linted, 0 chart(s) failed" in result.stdout, result.stdout + result.stderr


def test_there_is_an_example_of_everything():
    """Each kind of object that the chart can create must be in some example, so that the schemas below check it."""
    made = {document["kind"] for example in NAMES for document in render(example=example).documents}
    assert made == set(KINDS) and len(KINDS) >= 14
    sources = {next(iter(model["source"])) for path in EXAMPLES for model in yaml.safe_load(path.read_text()).get("models", [])}
    assert sources | {"baked"} == {"baked", "persistentVolumeClaim", "initContainer", "imageVolume"}


@pytest.fixture(scope="session")
def schemas():
    """Returns kubeconform's template for the paths of the schemas in build/helm/schemas."""
    directory = ROOT / "build/helm/schemas"
    try:
        make_schemas(directory)
    except (RuntimeError, FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"Kubernetes' schemas: {error}")
    return f"{directory}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


def kubeconform(schemas: str, text: str) -> dict:
    command = [tool("kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", schemas]
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    return json.loads(result.stdout)


@pytest.mark.parametrize("example", NAMES)
def test_kubeconform(schemas, example):
    manifests = render(example=example)
    answer = kubeconform(schemas, manifests.text)
    assert answer["summary"] == {"valid": len(manifests.documents), "invalid": 0, "errors": 0, "skipped": 0}, answer["resources"]


def test_kubeconform_and_helm_use_one_kubernetes_version():
    assert KUBERNETES_MODULE[1] == f"v{KUBERNETES}" and len(CUSTOM) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_kubeconform_sees_a_wrong_field(schemas, kind):
    """Shows that the check above can fail, for each kind."""
    document = next(document for example in NAMES for document in render(example=example).documents if document["kind"] == kind)
    wrong = copy.deepcopy(document)
    wrong.get("spec", wrong)["unknwon"] = 1
    assert kubeconform(schemas, yaml.safe_dump(document))["summary"]["valid"] == 1
    assert kubeconform(schemas, yaml.safe_dump(wrong))["summary"]["invalid"] == 1


def test_kubeconform_sees_a_wrong_type(schemas):
    deployment = copy.deepcopy(render().one("Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["grpc"]["port"] = "health"
    assert kubeconform(schemas, yaml.safe_dump(deployment))["summary"]["invalid"] == 1


@pytest.mark.parametrize("example", NAMES)
def test_server_takes_the_config(tmp_path, example):
    """The real server reads every rendered configuration, and fails only because of files that this machine does not have."""
    config = render(example=example).config
    config |= {"listen": "127.0.0.1:0", "health_listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    result = subprocess.run([program("longembed-server"), "--config", file], capture_output=True, text=True, timeout=60)
    words = result.stdout + result.stderr
    assert result.returncode != 0 and re.search(r"/models/|/run/secrets/", words), words
    assert "config.yaml" not in words and "unknown" not in words, words


def test_server_refuses_a_config_with_an_unknown_key(tmp_path):
    """Shows that the check above can fail."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**render().config, "unknwon": 1}))
    result = subprocess.run([program("longembed-server"), "--config", file], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0 and "unknwon" in result.stdout + result.stderr and "config.yaml" in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["health", "embed"])
def test_client_has_the_options_that_helm_test_uses(name):
    container = render(example="gateway.yaml").test_pod(name)["spec"]["containers"][0]
    command, *words = container["args"]
    result = subprocess.run([program("longembed"), command, "--help"], capture_output=True, text=True, timeout=60)
    flags = {word for word in words if word.startswith("--")}
    assert command == name and len(flags) >= 2
    assert result.returncode == 0 and flags <= set(re.findall(r"--[a-z-]+", result.stdout)), result.stdout + result.stderr


def test_probed_health_services_are_the_servers():
    container = render().container
    assert f'= "{container["livenessProbe"]["grpc"]["service"]}"' in (ROOT / "server/rpc/health.h").read_text()
    proto = (ROOT / "proto/longembed/v1/embedding.proto").read_text()
    service = f"{re.search(r'^package (.+);', proto, re.M)[1]}.{re.search(r'^service (.+) {', proto, re.M)[1]}"
    assert container["readinessProbe"]["grpc"]["service"] == service


def test_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r"project\(longembed-server VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert chart["appVersion"] == chart["version"] == version


@pytest.fixture
def notes(tmp_path):
    """Returns a function that renders NOTES.txt as a field of a document, because `helm template` leaves it out."""
    shutil.copytree(CHART, tmp_path / "chart")
    templates = tmp_path / "chart/templates"
    (templates / "_notes.tpl").write_text('{{- define "notes" -}}\n' + (templates / "NOTES.txt").read_text() + "{{- end -}}\n")
    (templates / "notes.yaml").write_text('notes: {{ include "notes" . | toJson }}\n')

    def render_notes(values: dict | None = None, example: str = "") -> str:
        result = run_template(values or {}, example, arguments=("--show-only", "templates/notes.yaml"), chart=tmp_path / "chart")
        assert result.returncode == 0, result.stderr
        return yaml.safe_load(result.stdout)["notes"]

    return render_notes


def test_notes_say_where_the_server_is(notes):
    text = notes({"service": {"port": 9090}})
    assert f"{NAME}.ns.svc:9090" in text and f"http://{NAME}.ns.svc:8080/v1/embeddings" in text
    assert "/v1/embeddings" not in notes({"http": {"enabled": False}}) and f"dns:///{NAME}-headless.ns.svc:50051" in text
    assert "helm --namespace ns test r --logs" in text and "e5-small-v2 (cpu)" in text


def test_notes_warn(notes):
    text = notes({"replicas": 1, "config": {"drain": {"delay": "0s"}}})
    assert "calls are not encrypted" in text and "every client that reaches the port may call" in text and "one replica" in text and "config.drain.delay is 0" in text


def test_notes_do_not_warn_for_nothing(notes):
    text = notes(example="cpu-production.yaml")
    assert "NOTE" not in text and "WARNING" not in text
    assert "--root-certificates CA --api-key-file FILE" in text and "port-forward" not in text, "127.0.0.1 is not in the certificate"


@pytest.mark.parametrize(("missing", "words"), [({"apiKeySecret": {"name": ""}}, "API key"), ({"clientCertificateSecret": ""}, "client certificate")])
def test_notes_say_what_helm_test_leaves_out(notes, missing, words):
    assert f"checks health only: it has no {words}" in notes({"tests": missing}, "gateway.yaml")
    assert "checks health only" not in notes(example="gateway.yaml")


def value_rows() -> dict[str, str]:
    """Returns the README's table of values: {path: default}."""
    table = (CHART / "README.md").read_text().split("## Every value", 1)[1]
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`|-) \| \S.*\|$", table, re.M)
    assert len(rows) == len(dict(rows)) == len(re.findall(r"^\| `", table, re.M)), "a row appears twice, has no description, or has another form"
    return dict(rows)


def below(values: dict, prefix: str = ""):
    """Yields (path, value) for every value at every depth. A mapping comes before the values in it."""
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from below(value, f"{prefix}{key}.")


def test_readme_has_every_value_with_its_default():
    values, rows = dict(below(yaml.safe_load((CHART / "values.yaml").read_text()))), value_rows()
    documented = {path for path in values if any(path == row or path.startswith(f"{row}.") for row in rows)}
    parents = {path for path in values if any(row.startswith(f"{path}.") for row in rows)}
    assert values.keys() - documented - parents == set()
    wrong = {path for path in rows.keys() & values.keys() if yaml.safe_load(rows[path]) != values[path]}
    assert wrong == set()


def test_readme_has_no_value_that_does_not_exist():
    """Rows without a default must be values in the schema."""
    values, rows = dict(below(yaml.safe_load((CHART / "values.yaml").read_text()))), value_rows()
    schema = json.loads((CHART / "values.schema.json").read_text())
    absent = rows.keys() - values.keys()
    assert absent == {path for path, default in rows.items() if not default}
    for path in absent:
        part = schema
        for key in path.split("."):
            part = part["properties"][key]


def test_readme_names_every_example():
    text = (CHART / "README.md").read_text()
    assert [name for name in NAMES if f"examples/{name}" not in text] == []


def settings(command: str) -> tuple[str, ...]:
    return tuple(word for pair in re.findall(r"--set (\S+)", command) for word in ("--set", pair))


def test_commands_of_the_readme_render():
    commands = re.findall(r"^helm (?:install|upgrade) .*", (CHART / "README.md").read_text(), re.M)
    assert len(commands) >= 2 and any("--set" in command for command in commands)
    for command in commands:
        result = run_template({}, arguments=settings(command))
        assert result.returncode == 0, f"{command}: {result.stderr}"


def test_archive_of_the_readme_is_the_chart(tmp_path):
    """`helm package` publishes the chart as the README says. The archive must render the same as the folder."""
    command = re.search(r"^helm package (\S+) +# (\S+)$", (CHART / "README.md").read_text(), re.M)
    result = subprocess.run([tool("helm"), "package", ROOT / command[1], "--destination", tmp_path], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert run_template({}, chart=tmp_path / command[2]).stdout == render().text


def test_commands_of_the_readme_install_what_they_build():
    """The order must be: build, push, install and wait, test. The image must have the tag and the model that the chart uses by default."""
    build, push, install, test = re.search(r"^docker build .*\ndocker push .*\nhelm install .*\nhelm test .*$", (CHART / "README.md").read_text(), re.M)[0].splitlines()
    manifests = render(arguments=settings(install))
    model = manifests.config["models"][0]["name"]
    assert build == f"docker build --tag {manifests.container['image']} --build-arg MODEL={model} ." and push == f"docker push {manifests.container['image']}"
    assert " --wait " in install and " embeddings " in test
