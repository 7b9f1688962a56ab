"""`kubectl selftaught COMMAND`. Each command imports what it needs when it runs."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selftaught.plugin.cluster import Cluster

app = typer.Typer(
    name="kubectl selftaught",
    help="Look at the SelfTaughtRuns of a cluster, and steer them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Its namespace; that of the context if left out.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", help="The kubeconfig to use.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def act(
    command: "Callable[[Cluster], None]",
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    *,
    debug: bool,
) -> None:
    """Connect and do something; what goes wrong is told in one line."""
    from selftaught.errors import SelfTaughtError
    from selftaught.plugin.cluster import connect

    try:
        command(connect(kubeconfig, context, namespace))
    except SelfTaughtError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def tell(line: str) -> None:
    """A line that is not what was asked for."""
    print(line, file=sys.stderr, flush=True)


@app.command()
def status(
    run: RunName,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Show how far a run is, and how good its judge has become."""

    def show(cluster: "Cluster") -> None:
        from selftaught.display.outcome import make_console
        from selftaught.plugin.runs import raw_run, read_run
        from selftaught.plugin.views import print_status

        read = read_run(raw_run(cluster, run))
        print_status(make_console(), read.run)
        if read.remark is not None:
            tell(f"note: {read.remark}")

    act(show, kubeconfig, context, namespace, debug=debug)


@app.command("list")
def list_runs(
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """List runs."""

    def show(cluster: "Cluster") -> None:
        from selftaught.display.outcome import make_console
        from selftaught.plugin.runs import raw_runs
        from selftaught.plugin.views import print_list

        raws = raw_runs(cluster, everywhere=everywhere)
        if raws:
            print_list(make_console(), raws, datetime.now(UTC), everywhere=everywhere)
        else:
            tell("no runs in any namespace" if everywhere else f"no runs in namespace {cluster.namespace}")

    act(show, kubeconfig, context, namespace, debug=debug)


@app.command()
def logs(
    run: RunName,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more comes.")] = False,
    stage: Annotated[str | None, typer.Option(help="Of this stage; the one at work if left out.")] = None,
    iteration: Annotated[int | None, typer.Option(help="Of this iteration; 0 is what happens once.", min=0)] = None,
    all_pods: Annotated[bool, typer.Option("--all-pods", help="Of all pods, each line with its index.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Print the log of the stage at work, or of the last one."""

    def show(cluster: "Cluster") -> None:
        from selftaught.plugin.logs import chosen_stage, log_lines
        from selftaught.plugin.runs import raw_run, read_run

        found = read_run(raw_run(cluster, run)).run
        place = chosen_stage(found, stage, iteration)
        lines = log_lines(cluster, found, place, follow=follow, every=all_pods, say=tell, pause=time.sleep)
        for line in lines:
            print(line, flush=follow)

    act(show, kubeconfig, context, namespace, debug=debug)


@app.command()
def why(
    run: RunName,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Tell why a run does not get on: what it waits for, since when, and the next step."""

    def show(cluster: "Cluster") -> None:
        from selftaught.display.outcome import make_console
        from selftaught.plugin.answer import lines_of
        from selftaught.plugin.runs import raw_run, read_run
        from selftaught.plugin.snapshot import take
        from selftaught.plugin.views import heading
        from selftaught.plugin.why import why as explained

        read, now = read_run(raw_run(cluster, run)), datetime.now(UTC)
        make_console().print(heading(read.run), soft_wrap=True)
        for line in lines_of(explained(take(cluster, read.run, now)), now):
            print(line)
        if read.remark is not None:
            tell(f"note: {read.remark}")

    act(show, kubeconfig, context, namespace, debug=debug)


@app.command()
def approve(
    run: RunName,
    *,
    iteration: Annotated[int, typer.Option(help="Iteration whose checkpoint is decided on.", min=1)],
    reject: Annotated[bool, typer.Option("--reject", help="Reject instead.")] = False,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Approve (or reject) the checkpoint of an iteration."""

    def decide(cluster: "Cluster") -> None:
        from selftaught.local.steering import login_name
        from selftaught.plugin import steering

        now = datetime.now(UTC)
        print(*steering.approve(cluster, run, iteration, reject=reject, note=note, login=login_name(), now=now))

    act(decide, kubeconfig, context, namespace, debug=debug)


@app.command()
def suspend(
    run: RunName,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Stop what runs and start nothing; finished work and checkpoints are kept."""
    act(lambda cluster: switch(cluster, run, suspend=True), kubeconfig, context, namespace, debug=debug)


@app.command()
def resume(
    run: RunName,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Let a suspended run go on."""
    act(lambda cluster: switch(cluster, run, suspend=False), kubeconfig, context, namespace, debug=debug)


def switch(cluster: "Cluster", run: str, *, suspend: bool) -> None:
    """Suspend or resume."""
    from selftaught.plugin.steering import set_suspended

    done, *warnings = set_suspended(cluster, run, suspend=suspend)
    print(done)
    for warning in warnings:
        tell(warning)


@app.command()
def retry(
    run: RunName,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Let a failed run go on from its failed stage, with its history kept."""

    def again(cluster: "Cluster") -> None:
        from selftaught.plugin import steering

        for line in steering.retry(cluster, run, now=datetime.now(UTC)):
            print(line)

    act(again, kubeconfig, context, namespace, debug=debug)


def main() -> None:
    """Entry point of `kubectl-selftaught`, which kubectl finds by its name."""
    try:
        app(prog_name="kubectl selftaught")
    except BrokenPipeError:
        # Whoever read the output has seen enough, such as `head`; nothing may be flushed to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
