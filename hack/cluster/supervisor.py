"""The first process of the cluster's PID namespace: starts its programs, restarts them, reaps what they leave.

It knows them by the pids of its own namespace. When it ends, the kernel ends everything else in there, and with it the
mounts and the network: nothing can be left behind.
"""

import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from hack.cluster.components import Component
from hack.cluster.layout import NUMBER, Layout

TICK_SECONDS = 0.05
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
STEADY_SECONDS = 20.0
"""A program that ran this long and then ended is restarted at once."""

MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 0x100000


def hold_file(place: Layout, name: str) -> Path:
    """While it exists, the component is not started."""
    return place.control / f"{name}.hold"


def pid_file(place: Layout, name: str) -> Path:
    """The component's pid in the cluster's PID namespace; absent while it does not run."""
    return place.control / f"{name}.pid"


def ready_file(place: Layout, name: str) -> Path:
    """Present once the component has been ready for the first time since its start."""
    return place.control / f"{name}.ready"


@dataclass
class _Running:
    component: Component
    pid: int | None = None
    started: float = 0.0
    not_before: float = 0.0
    delay: float = FIRST_DELAY_SECONDS
    ready: bool = False
    next_probe: float = field(default=0.0)


class Supervisor:
    """Keeps the components running until it is killed."""

    def __init__(self, place: Layout, components: tuple[Component, ...]) -> None:
        self._place = place
        self._all = [_Running(component) for component in components]
        self._environment = {
            "PATH": f"{place.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "PYTHONPATH": str(place.project),
            "SELFTAUGHT_CLUSTER": str(NUMBER),
        }

    def run(self) -> None:
        """Never returns."""
        while True:
            self._reap()
            now = time.monotonic()
            for running in self._all:
                self._advance(running, now)
            time.sleep(TICK_SECONDS)

    def _advance(self, running: _Running, now: float) -> None:
        component = running.component
        if running.pid is None:
            ready = {other.component.name for other in self._all if other.ready}
            held = hold_file(self._place, component.name).exists()
            if not held and now >= running.not_before and ready.issuperset(component.needs):
                self._start(running, now)
        elif not running.ready and now >= running.next_probe:
            running.ready = component.ready()
            running.next_probe = time.monotonic() + TICK_SECONDS
            if running.ready:
                ready_file(self._place, component.name).touch()

    def _start(self, running: _Running, now: float) -> None:
        name = running.component.name
        with (self._place.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                running.component.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._place.project,
                start_new_session=True,
            )
        process.returncode = 0  # reaped by `_reap`, not by Popen
        running.pid, running.started, running.ready, running.next_probe = process.pid, now, False, 0.0
        pid_file(self._place, name).write_text(str(process.pid), encoding="ascii")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for running in self._all:
                if running.pid == pid:
                    self._ended(running, os.waitstatus_to_exitcode(status))

    def _ended(self, running: _Running, code: int) -> None:
        name, now = running.component.name, time.monotonic()
        steady = now - running.started >= STEADY_SECONDS
        running.delay = FIRST_DELAY_SECONDS if steady else min(2 * running.delay, LONGEST_DELAY_SECONDS)
        running.not_before = now if steady else now + running.delay
        running.pid, running.ready = None, False
        pid_file(self._place, name).unlink(missing_ok=True)
        ready_file(self._place, name).unlink(missing_ok=True)
        print(f"{name} ended with {code}", flush=True)


def let_pods_talk() -> None:
    """Forward packets, and let Services translate those between pods on the same bridge, too."""
    for setting in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        Path("/proc/sys/net", setting).write_text("1", encoding="ascii")


def mount_own_folders(place: Layout) -> None:
    """Give the mount namespace a /var/lib, /var/log and /run of its own, and let mounts spread within it."""
    _mount(str(place.lib), "/var/lib", MS_BIND)
    _mount(str(place.logs), "/var/log", MS_BIND)
    _mount("tmpfs", "/run", 0, "tmpfs")
    _mount(str(place.configs / "resolv.conf"), "/etc/resolv.conf", MS_BIND)
    _mount("none", "/", MS_REC | MS_SHARED)


def _mount(source: str, target: str, flags: int, kind: str = "none") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {source} on {target}")


def ignore_terminal() -> None:
    """The one who started the cluster may press Ctrl-C or log out."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
