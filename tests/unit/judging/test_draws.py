from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.judging import Judging, JudgingStrategy
from selftaught.judging.draws import Draws


def draw(rule: Draws, outcomes: Sequence[bool]) -> tuple[dict[int, bool], list[int]]:
    """All draws of one example, and the sizes of their waves."""
    correct: dict[int, bool] = {}
    waves = []
    while indexes := rule.next(correct):
        correct |= {index: outcomes[index] for index in indexes}
        waves.append(len(indexes))
    return correct, waves


samples = st.integers(1, 40)
agreements = st.one_of(st.just(0.0), st.floats(0, 1), st.integers(0, 15).map(lambda count: count / 15))


@st.composite
def rules_and_outcomes(draw_value: st.DrawFn) -> tuple[Draws, list[bool]]:
    count = draw_value(samples)
    waves = tuple(draw_value(st.lists(st.integers(1, 8), min_size=1, max_size=5)))
    rule = Draws(count, adaptive=True, min_agreement=draw_value(agreements), waves=waves)
    return rule, draw_value(st.lists(st.booleans(), min_size=count, max_size=count))


@given(rules_and_outcomes())
def test_adaptive_keeps_exactly_what_fixed_keeps(case: tuple[Draws, list[bool]]) -> None:
    rule, outcomes = case
    fixed = Draws(rule.samples, adaptive=False, min_agreement=rule.min_agreement)
    every, _ = draw(fixed, outcomes)
    some, _ = draw(rule, outcomes)
    assert len(every) == rule.samples
    assert rule.kept(some) == fixed.kept(every)


@given(rules_and_outcomes())
def test_draws_are_consecutive_and_at_most_n(case: tuple[Draws, list[bool]]) -> None:
    rule, outcomes = case
    correct, _ = draw(rule, outcomes)
    assert sorted(correct) == list(range(len(correct)))
    assert len(correct) <= rule.samples


@given(rules_and_outcomes(), st.data())
def test_a_kill_anywhere_leads_to_the_same_draws(case: tuple[Draws, list[bool]], data: st.DataObject) -> None:
    rule, outcomes = case
    unbroken, _ = draw(rule, outcomes)
    correct: dict[int, bool] = {}
    while indexes := rule.next(correct):
        assert not set(indexes) & set(correct)
        arrived = data.draw(st.lists(st.sampled_from(indexes), min_size=1, unique=True))
        correct |= {index: outcomes[index] for index in arrived}
    assert correct == unbroken


@given(rules_and_outcomes())
def test_nothing_is_drawn_once_it_is_decided(case: tuple[Draws, list[bool]]) -> None:
    rule, outcomes = case
    correct, waves = draw(rule, outcomes)
    before_last = outcomes[: len(correct) - waves[-1]]
    hits, left = sum(before_last), rule.samples - len(before_last)
    assert hits < rule.needed <= hits + left


@pytest.mark.parametrize(
    ("outcomes", "waves"),
    [
        pytest.param([True] * 15, [1], id="right at once"),
        pytest.param([False, False, True] + [False] * 12, [1, 1, 2], id="third is right"),
        pytest.param([False] * 15, [1, 1, 2, 4, 7], id="never right"),
    ],
)
def test_waves_grow(outcomes: list[bool], waves: list[int]) -> None:
    assert draw(Draws(15, adaptive=True), outcomes)[1] == waves


@pytest.mark.parametrize(
    ("outcomes", "drawn"),
    [
        pytest.param([True] * 10, 5, id="surely reached"),
        pytest.param([False] * 10, 6, id="out of reach"),
        pytest.param([True, False] * 5, 9, id="in doubt"),
    ],
)
def test_agreement_stops_as_early_as_it_is_certain(outcomes: list[bool], drawn: int) -> None:
    assert len(draw(Draws(10, adaptive=True, min_agreement=0.5, waves=(1,)), outcomes)[0]) == drawn


@given(samples, st.floats(0, 1))
def test_needed_is_the_least_count_that_reaches_the_fraction(count: int, fraction: float) -> None:
    needed = Draws(count, adaptive=True, min_agreement=fraction).needed
    assert needed / count >= fraction
    assert needed == 1 or (needed - 1) / count < fraction


@pytest.mark.parametrize("strategy", JudgingStrategy)
def test_the_rule_comes_from_the_spec(strategy: JudgingStrategy) -> None:
    rule = Draws.of(Judging(samples_per_pair=7, strategy=strategy, min_agreement=0.5))
    assert (rule.samples, rule.adaptive, rule.needed) == (7, strategy is JudgingStrategy.ADAPTIVE, 4)
