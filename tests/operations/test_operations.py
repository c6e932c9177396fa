"""Runs the short form of every operational test. The bars for speed are low, because other programs may use the cores as well. The long forms have
the real ones, for an idle machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness import SKIPPED

SHORT = {
    "overload.py": ["--seconds", "8", "--texts", "40", "--measure-seconds", "3", "--goodput", "0.5", "--slack", "20"],
    "rolling_restart.py": ["--rounds", "2", "--pause", "0.5"],
    "kill.py": ["--rounds", "2", "--every", "4"],
    "cancel.py": ["--rounds", "1", "--blocker-seconds", "4", "--slack", "10"],
    "soak.py": ["--seconds", "10", "--sample-every", "2"],
    "hostile.py": ["--seconds", "2", "--floor-ms", "1500"],
    "auth_matrix.py": [],
    "http_front.py": ["--seconds", "4", "--connections", "1000", "--beyond-mib", "100"],
    "rotation.py": ["--rounds", "2", "--every", "4", "--broken-seconds", "2.5"],
    # A lone call takes about a second, so that some calls are answered in the time of the test.
    "goodput.py": ["--seconds", "8", "--lone-seconds", "1", "--lone-calls", "2", "--factors", "5", "--goodput", "0.25"],
    "starvation.py": ["--calls", "2", "--flood", "16", "--floor", "4", "--most", "20"],
    "memory.py": ["--seconds", "1", "--scale", "0.5", "--together", "--beyond-mib", "160"],
    "clock.py": ["--seconds", "3"],
    "cleanup.py": [],
    "suspend.py": ["--rounds", "1", "--stop", "3", "--pause", "1"],
    "link.py": ["--seconds", "1.2", "--floor-ms", "3000", "--only", "silence", "resets", "half-closed"],
}
# Modules that the scripts share.
MODULES = {"harness.py", "history.py", "http2_frames.py", "raw_client.py"}


@pytest.mark.parametrize("script", SHORT)
def test_short_form(script, tmp_path):
    command = [sys.executable, Path(__file__).parent / script, *SHORT[script], "--folder", tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    print(done.stdout)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip().splitlines()[-1].removeprefix("SKIPPED "))
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if line.startswith("FAIL")) or done.stdout[-3000:]


def test_no_script_is_forgotten():
    scripts = {path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")}
    assert set(SHORT) == scripts - MODULES
