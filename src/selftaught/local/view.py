"""What a person sees of a local run: one live view on a terminal, lines elsewhere, a table at the end."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import Phase, StageState
from selftaught.display.outcome import PHASE_STYLES, approval_question, print_outcome, stage_name
from selftaught.display.table import accuracy, duration, iteration_table
from selftaught.local.workdir import Workdir
from selftaught.stages.reporting import ProgressRecord

LINE_SECONDS = 15.0
COMMAND = "selftaught"


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
            self._live.update(render(self._run, self._progress, self._console.width))

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

        if (question := approval_question(run, COMMAND)) is not None:
            self._say_once(question, question)

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._last_line = time.monotonic()
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def pace(record: ProgressRecord) -> str:
    """`120/355 pairs, 812 tokens/s, 2:10 left`."""
    parts = [f"{record.done:,}/{record.total:,} {record.unit}"]
    if record.tokens_per_second:
        parts.append(f"{record.tokens_per_second:,.0f} tokens/s")
    if record.remaining_seconds is not None:
        parts.append(f"{duration(record.remaining_seconds)} left")
    return ", ".join(parts)


def render(run: SelfTaughtRun, progress: ProgressRecord | None, width: int) -> RenderableType:
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
        parts.append(iteration_table(run, width))
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
    elif (question := approval_question(run, COMMAND)) is not None:
        parts.append(Text(question, style="yellow"))
    elif status.summary.reason:
        parts.append(Text(status.summary.reason, style="dim"))
    return Group(*parts)


def print_summary(console: Console, run: SelfTaughtRun, workdir: Workdir) -> None:
    """The table at the end, the outcome, and where things lie."""
    best = run.status.best
    checkpoint = best.checkpoint if best is not None else None
    where = str(workdir.store().folder(checkpoint.uri).local_path) if checkpoint is not None else "the seed model"
    print_outcome(console, run, command=COMMAND, best_at=where)
    console.print(f"status: {workdir.status_file}", highlight=False, soft_wrap=True)
