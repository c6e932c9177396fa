#!/usr/bin/env python3
"""Builds a Dockerfile without a container engine. Every stage has its own root (overlayfs on top of the previous stage), and every RUN is a chroot into it.

    run_dockerfile.py --context DIR --work DIR --image debian:bookworm-slim=ROOT --cache DIR --out DIR
                      [--build-arg NAME=VALUE] [--build-context STAGE=ROOT] [--target STAGE]

OUT/root is the image's tree, and OUT/image.json its configuration (Entrypoint, User, Healthcheck ...). As in BuildKit, only stages that the target needs are built,
.dockerignore applies, and cache mounts are folders that are kept after the build. An ARG ends with its stage. (BuildKit passes it on to stages based on that stage, but
other builders need not.) Layers, the build cache and other platforms are not supported.
Needs root and overlayfs, and only the standard library. Mounts are made in a separate namespace and disappear with it, however the script ends.
"""

import argparse
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dockerfile import DockerfileError, Ignored, Instruction, Stage, context_files, expand, pairs, parse

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IN_NAMESPACE = "RUN_DOCKERFILE_IN_NAMESPACE"


@dataclass
class Root:
    """The current root of a stage: its mount point, the layers of the overlay (topmost first), and the image configuration."""

    merged: Path
    layers: list[Path]
    config: dict
    arguments: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Returns the variables for expansion. An ENV overrides an ARG of the same name."""
        return self.arguments | self.config["Env"]

    def inside(self, path: str) -> Path:
        """Converts a path in the image to a path on this machine. Relative paths start at WORKDIR."""
        absolute = PurePosixPath(self.config["WorkingDir"]) / path
        return self.merged / absolute.relative_to("/")


class Build:
    def __init__(self, options: argparse.Namespace):
        self.context, self.work, self.cache = options.context.resolve(), options.work.resolve(), options.cache.resolve()
        self.images = dict(image.split("=", 1) for image in options.image)
        self.given = dict(argument.split("=", 1) for argument in options.build_arg)
        self.dockerfile = parse((self.context / "Dockerfile").read_text())
        ignore = self.context / ".dockerignore"
        self.ignored = Ignored(ignore.read_text() if ignore.exists() else "")
        self.globals: dict[str, str] = {}
        for instruction in self.dockerfile.arguments:
            self.globals |= self._argument(instruction, {}, self.globals)
        self.stages = {stage.name: stage for stage in self.dockerfile.stages}
        self.roots = {name: Root(Path(root).resolve(), [], {}) for name, root in (context.split("=", 1) for context in options.build_context)}
        declared = {i.text.partition("=")[0] for s in self.dockerfile.stages for i in s.instructions if i.name == "ARG"} | set(self.globals)
        if unknown := set(self.given) - declared:
            raise DockerfileError(f"--build-arg {', '.join(sorted(unknown))}: no ARG of the Dockerfile has that name")

    def _argument(self, instruction: Instruction, outer: dict[str, str], variables: dict[str, str]) -> dict[str, str]:
        """Parses NAME[=default]. The value is that of the command line, otherwise the default, otherwise that of the ARG before the first FROM."""
        name, equals, default = instruction.text.partition("=")
        if name in self.given:
            return {name: self.given[name]}
        if equals:
            return {name: expand(default.strip('"'), variables)}
        return {name: outer[name]} if name in outer else {}

    def stage(self, name: str) -> Root:
        if name not in self.roots:
            stage = self.stages[name]
            root = self._base(stage)
            for instruction in stage.instructions:
                self._carry_out(stage, root, instruction)
            self.roots[name] = root
        return self.roots[name]

    def _base(self, stage: Stage) -> Root:
        base = expand(stage.base, self.globals)
        if base in self.stages:
            if self.dockerfile.stages.index(self.stages[base]) >= self.dockerfile.stages.index(stage):
                raise DockerfileError(f"line {stage.line}: the stage {base} does not come before this one")
            parent = self.stage(base)
            return self._mount(stage.name, parent.layers, copy.deepcopy(parent.config))
        config = {"Env": {}, "WorkingDir": "/", "User": "", "Labels": {}, "ExposedPorts": []}
        if base == "scratch":
            empty = self.work / "scratch"
            empty.mkdir(parents=True, exist_ok=True)
            return self._mount(stage.name, [empty], config)
        if base not in self.images:
            raise DockerfileError(f"line {stage.line}: no --image says where the root of {base} is")
        config["Env"] = {"PATH": PATH}
        return self._mount(stage.name, [Path(self.images[base]).resolve()], config)

    def _mount(self, name: str, layers: list[Path], config: dict) -> Root:
        upper, scratch, merged = (self.work / name / part for part in ("upper", "work", "merged"))
        for folder in (upper, scratch, merged):
            folder.mkdir(parents=True)
        lower = ":".join(map(str, layers))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={scratch}", merged], check=True)
        return Root(merged, [upper, *layers], config)

    def _carry_out(self, stage: Stage, root: Root, instruction: Instruction) -> None:
        started = time.monotonic()
        print(f"=== {stage.name}: {instruction.name} {' '.join(instruction.text.split())[:150]}", flush=True)
        getattr(self, "_" + instruction.name.lower())(root, instruction)
        seconds = time.monotonic() - started
        if seconds >= 1:
            print(f"=== {stage.name}: {instruction.name} took {seconds:.0f} s", flush=True)

    # One method per instruction.

    def _arg(self, root: Root, instruction: Instruction) -> None:
        root.arguments |= self._argument(instruction, self.globals, root.variables())

    def _env(self, root: Root, instruction: Instruction) -> None:
        root.config["Env"] |= pairs(instruction.text, root.variables())

    def _label(self, root: Root, instruction: Instruction) -> None:
        root.config["Labels"] |= pairs(instruction.text, root.variables())

    def _workdir(self, root: Root, instruction: Instruction) -> None:
        folder = root.inside(expand(instruction.text, root.variables()))
        folder.mkdir(parents=True, exist_ok=True)
        root.config["WorkingDir"] = "/" + folder.relative_to(root.merged).as_posix().lstrip(".")

    def _user(self, root: Root, instruction: Instruction) -> None:
        root.config["User"] = expand(instruction.text, root.variables())

    def _expose(self, root: Root, instruction: Instruction) -> None:
        root.config["ExposedPorts"] += expand(instruction.text, root.variables()).split()

    def _stopsignal(self, root: Root, instruction: Instruction) -> None:
        root.config["StopSignal"] = expand(instruction.text, root.variables())

    def _entrypoint(self, root: Root, instruction: Instruction) -> None:
        root.config["Entrypoint"] = instruction.argv or ["/bin/sh", "-c", instruction.text]

    def _cmd(self, root: Root, instruction: Instruction) -> None:
        root.config["Cmd"] = instruction.argv or ["/bin/sh", "-c", instruction.text]

    def _healthcheck(self, root: Root, instruction: Instruction) -> None:
        check = Instruction(instruction.line, "CMD", [], instruction.text.removeprefix("CMD").strip())
        if not instruction.text.startswith("CMD ") or check.argv is None:
            raise DockerfileError(f"line {instruction.line}: HEALTHCHECK must be CMD [\"program\", ...]; the image may have no shell")
        root.config["Healthcheck"] = {"Test": check.argv} | dict(instruction.flags)

    def _run(self, root: Root, instruction: Instruction) -> None:
        if root.config["User"] not in ("", "root", "0", "0:0"):
            raise DockerfileError(f"line {instruction.line}: RUN as another user than root is not known to this program")
        mounts = [f"mount -t proc proc {root.merged}/proc", f"mount --rbind /dev {root.merged}/dev"]
        mounts += [self._cache_mount(root, instruction.line, value) for name, value in instruction.flags if name == "mount"]
        mounts += [f"mount --bind /etc/{name} {root.merged}/etc/{name}" for name in ("resolv.conf", "hosts") if (root.merged / "etc" / name).is_file()]
        for name in ("proc", "dev"):
            (root.merged / name).mkdir(exist_ok=True)
        command = instruction.argv or ["/bin/sh", "-c", instruction.text]
        # A step runs in its own namespaces, so that neither its mounts nor its processes outlive it. Its environment is the image's, without anything
        # of this machine.
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", "\n".join(mounts) + '\nexec unshare --root "$@"', "sh"]
        environment = {"PATH": PATH, "HOME": "/root"} | root.variables()
        arguments = [str(root.merged), "--wd", root.config["WorkingDir"], "--", *command]
        status = subprocess.run(enter + arguments, env=environment, stdin=subprocess.DEVNULL).returncode
        if status != 0:
            raise DockerfileError(f"line {instruction.line}: RUN ended with exit status {status}")

    def _cache_mount(self, root: Root, line: int, text: str) -> str:
        options = dict(option.partition("=")[::2] for option in text.split(","))
        if options.pop("type", "") != "cache" or options.pop("sharing", "shared") not in ("shared", "locked") or set(options) != {"target"}:
            raise DockerfileError(f"line {line}: --mount={text} is not a cache with a target, which is all that this program knows")
        kept = self.cache / options["target"].strip("/").replace("/", "_")
        target = root.inside(options["target"])
        for folder in (kept, target):
            folder.mkdir(parents=True, exist_ok=True)
        return f"mount --bind {kept} {target}"

    def _copy(self, root: Root, instruction: Instruction) -> None:
        *sources, target = [expand(word, root.variables()) for word in instruction.text.split()]
        strange = any(re.search(r"[*?\[]|\.\.", source) for source in sources) or set(dict(instruction.flags)) - {"from", "chmod"}
        strange = strange or bool(instruction.flag("from") and instruction.flag("chmod"))
        if instruction.argv is not None or not sources or strange:
            raise DockerfileError(f"line {instruction.line}: COPY [--from=STAGE | --chmod=MODE] SOURCE... TARGET, without wildcards, is all that this program knows")
        into_folder = target.endswith("/") or len(sources) > 1 or root.inside(target).is_dir()
        for source in sources:
            copied = self._copy_from_stage if instruction.flag("from") else self._copy_from_context
            if copied(root, instruction, source, root.inside(target), into_folder) == 0:
                why = "" if instruction.flag("from") else "; .dockerignore may hide it"
                raise DockerfileError(f"line {instruction.line}: COPY {source} finds nothing{why}")

    def _copy_from_context(self, root: Root, instruction: Instruction, source: str, target: Path, into_folder: bool) -> int:
        """Returns the number of copied files. For a folder, its contents are copied, not the folder itself. Owner and group become root."""
        files = context_files(self.context, self.ignored, source)
        is_folder = (self.context / source).is_dir()
        for name in files:
            path = self.context / name
            place = target / path.relative_to(self.context / source) if is_folder else target / path.name if into_folder else target
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            shutil.copy2(path, place, follow_symlinks=False)
            os.chown(place, 0, 0, follow_symlinks=False)
            if instruction.flag("chmod") and not place.is_symlink():
                place.chmod(int(instruction.flag("chmod"), 8))
        return len(files)

    def _copy_from_stage(self, root: Root, instruction: Instruction, source: str, target: Path, into_folder: bool) -> int:
        name = instruction.flag("from")
        if name not in self.stages:
            raise DockerfileError(f"line {instruction.line}: there is no stage {name}")
        path = self.stage(name).merged / source.lstrip("/")
        if not path.exists():
            return 0
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", f"{path}/.", target], check=True)
        else:
            place = target / path.name if into_folder else target
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", path, place], check=True)
        return 1


def save(root: Root, out: Path) -> None:
    out.mkdir(parents=True)
    # Whatever a step left in /proc and /dev was mounted there, and does not belong to the image.
    subprocess.run(["cp", "-a", "--one-file-system", f"{root.merged}/.", out / "root"], check=True)
    (out / "image.json").write_text(json.dumps(root.config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="an empty or new folder, on a file system that overlayfs can use")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--cache", type=Path, required=True, help="where cache mounts are kept")
    parser.add_argument("--image", action="append", default=[], metavar="NAME=ROOT")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--build-context", action="append", default=[], metavar="STAGE=ROOT", help="in place of a stage that is only copied from")
    parser.add_argument("--target", help="default: the last stage")
    options = parser.parse_args()
    if IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "yes"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    try:
        build = Build(options)
        target = options.target or build.dockerfile.stages[-1].name
        if target not in build.stages:
            raise DockerfileError(f"there is no stage {target}")
        save(build.stage(target), options.out)
    except DockerfileError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
