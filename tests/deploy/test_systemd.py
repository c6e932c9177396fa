"""Tests the unit of deploy/systemd with systemd's own checks, and against the server's defaults."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/systemd"
UNIT = FOLDER / "longembed-server.service"
CONFIG = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())
MOST_EXPOSED = 20  # In tenths of systemd's exposure score, which goes up to 10.


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M):
        found.setdefault(key, []).append(value)
    return found


def systemd_analyze(*arguments) -> subprocess.CompletedProcess:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_unit_is_valid(tmp_path):
    """Uses a program of this machine in place of the server."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/longembed-server", shutil.which("true")))
    checked = systemd_analyze("verify", "--man=no", unit)
    assert checked.returncode == 0 and "Unknown" not in checked.stderr, checked.stderr


def test_unit_is_confined():
    checked = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", UNIT)
    if "unrecognized option" in checked.stderr:
        pytest.skip("systemd-analyze is older than 250")
    assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr


def test_limits_are_enough_for_the_defaults():
    unit = settings()
    assert int(unit["LimitNOFILE"][0]) >= CONFIG["connections"]["max"] + 256, "server/process/start_checks.cc refuses less"
    assert int(unit["TasksMax"][0]) >= 16 + 4 * 256 + 256 + 128, "a machine with 256 cores needs more"
    assert int(unit["MemoryMax"][0].removesuffix("%")) > 50


def test_stop_waits_for_the_drain():
    drain = {key: int(value.removesuffix("s")) for key, value in CONFIG["drain"].items()}
    assert int(settings()["TimeoutStopSec"][0]) > drain["delay"] + drain["timeout"]


def test_user_and_paths_are_those_of_the_readme():
    unit, text = settings(), (FOLDER / "README.md").read_text()
    user = re.match(r"u (\w+) ", (FOLDER / "longembed-server.sysusers").read_text())[1]
    assert unit["User"] == unit["Group"] == [user]
    program, flag, config = unit["ExecStart"][0].split()
    assert flag == "--config" and config in text and f"{Path(program).parent}/" in text
    for file in re.findall(r"deploy/systemd/([\w.-]+)", text):
        assert (FOLDER / file).is_file()


def test_the_readmes_model_path_replaces_that_of_the_sample():
    text = (FOLDER / "README.md").read_text()
    before, after = re.search(r"sed -i 's\|(.+?)\|(.+?)\|'", text).groups()
    changed = yaml.safe_load((ROOT / "deploy/config.yaml").read_text().replace(before, after))
    assert [model["path"] for model in changed["models"]] == ["/var/lib/longembed/models/e5-small-v2"]


def test_the_page_keeps_libtorch_where_the_unit_lets_it_be_read():
    """A checkout of root is in /root, and root's umask may be 077: the server would not find libtorch_cpu.so."""
    text = (FOLDER / "README.md").read_text()
    assert settings()["ProtectHome"] == ["yes"] and "outside of `/home` and `/root`, which the unit hides" in text
    assert 0 < text.index("\numask 022") < text.index("\ndeploy/setup.sh")


def test_the_page_installs_what_the_unit_names(tmp_path):
    """Carries out the commands of the page, below another root and with root's strictest umask."""
    commands = re.search(r"```\n(umask.*?)```", (FOLDER / "README.md").read_text(), re.S)[1]
    build = tmp_path / "build"
    for name in ("build/release/longembed-server", "build/release/longembed", "models/e5-small-v2/longembed-model.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    for folder in ("usr/local/bin", "etc/systemd/system"):
        (build / "root" / folder).mkdir(parents=True)
    below = re.sub(r"(?<=[ :])/(?=usr|var|etc)", f"{build}/root/", commands)
    script = f"umask 077; systemd-sysusers() {{ :; }}; systemctl() {{ :; }}\n{below.replace('deploy/setup.sh e5-small-v2', ':')}"
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    unit = settings()
    named = [unit["ExecStart"][0].split()[0], unit["ExecStart"][0].split()[-1], unit["Documentation"][0].removeprefix("file:")]
    model = yaml.safe_load((build / "root/etc/longembed/config.yaml").read_text())["models"][0]["path"]
    named.append(f"{model.removeprefix(f'{build}/root')}/longembed-model.yaml")
    for name in named:
        installed = build / f"root{name}"
        assert installed.is_file(), f"{name} is not installed"
        assert installed.stat().st_mode & 0o004 and installed.parent.stat().st_mode & 0o005 == 0o005, f"{name} cannot be read by the user longembed"
