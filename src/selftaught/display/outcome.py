"""Where a run stands: table, chart, outcome, and what a person must decide."""

from rich.console import Console
from rich.text import Text

from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import Phase
from selftaught.display.chart import ASCII, BOX, chart
from selftaught.display.table import duration, iteration_table, label
from selftaught.loop.approvals import awaiting

PHASE_STYLES = {Phase.COMPLETE: "green", Phase.FAILED: "red", Phase.AWAITING_APPROVAL: "yellow"}


def make_console() -> Console:
    """A console that, in a log file, is wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def print_outcome(console: Console, run: SelfTaughtRun, *, command: str, best_at: str) -> None:
    """Print all of it. `command` is how to call the program that approves; `best_at` where the best judge lies."""
    status = run.status
    if status.iterations:
        console.print(iteration_table(run, console.width))
    symbols = BOX if console.encoding.startswith("utf") else ASCII
    if (curves := chart(run, console.width, symbols)) is not None:
        console.print(Text.assemble("\n", curves, "\n"), soft_wrap=True)
    style = PHASE_STYLES.get(status.phase, "cyan")
    reason = status.summary.reason
    console.print(Text.assemble((str(status.phase), f"bold {style}"), f"  {reason}" if reason else ""), soft_wrap=True)
    if (question := approval_question(run, command)) is not None:
        console.print(question, soft_wrap=True, markup=False)
    if status.best is not None:
        best = status.best
        console.print(
            f"best judge: {label(best.iteration)}, {best.accuracy} on {best.benchmark}: {best_at}",
            soft_wrap=True,
            markup=False,
        )
    if status.start_time and status.completion_time:
        took = duration((status.completion_time - status.start_time).total_seconds())
        console.print(f"took {took}, {status.usage.output_tokens:,} tokens generated")


def approval_question(run: SelfTaughtRun, command: str) -> str | None:
    """What to type when a person must decide."""
    for iteration in awaiting(run.status):
        approve = f"{command} approve {run.metadata.name} --iteration {iteration}"
        return f"iteration {iteration} awaits a decision: {approve}   (or the same with --reject)"
    return None


def stage_name(iteration: int, stage: str) -> str:
    """A stage as people call it."""
    if iteration == 0:
        return "evaluate the seed" if stage == "evaluate" else stage
    return f"iteration {iteration}: {stage}"
