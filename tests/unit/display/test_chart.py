"""Curves in a terminal."""

from textwrap import dedent

import pytest

from builders import a_run
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import Best, IterationStatus, RunStatus, ScoreStatus
from selftaught.display.chart import ASCII, BOX, MAX_ROWS, Symbols, chart


def score(benchmark: str, accuracy: float, half: float = 0.05) -> ScoreStatus:
    return ScoreStatus(
        benchmark=benchmark,
        accuracy=f"{accuracy:.4f}",
        consistent_accuracy="0.5",
        confidence_interval=(f"{max(0.0, accuracy - half):.4f}", f"{min(1.0, accuracy + half):.4f}"),
        unparsable="0",
        pairs=100,
    )


def a_measured_run(*accuracies: float | None, best: int = 0, benchmark: str = "choice") -> SelfTaughtRun:
    """A run whose seed and iterations have these accuracies; None: not measured yet."""
    rows = [() if each is None else (score(benchmark, each), score(f"{benchmark}/easy", 1.0)) for each in accuracies]
    status = RunStatus(
        baseline=rows[0] if rows else (),
        iterations=tuple(IterationStatus(index=index, scores=row) for index, row in enumerate(rows)),
        best=Best(iteration=best, benchmark=benchmark, accuracy="0.7"),
    )
    return a_run().model_copy(update={"status": status})


def text(run: SelfTaughtRun, width: int = 60, symbols: Symbols = BOX) -> str:
    drawn = chart(run, width, symbols)
    return "" if drawn is None else "\n".join(line.rstrip() for line in drawn.plain.splitlines())


def test_a_chart_shows_each_judge_its_interval_and_where_the_seed_stands() -> None:
    expected = """\
        accuracy on choice, with its 95 % interval (┊ the seed)
                     0.55                          0.80
        seed         ├──────●─────┤                      0.600
        iteration 1     ├───┼─●──────┤                   0.620
        iteration 2         ┊            ├─────●──────┤  0.750  best
        """
    assert text(a_measured_run(0.60, 0.62, 0.75, best=2)) == dedent(expected).rstrip()


def test_it_is_readable_where_only_ascii_is() -> None:
    drawn = text(a_measured_run(0.60, 0.62, 0.75, best=2), symbols=ASCII)
    assert drawn.isascii()
    assert "|-----o------|" in drawn


@pytest.mark.parametrize(
    ("accuracies", "width"),
    [
        pytest.param((), 80, id="nothing happened"),
        pytest.param((0.6,), 80, id="only the seed"),
        pytest.param((0.6, None), 80, id="the first is not measured yet"),
        pytest.param((0.6, 0.7), 38, id="no room"),
    ],
)
def test_there_is_no_chart_where_nothing_can_be_compared(accuracies: tuple[float | None, ...], width: int) -> None:
    assert text(a_measured_run(*accuracies), width) == ""


@pytest.mark.parametrize("width", [46, 60, 80, 200])
@pytest.mark.parametrize("accuracies", [(0.0, 1.0), (0.5, 0.5), (0.512, 0.498, 0.51), (1.0, 1.0, 1.0)])
def test_no_line_is_wider_than_the_terminal(accuracies: tuple[float, ...], width: int) -> None:
    drawn = text(a_measured_run(*accuracies, best=1), width).splitlines()[1:]
    assert len(drawn) == len(accuracies) + 1
    assert all(len(line) <= width for line in drawn)
    assert all("●" in line for line in drawn[1:])


def test_of_many_iterations_the_seed_the_best_and_the_last_are_shown() -> None:
    drawn = text(a_measured_run(*[0.6] * 60, best=7)).splitlines()
    names = [line.split("  ")[0] for line in drawn[2:-1]]
    assert names == ["seed", "iteration 7", *(f"iteration {index}" for index in range(60 - MAX_ROWS + 2, 60))]
    assert drawn[-1] == "(40 earlier iterations are left out)"
