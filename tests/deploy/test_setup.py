"""Tests deploy/setup.sh and deploy/quickstart.sh: what they install, and how they run two commands in parallel. Their functions are called
directly."""

import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bash(script: str, **env: str) -> subprocess.CompletedProcess:
    """Runs a script after setup.sh and the functions of quickstart.sh have been sourced."""
    functions = re.findall(r"^\w+\(\) \{.*?^\}|^\w+\(\) \{ .* \}$", (ROOT / "deploy/quickstart.sh").read_text(), re.M | re.S)
    program = f"source {ROOT}/deploy/setup.sh\n" + "\n".join(functions) + "\n" + script
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, env={**base, **env})


SCRIPTS = [path for path in ROOT.rglob("*.sh") if "$(dirname" in path.read_text() and not path.is_relative_to(ROOT / "build")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_finds_its_folder_whatever_cdpath_says(script, tmp_path):
    """With CDPATH, cd prints the folder, or goes to one of the same name elsewhere."""
    (tmp_path / script.parent.relative_to(ROOT)).mkdir(parents=True)
    found = re.search(r"^(root|repository|here)=(\$\(.*dirname.*)$", script.read_text(), re.M)
    if found is None:
        return  # It sources setup.sh.
    command = found[2].replace("${BASH_SOURCE[0]}", str(script.relative_to(ROOT)))
    for path in (".", str(tmp_path)):
        done = subprocess.run(["bash", "-c", f'printf %s "{command}"'], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "CDPATH": path})
        assert Path(done.stdout) in (ROOT, script.parent)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"longembed_requests_total 1\n")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("own", [{}, {"no_proxy": "a.example"}, {"NO_PROXY": "a.example"}])
def test_a_proxy_is_for_downloads_only(own):
    """curl and urllib would ask the proxy for loopback addresses, too."""
    proxy = "http://127.0.0.1:9"  # Nothing listens there.
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        python = f"{sys.executable} -c 'import urllib.request; print(urllib.request.urlopen(\"{url}\").status)'"
        done = bash(f'metrics={url}; show_metrics; {python}; echo "$no_proxy $NO_PROXY"', http_proxy=proxy, https_proxy=proxy, **own)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "longembed_requests_total 1" in done.stdout and "\n200\n" in done.stdout
    addresses = "127.0.0.1,localhost" + (",a.example" if own else "")
    assert done.stdout.splitlines()[-1] == f"{addresses} {addresses}"


def test_apt_gets_the_proxy_and_waits_for_its_lock(tmp_path):
    """sudo drops the environment, also the names that no proxy reaches. An upgrade that runs by itself on a machine that has just started holds the locks for minutes;
    apt does not wait for that of the lists, and says so."""
    apt = tmp_path / "apt-get"
    is_locked = f"[ -e {tmp_path}/free ] || {{ touch {tmp_path}/free; echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1' >&2; exit 100; }}"
    apt.write_text(f"#!/bin/sh\n{is_locked}\necho \"$http_proxy $https_proxy $no_proxy $DEBIAN_FRONTEND $*\" >>{tmp_path}/called\n")
    apt.chmod(0o755)
    script = f"""logs={tmp_path}; id() {{ echo 1000; }}; sudo() {{ env -i PATH={tmp_path}:/usr/bin:/bin "$@"; }}; sleep() {{ :; }}; install_packages no-such-package"""
    (tmp_path / "sudo").write_text("")
    (tmp_path / "sudo").chmod(0o755)
    done = bash(script, PATH=f"{tmp_path}:/usr/bin:/bin", http_proxy="http://proxy:1", https_proxy="http://proxy:2", no_proxy="mirror.example")
    assert done.returncode == 0, done.stderr
    settings = "http://proxy:1 http://proxy:2 127.0.0.1,localhost,mirror.example noninteractive -o DPkg::Lock::Timeout=600"
    assert (tmp_path / "called").read_text() == f"{settings} update\n{settings} install -y --no-install-recommends no-such-package\n"


def test_an_error_of_apt_is_shown_at_once(tmp_path):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2; exit 100\n")
    apt.chmod(0o755)
    done = bash(f"logs={tmp_path}; as_root() {{ \"$@\"; }}; sleep() {{ exit 9; }}; install_packages no-such-package", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 1 and "E: Unable to locate package" in done.stderr and "apt-get failed" in done.stderr, done.stderr


@pytest.mark.parametrize("own", [{}, {"LONGEMBED__LISTEN": "0.0.0.0:1", "LONGEMBED__LOG__LEVEL": "error", "LONGEMBED_SERVER": "production:50051"}])
def test_variables_for_another_server_are_left_out(own):
    """With LONGEMBED_SERVER, quickstart.sh would show vectors of that server, and with LONGEMBED__LISTEN never find its own."""
    done = bash("env", LONGEMBED_BUILD="build/dev", **own)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("LONGEMBED_")] == ["LONGEMBED_BUILD=build/dev"]


def test_packages_of_another_python_are_left_out(tmp_path):
    """The exporter would import a torch of PYTHONPATH, and pip would refuse, or install into another folder."""
    (tmp_path / "argparse.py").write_text("raise SystemExit('the wrong module')\n")
    variables = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSAFEPATH": "1"}
    places = {"PIP_TARGET": str(tmp_path / "target"), "PIP_PREFIX": str(tmp_path), "PIP_ROOT": str(tmp_path), "PIP_USER": "1"}
    done = bash(f"env; cd {ROOT} && {sys.executable} -m model.export --help", **variables, **places, PIP_INDEX_URL="https://mirror.example")
    assert done.returncode == 0 and "usage: model/export" in done.stdout, done.stdout + done.stderr
    assert {line for line in done.stdout.splitlines() if line.startswith(("PIP_", "PYTHON"))} == {"PIP_USER=0", "PIP_INDEX_URL=https://mirror.example"}


@pytest.mark.parametrize("script", [path for path in SCRIPTS if re.search(r"longembed-server\"|-m pytest|clients\.py", path.read_text())], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_that_starts_servers_begins_like_the_others(script):
    """setup.sh drops what a shell has set up for another server, another Python, another language or a proxy."""
    assert re.search(r"^(source|\.) .*/setup\.sh\"$", script.read_text(), re.M) or script.is_relative_to(ROOT / "deploy/container")


def test_numbers_are_read_in_every_language(tmp_path):
    """With a decimal comma, awk would read 0.25 as 0, and bash would write the time with a comma."""
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no sources of locales: {made.stderr.strip()}")
    metrics = "longembed_queue_duration_seconds_sum 0.25\nlongembed_queue_duration_seconds_count 1\nlongembed_requests_total 1\n"
    (tmp_path / "metrics").write_text(metrics)
    script = f"metrics=file://{tmp_path}/metrics; show_metrics; echo $EPOCHREALTIME"
    done = bash(script, LOCPATH=str(tmp_path), LC_ALL="de_DE.UTF-8")
    assert "250.0 ms on average, 1 times" in done.stdout
    assert re.fullmatch(r"\d+\.\d+", done.stdout.splitlines()[-1])


def test_programs_of_root_are_found_by_every_user():
    """watch.sh needs haproxy, and Debian's users have no /usr/sbin in PATH."""
    done = bash("echo $PATH", PATH="/usr/local/bin:/usr/bin:/bin")
    assert done.stdout.strip().split(":") == ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]


def test_an_unknown_device_is_refused(tmp_path):
    done = bash(f"venv={tmp_path}; install_libtorch", DEVICE="gpu")
    assert done.returncode == 1
    assert "DEVICE is gpu; it must be cpu or cuda" in done.stderr


def test_a_libtorch_for_another_device_is_installed_anew(tmp_path):
    script = f"venv={tmp_path}; mkdir -p {tmp_path}/bin; touch {tmp_path}/bin/python; chmod +x {tmp_path}/bin/python\n"
    script += 'mark_installed libtorch "$(torch_requirement) cpu"; if has_libtorch; then echo yes; else echo no; fi'
    assert [bash(script, DEVICE=device).stdout for device in ("cpu", "cuda")] == ["yes\n", "no\n"]


@pytest.mark.parametrize("made_with, found", [("%d.%d.0" % sys.version_info[:2], "yes\n"), ("3.4.2", "no\n")])
def test_a_venv_of_a_python_that_has_been_upgraded_is_made_anew(tmp_path, made_with, found):
    """Its packages are in a folder that the new Python does not read."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    config = tmp_path / "pyvenv.cfg"
    config.write_text(re.sub(r"^version = .*$", f"version = {made_with}", config.read_text(), flags=re.M))
    script = f'venv={tmp_path}; mark_installed libtorch "$(torch_requirement) $device"; if has_libtorch; then echo yes; else echo no; fi'
    assert bash(script).stdout == found


@pytest.mark.parametrize("there, libtorch, looks_again", [(True, "", False), (False, "", True), (True, "/opt/libtorch", True)])
def test_a_libtorch_that_is_gone_is_looked_for_again(tmp_path, there, libtorch, looks_again):
    (tmp_path / "build/release").mkdir(parents=True)
    if there:
        (tmp_path / "libtorch_cpu.so").touch()
    (tmp_path / "build/release/CMakeCache.txt").write_text(f"LONGEMBED_TORCH_CPU:FILEPATH={tmp_path}/libtorch_cpu.so\n")
    done = bash(f'root={tmp_path}; cargo() {{ :; }}; run_logged() {{ echo "$@"; }}; configure release', LIBTORCH=libtorch)
    assert done.returncode == 0, done.stderr
    assert ("-U LONGEMBED_TORCH_[IC]*" in done.stdout) == looks_again


def fake_libtorch(folder: Path) -> Path:
    for name in ("include/torch/script.h", "lib/libtorch_cpu.so", "lib/libc10.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("variables, found", [
    ({}, "venv"), ({"LIBTORCH": "own"}, "own"), ({"CMAKE_PREFIX_PATH": "/opt/qt:{}/own"}, "own"), ({"CMAKE_PREFIX_PATH": "/opt/qt"}, "venv"),
    ({"LIBTORCH": "nowhere"}, "LIBTORCH is nowhere, which has no include/torch/script.h."),
])  # fmt: skip
def test_the_libtorch_that_is_named_is_linked_or_refused(tmp_path, variables, found):
    """A misspelled LIBTORCH was ignored, and one below the system's prefix, such as that of Debian's libtorch-dev, was taken."""
    fake_libtorch(tmp_path / "build/venv/lib/python3.11/site-packages/torch")
    fake_libtorch(tmp_path / "own")
    (tmp_path / "system/include/torch").mkdir(parents=True)
    (tmp_path / "system/include/torch/script.h").touch()
    (tmp_path / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\nproject(x NONE)\ninclude({ROOT}/model/encoder/libtorch.cmake)\n")
    command = ["cmake", "-S", ".", "-B", "build/dev", f"-DCMAKE_INSTALL_PREFIX={tmp_path}/system"]
    environment = {"PATH": "/usr/bin:/bin", **{name: value.format(tmp_path) for name, value in variables.items()}}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = " ".join((done.stdout + done.stderr).split())
    if found in ("venv", "own"):
        folder = {"venv": "build/venv/lib/python3.11/site-packages/torch", "own": "own"}[found]
        assert done.returncode == 0 and f"-- LibTorch: {tmp_path}/{folder} " in said, said
    else:
        assert done.returncode == 1 and found in said, said


def test_a_libtorch_that_is_named_later_replaces_one_that_was_found(tmp_path):
    fake_libtorch(tmp_path / "build/venv/lib/python3.11/site-packages/torch")
    fake_libtorch(tmp_path / "own")
    (tmp_path / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\nproject(x NONE)\ninclude({ROOT}/model/encoder/libtorch.cmake)\n")
    said = [subprocess.run(["cmake", "-S", ".", "-B", "b", *option], cwd=tmp_path, capture_output=True, text=True).stdout for option in ([], ["-DLONGEMBED_LIBTORCH=own"])]
    assert "site-packages/torch" in said[0] and f"LibTorch: {tmp_path}/own\n" in said[1]


@pytest.mark.parametrize("variables, own", [
    ({}, "no"), ({"LIBTORCH": "/opt/libtorch"}, "yes"), ({"CMAKE_PREFIX_PATH": "/opt/qt:/opt/ros"}, "no"), ({"CMAKE_PREFIX_PATH": "/opt/qt:{}"}, "yes")
])  # fmt: skip
def test_a_prefix_of_other_libraries_is_not_a_libtorch(tmp_path, variables, own):
    """quickstart.sh did not wait for the LibTorch that it installs, and the build failed."""
    fake_libtorch(tmp_path)
    done = bash("if has_own_libtorch; then echo yes; else echo no; fi", **{name: value.format(tmp_path) for name, value in variables.items()})
    assert done.stdout == f"{own}\n", done.stderr


def test_two_runs_install_one_after_the_other(tmp_path):
    """Without a lock, the second would clear the folder that the first has half made."""
    (tmp_path / "model/export").mkdir(parents=True)
    (tmp_path / "model/export/requirements.txt").write_text("torch==2.11.0\n")
    script = f"""root={tmp_path} venv={tmp_path}/build/venv logs={tmp_path}/logs
    run_logged() {{ echo makes >>{tmp_path}/done; mkdir -p $venv/bin $venv/lib/python3.11/site-packages; cp /bin/true $venv/bin/python; }}
    info=$venv/lib/python3.11/site-packages/torch-2.11.0.dist-info
    pip_install() {{ echo begins >>{tmp_path}/done; sleep 0.5; mkdir -p $info; touch $info/METADATA; echo ends >>{tmp_path}/done; }}
    leave_cuda_out() {{ :; }}; df() {{ echo 9000000000; }}
    install_libtorch & first=$!; install_libtorch & second=$!; wait $first; wait $second"""
    done = bash(script, DEVICE="cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text().split() == ["makes", "begins", "ends"]
    assert done.stderr.count("waiting for another run of these scripts (flock of build/venv.lock)") == 1


def test_a_step_that_fails_alone_ends_the_script():
    done = bash("compile_alone() { fail 'it is bad'; }; build() { compile release; }; build; echo goes on")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("it is bad") == 1


def test_stubs_replace_the_libraries_of_cuda(tmp_path):
    """Python's torch is linked with libraries that are not installed. It must still load, and pip must not miss any package."""
    lib, info = tmp_path / "torch/lib", tmp_path / "torch-2.11.0.dist-info"
    lib.mkdir(parents=True)
    info.mkdir()
    subprocess.run(["cc", "-shared", "-Wl,-soname,libcublas.so.13", "-o", tmp_path / "libcublas.so", "-x", "c", "/dev/null"], check=True)
    link = ["cc", "-shared", "-o", lib / "libtorch_python.so", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed", tmp_path / "libcublas.so"]
    subprocess.run([*link, "-Wl,-rpath,$ORIGIN"], check=True)
    # Runs in a separate process, because a process that has loaded torch already has a library of this name.
    load = [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", lib / "libtorch_python.so"]
    assert "libcublas.so.13" in subprocess.run(load, capture_output=True, text=True).stderr
    requires = 'Requires-Dist: sympy>=1.13.3\nRequires-Dist: triton==3.6.0; platform_system == "Linux"\nRequires-Dist: jinja2\n'
    (info / "METADATA").write_text(requires)
    done = bash(f"leave_cuda_out {tmp_path}")
    assert done.returncode == 0, done.stderr
    subprocess.run(load, check=True)
    flags = "import os, site, sys; site.addsitedir(sys.argv[1]); sys.exit(sys.getdlopenflags() != os.RTLD_LAZY)"
    subprocess.run([sys.executable, "-c", flags, tmp_path], check=True)
    assert (info / "METADATA").read_text() == "Requires-Dist: sympy>=1.13.3\nRequires-Dist: jinja2\n"


@pytest.mark.parametrize("libtorch, exported, installs", [("/opt/libtorch", True, False), ("/opt/libtorch", False, True), ("", True, True), ("", False, True)])
def test_an_exported_model_with_an_own_libtorch_needs_no_python(tmp_path, libtorch, exported, installs):
    if exported:
        (tmp_path / "longembed-model.yaml").touch()
    script = f"install_exporter() {{ echo installs; }}; export_model() {{ echo {tmp_path}; }}; work={tmp_path} model={tmp_path}; prepare_model"
    done = bash(script, LIBTORCH=libtorch)
    assert done.returncode == 0, done.stderr
    assert ("installs" in done.stdout) == installs
    assert (tmp_path / "model").read_text() == f"{tmp_path}\n"


@pytest.mark.parametrize("libtorch, configured", [("", ["OFF", "ON"]), ("/opt/libtorch", ["ON"])])
def test_targets_without_libtorch_are_compiled_while_it_is_downloaded(tmp_path, libtorch, configured):
    script = f"""venv={tmp_path}
    configure() {{ case "$*" in *LONGEMBED_TORCH=OFF*) echo OFF ;; *) echo ON ;; esac; }}
    compile() {{ echo "compiles $*"; mkdir -p $venv/bin; touch $venv/bin/python; chmod +x $venv/bin/python; mark_installed libtorch "$(torch_requirement) $device"; }}
    compile_server"""
    done = bash(script, LIBTORCH=libtorch)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith("compiles")] == configured
    assert all("embed-texts" not in line and "test" not in line for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[-1] == "compiles release longembed-server longembed"


def test_a_model_may_load_for_long(tmp_path):
    """With a limit of a minute, a model of 7 billion weights could not be shown on a small machine."""
    log = tmp_path / "server.log"
    log.write_text('{"event": "loading", "ratio": 0.5}\n')
    wait = f"log={log} waits_between_reports=3; {{ sleep 0.8; echo 'serving gRPC' >>{log}; sleep 5; }} & server_pid=$!; wait_for_server; kill $server_pid"
    done = bash(wait)
    assert done.returncode == 0, done.stderr
    assert 'the model is loading: {"event": "loading", "ratio": 0.5}' in done.stderr


@pytest.mark.parametrize("prompts, outputs, names_prompt, has_curl", [
    ('{"query":"query: ","passage":"passage: "}', '["ONE_VECTOR","WINDOW_VECTORS"]', True, True), ("{}", '["ONE_VECTOR"]', False, True),
    ('{"search_query":"search_query: "}', '["ONE_VECTOR"]', False, True), ("{}", '["SPARSE"]', False, False),
])  # fmt: skip
def test_calls_that_are_shown_are_those_of_the_model(tmp_path, prompts, outputs, names_prompt, has_curl):
    """They named e5's prompt for every model, and were refused (UNKNOWN_PROMPT)."""
    client = tmp_path / "longembed"
    client.write_text(f"""#!/bin/sh\necho '{{"name":"m","outputs":{outputs},"prompts":{prompts},"input_types":{{}}}}'\n""")
    client.chmod(0o755)
    done = bash(f"client={client} http=127.0.0.1:8080; show_how_to_call")
    assert done.returncode == 0, done.stderr
    command, request = re.search(r"longembed embed (.*)\n", done.stdout)[1], re.search(r"grpcurl -plaintext -d '(.*)' \\\n", done.stdout)[1]
    assert command == ("--prompt-name query " if names_prompt else "") + '--text "who may copy this program?"'
    options = {"options": {"prompt_name": "query"}} if names_prompt else {}
    assert json.loads(request) == {**options, "inputs": [{"text": "who may copy this program?"}]}
    body = re.search(r"/v1/embeddings .*-d '(.*)'\n", done.stdout)
    assert (json.loads(body[1]).get("prompt_name") == ("query" if names_prompt else None)) if has_curl else body is None
    assert "http://127.0.0.1:8080/docs" in done.stdout


def test_a_server_that_ends_is_not_waited_for(tmp_path):
    (tmp_path / "server.log").write_text("models[0].path: is missing\n")
    done = bash(f"log={tmp_path}/server.log; sleep 0.2 & server_pid=$!; wait_for_server")
    assert done.returncode == 1 and "the server did not start: models[0].path: is missing" in done.stderr


@pytest.mark.parametrize("argument", ["--help", "-h", "--model=e5-small-v2", ""])
def test_setup_refuses_unknown_models_before_it_installs(argument):
    done = subprocess.run([ROOT / "deploy/setup.sh", argument], capture_output=True, text=True, env={"PATH": "/nowhere:/usr/bin:/bin", "HOME": "/root"})
    assert done.returncode == 1 and f"unknown argument '{argument}'; usage: deploy/setup.sh [MODEL...]" in done.stderr


JOBS = "quick() { echo quick; }; bad() { fail 'it is bad'; }; slow() { sleep 60 | cat; echo slow; }; "


def test_two_things_run_at_once():
    done = bash(JOBS + "run_both quick quick; echo both")
    assert (done.returncode, done.stdout) == (0, "quick\nquick\nboth\n")


@pytest.mark.parametrize("commands", ["bad slow", "slow bad", "quick bad"])
def test_one_that_fails_ends_the_other(commands):
    done = bash(JOBS + f"run_both {commands}; echo both")
    assert done.returncode == 1 and done.stderr.count("it is bad") == 1
    assert "both" not in done.stdout and "slow" not in done.stdout


@pytest.mark.parametrize("available, cores, level, jobs", [(16_000_000, 4, "", 4), (4_000_000, 4, "", 2), (900_000, 4, "", 1), (900_000, 4, "7", 7)])
def test_jobs_of_the_build_follow_cores_and_memory(available, cores, level, jobs):
    script = f"nproc() {{ echo {cores}; }}; awk() {{ command awk \"$1\" <<<'MemAvailable: {available} kB'; }}; build_jobs"
    assert bash(script, **({"CMAKE_BUILD_PARALLEL_LEVEL": level} if level else {})).stdout == f"{jobs}\n"


def test_build_errors_are_what_tools_say(tmp_path):
    log = tmp_path / "build.log"
    noise = "[8/312] Building CXX object model/errors/CMakeFiles/longembed_errors.dir/errors.cc.o\n  Downloaded thiserror v2.0.21\n"
    log.write_text(noise * 5 + "FAILED: longembed-server\n" + noise + "main.cc:3:1: error: 'x' was not declared\n")
    done = bash(f"show_build_errors {log}")
    assert done.stderr.splitlines()[0] == "FAILED: longembed-server"
    assert "main.cc:3:1: error: 'x' was not declared" in done.stderr
