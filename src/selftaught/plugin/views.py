"""What the plugin prints: the list of runs, and one run's status."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import ConditionStatus, ConditionType, Phase
from selftaught.display.outcome import PHASE_STYLES, print_outcome, stage_name
from selftaught.display.table import Column, duration, table_of
from selftaught.plugin.answer import span
from selftaught.plugin.cluster import JsonObject, RefusedError
from selftaught.plugin.runs import metadata_of, read_run

COMMAND = "kubectl selftaught"
MAX_REASON = 60


def print_list(console: Console, raws: Sequence[JsonObject], now: datetime, *, everywhere: bool) -> None:
    """A row per run, and a line for each that cannot be read."""
    rows, problems = [], []
    for raw in sorted(raws, key=lambda each: (each["metadata"].get("namespace", ""), each["metadata"]["name"])):
        meta = metadata_of(raw)
        age = span(now - meta.creation_timestamp) if meta.creation_timestamp else ""
        try:
            run = read_run(raw).run
        except RefusedError as error:
            problems.append(str(error))
            told = raw.get("status", {})
            rows.append((meta.namespace, meta.name, str(told.get("phase", "?")), "", "", "", "", age, ""))
        else:
            rows.append((meta.namespace, meta.name, *cells(run), age, reason(run)))
    titles = ("namespace", "name", "phase", "iteration", "stage", "progress", "best", "age", "reason")
    ranks = (0, 0, 0, 2, 3, 4, 1, 5, 6)
    columns = [
        Column(title, tuple(row[number] for row in rows), ranks[number], right=title in ("progress", "age"))
        for number, title in enumerate(titles)
        if everywhere or title != "namespace"
    ]
    console.print(table_of(tuple(columns), console.width))
    for problem in problems:
        console.print(f"note: {problem}", soft_wrap=True, markup=False)


def cells(run: SelfTaughtRun) -> tuple[str, str, str, str, str]:
    """Phase, iteration, stage, progress and best."""
    summary = run.status.summary
    best = summary.best or (f"{summary.baseline} (seed)" if summary.baseline else "")
    return str(run.status.phase), summary.iteration, summary.stage, summary.progress, best


def reason(run: SelfTaughtRun) -> str:
    """Why it is where it is, in short."""
    text = " ".join(run.status.summary.reason.split())
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def print_status(console: Console, run: SelfTaughtRun) -> None:
    """How far a run is, and how good its judge has become."""
    status, meta = run.status, run.metadata
    head = Text.assemble(
        (meta.name, "bold"),
        f"  namespace {meta.namespace}",
        f"  iteration {status.summary.iteration}" if status.summary.iteration else "",
    )
    console.print(head, soft_wrap=True)
    if (line := progress_line(run)) is not None:
        console.print(line, soft_wrap=True, markup=False)
    checkpoint = status.best.checkpoint if status.best is not None else None
    where = "the seed model" if checkpoint is None else checkpoint.uri + (" (deleted)" if checkpoint.pruned else "")
    print_outcome(console, run, command=COMMAND, best_at=where)
    for condition in status.conditions:
        if condition.type == ConditionType.PROGRESS_DEADLINE_EXCEEDED and condition.status is ConditionStatus.TRUE:
            console.print(Text(f"stalled: {condition.message}", style="yellow"), soft_wrap=True)
    if status.phase not in (Phase.COMPLETE, Phase.RUNNING):
        console.print(f"more: {COMMAND} why {meta.name}", soft_wrap=True, markup=False, style="dim")


def progress_line(run: SelfTaughtRun) -> str | None:
    """`iteration 2: judge  43 %, 812 tokens/s, 2:10 left`."""
    progress = run.status.progress
    if progress is None:
        return None
    parts = [f"{progress.percentage} %", progress.throughput]
    if progress.estimated_remaining_seconds is not None:
        parts.append(f"{duration(progress.estimated_remaining_seconds)} left")
    return f"{stage_name(progress.iteration, progress.stage)}  {', '.join(filter(None, parts))}"


def heading(run: SelfTaughtRun) -> Text:
    """The first line of `why`."""
    status = run.status
    return Text.assemble(
        (run.metadata.name, "bold"),
        "  ",
        (str(status.phase), PHASE_STYLES.get(status.phase, "cyan")),
        f"  iteration {status.summary.iteration}" if status.summary.iteration else "",
        f"  {status.summary.stage}" if status.summary.stage else "",
    )
