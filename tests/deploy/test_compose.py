"""Tests that everything that deploy/compose.yaml mounts, publishes and names exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/compose.yaml"
FOLDER = ROOT / "deploy/compose"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]


def mounts(service: str) -> dict[str, Path]:
    """Returns {path in the container: our file}."""
    entries = [entry.split(":") for entry in SERVICES[service]["volumes"]]
    return {target: FILE.parent / source for source, target, *_ in entries if source.startswith(".")}


def seconds(duration: str) -> int:
    return sum(int(count) * {"s": 1, "m": 60, "h": 3600}[unit] for count, unit in re.findall(r"(\d+)([smh])", duration))


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_files_exist_and_are_read_only(service):
    entries = [entry.split(":") for entry in SERVICES[service]["volumes"]]
    assert mounts(service) and all(source.is_file() for source in mounts(service).values())
    assert all(entry[2:] == ["ro"] if entry[0].startswith(".") else entry[0] in COMPOSE["volumes"] for entry in entries)


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_on_loopback(service):
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in SERVICES[service]["ports"])


@pytest.mark.parametrize("service", SERVICES)
def test_images_have_a_version(service):
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])


def test_server_is_the_image_of_this_tree():
    server = SERVICES["server"]
    version = re.search(r"project\(longembed-server VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert server["image"] == f"longembed-server:{version}" and (FILE.parent / server["build"]["context"] / "Dockerfile").is_file()
    assert set(server["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.M))
    config = yaml.safe_load(mounts("server")["/etc/longembed/config.yaml"].read_text())
    assert [model["path"] for model in config["models"]] == [f"/models/{server['build']['args']['MODEL']}"]
    assert (config["listen"], config["http_listen"]) == ("0.0.0.0:50051", "0.0.0.0:8080")
    assert server["ports"] == ["127.0.0.1:50051:50051", "127.0.0.1:8080:8080"]


def test_server_has_time_to_drain():
    drain = yaml.safe_load((ROOT / "deploy/container/config.yaml").read_text())["drain"]
    assert seconds(SERVICES["server"]["stop_grace_period"]) > seconds(drain["delay"]) + seconds(drain["timeout"])


def test_prometheus_reads_the_servers_metrics():
    prometheus = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (scrape,) = prometheus["scrape_configs"]
    (discovery,) = scrape["dns_sd_configs"]
    config = yaml.safe_load((ROOT / "deploy/container/config.yaml").read_text())
    assert discovery["names"] == ["server"] and config["metrics_listen"] == f"0.0.0.0:{discovery['port']}" and "longembed" in scrape["job_name"]
    folder = Path(next(word for word in SERVICES["prometheus"]["command"] if "config.file" in word).split("=")[1]).parent
    assert {str(folder / file) for file in prometheus["rule_files"]} <= mounts("prometheus").keys()


def test_prometheus_takes_its_config(tmp_path):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed; tests/run.sh installs it")
    for target, source in mounts("prometheus").items():
        shutil.copyfile(source, tmp_path / Path(target).name)
    checked = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0 and "alerts.yaml" not in checked.stderr, checked.stdout + checked.stderr


def test_grafana_finds_the_dashboard_and_its_data():
    provider = yaml.safe_load((FOLDER / "grafana/dashboards.yaml").read_text())["providers"][0]
    held = mounts("grafana")
    dashboards = {path for path in held if Path(path).parent == Path(provider["options"]["path"])}
    assert dashboards == {SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]}
    variables = json.loads(held[dashboards.pop()].read_text())["templating"]["list"]
    source = yaml.safe_load((FOLDER / "grafana/datasources.yaml").read_text())["datasources"][0]
    assert source["isDefault"] and source["type"] == next(variable["query"] for variable in variables if variable["type"] == "datasource")
    assert source["url"] == "http://prometheus:9090" and SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_compose_takes_the_file():
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("docker compose is not installed")
    checked = subprocess.run([docker, "compose", "-f", FILE, "config", "--quiet"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
