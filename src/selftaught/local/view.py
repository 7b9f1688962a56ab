"""What a person sees of a local run: one live view on a terminal, lines elsewhere, a table at the end."""

import time
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import IterationStatus, Phase, ScoreStatus, StageState
from selftaught.local.workdir import Workdir
from selftaught.stages.reporting import ProgressRecord

LINE_SECONDS = 15.0
PHASE_STYLES = {Phase.COMPLETE: "green", Phase.FAILED: "red", Phase.AWAITING_APPROVAL: "yellow"}


class View:
    """Shows a run while it goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._run: SelfTaughtRun | None = None
        self._progress: ProgressRecord | None = None
        self._said: set[str] = set()
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, run: SelfTaughtRun) -> None:
        """A new status."""
        self._run = run
        self._progress = None
        if self._live is None:
            self._say_news(run)
        self._refresh()

    def progress(self, record: ProgressRecord) -> None:
        """The running stage moved on."""
        self._progress = record
        if self._live is None and (time.monotonic() - self._last_line > LINE_SECONDS):
            self._last_line = time.monotonic()
            self._console.print(f"  {stage_name(record.iteration, record.stage)}: {pace(record)}", highlight=False)
        self._refresh()

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        self._console.print(text, highlight=False)

    def _refresh(self) -> None:
        if self._live is not None and self._run is not None:
            self._live.update(render(self._run, self._progress))

    def _say_news(self, run: SelfTaughtRun) -> None:
        for iteration in run.status.iterations:
            for stage in iteration.stages:
                if stage.state in (StageState.RUNNING, StageState.SUCCEEDED, StageState.FAILED):
                    word = {"Running": "started", "Succeeded": "done", "Failed": "failed"}[stage.state]
                    text = f"{stage_name(iteration.index, stage.name)} {word}"
                    if stage.state is StageState.SUCCEEDED and stage.name == "evaluate" and iteration.scores:
                        text += f": {accuracy(iteration.scores[0])}"
                    elif stage.message and stage.state is not StageState.RUNNING:
                        text += f": {stage.message}"
                    self._say_once(f"{iteration.index}/{stage.name}/{stage.attempts}/{stage.state}", text)

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._last_line = time.monotonic()
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def stage_name(iteration: int, stage: str) -> str:
    """A stage as people call it."""
    if iteration == 0:
        return "evaluate the seed" if stage == "evaluate" else stage
    return f"iteration {iteration}: {stage}"


def accuracy(score: ScoreStatus) -> str:
    """`0.853 (0.830 to 0.874)`."""
    low, high = score.confidence_interval
    return f"{score.accuracy} ({low} to {high})"


def pace(record: ProgressRecord) -> str:
    """`120/355 pairs, 812 tokens/s, 2:10 left`."""
    parts = [f"{record.done:,}/{record.total:,} {record.unit}"]
    if record.tokens_per_second:
        parts.append(f"{record.tokens_per_second:,.0f} tokens/s")
    if record.remaining_seconds is not None:
        parts.append(f"{duration(record.remaining_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def render(run: SelfTaughtRun, progress: ProgressRecord | None) -> RenderableType:
    """The live view."""
    status = run.status
    style = PHASE_STYLES.get(status.phase, "cyan")
    head = Text.assemble(
        (run.metadata.name, "bold"),
        "  ",
        (str(status.phase), style),
        f"  iteration {status.summary.iteration}" if status.summary.iteration else "",
        f"  {status.summary.stage}" if status.summary.stage else "",
    )
    parts: list[RenderableType] = [head]
    if status.iterations:
        parts.append(iteration_table(run))
    if progress is not None:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            stage_name(progress.iteration, progress.stage),
            ProgressBar(total=max(progress.total, 1), completed=progress.done, width=30),
            pace(progress),
        )
        parts.append(bar)
    elif status.phase is Phase.RUNNING and status.summary.stage:
        parts.append(Text(f"{status.summary.stage}: starting", style="dim"))
    elif status.summary.reason:
        parts.append(Text(status.summary.reason, style="dim"))
    return Group(*parts)


def iteration_table(run: SelfTaughtRun) -> Table:
    """Accuracy, kept examples, tokens and time per iteration."""
    scores = [run.status.baseline, *(iteration.scores for iteration in run.status.iterations)]
    benchmarks = list(dict.fromkeys(score.benchmark for row in scores for score in row if "/" not in score.benchmark))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("judge", no_wrap=True)
    for benchmark in benchmarks:
        table.add_column(f"{benchmark} (95 %)", no_wrap=True)
    for column in ("both orders", "no verdict", "kept", "tokens", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    for iteration in run.status.iterations:
        row = run.status.baseline if iteration.index == 0 else iteration.scores
        table.add_row(*iteration_row(iteration, row, benchmarks))
    return table


def iteration_row(iteration: IterationStatus, scores: tuple[ScoreStatus, ...], benchmarks: list[str]) -> list[str]:
    """One row of the table."""
    by_name = {score.benchmark: score for score in scores}
    first = by_name.get(benchmarks[0]) if benchmarks else None
    return [
        "seed" if iteration.index == 0 else f"iteration {iteration.index}",
        *(accuracy(by_name[name]) if name in by_name else "" for name in benchmarks),
        first.consistent_accuracy if first else "",
        first.unparsable if first else "",
        f"{iteration.curation.kept:,}" if iteration.curation else "",
        f"{iteration.usage.output_tokens:,}" if iteration.usage.output_tokens else "",
        duration(elapsed(iteration)) if elapsed(iteration) else "",
        str(iteration.decision or ""),
    ]


def elapsed(iteration: IterationStatus) -> float:
    """Seconds from the first start to the last end of its stages."""
    starts = [stage.start_time for stage in iteration.stages if stage.start_time]
    ends: list[datetime] = [stage.completion_time for stage in iteration.stages if stage.completion_time]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0


def print_summary(console: Console, run: SelfTaughtRun, workdir: Workdir) -> None:
    """The table at the end, the outcome, and where things lie."""
    status = run.status
    if status.iterations:
        console.print(iteration_table(run))
    style = PHASE_STYLES.get(status.phase, "cyan")
    reason = status.summary.reason
    console.print(Text.assemble((str(status.phase), f"bold {style}"), f"  {reason}" if reason else ""), soft_wrap=True)
    if status.best is not None:
        best = status.best
        where = workdir.store().folder(best.checkpoint.uri).local_path if best.checkpoint else "the seed model"
        label = "seed" if best.iteration == 0 else f"iteration {best.iteration}"
        console.print(
            f"best judge: {label}, {best.accuracy} on {best.benchmark}: {where}", highlight=False, soft_wrap=True
        )
    if status.start_time and status.completion_time:
        took = duration((status.completion_time - status.start_time).total_seconds())
        console.print(f"took {took}, {status.usage.output_tokens:,} tokens generated", highlight=False)
    console.print(f"status: {workdir.status_file}", highlight=False, soft_wrap=True)
