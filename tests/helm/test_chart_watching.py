"""Tests ServiceMonitor, alert rules and dashboard."""

import json
import re
import subprocess

import pytest
import yaml

from chart import CHART, NAME, render, tool

ON = {"prometheusRule": {"enabled": True}, "serviceMonitor": {"enabled": True}, "dashboard": {"enabled": True}, "networkPolicy": {"enabled": False}}


def with_rule(**changes):
    return render({**ON, "prometheusRule": {"enabled": True, **changes}})


def rules(manifests) -> list[dict]:
    return [rule for group in manifests.one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def test_no_objects_of_the_prometheus_operator_by_default():
    assert {document["kind"] for document in render().documents}.isdisjoint({"ServiceMonitor", "PrometheusRule"})
    assert len(render().all("ConfigMap")) == 1


def test_service_monitor_selects_the_metrics_service_alone():
    manifests = render(ON)
    spec = manifests.one("ServiceMonitor")["spec"]
    selected = [service for service in manifests.all("Service") if spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in selected] == [f"{NAME}-metrics"]
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in [port["name"] for port in selected[0]["spec"]["ports"]] and endpoint["path"] == "/metrics"


def test_service_monitor_values():
    manifests = render({**ON, "serviceMonitor": {"enabled": True, "labels": {"release": "stack"}, "interval": "30s", "scrapeTimeout": "5s"}})
    monitor = manifests.one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "stack"
    assert monitor["metadata"]["namespace"] == "ns" and monitor["spec"]["namespaceSelector"] == {"matchNames": ["ns"]}
    assert (monitor["spec"]["endpoints"][0]["interval"], monitor["spec"]["endpoints"][0]["scrapeTimeout"]) == ("30s", "5s")


def test_service_monitor_elsewhere_with_rules_of_its_own():
    manifests = render(example="platform.yaml")
    monitor = manifests.one("ServiceMonitor")
    assert monitor["metadata"]["namespace"] == "monitoring" and monitor["spec"]["namespaceSelector"] == {"matchNames": ["ns"]}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert [rule["targetLabel"] for rule in endpoint["relabelings"]] == ["job", "cluster"]
    assert endpoint["metricRelabelings"] == [{"action": "drop", "sourceLabels": ["__name__"], "regex": "longembed_tokenization_.*"}]
    assert with_rule(namespace="monitoring").one("PrometheusRule")["metadata"]["namespace"] == "monitoring"


def test_releases_of_one_name_meet_in_no_other_namespace():
    """Helm would refuse the second one, and Argo CD would let each take the other's objects."""
    kinds = ("serviceMonitor", "prometheusRule", "dashboard")
    here, elsewhere = (render({**ON, **{kind: {"enabled": True, "namespace": namespace} for kind in kinds}}) for namespace in ("ns", "monitoring"))
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert here.one(kind)["metadata"]["name"] == NAME and elsewhere.one(kind)["metadata"]["name"] == f"{NAME}.ns"
    assert here.one("ConfigMap", f"{NAME}-dashboard") and elsewhere.one("ConfigMap", f"{NAME}.ns-dashboard")


@pytest.mark.parametrize(("values", "job"), [({}, NAME), ({"fullnameOverride": "vectors"}, "longembed-vectors")])
def test_alerts_know_the_job(values, job):
    """The shipped alerts look for "longembed" in the job's name, so they must work for any name of a release."""
    manifests = render({**ON, **values})
    (relabeling,) = manifests.one("ServiceMonitor")["spec"]["endpoints"][0]["relabelings"]
    assert relabeling == {"action": "replace", "targetLabel": "job", "replacement": job}
    absent = next(rule for rule in rules(manifests) if rule.get("alert") == "LongembedReleaseAbsent")
    assert absent["expr"] == f'absent(up{{job="{job}",namespace="ns"}} == 1)'
    patterns = {pattern for rule in rules(manifests) for pattern in re.findall(r'job=~"([^"]+)"', rule["expr"])}
    assert patterns and all(re.fullmatch(pattern, job) for pattern in patterns)


def test_shipped_rules_are_shipped_unchanged():
    """This includes Prometheus' own templates, {{ $value }}."""
    shipped = [rule for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    rendered = [rule for rule in rules(with_rule()) if rule.get("alert") != "LongembedReleaseAbsent"]
    assert len(shipped) > 15 and any("{{ $value" in rule["annotations"]["summary"] for rule in rendered if "alert" in rule)
    assert rendered == shipped


def test_alerts_take_labels():
    manifests = with_rule(labels={"release": "stack"}, alertLabels={"team": "search", "severity": "page"})
    assert manifests.one("PrometheusRule")["metadata"]["labels"]["release"] == "stack"
    for rule in rules(manifests):
        assert rule.get("labels", {}).items() >= {"team": "search", "severity": "page"}.items() if "alert" in rule else "labels" not in rule


def test_alerts_can_be_left_out():
    everything, fewer = ({rule.get("alert") for rule in rules(with_rule(disabled=names))} for names in ([], ["LongembedQueueWait", "LongembedReleaseAbsent"]))
    assert everything - fewer == {"LongembedQueueWait", "LongembedReleaseAbsent"}


def test_a_second_release_under_one_prometheus_brings_only_its_own_alert():
    assert [rule["alert"] for rule in rules(with_rule(shippedRules=False))] == ["LongembedReleaseAbsent"]


def test_the_release_absent_alert_needs_the_job_of_the_service_monitor():
    alerts = {rule.get("alert") for rule in rules(render({"prometheusRule": {"enabled": True}}))}
    assert "LongembedAbsent" in alerts and "LongembedReleaseAbsent" not in alerts


@pytest.mark.parametrize("changes", [{}, {"alertLabels": {"team": "search"}}, {"shippedRules": False}])
def test_promtool_takes_the_rendered_rules(tmp_path, changes):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(with_rule(**changes).one("PrometheusRule")["spec"]))
    result = subprocess.run([tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", file], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules(with_rule(**changes)))} rules found" in result.stdout


def test_promtool_absent_release_fires(tmp_path):
    """Another release is up all the time. This one disappears after ten minutes."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(with_rule(shippedRules=False).one("PrometheusRule")["spec"]))
    series = [
        {"series": f'up{{job="{NAME}",namespace="ns",pod="a"}}', "values": "1x10 0x5 stale"},
        {"series": f'up{{job="{NAME}",namespace="other",pod="b"}}', "values": "1x40"}]
    labels = {"severity": "critical", "job": NAME, "namespace": "ns"}
    annotations = rules(with_rule(shippedRules=False))[0]["annotations"]
    cases = [
        {"eval_time": "12m", "alertname": "LongembedReleaseAbsent", "exp_alerts": []},
        {"eval_time": "20m", "alertname": "LongembedReleaseAbsent", "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}]}]
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": cases}]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    result = subprocess.run([tool("promtool"), "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_dashboard():
    manifests = render({**ON, "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Search"}, "namespace": "grafana"}})
    config = manifests.one("ConfigMap", f"{NAME}.ns-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1" and config["metadata"]["annotations"] == {"grafana_folder": "Search"}
    assert config["metadata"]["namespace"] == "grafana"
    ((name, text),) = config["data"].items()
    assert name.endswith(".json") and text == (CHART / "files/dashboard.json").read_text()
    assert json.loads(text)["panels"]


def test_dashboard_stays_in_the_release_and_takes_labels():
    config = render({**ON, "dashboard": {"enabled": True, "labels": {"dashboards": "yes"}}}).one("ConfigMap", f"{NAME}-dashboard")
    assert config["metadata"]["namespace"] == "ns" and config["metadata"]["labels"]["dashboards"] == "yes"
