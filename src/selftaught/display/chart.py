"""The curve of a run in a terminal: accuracy per judge with its 95 % interval, readable without colour."""

import math
from dataclasses import dataclass

from rich.text import Text

from selftaught.api.run import SelfTaughtRun
from selftaught.display.table import benchmarks_of, label, short

MIN_PLOT = 20
MAX_PLOT = 60
MAX_ROWS = 20
GRID = 20
"""The scale begins and ends at a multiple of 1/20."""


@dataclass(frozen=True)
class Symbols:
    """What a chart is drawn with."""

    left: str
    line: str
    right: str
    point: str
    seed: str
    covered: str
    """The line of the seed where an interval covers it."""


BOX = Symbols(left="├", line="─", right="┤", point="●", seed="┊", covered="┼")
ASCII = Symbols(left="|", line="-", right="|", point="o", seed=":", covered="+")


@dataclass(frozen=True)
class Point:
    """Accuracy of a judge."""

    name: str
    accuracy: float
    low: float
    high: float
    note: str = ""


def chart(run: SelfTaughtRun, width: int, symbols: Symbols = BOX) -> Text | None:
    """A chart per benchmark, no wider than `width`; none without two judges to compare, or without room."""
    texts = [text for name in benchmarks_of(run) if (text := benchmark_chart(run, name, width, symbols)) is not None]
    return Text("\n\n").join(texts) if texts else None


def benchmark_chart(run: SelfTaughtRun, benchmark: str, width: int, symbols: Symbols = BOX) -> Text | None:
    """The judges on one benchmark, a row for each; a line through all rows is where the seed stands."""
    every = points_of(run, benchmark)
    if len(every) < 2:
        return None
    points = shown(every)
    names = max(len(point.name) for point in points) + 2
    figures = max(len(figure(point)) for point in points)
    room = min(MAX_PLOT, width - names - 2 - figures)
    if room < MIN_PLOT:
        return None
    scale = Scale.over(points, room)
    seed = every[0] if every[0].name == label(0) else None
    legend = f" ({symbols.seed} the seed)" if seed is not None else ""
    text = Text()
    text.append(f"accuracy on {benchmark}, with its 95 % interval{legend}\n", style="dim")
    text.append(f"{'':{names}}{scale.ends()}\n", style="dim")
    for number, point in enumerate(points):
        text.append(f"{point.name:{names}}")
        text.append(f"{scale.bar(point, seed, symbols)}  ", style="cyan")
        text.append(figure(point).rstrip() + ("\n" if number < len(points) - 1 else ""))
    if len(points) < len(every):
        text.append(f"\n({len(every) - len(points)} earlier iterations are left out)", style="dim")
    return text


def points_of(run: SelfTaughtRun, benchmark: str) -> tuple[Point, ...]:
    """The judges that were measured on a benchmark, the seed first."""
    best = run.status.best
    rows = [(0, run.status.baseline), *((each.index, each.scores) for each in run.status.iterations if each.index)]
    return tuple(
        Point(
            name=label(index),
            accuracy=float(score.accuracy),
            low=float(score.confidence_interval[0]),
            high=float(score.confidence_interval[1]),
            note="best" if best is not None and (best.iteration, best.benchmark) == (index, benchmark) else "",
        )
        for index, row in rows
        for score in row
        if score.benchmark == benchmark
    )


def shown(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """All of them, or of many the first, the best and the last."""
    if len(points) <= MAX_ROWS:
        return points
    earlier = points[1 : -(MAX_ROWS - 2)]
    return (points[0], *(point for point in earlier if point.note), *points[-(MAX_ROWS - 2) :])


def figure(point: Point) -> str:
    """`0.853  best`."""
    return f"{short(f'{point.accuracy}')}  {point.note}".rstrip()


@dataclass(frozen=True)
class Scale:
    """From accuracies to columns."""

    low: float
    high: float
    width: int

    @staticmethod
    def over(points: tuple[Point, ...], width: int) -> "Scale":
        """A scale that all intervals fit into."""
        low = math.floor(min(min(point.low, point.accuracy) for point in points) * GRID + 1e-9) / GRID
        high = math.ceil(max(max(point.high, point.accuracy) for point in points) * GRID - 1e-9) / GRID
        return Scale(low, high if high > low else low + 1 / GRID, width)

    def column(self, value: float) -> int:
        """0 to width - 1."""
        return round((value - self.low) / (self.high - self.low) * (self.width - 1))

    def ends(self) -> str:
        """The figures at both ends of the scale."""
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        return f"{low}{high:>{self.width - len(low)}}"

    def bar(self, point: Point, seed: Point | None, symbols: Symbols) -> str:
        """An interval with its point, over the line of the seed."""
        cells = [" "] * self.width
        if seed is not None:
            cells[self.column(seed.accuracy)] = symbols.seed
        first, last = self.column(point.low), self.column(point.high)
        cells[first : last + 1] = [symbols.line if cell == " " else symbols.covered for cell in cells[first : last + 1]]
        cells[first], cells[last] = symbols.left, symbols.right
        cells[self.column(point.accuracy)] = symbols.point
        return "".join(cells)
