"""Names of attempts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.results import Stage
from selftaught.loop.names import attempt_name

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
RUN_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("stage", "iteration", "number", "name"),
    [
        pytest.param(Stage.JUDGE, 3, 12, "demo-i3-judge-a12", id="in an iteration"),
        pytest.param(Stage.SELECT, 0, 1, "demo-select-a1", id="once"),
        pytest.param(Stage.EVALUATE, 0, 2, "demo-evaluate-a2", id="the seed's evaluation"),
    ],
)
def test_a_name_tells_its_place(stage: Stage, iteration: int, number: int, name: str) -> None:
    assert attempt_name("demo", stage, iteration, number) == name


def test_a_long_name_is_cut_and_stays_apart() -> None:
    run = "r" * 70
    first, second = attempt_name(run, Stage.JUDGE, 1, 1), attempt_name(run, Stage.JUDGE, 1, 2)
    assert len(first) == len(second) == 58
    assert first != second


@given(run=RUN_NAMES, stage=st.sampled_from(Stage), iteration=st.integers(0, 100), number=st.integers(1, 10_000))
def test_every_name_is_a_label(run: str, stage: Stage, iteration: int, number: int) -> None:
    name = attempt_name(run, stage, iteration, number)
    assert LABEL.fullmatch(name)
    assert len(name) <= 58
