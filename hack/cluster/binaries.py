"""Builds the cluster's programs from pinned Go modules, once per user and version."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.layout import Layout, cache

MODULES = Path(__file__).resolve().parent
REPORT_SECONDS = 30
KUBERNETES_VERSION = re.compile(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)")


@dataclass(frozen=True)
class Group:
    """Programs that one Go module builds."""

    module: str
    programs: tuple[str, ...]
    package: str = "tool"
    renamed: Mapping[str, str] = field(default_factory=dict)
    takes: str = "a minute"

    @property
    def folder(self) -> Path:
        return MODULES / self.module


GROUPS = (
    Group("etcd", ("etcd",), renamed={"server": "etcd"}),
    Group("containerd", ("containerd", "containerd-shim-runc-v2", "ctr")),
    Group("coredns", ("coredns",), package="."),
    Group("pause", ("pause",), package=".", takes="a second"),
    Group(
        "kubernetes",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        takes="7 minutes",
    ),
)
"""What `up` needs."""

EXTRAS = (Group("helm", ("helm",)), Group("kwok", ("kwok",)), Group("kueue", ("kueue",), takes="3 minutes"))
"""What some tests need besides; built when asked for by name."""


def linker_flags(group: Group) -> str:
    """Kubernetes learns its version from the linker, everything else needs none."""
    found = KUBERNETES_VERSION.search((group.folder / "go.mod").read_text(encoding="utf-8"))
    if group.module != "kubernetes" or found is None:
        return "-s -w"
    package = "k8s.io/component-base/version"
    version, major, minor = found.groups()
    return f"-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"


def digest(group: Group) -> str:
    """Changes whenever the build's result could."""
    seen = hashlib.sha256(linker_flags(group).encode())
    for file in sorted(group.folder.iterdir()):
        if file.suffix in {".mod", ".sum", ".go"}:
            seen.update(file.name.encode() + b"\0" + file.read_bytes())
    return seen.hexdigest()[:16]


def built(group: Group) -> Path:
    """The folder of the group's programs, present once they are built."""
    return cache() / f"{group.module}-{digest(group)}"


def build(groups: tuple[Group, ...], say: Callable[[str], None]) -> None:
    """Build what is not in the cache yet.

    Raises:
        ClusterError: Go is missing or a build failed.

    """
    for group in groups:
        target = built(group)
        if target.is_dir():
            continue
        if shutil.which("go") is None:
            raise ClusterError("no `go` on the PATH: install Go 1.26 or newer, then run `make cluster` again")
        say(f"building {', '.join(group.programs)} (once for this user; {group.takes} on two cores)")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{group.module}-building-"))
        try:
            _go_build(group, scratch, say)
            for name, new in group.renamed.items():
                (scratch / name).rename(scratch / new)
            missing = [name for name in group.programs if not (scratch / name).is_file()]
            if missing:
                raise ClusterError(f"hack/cluster/{group.module} built no {missing[0]}: see its go.mod")
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _go_build(group: Group, target: Path, say: Callable[[str], None]) -> None:
    command = ["go", "build", "-trimpath", "-ldflags", linker_flags(group), "-o", f"{target}/", group.package]
    if shutil.which("nice"):
        command = ["nice", "-n", "19", *command]
    with subprocess.Popen(
        command,
        cwd=group.folder,
        env=os.environ | {"CGO_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while True:
            try:
                _, errors = process.communicate(timeout=REPORT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"still building {group.module}")
    if process.returncode != 0:
        last = (errors.strip().splitlines() or ["no output"])[-1]
        raise ClusterError(f"`go build` in hack/cluster/{group.module} failed: {last}; run it there to see all of it")


def link(groups: tuple[Group, ...], layout: Layout) -> None:
    """Put the built programs into the checkout's `.cluster/bin`."""
    layout.bin.mkdir(parents=True, exist_ok=True)
    for group in groups:
        for program in group.programs:
            place = layout.bin / program
            place.unlink(missing_ok=True)
            place.symlink_to(built(group) / program)
