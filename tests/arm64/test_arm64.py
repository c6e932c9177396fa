"""Tests the native engine's Arm kernels. They are cross-compiled and run under qemu-user as three processors, from the oldest instruction set to
the newest.

Needs aarch64-linux-gnu-g++-12, qemu-aarch64 and Debian's arm64 packages of abseil and GoogleTest. Without them the tests are skipped, and the
reason names what is missing. tests/run.sh installs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/arm64"
TRIPLET = "aarch64-linux-gnu"
COMPILER = f"{TRIPLET}-g++-12"
PACKAGES = Path(f"/usr/lib/{TRIPLET}/cmake")
# Tests that are left out: whole programs and their oracle take minutes in an emulator, and the vectors of four programs are compared below. Debian 12's emulator
# hangs where a thread starts.
LEFT_OUT = "-*CpuEncoder*:KernelsOnEveryCoreTest.*"
# Each processor, and the sets of kernels that it supports.
PROCESSORS = {"cortex-a72": ["neon"], "neoverse-n1": ["neon-dotprod", "neon"], "max": ["neon-bf16", "neon-dotprod", "neon"]}


def run(*words, **options) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def emulate(processor: str, program: str, *arguments) -> str:
    return run("qemu-aarch64", "-L", f"/usr/{TRIPLET}", "-cpu", processor, BUILD / program, *arguments)


@pytest.fixture(scope="module", autouse=True)
def built():
    missing = [program for program in (COMPILER, "qemu-aarch64", "cmake", "ninja") if shutil.which(program) is None]
    missing += [f"{name}:arm64" for name in ("absl", "GTest") if not (PACKAGES / name).is_dir()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    launcher = [f"-DCMAKE_CXX_COMPILER_LAUNCHER={cache}"] if (cache := shutil.which("ccache")) else []
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DCMAKE_PREFIX_PATH={PACKAGES}"]
    run("cmake", "-S", Path(__file__).parent, "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *target, *launcher)
    run("ninja", "-C", BUILD)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_set_of_kernels_checks_itself(processor):
    said = emulate(processor, "cpu_kernels_test", "--gtest_filter=*KernelsTest*:*MatmulTest*")
    for kernels in ("neon-bf16", "neon-dotprod", "neon"):
        assert (f'it has {", ".join(PROCESSORS[processor])}' in said) == (PROCESSORS[processor] != PROCESSORS["max"])
        assert (f'no kernels "{kernels}"' in said) == (kernels not in PROCESSORS[processor])


def test_kernels_against_double_precision():
    said = emulate("max", "cpu_kernels_test", f"--gtest_filter={LEFT_OUT}")
    assert "[  PASSED  ]" in said and " 0 tests " not in said


def vectors(lines: str) -> dict:
    return {tuple(line.split()[:2]): [float(number) for number in line.split()[2:]] for line in lines.splitlines()}


def test_vectors_are_those_of_this_machine():
    native = ROOT / os.environ.get("LONGEMBED_BUILD", "build/release") / "tests/print_vectors"
    if not native.exists():
        pytest.skip(f"{native} is not built")
    here, there = vectors(run(native)), vectors(emulate("max", "print_vectors"))
    expected = next(numbers for (_, precision), numbers in here.items() if precision == "fp32")
    assert len(expected) > 1000
    for (kernels, precision), numbers in there.items():
        furthest = max(abs(a - b) for a, b in zip(numbers, expected, strict=True))
        assert furthest < {"fp32": 1e-5, "bf16": 0.1, "int8": 0.3}[precision], f"{kernels}, {precision}"
    # These kernels widen bfloat16 weights to float32, so both machines compute the same products.
    widened = next((numbers for (kernels, precision), numbers in here.items() if kernels in ("avx2", "avx512") and precision == "bf16"), None)
    if widened is not None:
        assert max(abs(a - b) for a, b in zip(there["neon", "bf16"], widened, strict=True)) < 1e-4
