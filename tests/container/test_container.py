"""Tests the Dockerfile without a container engine: its contents, and its runtime stages with the programs in build/release.

tests/container/check.sh builds all stages, which takes 10 minutes and is not part of these tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dockerfile import DockerfileError, Ignored, context_files, expand, pairs, parse, read_instructions

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/container"
DOCKERFILE = parse((ROOT / "Dockerfile").read_text())
STAGES = {stage.name: stage for stage in DOCKERFILE.stages}
CONFIG = yaml.safe_load((ROOT / "deploy/container/config.yaml").read_text())
PORTS = {"listen": 50051, "http_listen": 8080, "health_listen": 50052, "metrics_listen": 9464}


def chain(name: str, device: str) -> list:
    """Returns the instructions of a stage and of the stages that it is based on, first to last, for a value of DEVICE."""
    if name not in STAGES:
        return []
    stage = STAGES[name]
    return chain(expand(stage.base, {"DEVICE": device, "DEBIAN": "bookworm"}), device) + stage.instructions


def last(name: str, device: str = "cpu"):
    found = [instruction for instruction in chain("image", device) if instruction.name == name]
    assert found, f"the image has no {name}"
    return found[-1]


# The Dockerfile's instructions


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_both_devices_end_in_an_image_from_scratch(device):
    stage = STAGES["image"]
    while stage.base != "scratch":
        stage = STAGES[expand(stage.base, {"DEVICE": device})]
    nvidia = [instruction for instruction in chain("image", device) if instruction.name == "ENV" and "NVIDIA_VISIBLE_DEVICES" in instruction.text]
    assert bool(nvidia) == (device == "cuda"), "an image for the CPU must not ask for GPUs, one for CUDA must"


def test_stages_are_used_and_come_before_their_users():
    names = [stage.name for stage in DOCKERFILE.stages]
    used = {"image", "runtime-cuda"}
    for index, stage in enumerate(DOCKERFILE.stages):
        sources = [instruction.flag("from") for instruction in stage.instructions if instruction.flag("from")] + [expand(stage.base, {"DEVICE": "cpu"})]
        used |= set(sources)
        for source in sources:
            assert source not in names or names.index(source) < index, f"{stage.name} uses {source}, which comes later"
        assert all(source in names for source in sources[:-1]), f"{stage.name} copies from an image that is no stage"
    assert set(names) <= used


def test_every_source_of_a_copy_is_in_the_context():
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    copies = [instruction for stage in DOCKERFILE.stages for instruction in stage.instructions if instruction.name == "COPY" and not instruction.flag("from")]
    assert len(copies) > 5
    for copy in copies:
        for source in copy.text.split()[:-1]:
            assert context_files(ROOT, ignored, source), f"line {copy.line}: {source} does not exist, or .dockerignore hides it"


def test_every_script_that_a_step_runs_was_copied_before():
    """A stage copies only what its steps need, so that changes to other files do not invalidate it. This test checks that nothing is missing."""
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    ran = set()
    for stage in DOCKERFILE.stages:
        copied = []
        for instruction in chain(stage.name, "cpu"):
            if instruction.name == "COPY" and not instruction.flag("from"):
                copied += [file for source in instruction.text.split()[:-1] for file in context_files(ROOT, ignored, source)]
            for script in re.findall(r"deploy/\S+\.sh", instruction.text) if instruction.name == "RUN" else []:
                ran.add(script)
                assert script in copied, f"line {instruction.line}: {script} has not been copied"
                assert os.access(ROOT / script, os.X_OK), f"{script} is not executable"
                for sourced in re.findall(r"^source .*/\.\./(\S+)\"$", (ROOT / script).read_text(), re.M):
                    assert f"deploy/{sourced}" in copied, f"line {instruction.line}: {script} reads deploy/{sourced}, which has not been copied"
    assert ran == {f"deploy/container/{path.name}" for path in (ROOT / "deploy/container").glob("*.sh")}, "a script that no step runs"


def test_context_is_sources_alone():
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    for path in ("build/release/longembed-server", "models/e5-small-v2/encoder.pt", ".git/config", "helm/longembed-server/values.yaml", "tests/run.sh",
                 "tests/requirements.txt", "secret.pem", "server/README.md", "model/export/__pycache__/bert.pyc"):  # fmt: skip
        assert path in ignored, path
    for path in ("CMakeLists.txt", "server/main.cc", "model/export/requirements.txt", "deploy/setup.sh", "libtorch/lib/libc10.so"):
        assert path not in ignored, path
    assert len(context_files(ROOT, ignored)) < 1000


def test_the_image_runs_without_root_and_without_a_shell():
    assert last("USER").text == "10001:10001"
    after_user = chain("image", "cpu")[chain("image", "cpu").index(last("USER")):]
    assert not [instruction for instruction in after_user if instruction.name in ("RUN", "COPY")], "files would be made after USER"
    assert last("ENTRYPOINT").argv == ["/usr/local/bin/longembed-server"]
    assert last("CMD").argv == ["--config", "/etc/longembed/config.yaml"]
    assert last("STOPSIGNAL").text == "SIGTERM"
    assert all(run.argv for run in STAGES["runtime-cpu"].instructions if run.name == "RUN"), "RUN in shell form where there is no shell"
    assert all(instruction.text.startswith("/") for stage in DOCKERFILE.stages for instruction in stage.instructions if instruction.name == "WORKDIR")


def test_the_images_user_can_read_what_is_copied_from_the_context():
    """COPY keeps the modes of a clone, which with umask 077 only the owner can read."""
    copied = [copy for stage in ("runtime-cpu", "runtime-cuda", "image") for copy in STAGES[stage].instructions if copy.name == "COPY" and not copy.flag("from")]
    assert copied and all(copy.flag("chmod") == "644" for copy in copied)


def test_base_images_have_a_tag_that_is_not_latest():
    bases = {stage.base for stage in DOCKERFILE.stages} - set(STAGES) - {"scratch", "runtime-${DEVICE}"}
    defaults = pairs(" ".join(argument.text for argument in DOCKERFILE.arguments), {})
    assert bases
    for base in bases:
        image, _, tag = expand(base, defaults).partition(":")
        assert tag and tag != "latest", base
        assert "." not in image.split("/")[0], f"{base} names a registry"


def test_every_argument_is_used_and_none_holds_a_secret():
    scripts = "".join(path.read_text() for path in (ROOT / "deploy/container").glob("*.sh"))
    text = "".join(stage.base + "".join(instruction.text for instruction in stage.instructions if instruction.name != "ARG") for stage in DOCKERFILE.stages)
    arguments = DOCKERFILE.arguments + [instruction for stage in DOCKERFILE.stages for instruction in stage.instructions if instruction.name == "ARG"]
    for name in {argument.text.partition("=")[0] for argument in arguments}:
        assert re.search(rf"\$\{{?{name}\b", text + scripts), f"the argument {name} is used nowhere"
        assert not re.search("KEY|TOKEN|PASSWORD|SECRET", name)


def test_version_is_that_of_cmake():
    version = re.search(r"project\(\S+ VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert [i.text for i in STAGES["image"].instructions if i.text.startswith("VERSION=")] == [f"VERSION={version}"]


def test_scripts_get_the_arguments_that_they_read():
    """An ARG is visible only in its stage. A script that reads it in another stage would get an empty value."""
    for stage in DOCKERFILE.stages:
        declared = {instruction.text.partition("=")[0] for instruction in stage.instructions if instruction.name == "ARG"}
        for instruction in stage.instructions:
            for script in re.findall(r"deploy/\S+\.sh", instruction.text) if instruction.name == "RUN" else []:
                read = set(re.findall(r"\$\{(DEVICE|LIBTORCH|MODEL)\b", (ROOT / script).read_text()))
                assert read <= declared, f"line {instruction.line}: {script} reads {sorted(read - declared)}, which {stage.name} does not declare"


def test_ports_agree():
    for key, port in PORTS.items():
        assert CONFIG[key] == f"0.0.0.0:{port}", key
    assert sorted(map(int, last("EXPOSE").text.split())) == sorted(PORTS.values())
    check = last("HEALTHCHECK").text
    assert f'"127.0.0.1:{PORTS["health_listen"]}"' in check and '"health"' in check


def test_a_container_is_not_unhealthy_while_a_large_model_loads():
    period = int(last("HEALTHCHECK").flag("start-period").removesuffix("s"))
    examples = [yaml.safe_load(path.read_text()) for path in (ROOT / "helm/longembed-server/examples").glob("*.yaml")]
    starts = [example["probes"]["startup"] for example in examples if "startup" in example.get("probes", {})]
    assert starts and period >= max(start["periodSeconds"] * start["failureThreshold"] for start in starts)


def test_ports_are_those_of_the_chart():
    values = ROOT / "helm/longembed-server/values.yaml"
    if not values.exists():
        pytest.skip("helm/longembed-server does not exist")
    text = "".join(path.read_text() for path in sorted((ROOT / "helm/longembed-server").rglob("*")) if path.suffix in (".yaml", ".tpl"))
    for key, port in PORTS.items():
        assert re.search(rf"\b{port}\b", text), f"{key}: the chart does not mention {port}"
    assert "10001" in text


def test_config_has_only_documented_keys():
    sample = yaml.safe_load((ROOT / "deploy/config.yaml").read_text())
    assert set(CONFIG) <= set(sample), f"not in deploy/config.yaml: {sorted(set(CONFIG) - set(sample))}"
    for key in ("log", "drain"):
        assert set(CONFIG[key]) <= set(sample[key])
    assert [Path(model["path"]).parent.as_posix() for model in CONFIG["models"]] == ["/models"]


def test_torch_has_one_version():
    lines = re.findall(r"^torch==\S+$", (ROOT / "model/export/requirements.txt").read_text(), re.M)
    assert len(lines) == 1, "install_libtorch.sh takes this line"


@pytest.mark.parametrize("script", sorted([*(ROOT / "deploy/container").glob("*.sh"), HERE / "check.sh"]), ids=lambda path: path.name)
def test_scripts_are_bash_that_stops_at_errors(script):
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", script.read_text(), re.M)
    subprocess.run(["bash", "-n", script], check=True)


def test_packages_that_are_left_out_are_still_in_the_set_up():
    names = re.search(r"not_for_compiling=' (.*) '", (ROOT / "deploy/container/install_tools.sh").read_text())[1].split()
    packages = re.search(r"^debian_packages=\((.*?)\)", (ROOT / "deploy/setup.sh").read_text(), re.M | re.S)[1].split()
    assert set(names) <= set(packages)


# Reading and running Dockerfiles


def test_instructions_over_several_lines():
    read = read_instructions("# comment\nFROM a AS b\nRUN --mount=type=cache,target=/x \\\n  # comment\n\n  one && \\\n  two\nCMD [\"x\", \"y z\"]\n")
    assert [(i.line, i.name, i.flags, " ".join(i.text.split())) for i in read] == [
        (2, "FROM", [], "a AS b"), (3, "RUN", [("mount", "type=cache,target=/x")], "one && two"), (8, "CMD", [], '["x", "y z"]')]  # fmt: skip
    assert read[2].argv == ["x", "y z"] and read[1].argv is None


@pytest.mark.parametrize("text, words", [
    ("FROM a\nADD x y", "ADD"), ("RUN x", "before the first FROM"), ("FROM a\nFRM b", "FRM"), ("FROM a\nRUN cat <<EOF\nx\nEOF", "here-documents"),
    ("FROM a AS x\nFROM b AS x", "exists already"), ("FROM a\nCOPY --link x y", "--link"), ("FROM a\nCOPY --exclude=z x y", "--exclude"), ("", "no FROM"),
])  # fmt: skip
def test_unknown_syntax_of_dockerfiles_is_an_error(text, words):
    with pytest.raises(DockerfileError, match=words):
        parse(text)


def test_variables():
    known = {"A": "1", "EMPTY": ""}
    assert expand("$A ${A}x ${NONE:-else} ${A:-else} ${EMPTY:-else} ${A:+then} ${NONE:+then}| $NONE|", known) == "1 1x else 1 else then | |"
    assert pairs('a="b $A" c=d${A}', known) == {"a": "b 1", "c": "d1"}
    with pytest.raises(DockerfileError):
        pairs("a b", known)


def test_dockerignore_rules():
    ignored = Ignored("# comment\n*\n!src\n!docs/a.md\n**/*.tmp\nsrc/private\n")
    assert {path for path in ("x", "src/a", "src/deep/a.tmp", "docs/a.md", "docs/b.md", "src/private/a", "src") if path in ignored} == {
        "x", "src/deep/a.tmp", "docs/b.md", "src/private/a"}  # fmt: skip
    assert ignored.whole("other") and not ignored.whole("docs") and not ignored.whole("src")


def need_root():
    if os.geteuid() != 0:
        pytest.skip("chroot and mounts need root")
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode != 0:
        pytest.skip("namespaces are not allowed here")
    if "overlay" not in Path("/proc/filesystems").read_text() and subprocess.run(["modprobe", "overlay"], capture_output=True).returncode != 0:
        pytest.skip("the kernel has no overlayfs")


def carry_out(context: Path, work: Path, *options) -> subprocess.CompletedProcess:
    """Runs run_dockerfile.py. The image is written to work/image."""
    folders = ["--context", context, "--work", work / "stages", "--cache", work / "cache", "--out", work / "image"]
    return subprocess.run([sys.executable, HERE / "run_dockerfile.py", *folders, *options], capture_output=True, text=True)


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    """Makes a root with a shell, cat and mkdir, which is enough for RUN."""
    need_root()
    root = tmp_path_factory.mktemp("small_root")
    for program in ("/bin/sh", "/bin/cat", "/bin/mkdir"):
        libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
        for file in [program, *libraries]:
            (root / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file.lstrip("/"))
    return root


SMALL = """ARG NAME=global
FROM small:1 AS one
ARG NAME
ARG OWN=default
ENV PLACE=/made/${NAME}
WORKDIR /made
COPY folder inner/
RUN --mount=type=cache,target=/kept cat /kept/note > seen 2>&1; echo "$NAME $OWN $PLACE" > $PLACE; echo kept > /kept/note
FROM one AS unused
RUN exit 7
FROM scratch AS two
COPY --from=one /made/ /
COPY --from=one /made/inner/a /renamed
COPY --chmod=644 folder/a /readable
USER 7:7
ENTRYPOINT ["/x"]
LABEL title="two words"
"""


@pytest.fixture
def small_context(tmp_path):
    context = tmp_path / "context"
    (context / "folder").mkdir(parents=True)
    (context / "folder/a").write_text("a")
    (context / "folder/a").chmod(0o600)
    (context / "folder/b.tmp").write_text("b")
    (context / ".dockerignore").write_text("**/*.tmp\n")
    (context / "Dockerfile").write_text(SMALL)
    return context


def test_steps_are_carried_out(small_root, small_context, tmp_path):
    options = ["--image", f"small:1={small_root}", "--build-arg", "NAME=given"]
    done = carry_out(small_context, tmp_path / "first", *options)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "first/image/root"
    assert {path.relative_to(root).as_posix() for path in root.rglob("*")} == {"given", "inner", "inner/a", "readable", "renamed", "seen"}
    assert [(root / name).stat().st_mode & 0o777 for name in ("renamed", "readable")] == [0o600, 0o644]
    assert (root / "given").read_text() == "given default /made/given\n"
    config = yaml.safe_load((tmp_path / "first/image/image.json").read_text())
    assert (config["User"], config["Entrypoint"], config["Labels"], config["Env"]) == ("7:7", ["/x"], {"title": "two words"}, {})
    assert "No such file" in (root / "seen").read_text()
    shutil.move(tmp_path / "first/cache", tmp_path / "second/cache")
    assert carry_out(small_context, tmp_path / "second", *options).returncode == 0
    assert (tmp_path / "second/image/root/seen").read_text() == "kept\n", "a cache mount outlives a build"


@pytest.mark.parametrize("change, words", [
    (("RUN --mount=type=cache,target=/kept ", "RUN exit 3; "), "line 8: RUN ended with exit status 3"),
    (("COPY folder ", "COPY folder/b.tmp "), "line 7: COPY folder/b.tmp finds nothing; .dockerignore may hide it"),
    (("/made/inner/a /", "/made/inner/none /"), "line 13: COPY /made/inner/none finds nothing"),
    (("small:1", "large:1"), "no --image says where the root of large:1 is"),
    (("--from=one /made/ ", "--from=three /made/ "), "there is no stage three"),
])  # fmt: skip
def test_mistakes_are_found(small_root, small_context, tmp_path, change, words):
    assert change[0] in SMALL
    (small_context / "Dockerfile").write_text(SMALL.replace(*change))
    done = carry_out(small_context, tmp_path / "work", "--image", f"small:1={small_root}")
    assert done.returncode == 1 and words in done.stderr


@pytest.mark.parametrize(
    ("loader", "folder"),
    [("/lib64/ld-linux-x86-64.so.2", "usr/lib64"), ("/usr/lib64/ld-linux-x86-64.so.2", "usr/lib64"), ("/lib/ld-linux-aarch64.so.1", "usr/lib")])
def test_the_loader_lands_where_programs_ask_for_it(tmp_path, loader, folder):
    """On arm64 the folder is /lib. Runs the script's own function, with an `install` that only prints."""
    script = (ROOT / "deploy/container/collect_runtime.sh").read_text()
    function = re.search(r"^copy_debian_library\(\) \{.*?^\}", script, re.M | re.S)[0]
    stubs = 'out=/out; packages=(); owner_of() { echo libc6; }; fail() { exit 1; }; install() { echo "${@: -1}"; }'
    done = subprocess.run(["bash", "-euc", f"{stubs}\n{function}\ncopy_debian_library {loader}"], capture_output=True, text=True)
    assert done.stdout.strip() == f"/out/server/{folder}/", done.stderr
    assert re.search(rf"mkdir -p .*usr/lib64.*usr/lib/", script), "a folder that is not made"


def test_no_script_names_a_processor():
    for path in [ROOT / "Dockerfile", *(ROOT / "deploy/container").glob("*.sh")]:
        assert not re.search(r"x86_64|amd64|aarch64-linux", path.read_text()), path


# The runtime stages, with the programs of build/release


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Builds the Dockerfile's own last stages. The stage that compiles is replaced by the files that its last step collects from build/release."""
    need_root()
    for program in ("longembed-server", "longembed"):
        if not (ROOT / "build/release" / program).exists():
            pytest.skip(f"build/release/{program} has not been built; run tests/run.sh")
    work = tmp_path_factory.mktemp("image")
    (work / "model/src/models").mkdir(parents=True)
    command = [ROOT / "deploy/container/collect_runtime.sh", ROOT / "build/release", work / "build/image"]
    collected = subprocess.run(command, env=os.environ | {"DEVICE": "cpu"}, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stderr
    done = carry_out(ROOT, work, "--build-context", f"build={work / 'build'}", "--build-context", f"model={work / 'model'}")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(work / "build")
    yield work / "image"
    shutil.rmtree(work / "image")


def check(image: Path, *options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, HERE / "check_runtime.py", image / "root", image / "image.json", *options], capture_output=True, text=True)


def test_it_runs_as_a_container(image):
    if not (ROOT / "models/e5-small-v2").exists():
        pytest.skip("models/e5-small-v2 has not been exported; run tests/run.sh")
    done = check(image, "--models", ROOT / "models")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_missing_library_is_found(image):
    library = image / "root/usr/lib/x86_64-linux-gnu/libupb.so.29"
    moved = library.rename(image / "libupb.so.29")
    done = check(image, "--no-start")
    moved.rename(library)
    assert done.returncode == 1 and re.search("FAILED  /usr/local/bin/longembed-server finds its libraries: .*libupb.so.29", done.stdout)


@pytest.mark.parametrize("name, words", [
    ("usr/local/lib/longembed/libextra.so.1", "no library is there for nothing: usr/local/lib/longembed/libextra.so.1"),
    ("usr/bin/python3", "no Python"), ("usr/bin/sh", "no other program, no shell"),
])  # fmt: skip
def test_superfluous_files_are_found(image, name, words):
    added = image / "root" / name
    added.parent.mkdir(exist_ok=True)
    shutil.copy(image / "root/usr/lib/x86_64-linux-gnu/libz.so.1", added)
    added.chmod(0o755)
    done = check(image, "--no-start")
    added.unlink()
    assert done.returncode == 1 and f"FAILED  {words}" in done.stdout
