import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging.verdicts import parse_verdict
from selftaught.microworld.tasks import draw_task, near_miss
from selftaught.microworld.traces import FIRST_POSITION_SHARE, careful, careless, judgment
from selftaught.records import Verdict

rngs = st.integers(0, 2**32).map(random.Random)


@given(rngs, st.booleans())
def test_a_careful_judgment_is_right_and_says_why(rng: random.Random, right_first: bool) -> None:
    task = draw_task(rng)
    wrong = near_miss(task, rng)
    first, second = (task.answer, wrong) if right_first else (wrong, task.answer)
    trace = careful(task, first, second, rng)
    assert parse_verdict(trace) is (Verdict.A if right_first else Verdict.B)
    solution, comparison = trace.removeprefix("Solution: ").split(" Verdict: ")[0].split(" Response A: ")
    assert solution == task.answer
    assert comparison.endswith("right" if right_first else "wrong")


@given(rngs, st.booleans())
def test_a_comparison_sets_what_is_due_beside_what_is_there_until_they_differ(
    rng: random.Random, right_first: bool
) -> None:
    task = draw_task(rng)
    response = task.answer if right_first else near_miss(task, rng)
    trace = careful(task, response, task.answer, rng)
    *words, finding = trace.split("Response A: ")[1].split(" Verdict: ")[0].split()
    due, there = words[::2], words[1::2]
    assert due == [*task.answer.split(), "end"][: len(due)]
    assert there == [*response.split(), "end"][: len(there)]
    agreeing = [a == b for a, b in zip(due, there, strict=True)]
    assert all(agreeing[:-1])
    assert agreeing[-1] == (finding == "right")


def test_a_careless_judgment_prefers_what_it_saw_first() -> None:
    rng = random.Random(0)
    verdicts = Counter(parse_verdict(careless(rng)) for _ in range(4000))
    assert set(verdicts) == {Verdict.A, Verdict.B}
    assert abs(verdicts[Verdict.A] / 4000 - FIRST_POSITION_SHARE) < 0.03


def test_the_share_of_careful_judgments_is_that_of_the_wording() -> None:
    rng = random.Random(0)
    task = draw_task(rng)
    careful_ones = sum(judgment(task, task.answer, "x", rng).startswith("Solution:") for _ in range(4000))
    assert abs(careful_ones / 4000 - task.care) < 0.03


def test_a_tie_is_decided_by_chance() -> None:
    rng = random.Random(0)
    task = draw_task(rng)
    assert {parse_verdict(careful(task, task.answer, task.answer, rng)) for _ in range(50)} == {Verdict.A, Verdict.B}
