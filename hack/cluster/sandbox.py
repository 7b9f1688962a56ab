"""The namespaces and cgroup that hold a cluster, seen from the host."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.cluster import layout
from hack.cluster.errors import ClusterError
from hack.cluster.layout import Layout

CGROUPS = Path("/sys/fs/cgroup")
PROGRAMS = "programs"
"""A group below the cluster's own: in version 2 a group with children may hold no processes itself."""


@dataclass(frozen=True)
class Holder:
    """The process that holds the namespaces: its pid, when it started (so that a reused pid is told), and for whom."""

    pid: int
    started: int
    project: str

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started


def read(record: Path) -> Holder | None:
    """What a record names, whether it still lives or not."""
    try:
        return Holder(**json.loads(record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _started(pid: int) -> int | None:
    """Start time in clock ticks since boot; None for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def connected_file(place: Layout) -> Path:
    """Present once the namespaces have their network."""
    return place.control / "connected"


def refuse_foreign(place: Layout) -> None:
    """Raises ClusterError while another checkout's cluster lives."""
    other = read(layout.MACHINE_RECORD)
    if other is not None and other.alive and other.project != str(place.project):
        raise ClusterError(
            f"the cluster of {other.project} (process {other.pid}) uses these addresses: "
            f"run `make cluster-down` there, or choose others by SELFTAUGHT_CLUSTER={layout.NUMBER + 1}"
        )


def start(place: Layout) -> Holder:
    """Start the supervisor in new namespaces and connect them to the host.

    Raises:
        ClusterError: the kernel or the machine's privileges do not allow it.

    """
    _make_cgroups()
    remove_link()
    with (place.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            # unshare forks; killing it kills the child, and the child is the namespace's first process.
            [
                *("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-m", "hack.cluster", "supervise"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.project,
            start_new_session=True,
        )
    started = _started(process.pid)
    if started is None:
        raise ClusterError(f"no namespaces could be made; see {place.logs}/supervisor.log")
    holder = Holder(process.pid, started, str(place.project))
    for record in (place.record, layout.MACHINE_RECORD):
        record.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    _connect(place, holder)
    connected_file(place).touch()
    return holder


def inside(holder: Holder, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in the cluster's namespaces."""
    # The child of `unshare` is in all of them; `unshare` itself is in all but its own PID namespace.
    child = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text(encoding="ascii").split()[0]
    return ["nsenter", f"--target={child}", "--net", "--mount", "--pid", "--ipc", *command]


def stop(holder: Holder | None) -> None:
    """End all of a cluster's processes by ending the one that holds them.

    Whatever else is in the cluster's cgroup is ended too: a start that was killed may not have left a record.
    """
    if holder is not None and holder.alive:
        os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not _remove_cgroups():
        for pid in _members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes are left in {CGROUPS}/*/{layout.CGROUP}: see its cgroup.procs")
        time.sleep(0.1)
    remove_link()
    layout.MACHINE_RECORD.unlink(missing_ok=True)


def remove_link() -> None:
    """The kernel removes the cable with the namespace, but some time later."""
    if Path(f"/sys/class/net/{layout.HOST_LINK}").exists():
        subprocess.run(["ip", "link", "delete", layout.HOST_LINK], check=False, capture_output=True)


def _connect(place: Layout, holder: Holder) -> None:
    own = Path("/proc/self/ns/net").stat().st_ino
    deadline = time.monotonic() + 10
    while True:
        try:
            if Path(f"/proc/{holder.pid}/ns/net").stat().st_ino != own:
                break
        except FileNotFoundError:
            pass
        if not holder.alive or time.monotonic() > deadline:
            raise ClusterError(f"no namespaces could be made; see {place.logs}/supervisor.log")
        time.sleep(0.01)
    bits, pid = layout.NODE_NETWORK_BITS, str(holder.pid)
    enter = ("nsenter", f"--target={pid}", "--net")
    for command in (
        ("ip", "link", "add", layout.HOST_LINK, "type", "veth", "peer", "name", "eth0", "netns", pid),
        ("ip", "address", "add", f"{layout.HOST_ADDRESS}/{bits}", "dev", layout.HOST_LINK),
        ("ip", "link", "set", layout.HOST_LINK, "up"),
        (*enter, "ip", "link", "set", "lo", "up"),
        (*enter, "ip", "address", "add", f"{layout.NODE_ADDRESS}/{bits}", "dev", "eth0"),
        (*enter, "ip", "link", "set", "eth0", "up"),
        # For the API server, which calls webhooks by their Services: where packets go is decided before it is changed.
        (*enter, "ip", "route", "add", layout.SERVICE_NETWORK, "dev", "eth0"),
        ("ip", "route", "add", layout.POD_NETWORK, "via", layout.NODE_ADDRESS),
        ("ip", "route", "add", layout.SERVICE_NETWORK, "via", layout.NODE_ADDRESS),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _hierarchies() -> list[Path]:
    """The folder in which each cgroup controller's groups lie: many in version 1, one in version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [folder for folder in CGROUPS.iterdir() if (folder / "cgroup.procs").exists()]


def _make_cgroups() -> None:
    for hierarchy in _hierarchies():
        for group in (hierarchy / layout.CGROUP, hierarchy / layout.CGROUP / PROGRAMS):
            group.mkdir(exist_ok=True)
            if hierarchy.name == "cpuset":  # version 1: new groups have no processors
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (group / setting).write_text((group.parent / setting).read_text())


def join_cgroups() -> None:
    """Move this process, and all that it starts from now on, into the cluster's cgroup; the kubelet puts pods there."""
    for hierarchy in _hierarchies():
        (hierarchy / layout.CGROUP / PROGRAMS / "cgroup.procs").write_text("0")


def _members() -> set[int]:
    """Every process in the cluster's cgroup or below it."""
    found = set()
    for hierarchy in _hierarchies():
        for file in (hierarchy / layout.CGROUP).rglob("cgroup.procs"):
            with suppress(OSError):
                found |= {int(pid) for pid in file.read_text(encoding="ascii").split()}
    return found - {0}


def _remove_cgroups() -> bool:
    """Whether all are gone; a group goes only when its processes have."""
    for hierarchy in _hierarchies():
        top = hierarchy / layout.CGROUP
        if not top.exists():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
    return True


def remove_state(place: Layout) -> None:
    """Delete `.cluster`. Its mounts were made in a namespace that is gone."""
    if place.state.exists():
        shutil.rmtree(place.state)
