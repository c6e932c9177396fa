"""Generates the files that the package takes from the repository: the messages of longembed.v1 and gRPC's retry policy.

In a checkout they are generated from proto/ and deploy/client/ on every build of the package. A source distribution contains them."""

import shutil
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "longembed"
REPOSITORY = HERE.parent.parent
GENERATED = ("messages.pb", "messages.pyi", "retry_service_config.json")
PROTOS = ("google/rpc/status.proto", "google/rpc/error_details.proto", "longembed/v1/embedding.proto")


def generate_messages(protos: Path, scratch: Path) -> None:
    """Writes messages.pb, which holds the complete descriptors, and messages.pyi, which holds their classes for type checkers in one file."""
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    descriptors = PACKAGE / "messages.pb"
    arguments = ["protoc", f"-I{protos}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={descriptors}", f"--pyi_out={scratch}"]
    if protoc.main([*arguments, *PROTOS]) != 0:
        raise SystemExit("protoc failed; the lines above say why")
    hints = [(scratch / name.replace(".proto", "_pb2.pyi")).read_text(encoding="utf-8") for name in PROTOS]
    lines = [line for text in hints for line in text.splitlines() if not line.startswith("from google.rpc import")]
    imports = [line for line in dict.fromkeys(lines) if line.startswith(("import ", "from "))]
    rest = [line.replace("_status_pb2.", "") for line in lines if not line.startswith(("import ", "from ", "DESCRIPTOR"))]
    (PACKAGE / "messages.pyi").write_text("\n".join([*imports, *rest]) + "\n", encoding="utf-8")


def refuse_incomplete() -> None:
    """Refuses a copy of this folder without the rest of the repository: its package would lack the messages."""
    missing = [name for name in GENERATED if not (PACKAGE / name).exists()]
    if missing:
        raise SystemExit(
            f"longembed: {PACKAGE / missing[0]} is missing, and {REPOSITORY / 'proto'}, which it is generated from, is not there; "
            "build in a checkout of the whole repository (with pip 21.3 or newer, which does not copy this folder), or from a source distribution"
        )


def generate() -> None:
    protos = REPOSITORY / "proto"
    if not (protos / PROTOS[-1]).exists():
        refuse_incomplete()
        return  # This is a source distribution.
    scratch = HERE / "build" / "hints"
    scratch.mkdir(parents=True, exist_ok=True)
    generate_messages(protos, scratch)
    shutil.copyfile(REPOSITORY / "deploy/client/retry_service_config.json", PACKAGE / "retry_service_config.json")


generate()
setup()
