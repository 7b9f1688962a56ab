"""What a person sees."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from builders import a_run, at
from selftaught.api.results import Stage
from selftaught.api.status import (
    Best,
    IterationStatus,
    Phase,
    RunStatus,
    ScoreStatus,
    StageState,
    StageStatus,
    Summary,
    UsageStatus,
)
from selftaught.display.table import columns_of, duration, fitting
from selftaught.local.view import View, print_summary, render
from selftaught.local.workdir import Workdir
from selftaught.stages.reporting import ProgressRecord


def score(accuracy: str, benchmark: str = "test") -> ScoreStatus:
    return ScoreStatus(
        benchmark=benchmark,
        accuracy=accuracy,
        consistent_accuracy="0.500",
        confidence_interval=("0.600", "0.800"),
        unparsable="0.010",
        pairs=100,
    )


STATUS = RunStatus(
    phase=Phase.COMPLETE,
    baseline=(score("0.700"),),
    start_time=at(0),
    completion_time=at(125),
    best=Best(iteration=1, benchmark="test", accuracy="0.750"),
    usage=UsageStatus(output_tokens=1234),
    summary=Summary(iteration="1/1", reason="all iterations are done"),
    iterations=(
        IterationStatus(index=0),
        IterationStatus(
            index=1,
            scores=(score("0.750"), score("0.900", "test/easy")),
            usage=UsageStatus(output_tokens=1000),
            stages=(
                StageStatus(
                    name=Stage.EVALUATE,
                    state=StageState.SUCCEEDED,
                    start_time=at(0),
                    completion_time=at(61),
                    attempts=1,
                ),
            ),
        ),
    ),
)


def printed(width: int = 200) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=width, highlight=False), text


def test_the_table_tells_seed_iterations_intervals_and_cost() -> None:
    console, text = printed()
    print_summary(console, a_run().model_copy(update={"status": STATUS}), Workdir(Path("folder")))
    lines = text.getvalue().splitlines()
    assert any("seed" in line and "0.700 (0.600 to 0.800)" in line for line in lines)
    assert any("iteration 1" in line and "0.750 (0.600 to 0.800)" in line and "1:01" in line for line in lines)
    assert any(line.startswith("Complete  all iterations are done") for line in lines)
    assert any("took 2:05, 1,234 tokens generated" in line for line in lines)
    assert lines[-1].endswith("folder/status.yaml")


def test_sections_do_not_become_columns() -> None:
    console, text = printed()
    print_summary(console, a_run().model_copy(update={"status": STATUS}), Workdir(Path("folder")))
    assert "test/easy" not in text.getvalue()


def test_the_live_view_shows_rate_and_time_left() -> None:
    console, text = printed()
    record = ProgressRecord(
        stage=Stage.JUDGE,
        iteration=2,
        done=120,
        total=355,
        unit="pairs",
        tokens_per_second=812.4,
        remaining_seconds=130,
        time=at(0),
    )
    console.print(render(a_run().model_copy(update={"status": STATUS}), record, 200))
    assert "iteration 2: judge" in text.getvalue()
    assert "120/355 pairs, 812 tokens/s, 2:10 left" in text.getvalue()


def test_without_a_terminal_each_piece_of_news_is_told_once() -> None:
    console, text = printed()
    run = a_run().model_copy(update={"status": STATUS})
    with View(console) as view:
        view.show(run)
        view.show(run)
    assert text.getvalue().splitlines() == ["iteration 1: evaluate done: 0.750 (0.600 to 0.800)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599.9, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        pytest.param(
            200, "judge, test (95 %), both orders, no verdict, kept, tokens, time, decision", id="room for everything"
        ),
        pytest.param(79, "judge, test (95 %), both orders, kept, time, decision", id="a usual terminal"),
        pytest.param(50, "judge, test (95 %), kept, time", id="half a terminal"),
        pytest.param(10, "judge, test (95 %)", id="the least"),
    ],
)
def test_columns_are_left_out_before_figures_are_cut(width: int, titles: str) -> None:
    columns = fitting(columns_of(a_run().model_copy(update={"status": STATUS})), width)
    assert ", ".join(column.title for column in columns) == titles
