#!/usr/bin/env python3
"""Checks an image's tree as a container engine would run it, and prints sizes and times. The exit status is 1 if a check fails.

    check_runtime.py ROOT IMAGE_JSON [--models DIR] [--config FILE] [--no-start]

The tree is checked first: both programs find every library, no library is unused, and there is no Python, no shell, no file that other users may write, and no
setuid or setgid file. Then the server is run as the image's user, in its own namespaces (network: loopback only; processes: the server is process 1), with a read-only
root, nowhere to write, no capabilities, and the image's environment. Checked are health, an embedding by the command line, metrics, and SIGTERM. Needs root.
"""

import argparse
import ctypes
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

OWN = "usr/local/lib/longembed"
PROGRAMS = ("usr/local/bin/longembed-server", "usr/local/bin/longembed")
# Libraries that LibTorch's CUDA part opens by name. The patterns are the same as in deploy/container/collect_runtime.sh.
OPENED_AT_RUN_TIME = ("libtorch_cuda.so", "libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so", "libnvrtc-builtins.so.*", "libcudnn_*.so.*")
DRIVERS = {"libcuda.so.1"}

failures = []


def report(ok: bool, what: str, detail: str = "") -> bool:
    print(f"  {'ok     ' if ok else 'FAILED '} {what}" + (f": {detail}" if detail else ""), flush=True)
    if not ok:
        failures.append(what)
    return ok


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


# The tree


def files_of(root: Path):
    for folder, folders, files in os.walk(root):
        yield from (Path(folder) / name for name in folders + files)


def loaded(root: Path, name: str) -> tuple[set[str], set[str]]:
    """Returns the files that the loader inside the root maps for a file, and the names that it does not find."""
    # Like ldd, this continues after a library that is not found. ld.so --list would stop there.
    loader = next((root / "usr").glob("lib*/ld-linux-*"))
    command, environment = [f"/{loader.relative_to(root)}", "/" + name], {"LD_TRACE_LOADED_OBJECTS": "1"}
    listing = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=lambda: os.chroot(root))
    found = set(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listing.stdout, re.M))
    missing = set(re.findall(r"^\s*(\S+) => not found", listing.stdout, re.M))
    if listing.returncode != 0 and not missing:
        missing = {listing.stderr.strip() or f"exit status {listing.returncode}"}
    return {str((root / path.lstrip("/")).resolve().relative_to(root)) for path in found}, missing


def check_libraries(root: Path) -> None:
    needed = set()
    for program in PROGRAMS:
        libraries, missing = loaded(root, program)
        needed |= libraries
        report(not missing and bool(libraries), f"/{program} finds its libraries", ", ".join(sorted(missing)) or f"{len(libraries)} of them")
    for pattern in OPENED_AT_RUN_TIME:
        for path in sorted((root / OWN).glob(pattern)):
            libraries, missing = loaded(root, f"{OWN}/{path.name}")
            needed |= libraries | {f"{OWN}/{path.name}"}
            report(not missing - DRIVERS, f"{path.name}, opened at run time, finds its libraries", ", ".join(sorted(missing)))
    files = [path for path in files_of(root) if path.is_file() and not path.is_symlink()]
    present = {str(path.relative_to(root)) for path in files if ".so" in path.name and not path.name.startswith("ld.so.")}
    unneeded = sorted(present - needed)
    report(not unneeded, "no library is there for nothing", ", ".join(unneeded) or f"{len(present)} libraries")


def check_contents(root: Path) -> None:
    paths = list(files_of(root))
    python = [path for path in paths if re.match(r"(lib)?python|.*\.py[co]?$", path.name)]
    report(not python, "no Python", ", ".join(map(str, python[:5])))
    programs = [path for path in paths if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK) and path.stat().st_mode & 0o111]
    strange = [str(path.relative_to(root)) for path in programs if str(path.relative_to(root)) not in PROGRAMS and not path.name.startswith("ld-linux")]
    report(not strange, "no other program, no shell", ", ".join(strange[:5]))
    modes = [(path, path.lstat().st_mode) for path in paths if not path.is_symlink()]
    special = [str(path) for path, mode in modes if mode & (stat.S_ISUID | stat.S_ISGID) or mode & 0o022 or path.lstat().st_uid != 0]
    report(not special, "all files are root's, none is writable for others, none is setuid or setgid", ", ".join(special[:5]))
    symbols = [name for name in PROGRAMS if b".symtab" in subprocess.run(["readelf", "-SW", root / name], capture_output=True).stdout]
    report(not symbols, "programs are stripped", ", ".join(symbols))


def part_of(name: str) -> str:
    if name.startswith(OWN):
        return "LibTorch and its libraries"
    if name.startswith(("usr/lib/", "usr/lib64/")):
        return "Debian libraries"
    if name in PROGRAMS:
        return "programs"
    return "models" if name.startswith("models/") else "licenses, package records, certificates, the rest"


def show_sizes(root: Path) -> None:
    parts = {part_of(name): 0 for name in (OWN, "usr/lib/", PROGRAMS[0], "models/", "etc")}
    for path in files_of(root):
        if path.is_symlink() or not path.is_file():
            continue
        name, size = str(path.relative_to(root)), path.stat().st_size
        parts[part_of(name)] += size
    for part, size in (parts | {"all": sum(parts.values())}).items():
        print(f"  {megabytes(size):>10}  {part}")


# Running


libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CAPABILITIES, MNT_DETACH = 0x20000000, 24, 38, 64, 2


def mount(*arguments) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


class Container:
    """Applies the kernel restrictions of docker run --read-only --cap-drop ALL --security-opt no-new-privileges."""

    def __init__(self, root: Path, image: dict, options: argparse.Namespace, place: Path):
        self.image = image
        self.root = place
        mount("--make-rprivate", "/")
        mount("--bind", root, self.root)
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", self.root / "dev")
        for name, numbers in {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}.items():
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
            os.chmod(self.root / "dev" / name, 0o666)
        mount("-o", "remount,ro", self.root / "dev")
        if options.models:
            mount("--bind", options.models, self.root / "models")
            mount("-o", "remount,bind,ro", self.root / "models")
        if options.config:
            mount("--bind", options.config, self.root / "etc/longembed/config.yaml")
        mount("-o", "remount,bind,ro", self.root)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # The first process started from now on is process 1 of a new namespace. Later ones join the namespace, like those of docker exec.
        if libc.unshare(CLONE_NEWPID) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def _enter(self, first: bool) -> None:
        if first and libc.mount(b"proc", os.fsencode(self.root / "proc"), b"proc", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "mount proc")
        os.chroot(self.root)
        os.chdir(self.image["WorkingDir"])
        for capability in range(CAPABILITIES):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        user, _, group = self.image["User"].partition(":")
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    def start(self, log: Path) -> subprocess.Popen:
        command = self.image["Entrypoint"] + self.image["Cmd"]
        streams = {"stdin": subprocess.DEVNULL, "stdout": log.open("w"), "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=self.image["Env"], preexec_fn=lambda: self._enter(True), **streams)

    def execute(self, *command: str) -> subprocess.CompletedProcess:
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(command, env=self.image["Env"], timeout=60, preexec_fn=lambda: self._enter(False), **streams)

    def healthy(self) -> subprocess.CompletedProcess:
        return self.execute(*self.image["Healthcheck"]["Test"])


def wait_until_healthy(container: Container, server: subprocess.Popen) -> bool:
    started = time.monotonic()
    health = None
    while time.monotonic() < started + 60 and server.poll() is None:
        health = container.healthy()
        if health.returncode == 0:
            return report(True, "HEALTHCHECK succeeds", f"{time.monotonic() - started:.1f} s after the start; {health.stdout.strip()[:80]}")
        time.sleep(0.2)
    ended = f"the server ended with exit status {server.returncode}" if server.returncode is not None else "a minute passed"
    return report(False, "HEALTHCHECK succeeds", f"{ended}; the check said: {health.stdout + health.stderr if health else 'nothing'}")


def check_embedding(container: Container) -> None:
    answer = container.execute("/usr/local/bin/longembed", "embed", "--server", "127.0.0.1:50051", "--prompt-name", "query", "--text", "how long is the Nile?")
    try:
        vector = json.loads(answer.stdout)["embedding"]
    except (ValueError, KeyError):
        vector = []
    norm = sum(value * value for value in vector) ** 0.5
    detail = f"{len(vector)} dimensions, length {norm:.6f} {answer.stderr.strip()}"
    report(len(vector) > 0 and abs(norm - 1) < 1e-3, "an embedding by the command line in the image", detail)


def check_process(container: Container, server: subprocess.Popen) -> None:
    status = Path(f"/proc/{server.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    report(facts["NSpid"].split()[-1] == "1", "the server is process 1")
    report(facts["Uid"].split() == [container.image["User"].partition(":")[0]] * 4, "it runs as the image's user", facts["Uid"])
    no_capabilities = all(int(facts[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    report(no_capabilities and facts["NoNewPrivs"].strip() == "1", "without capabilities")
    with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counted = re.search(r"^longembed_requests_total\{[^}]*\} [1-9]", text, re.M)
    report(counted is not None, "metrics count the call", f"{len(text.splitlines())} lines; resident memory {megabytes(int(facts['VmRSS'].split()[0]) * 1024)}")


def check_read_only(container: Container) -> None:
    """Checks as root, for whom only read-only mounts prevent writing."""
    written = []
    for folder in ("", "etc", "models", "dev", "usr/local/lib/longembed", "var"):
        try:
            (container.root / folder / "probe").touch()
            written.append(folder)
        except OSError:
            pass
    report(not written, "there is nowhere to write", ", ".join("/" + folder for folder in written))


def check_end(container: Container, server: subprocess.Popen) -> None:
    started = time.monotonic()
    server.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    if server.poll() is None:
        report(container.healthy().returncode != 0, "HEALTHCHECK fails while the server drains")
    status = server.wait(timeout=60)
    report(status == 0, "SIGTERM ends the server with exit status 0", f"status {status} after {time.monotonic() - started:.1f} s")


def check_log(log: Path) -> None:
    lines = log.read_text().splitlines()
    wrong = [line for line in lines if not line.startswith("{")]
    for line in lines:
        if line.startswith("{"):
            json.loads(line)
    report(bool(lines) and not wrong, "every line of the log is JSON", wrong[0] if wrong else f"{len(lines)} lines")


def run_container(root: Path, image: dict, options: argparse.Namespace) -> None:
    # Removed with rmdir only, so that mounted files are never deleted.
    place = Path(tempfile.mkdtemp(prefix="longembed-container-"))
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs) / "log"
        container = Container(root, image, options, place)
        server = container.start(log)
        try:
            check_read_only(container)
            if wait_until_healthy(container, server):
                check_embedding(container)
                check_process(container, server)
            if server.poll() is None:
                check_end(container, server)
            check_log(log)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
            if failures:
                print("the server's log:\n" + log.read_text())
            libc.umount2(os.fsencode(place), MNT_DETACH)
            place.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--models", type=Path, help="mounted at /models, read-only")
    parser.add_argument("--config", type=Path, help="mounted over the image's config, as a user may do")
    parser.add_argument("--no-start", action="store_true", help="the tree alone")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.root = options.root.resolve()
    if not options.in_namespace:
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv, "--in-namespace"])
    print("the tree")
    check_libraries(options.root)
    check_contents(options.root)
    show_sizes(options.root)
    if not options.no_start:
        print("as a container")
        run_container(options.root, json.loads(options.image.read_text()), options)
    sys.exit(f"{len(failures)} failed: {'; '.join(failures)}" if failures else 0)


if __name__ == "__main__":
    main()
