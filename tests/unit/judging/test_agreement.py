import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.api.judging import Benchmark
from selftaught.benchmarks.reading import BenchmarkData
from selftaught.benchmarks.scoring import benchmark_scores
from selftaught.judging.agreement import (
    Group,
    PairResult,
    bootstrap_interval,
    half_credit_accuracy,
    majority,
    pair_result,
    score,
)
from selftaught.records import BenchmarkPair, Order, Verdict

A, B, NONE = Verdict.A, Verdict.B, Verdict.UNPARSABLE
verdicts = st.sampled_from([A, B, NONE])


def result(first: Verdict, second: Verdict, difference: int = 0) -> PairResult:
    """Verdicts with the chosen response first and second, one judgment each."""
    return PairResult((first, second), 2, (first, second).count(NONE), difference)


results = st.builds(result, verdicts, verdicts, st.integers(-3, 3))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        pytest.param([A], A, id="one"),
        pytest.param([A, B, B], B, id="most"),
        pytest.param([A, NONE, NONE], A, id="votes without a verdict do not count"),
        pytest.param([A, B], NONE, id="tie"),
        pytest.param([NONE], NONE, id="none"),
        pytest.param([], NONE, id="no votes"),
    ],
)
def test_majority(votes: list[Verdict], expected: Verdict) -> None:
    assert majority(votes) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [  # accuracy, consistent, prefers first, prefers longer, longer baseline, unparsable, with half credit
        pytest.param([result(A, B, 5)], (1, 1, 0.5, 1, 1, 0, 1), id="right both times"),
        pytest.param([result(B, A, 5)], (0, 0, 0.5, 0, 1, 0, 0), id="wrong both times"),
        pytest.param([result(B, A, -5)], (0, 0, 0.5, 1, 0, 0, 0), id="wrong, for the longer one"),
        pytest.param([result(A, A, 5)], (0.5, 0, 1, 0.5, 1, 0, 0.5), id="always A"),
        pytest.param([result(B, B, 5)], (0.5, 0, 0, 0.5, 1, 0, 0.5), id="always B"),
        pytest.param([result(NONE, NONE, 5)], (0, 0, 0.5, 0.5, 1, 1, 0.5), id="no verdict is wrong"),
        pytest.param([result(A, NONE, -1)], (0.5, 0, 1, 0, 0, 0.5, 0.75), id="one verdict"),
        pytest.param([result(A, B, 0)], (1, 1, 0.5, 0.5, 0.5, 0, 1), id="equal lengths"),
        pytest.param(
            [result(A, B, 1), result(A, A, -1), result(B, A, 1), result(A, B, 0)],
            (0.625, 0.5, 0.625, 0.5, 0.625, 0, 0.625),
            id="four pairs",
        ),
    ],
)
def test_score(given: list[PairResult], expected: tuple[float, ...]) -> None:
    found = score("bench", [Group(given)], rng())
    assert (
        found.accuracy,
        found.consistent_accuracy,
        found.prefers_first,
        found.prefers_longer,
        found.longer_baseline,
        found.unparsable,
        half_credit_accuracy([Group(given)]),
    ) == expected
    assert found.pairs == len(given)


def test_longer_is_by_characters() -> None:
    def difference(chosen: str, rejected: str) -> int:
        pair = BenchmarkPair(id="p", instruction="i", chosen=chosen, rejected=rejected)
        return pair_result(pair, {}).length_difference

    assert difference("äöü", "abcd") < 0, "not by bytes"
    assert difference("incomprehensibilities", "a b c d") > 0, "not by words"


def test_votes_decide_by_order_and_each_counts_as_a_judgment() -> None:
    pair = BenchmarkPair(id="p", instruction="i", chosen="c", rejected="r")
    found = pair_result(pair, {Order.CHOSEN_FIRST: [A, NONE, A], Order.REJECTED_FIRST: [B, A, NONE]})
    assert found.verdicts == (A, NONE)
    assert (found.judgments, found.unparsable) == (6, 2)


def test_a_missing_order_is_no_verdict() -> None:
    pair = BenchmarkPair(id="p", instruction="i", chosen="c", rejected="r")
    found = pair_result(pair, {Order.CHOSEN_FIRST: [A]})
    assert found.right == (True, False)
    assert (found.judgments, found.unparsable) == (2, 1)


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="no pairs in bench"):
        score("bench", [Group([])], rng())


@given(st.lists(results, min_size=1, max_size=60), st.integers(0, 2**32))
def test_the_interval_contains_the_accuracy(given: list[PairResult], seed: int) -> None:
    found = score("bench", [Group(given)], np.random.default_rng(seed))
    assert found.low <= found.accuracy <= found.high


@given(st.lists(results, min_size=1, max_size=40))
def test_swapping_the_names_of_the_responses_mirrors_the_first_preference(given: list[PairResult]) -> None:
    """A judge that sees the same pairs and calls A what was B is as accurate, with the opposite preference."""
    swap = {A: B, B: A, NONE: NONE}
    mirrored = [
        PairResult((swap[one.verdicts[1]], swap[one.verdicts[0]]), 2, one.unparsable, one.length_difference)
        for one in given
    ]
    before, after = score("b", [Group(given)], rng()), score("b", [Group(mirrored)], rng())
    assert (before.accuracy, before.consistent_accuracy) == (after.accuracy, after.consistent_accuracy)
    assert before.prefers_first == pytest.approx(1 - after.prefers_first, abs=1e-4)
    assert before.prefers_longer == after.prefers_longer


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.sampled_from([A, B]))
def test_a_judge_that_decides_by_position_is_at_chance_and_never_consistent(
    differences: list[int], verdict: Verdict
) -> None:
    found = score("bench", [Group([result(verdict, verdict, difference) for difference in differences])], rng())
    assert (found.accuracy, found.low, found.high, found.consistent_accuracy) == (0.5, 0.5, 0.5, 0)
    assert found.prefers_first == (1 if verdict is A else 0)


@given(st.lists(st.integers(-3, 3).filter(bool), min_size=1, max_size=40))
def test_a_judge_that_picks_the_longer_scores_the_longer_baseline(differences: list[int]) -> None:
    given = [result(A, B, one) if one > 0 else result(B, A, one) for one in differences]
    found = score("bench", [Group(given)], rng())
    assert found.accuracy == found.longer_baseline
    assert found.prefers_longer == 1


def drawn_one_by_one(given: Sequence[PairResult], generator: np.random.Generator) -> tuple[float, float]:
    values = np.array([sum(one.right) / 2 for one in given])
    means = values[generator.integers(0, len(values), size=(20_000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@settings(max_examples=20, deadline=None)
@given(st.lists(results, min_size=20, max_size=120))
def test_the_interval_is_that_of_resampling_pairs_one_by_one(given: list[PairResult]) -> None:
    assert bootstrap_interval([Group(given)], rng()) == pytest.approx(drawn_one_by_one(given, rng()), abs=0.03)


def test_the_interval_is_wider_when_both_orders_agree() -> None:
    """The two verdicts on a pair are not independent: resampling verdicts would understate the interval."""
    agreeing = [result(A, B)] * 50 + [result(B, A)] * 50
    opposed = [result(A, A)] * 100
    low, high = bootstrap_interval([Group(agreeing)], rng())
    assert 0.18 < high - low < 0.22  # 2 * 1.96 * sqrt(0.25 / 100)
    assert bootstrap_interval([Group(opposed)], rng()) == (0.5, 0.5)


def test_groups_count_by_weight() -> None:
    groups = [Group([result(A, B)] * 3, 1.0), Group([result(B, A)] * 300, 3.0), Group([], 5.0)]
    found = score("bench", groups, rng())
    assert found.accuracy == 0.25
    assert found.pairs == 303


def test_is_fast() -> None:
    given = [result(A, B if index % 3 else A, index % 5 - 2) for index in range(10_000)]
    started = time.perf_counter()
    score("bench", [Group(given)], rng())
    assert time.perf_counter() - started < 1.0


SUBSETS = {"alpacaeval-easy": 10, "mt-bench-easy": 10, "math-prm": 4, "hep-go": 8, "hep-rust": 8, "donotanswer": 2}


def reward_bench(right: Callable[[str], bool], subsets: dict[str, int] = SUBSETS) -> dict[str | None, float]:
    pairs = tuple(
        BenchmarkPair(id=f"{subset}-{index}", instruction="i", chosen="c", rejected="r", subset=subset)
        for subset, size in subsets.items()
        for index in range(size)
    )
    votes = {
        pair.id: {Order.CHOSEN_FIRST: [A], Order.REJECTED_FIRST: [B]}
        if right(pair.subset or "")
        else {Order.CHOSEN_FIRST: [B], Order.REJECTED_FIRST: [A]}
        for pair in pairs
    }
    benchmark = Benchmark.model_validate({"name": "rb", "uri": "file:///rb", "format": "RewardBench"})
    found = benchmark_scores(benchmark, BenchmarkData(pairs, {}), votes, seed=0)
    return {one.subset: one.accuracy for one in (found.whole, *found.sections, *found.subsets)}


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        pytest.param(
            "alpacaeval-easy", {"Chat": 100 / 128, "Safety": 0, "Reasoning": 0, None: 100 / 128 / 3}, id="chat"
        ),
        pytest.param(
            "math-prm", {"Chat": 0, "Reasoning": 984 / 1312, None: 0.25}, id="mathematics weighs as much as code"
        ),
        pytest.param("donotanswer", {"Safety": 1, None: 1 / 3}, id="a small section counts as much as a large one"),
    ],
)
def test_reward_bench_sections(right: str, expected: dict[str | None, float]) -> None:
    found = reward_bench(lambda subset: subset == right)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert "Chat Hard" not in found
    assert found[right] == 1


def test_subsets_that_reward_bench_does_not_know_are_scored_but_do_not_count() -> None:
    found = reward_bench(lambda subset: subset != "new", {"donotanswer": 2, "new": 50})
    assert (found[None], found["new"]) == (1, 0)


def test_scores_are_the_same_each_time() -> None:
    pairs = tuple(
        BenchmarkPair(id=str(index), instruction="i", chosen="c", rejected="r", subset="ab"[index % 2])
        for index in range(40)
    )
    votes = {pair.id: {Order.CHOSEN_FIRST: [A], Order.REJECTED_FIRST: [B if int(pair.id) % 3 else A]} for pair in pairs}
    benchmark = Benchmark(name="bench", uri="file:///b")
    both = benchmark_scores(benchmark, BenchmarkData(pairs, {}), votes, seed=3)
    again = benchmark_scores(benchmark, BenchmarkData(pairs, {}), votes, seed=3)
    assert both == again
    assert [one.subset for one in both.subsets] == ["a", "b"]
