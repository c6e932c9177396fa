"""Tests cmake --install, moving the installed tree, and programs that are built against it: examples/, and the errors of find_package if something
is missing."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release")
sys.path.insert(0, str(ROOT / "tests/integration"))
from running_server import MODELS, start_server  # noqa: E402


def run(*command, env: dict | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=cwd)


def succeed(*command) -> str:
    done = run(*command)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Returns the installed tree, which was moved after the installation."""
    if not (BUILD / "longembed-server").exists() or not shutil.which("ninja"):
        pytest.skip("longembed-server has not been built; run tests/run.sh")
    folder = tmp_path_factory.mktemp("install")
    succeed("cmake", "--install", BUILD, "--prefix", folder / "first")
    (folder / "first").rename(folder / "moved")
    return folder / "moved"


def configure(source: Path, build: Path, prefix: Path, *options: str, env: dict | None = None) -> subprocess.CompletedProcess:
    return run("cmake", "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug", *options, env=env)


def build_example(name: str, prefix: Path, folder: Path) -> Path:
    done = configure(ROOT / "examples" / name, folder, prefix)
    assert done.returncode == 0, done.stderr
    succeed("cmake", "--build", folder)
    return folder / name


def numbers(text: str) -> list[float]:
    return [float(line) for line in text.splitlines()]


def is_close(actual: list[float], expected: list[float]) -> bool:
    return len(actual) == len(expected) and all(math.isclose(a, e, abs_tol=1e-4) for a, e in zip(actual, expected))


@pytest.fixture(scope="module")
def embedded(prefix, tmp_path_factory):
    """Returns the vector of "a text", computed by examples/embed."""
    if not (MODELS / "e5-small-v2").exists():
        pytest.skip("models/e5-small-v2 has not been exported; run tests/run.sh")
    program = build_example("embed", prefix, tmp_path_factory.mktemp("embed"))
    vector = numbers(succeed(program, MODELS / "e5-small-v2", "a text"))
    missing = run(program, "/nonexistent", "a text")
    assert missing.returncode == 1 and "/nonexistent" in missing.stderr
    return vector


def test_the_example_embeds_in_process(embedded):
    assert len(embedded) == 384
    assert math.isclose(math.fsum(x * x for x in embedded), 1, abs_tol=1e-4)


def test_the_client_example_gets_the_same_vector(prefix, embedded, tmp_path):
    program = build_example("client", prefix, tmp_path / "client")
    server = start_server(tmp_path, ["e5-small-v2"])
    try:
        vector = numbers(succeed(program, f"127.0.0.1:{server.port}", "a text"))
    finally:
        assert server.stop() == 0
    assert is_close(vector, embedded)


def test_installed_programs_find_their_libraries(prefix):
    assert "longembed-server" in succeed(prefix / "bin/longembed-server", "--version")
    assert "embed" in succeed(prefix / "bin/longembed", "--help")


@pytest.mark.parametrize("program", ["longembed", "longembed-server"])
def test_programs_load_nothing_from_where_they_are_started(prefix, program, tmp_path):
    """An empty part of a run path is the current folder. Pages tell people to copy programs out of the build folder, too."""
    constructor = 'int puts(const char*); __attribute__((constructor)) static void run(void) { puts("from the current folder"); }'
    (tmp_path / "own.c").write_text(constructor)
    for path in (BUILD / program, prefix / "bin" / program):
        for library in re.findall(r"NEEDED.*\[(lib(?:ssl|stdc\+\+|crypto).*)\]", succeed("readelf", "-d", path)):
            succeed("cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", tmp_path / library, tmp_path / "own.c")
        assert list(tmp_path.glob("*.so*"))
        started = run(path, "--version", cwd=tmp_path)
        assert started.returncode == 0 and "from the current folder" not in started.stdout, started.stdout + started.stderr


def test_protos_are_installed(prefix):
    proto = prefix / "share/longembed/proto"
    assert {str(path.relative_to(proto)) for path in proto.rglob("*") if path.is_file()} == {
        str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")
    }


def test_installed_files_know_no_folder_of_the_build(prefix):
    """The exception is LibTorch's folder, which is the last place where it is searched for."""
    for path in [*prefix.rglob("*.cmake"), *prefix.rglob("*.h")]:
        text = re.sub(r"torch_cpu PATHS \"[^\"]*\"", "", path.read_text())
        assert str(ROOT) not in text and str(prefix.parent) not in text, path


def find_package(folder: Path, prefix: Path, component: str, env: dict | None = None, options: tuple[str, ...] = ()) -> str:
    """Returns cmake's error for a component that it does not find."""
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.25)\nproject(find LANGUAGES CXX)\nfind_package(longembed REQUIRED COMPONENTS {component})\n"
    )
    done = configure(folder, folder / "build", prefix, *options, env=env)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def libtorch_of(folder: Path, version: str | None, libraries: tuple[str, ...]) -> Path:
    (folder / "lib").mkdir(parents=True)
    for library in libraries:
        (folder / "lib" / library).touch()
    if version:
        (folder / "include/torch/headeronly").mkdir(parents=True)
        (folder / "include/torch/headeronly/version.h").write_text(f'#define TORCH_VERSION \\\n  "{version}"\n')
    return folder


def test_a_missing_component_is_named(prefix, tmp_path):
    assert "the component servant is not installed in" in find_package(tmp_path / "project", prefix, "servant")


def test_another_libtorch_is_refused(prefix, tmp_path):
    torch = libtorch_of(tmp_path / "torch", "1.0.0", ("libtorch_cpu.so", "libc10.so"))
    said = find_package(tmp_path / "project", prefix, "embedder", {"LIBTORCH": str(torch)})
    assert re.search(r"is of LibTorch 1\.0\.0, and longembed was built with \d+\.\d+\.\d+", said), said


def test_half_a_libtorch_is_refused(prefix, tmp_path):
    torch = libtorch_of(tmp_path / "torch", None, ("libtorch_cpu.so",))
    said = find_package(tmp_path / "project", prefix, "embedder", {"LIBTORCH": str(torch)})
    assert "has libtorch_cpu.so and no libc10.so" in said, said


def test_a_libtorch_folder_that_does_not_exist_is_named(prefix, tmp_path):
    """It was ignored, and the one that longembed was built with was taken."""
    said = find_package(tmp_path / "project", prefix, "embedder", {"LIBTORCH": str(tmp_path / "nowhere")})
    assert f"LIBTORCH is {tmp_path}/nowhere, which has no lib/libtorch_cpu.so." in said, said


def test_a_missing_libtorch_is_reported(prefix, tmp_path):
    """A LibTorch of the system does not replace it, because its version is unknown."""
    system = libtorch_of(tmp_path / "system", None, ("libtorch_cpu.so", "libc10.so"))
    moved = tmp_path / "prefix"
    shutil.copytree(prefix / "lib/cmake", moved / "lib/cmake")
    for archive in (prefix / "lib").glob("*.a"):
        (moved / "lib" / archive.name).symlink_to(archive)
    config = moved / "lib/cmake/longembed/longembed-config.cmake"
    text, places = re.subn(r"torch_cpu PATHS \"[^\"]*\"", 'torch_cpu PATHS "/nonexistent"', config.read_text())
    assert places == 1
    config.write_text(text)
    said = find_package(tmp_path / "project", moved, "embedder", {"LIBTORCH": ""}, (f"-DCMAKE_INSTALL_PREFIX={system}",))
    assert "needs LibTorch" in said and "Set LIBTORCH" in said, said


def test_model_configures_without_what_only_a_server_needs(tmp_path):
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.skip(f"{BUILD} has not been configured; run tests/run.sh")
    cache = (BUILD / "CMakeCache.txt").read_text()
    kept = [f"-D{name}={value}" for name, value in re.findall(r"^(CARGO|LONGEMBED_LIBTORCH|LONGEMBED_TORCH_INCLUDE):\w+=(.+)$", cache, re.M)]
    absent = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=TRUE" for name in ("gRPC", "Protobuf", "prometheus-cpp", "CLI11")]
    succeed("cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", "-Wno-dev", "-DLONGEMBED_SERVER=OFF", "-DLONGEMBED_CLIENT=OFF", *kept, *absent)
    succeed("ninja", "-C", tmp_path, "-n")
    refused = run("cmake", "-S", ROOT, "-B", tmp_path, "-DLONGEMBED_TESTS=ON")
    assert refused.returncode != 0 and "LONGEMBED_TESTS needs LONGEMBED_SERVER and LONGEMBED_CLIENT" in " ".join(refused.stderr.split())
