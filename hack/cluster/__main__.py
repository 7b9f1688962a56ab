"""A real Kubernetes on this machine, for tests: `python -m hack.cluster up`, from the project's root.

It lives in namespaces of its own (network, mounts, processes), as children of one process; `down` ends that one. It
needs root, a Debian, and Go for the first build. Nothing of it is reachable from another machine, and its pods reach
nothing outside this one.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from hack.cluster import binaries, configs, images, packages, queueing, sandbox, supervisor, volumes
from hack.cluster.components import components
from hack.cluster.errors import ClusterError
from hack.cluster.layout import MACHINE_LOCK, MACHINE_RECORD, NODE_NAME, Layout, here

UP_SECONDS = 120.0
EXTRAS = {group.module: group for group in binaries.EXTRAS}
RESTART_SECONDS = 60.0
CONNECT_SECONDS = 30.0


def main() -> int:
    """Exit status: 1 with one line on stderr if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description="the test cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("up", "start it, or do nothing if it is up"),
        ("down", "end it and delete its state"),
        ("status", "say which components run"),
        ("build", "only build its programs, or the extras that are named"),
        ("kueue", "install Kueue on it, or do nothing if it is there"),
        ("restart-apiserver", "kill the API server and wait until it is back"),
        ("supervise", argparse.SUPPRESS),
        ("serve-volumes", argparse.SUPPRESS),
    ):
        command = commands.add_parser(name, help=help_text)
        if name == "restart-apiserver":
            command.add_argument("--down-seconds", type=float, default=0.0, help="how long it stays away")
        if name == "build":
            command.add_argument("extras", nargs="*", help=" ".join(EXTRAS), metavar="extra")
    arguments = parser.parse_args()
    place = here()
    try:
        match arguments.command:
            case "up":
                with _alone():
                    up(place, _progress())
            case "down":
                with _alone():
                    down(place)
            case "status":
                return status(place)
            case "build":
                build(place, arguments.extras, _progress())
            case "kueue":
                with _alone():
                    install_kueue(place, _progress())
            case "restart-apiserver":
                restart(place, "kube-apiserver", arguments.down_seconds)
            case "supervise":
                _supervise(place)
            case "serve-volumes":
                volumes.serve(place)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def up(place: Layout, say: Callable[[str], None]) -> None:
    """Bring the cluster up and wait until its node takes pods.

    Raises:
        ClusterError: something is missing, or it does not come up.

    """
    sandbox.refuse_foreign(place)
    holder = sandbox.read(place.record)
    if holder is not None and holder.alive and place.complete.exists():
        _wait_until_up(place, say)
        say(f"up already: export KUBECONFIG={place.kubeconfig}")
        return
    down(place)
    packages.install(say)
    binaries.build(binaries.GROUPS, say)
    for folder in (place.state, place.configs, place.lib, place.logs, place.control, place.volumes):
        folder.mkdir()
    for folder in (place.lib / "kubelet", place.lib / "containerd", place.lib / "etcd"):
        folder.mkdir(mode=0o700)
    binaries.link((*binaries.GROUPS, *(group for group in binaries.EXTRAS if binaries.built(group).is_dir())), place)
    configs.write_certificates(place, datetime.now(UTC))
    configs.write_configs(place)
    images.write_base_spec(place)
    archives = images.write(place)
    holder = sandbox.start(place)
    say("starting")
    _wait_for(place, "containerd", UP_SECONDS)
    for archive in archives:
        _inside(place, "ctr", "--namespace=k8s.io", "images", "import", str(archive))
    _wait_until_up(place, say)
    place.complete.touch()
    say(f"up: export KUBECONFIG={place.kubeconfig}; kubectl is {place.bin}/kubectl")


def down(place: Layout) -> None:
    """End this checkout's cluster, in whatever state it is, and delete its state."""
    holder = sandbox.read(place.record)
    machine = sandbox.read(MACHINE_RECORD)
    if machine is not None and machine.project == str(place.project):
        holder = machine if holder is None or not holder.alive else holder
    if machine is None or machine.project == str(place.project) or not machine.alive:
        sandbox.stop(holder)
    sandbox.remove_state(place)


def build(place: Layout, extras: Sequence[str], say: Callable[[str], None]) -> None:
    """Build the cluster's programs, or else only the extras, which then lie in `.cluster/bin`, too.

    Raises:
        ClusterError: no such extra, or a build failed.

    """
    unknown = set(extras) - EXTRAS.keys()
    if unknown:
        raise ClusterError(f"no extra {min(unknown)}: there are {', '.join(EXTRAS)}")
    groups = tuple(EXTRAS[name] for name in extras)
    binaries.build(groups or binaries.GROUPS, say)
    binaries.link(groups, place)


def install_kueue(place: Layout, say: Callable[[str], None]) -> None:
    """Have Kueue admit Jobs of the cluster that is up.

    Raises:
        ClusterError: the cluster is down, Go is missing, or Kueue does not come up.

    """
    holder = sandbox.read(place.record)
    if holder is None or not holder.alive or not place.complete.exists():
        raise ClusterError("the cluster is down: run `make cluster`")

    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return _kubectl(place, *arguments, stdin=stdin)

    if queueing.is_installed(kubectl):
        say("Kueue is installed already")
        return
    build(place, ("kueue",), say)
    say("installing Kueue")
    queueing.install(place, EXTRAS["kueue"], kubectl)
    say(f"Kueue admits Jobs; its log: kubectl logs --namespace={queueing.NAMESPACE} deployment/{queueing.DEPLOYMENT}")


def status(place: Layout) -> int:
    """Print a line per component; 1 if one is not ready."""
    holder = sandbox.read(place.record)
    if holder is None or not holder.alive:
        print("down")
        return 1
    ready = [supervisor.ready_file(place, component.name).exists() for component in components(place)]
    for component, is_ready in zip(components(place), ready, strict=True):
        print(f"{component.name:24} {'ready' if is_ready else 'not ready'}")
    return 0 if all(ready) else 1


def restart(place: Layout, name: str, down_seconds: float) -> None:
    """Kill a component, keep it away for a while, and wait until it is ready again."""
    file = supervisor.pid_file(place, name)
    hold = supervisor.hold_file(place, name)
    if not file.exists():
        raise ClusterError(f"{name} does not run: run `make cluster`")
    hold.touch()
    try:
        _inside(place, "sh", "-c", f"kill -KILL {file.read_text(encoding='ascii')}")
        while file.exists():
            time.sleep(0.02)
        time.sleep(down_seconds)
    finally:
        hold.unlink(missing_ok=True)
    _wait_for(place, name, RESTART_SECONDS)


def _wait_for(place: Layout, name: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not supervisor.ready_file(place, name).exists():
        holder = sandbox.read(place.record)
        if holder is None or not holder.alive:
            raise ClusterError(f"the cluster's first process ended: see {place.logs}/supervisor.log")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} was not ready after {seconds:.0f} s: see {place.logs}/{name}.log")
        time.sleep(0.05)


def _wait_until_up(place: Layout, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + UP_SECONDS
    for component in components(place):
        _wait_for(place, component.name, deadline - time.monotonic())
        if component.name == "kube-apiserver":
            say("the API server answers")
            _kubectl(place, "apply", "--filename", str(place.configs / "objects.yaml"))
    _kubectl(place, "wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=60s")
    _kubectl(place, "wait", "--for=create", "--namespace=default", "serviceaccount/default", "--timeout=60s")


def _kubectl(place: Layout, *arguments: str, stdin: str | None = None) -> str:
    command = [str(place.bin / "kubectl"), f"--kubeconfig={place.kubeconfig}", *arguments]
    return _run(place, command, stdin)


def _inside(place: Layout, *command: str) -> None:
    holder = sandbox.read(place.record)
    if holder is None or not holder.alive:
        raise ClusterError("the cluster is down: run `make cluster`")
    program = place.bin / command[0]
    _run(place, sandbox.inside(holder, [str(program) if program.exists() else command[0], *command[1:]]))


def _run(place: Layout, command: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ClusterError(f"`{' '.join(command)}` failed: {last}; logs are in {place.logs}")
    return done.stdout


def _supervise(place: Layout) -> None:
    supervisor.ignore_terminal()
    sandbox.join_cgroups()
    supervisor.mount_own_folders(place)
    deadline = time.monotonic() + CONNECT_SECONDS
    while not sandbox.connected_file(place).exists():
        if time.monotonic() > deadline:
            raise ClusterError("the start was broken off before the network was there")
        time.sleep(0.01)
    supervisor.let_pods_talk()
    supervisor.Supervisor(place, components(place)).run()


@contextmanager
def _alone() -> Iterator[None]:
    """One `up` or `down` at a time on this machine."""
    if os.geteuid() != 0:
        raise ClusterError("namespaces and cgroups need root: run it as root, or set KUBECONFIG to a cluster of yours")
    with MACHINE_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _progress() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {text}", flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
