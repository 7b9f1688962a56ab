"""Commands that look at a local run or steer it: status, approve, estimate."""

import getpass
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from selftaught import manifests
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Approval, Decision
from selftaught.display.outcome import make_console
from selftaught.errors import ManifestError, SelfTaughtError
from selftaught.local.view import print_summary
from selftaught.local.workdir import Workdir
from selftaught.loop.approvals import awaiting
from selftaught.loop.estimate import estimate, render

RUNS = Path(".selftaught")


def find_run(name: str) -> tuple[Workdir, SelfTaughtRun]:
    """The folder and state of a run, by name or folder. Raises ManifestError."""
    for path in (Path(name), RUNS / name):
        workdir = Workdir(path)
        if (run := workdir.read_status()) is not None:
            return workdir, run
    known = sorted(path.parent.name for path in RUNS.glob("*/status.yaml"))
    hint = f"known here: {', '.join(known)}" if known else "start one with `selftaught run FILE`"
    raise ManifestError(f"no run {name!r} (looked for {name}/status.yaml and {RUNS / name}/status.yaml); {hint}")


def show_status(name: str) -> int:
    """Print a run's table and outcome."""
    try:
        workdir, run = find_run(name)
    except SelfTaughtError as error:
        return told(error)
    console = make_console()
    console.print(f"[bold]{run.metadata.name}[/]  iteration {run.status.summary.iteration}")
    print_summary(console, run, workdir)
    return 0


def decide(name: str, iteration: int, *, reject: bool, by: str, note: str) -> int:
    """Record a decision on an iteration's checkpoint; a waiting run picks it up at once."""
    try:
        workdir, run = find_run(name)
        waiting = awaiting(run.status)
        if iteration not in waiting:
            which = f"iteration {waiting[0]} awaits approval" if waiting else "nothing awaits approval"
            raise ManifestError(f"--iteration {iteration}: {which} in {run.metadata.name}; see `selftaught status`")
        decision = Decision.REJECTED if reject else Decision.APPROVED
        workdir.add_approval(
            Approval(iteration=iteration, decision=decision, by=by or login_name(), note=note, time=datetime.now(UTC))
        )
    except SelfTaughtError as error:
        return told(error)
    print(f"{run.metadata.name}: iteration {iteration} {decision.lower()}")
    return 0


def login_name() -> str:
    """Who is logged in; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def show_estimate(path: Path, folder: Path | None) -> int:
    """Print what a run would cost, with what its work directory tells of its data, and the assumptions for the rest."""
    from selftaught.local.pool import pool_of

    try:
        manifest = manifests.load([path])
        workdir = Workdir(folder or RUNS / manifest.run.metadata.name)
        pool = pool_of(manifest.run, workdir.store())
    except SelfTaughtError as error:
        return told(error)
    Console(highlight=False, soft_wrap=True).print(render(estimate(manifest.run, pool)))
    return 0


def told(error: SelfTaughtError) -> int:
    """Print an error as one line; its exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
