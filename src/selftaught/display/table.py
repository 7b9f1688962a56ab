"""The table of a run: a row per judge, as many columns as the terminal has room for."""

from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import IterationStatus, ScoreStatus

GAP = 2


@dataclass(frozen=True)
class Column:
    """A column and how readily it is left out where there is no room: the highest rank goes first."""

    title: str
    cells: tuple[str, ...]
    rank: int
    right: bool = True

    @property
    def width(self) -> int:
        """In characters, the gap behind it included."""
        return max(map(len, (self.title, *self.cells))) + GAP


def iteration_table(run: SelfTaughtRun, width: int) -> Table:
    """Accuracy, kept examples, tokens and time per judge, no wider than `width` unless even the least is wider."""
    return table_of(columns_of(run), width)


def table_of(columns: tuple[Column, ...], width: int) -> Table:
    """The columns that fit, as a table without lines."""
    columns = fitting(columns, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def fitting(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """The columns that fit, those of rank 0 in any case."""
    while sum(column.width for column in columns) > width and any(column.rank for column in columns):
        last = max(columns, key=lambda column: column.rank)
        columns = tuple(column for column in columns if column is not last)
    return columns


def columns_of(run: SelfTaughtRun) -> tuple[Column, ...]:
    """All columns; the deciding benchmark comes first among the benchmarks."""
    iterations = run.status.iterations
    scores = [run.status.baseline if iteration.index == 0 else iteration.scores for iteration in iterations]
    names = benchmarks_of(run)
    by_name = [{score.benchmark: score for score in row} for row in scores]
    first = [row.get(names[0]) if names else None for row in by_name]
    return (
        Column("judge", tuple(label(iteration.index) for iteration in iterations), 0, right=False),
        *(
            Column(
                f"{name} (95 %)",
                tuple(accuracy(row[name]) if name in row else "" for row in by_name),
                number if number else 0,
                right=False,
            )
            for number, name in enumerate(names)
        ),
        Column("both orders", tuple(short(score.consistent_accuracy) if score else "" for score in first), 104),
        Column("no verdict", tuple(short(score.unparsable) if score else "" for score in first), 106),
        Column("kept", tuple(f"{each.curation.kept:,}" if each.curation else "" for each in iterations), 101),
        Column("tokens", tuple(count(each.usage.output_tokens) for each in iterations), 105),
        Column("time", tuple(duration(elapsed(each)) if elapsed(each) else "" for each in iterations), 102),
        Column("decision", tuple(str(each.decision or "") for each in iterations), 103, right=False),
    )


def label(index: int) -> str:
    """`seed` or `iteration 2`."""
    return f"iteration {index}" if index else "seed"


def count(number: int) -> str:
    """`12,345`, or nothing."""
    return f"{number:,}" if number else ""


def short(fraction: str) -> str:
    """Three decimals: more is noise."""
    return f"{float(fraction):.3f}"


def benchmarks_of(run: SelfTaughtRun) -> tuple[str, ...]:
    """Whole benchmarks that have scores; the deciding one comes first."""
    rows = (run.status.baseline, *(iteration.scores for iteration in run.status.iterations))
    return tuple(dict.fromkeys(score.benchmark for row in rows for score in row if "/" not in score.benchmark))


def accuracy(score: ScoreStatus) -> str:
    """`0.853 (0.830 to 0.874)`."""
    low, high = score.confidence_interval
    return f"{short(score.accuracy)} ({short(low)} to {short(high)})"


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def elapsed(iteration: IterationStatus) -> float:
    """Seconds from the first start to the last end of its stages."""
    starts = [stage.start_time for stage in iteration.stages if stage.start_time]
    ends: list[datetime] = [stage.completion_time for stage in iteration.stages if stage.completion_time]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0
