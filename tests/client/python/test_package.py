"""Tests the package as users get it: built as a wheel and as a source distribution, and installed next to other code for the same protos."""

import subprocess
import sys
import tarfile
import typing
import zipfile
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "client/python"
GENERATED = {"longembed/messages.pb", "longembed/messages.pyi", "longembed/retry_service_config.json"}

pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")


def run(*command: object, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> str:
    """Returns the file's name in `out`. Uses this environment's setuptools, so that nothing is downloaded."""
    return run(sys.executable, "-c", f"import setuptools.build_meta as b; print(b.build_{kind}({str(out)!r}))", cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Builds the wheel from the source distribution, as a package index would have both. Builds in a copy, because another test may use the
    checkout."""
    folder = tmp_path_factory.mktemp("package")
    copy = folder / "checkout"
    copy.mkdir()
    for part in ("client/python", "proto", "deploy/client"):
        run("cp", "-r", "--parents", part, copy, cwd=ROOT)
    for name in GENERATED:
        (copy / "client/python" / name).unlink(missing_ok=True)
    name = build("sdist", copy / "client/python", folder)
    with tarfile.open(folder / name) as archive:
        archive.extractall(folder, filter="data")
    return folder / build("wheel", folder / name.removesuffix(".tar.gz"), folder)


def test_the_wheel_holds_what_is_generated_and_shadows_nothing(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert GENERATED | {"longembed/py.typed", "longembed/client.py", "longembed/bench/__main__.py"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"longembed"}  # There is no google/ and no grpc/.
    required = [line.split(":")[1].split(">")[0].strip() for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert sorted(required) == ["grpcio", "numpy", "protobuf"]


def test_the_wheel_works_beside_other_code_for_the_same_protos(wheel, tmp_path):
    """googleapis-common-protos' google.rpc, and protoc's own modules for our proto, are imported into the process first."""
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path / "site")!r}, {str(ROOT / "tests/integration")!r}]
from pathlib import Path
from google.rpc import error_details_pb2, status_pb2
from generated_client import generate_client
pb, _ = generate_client(Path({str(tmp_path)!r}))
import longembed
from longembed import messages
from longembed.v1 import embedding_pb2, embedding_pb2_grpc
assert Path(longembed.__file__).is_relative_to({str(tmp_path / "site")!r}), longembed.__file__
assert embedding_pb2.EmbedRequest is messages.EmbedRequest and embedding_pb2_grpc.EmbeddingServiceStub
theirs = pb.EmbedRequest(inputs=[pb.Input(text="a")], options=pb.EmbedOptions(prompt_name="query"))
ours = messages.EmbedRequest.FromString(theirs.SerializeToString())
assert ours.inputs[0].text == "a" and ours.options.prompt_name == "query"
assert pb.EmbedRequest is not messages.EmbedRequest
assert set(pb.DESCRIPTOR.message_types_by_name) <= set(vars(messages)), "a message of the proto is missing"
assert messages.Status is not status_pb2.Status
"""
    run(sys.executable, "-c", program)


def test_the_type_hints_name_every_message_and_compile(wheel):
    import ast

    with zipfile.ZipFile(wheel) as archive:
        hints = ast.parse(archive.read("longembed/messages.pyi").decode())
        from longembed import messages
    named = {node.name for node in hints.body if isinstance(node, ast.ClassDef)}
    assert {name for name, kind in vars(messages).items() if isinstance(kind, type) and hasattr(kind, "DESCRIPTOR")} <= named


def test_type_checkers_know_what_calls_return(wheel):
    """closing() and aclosing(), with which callers end a stream early, take generators alone."""
    from longembed import AsyncClient, Client, Embedding, Embeddings

    assert typing.get_type_hints(Client.embed_stream)["return"] == Generator[Embedding, None, None]
    assert typing.get_type_hints(AsyncClient.embed_stream)["return"] == AsyncGenerator[Embedding, None]
    assert Embeddings.__orig_bases__ == (Sequence[Embedding],)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("longembed/v1/embedding_pb2.pyi").decode() == "from longembed.messages import *\n"


def test_a_copy_of_the_folder_alone_is_not_built_without_messages(tmp_path):
    """An image may copy client/python alone. Its wheel would lack the messages, and could not be imported."""
    copy = tmp_path / "longembed"
    run("cp", "-r", SOURCE, copy)
    for name in GENERATED:
        (copy / name).unlink(missing_ok=True)
    command = [sys.executable, "-c", f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "checkout of the whole repository" in done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_a_source_folder_that_was_not_installed_says_so(tmp_path):
    run("cp", "-r", SOURCE / "longembed", tmp_path / "longembed")
    (tmp_path / "longembed/messages.pb").unlink()
    done = subprocess.run([sys.executable, "-c", "import longembed"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "install the package with pip" in done.stderr
