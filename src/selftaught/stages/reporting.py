"""How a stage's process tells how far it is and how it ended.

On a terminal: a progress bar. Otherwise: one JSON record per line, which the local runner reads, and the
result as the pod's termination message, which the operator reads.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal, TextIO

from pydantic import Field

from selftaught.api.base import ApiModel
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import Stage

REPORT_SECONDS = 0.5


class ProgressRecord(ApiModel):
    """How far a shard of a stage is."""

    type: Literal["progress"] = "progress"
    stage: Stage
    iteration: int
    shard: int = 0
    done: int
    """Units done, those of earlier attempts included."""
    total: int
    """Units in all."""
    unit: str
    """Such as `pairs`, `examples`, `steps`."""
    input_tokens: int = 0
    """Prompt tokens of this process so far."""
    output_tokens: int = 0
    """Generated (train: trained) tokens of this process so far."""
    tokens_per_second: float = 0.0
    """Output tokens per second since the stage began in this process."""
    remaining_seconds: float | None = None
    """Estimate from this process's pace."""
    time: datetime


StageRecord = Annotated[ProgressRecord | ResultRecord | FailureRecord, Field(discriminator="type")]
"""What a stage's process writes, one per line."""


class ProgressReporter:
    """Turns a stage's `update` calls into records, at most a few per second."""

    def __init__(self, stage: Stage, iteration: int, shard: int, emit: Callable[[ProgressRecord], None]) -> None:
        self._stage = stage
        self._iteration = iteration
        self._shard = shard
        self._emit = emit
        self._began: float | None = None
        self._first_done = 0
        self._reported = 0.0

    def update(self, *, done: int, total: int, unit: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Report, unless the last report is very recent and this is not the end."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._first_done = now, done
        elif now - self._reported < REPORT_SECONDS and done < total:
            return
        self._reported = now
        elapsed = now - self._began
        pace = (done - self._first_done) / elapsed if elapsed > 0 else 0.0
        self._emit(
            ProgressRecord(
                stage=self._stage,
                iteration=self._iteration,
                shard=self._shard,
                done=done,
                total=total,
                unit=unit,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                tokens_per_second=round(output_tokens / elapsed, 1) if elapsed > 1 else 0.0,
                remaining_seconds=round((total - done) / pace, 1) if pace > 0 else None,
                time=datetime.now(UTC),
            )
        )


def write_record(stream: TextIO, record: ProgressRecord | ResultRecord | FailureRecord) -> None:
    """One line of JSON. A reader that has gone away never harms the work."""
    try:
        stream.write(record.model_dump_json(exclude_none=True) + "\n")
        stream.flush()
    except (BrokenPipeError, ValueError):
        return


class TerminalBar:
    """A progress bar for a person who runs one stage by hand."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._progress.add_task("starting", total=None, pace="")
        self._progress.start()

    def emit(self, record: ProgressRecord) -> None:
        """Show a record."""
        pace = f"{record.tokens_per_second:,.0f} tokens/s" if record.tokens_per_second else ""
        self._progress.update(
            self._task,
            description=f"{record.stage} ({record.unit})",
            completed=record.done,
            total=record.total,
            pace=pace,
        )

    def stop(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()
