import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.judging import Judging, JudgingStrategy, Orders
from selftaught.judging.curation import ExampleSamples, Kept, Sample, agrees, balanced, curate, kept_sample
from selftaught.judging.draws import Draws
from selftaught.judging.statistics import Lengths
from selftaught.records import Order, Verdict

A, B, NONE = Verdict.A, Verdict.B, Verdict.UNPARSABLE
LETTERS = {"a": A, "b": B, "-": NONE}


def example(
    pair: str, verdicts: str, order: Order = Order.CHOSEN_FIRST, *, tokens: int = 10, longer: int = 0
) -> ExampleSamples:
    samples = tuple(Sample(index, LETTERS[letter], tokens + index) for index, letter in enumerate(verdicts))
    return ExampleSamples(pair, order, samples, longer)


def judging(strategy: str = "Fixed", n: int = 5, **settings: object) -> Judging:
    return Judging.model_validate({"strategy": strategy, "samplesPerPair": n, **settings})


@pytest.mark.parametrize(
    ("verdicts", "order", "index"),
    [
        pytest.param("a", Order.CHOSEN_FIRST, 0, id="first"),
        pytest.param("b-aba", Order.CHOSEN_FIRST, 2, id="first correct one"),
        pytest.param("aab", Order.REJECTED_FIRST, 2, id="the other order"),
    ],
)
def test_adaptive_keeps_the_first_correct_sample(verdicts: str, order: Order, index: int) -> None:
    assert kept_sample(example("p", verdicts, order), judging("Adaptive"), 1).index == index


def test_adaptive_goes_by_index_and_not_by_the_sequence_in_which_samples_came() -> None:
    in_order = example("p", "baba")
    as_finished = ExampleSamples("p", Order.CHOSEN_FIRST, in_order.samples[::-1], 0)
    assert kept_sample(as_finished, judging("Adaptive"), 1).index == 1


def test_adaptive_keeps_the_same_whatever_was_drawn_beyond() -> None:
    assert {
        kept_sample(example("p", "ba" + more), judging("Adaptive"), 1).index for more in ("", "b", "ba", "aaa")
    } == {1}


def test_fixed_keeps_each_correct_sample_equally_often() -> None:
    counts = dict.fromkeys(range(5), 0)
    for number in range(3000):
        counts[kept_sample(example(f"p{number}", "aba-a"), judging(), 1).index] += 1
    assert counts[1] == counts[3] == 0
    assert all(900 < counts[index] < 1100 for index in (0, 2, 4))


def test_fixed_draws_anew_in_each_iteration_and_for_each_seed() -> None:
    examples = [example(f"p{number}", "a" * 5) for number in range(40)]

    def kept(seed: int, iteration: int) -> list[int]:
        return [kept_sample(one, judging(seed=seed), iteration).index for one in examples]

    assert kept(0, 1) == kept(0, 1)
    assert kept(0, 1) != kept(0, 2)
    assert kept(0, 1) != kept(1, 1)


@pytest.mark.parametrize(
    ("verdicts", "least", "kept"),
    [
        pytest.param("-bbb-", 0.0, False, id="none correct"),
        pytest.param("abbbb", 0.0, True, id="one is enough"),
        pytest.param("aaabb", 0.6, True, id="just enough"),
        pytest.param("aabbb", 0.6, False, id="one too few"),
        pytest.param("aaa", 0.6, True, id="of N, not of those drawn"),
        pytest.param("aa", 0.6, False, id="too few were drawn"),
        pytest.param("aaaaa", 1.0, True, id="all"),
        pytest.param("aaaa-", 1.0, False, id="unparsable is not correct"),
    ],
)
def test_agreement(verdicts: str, least: float, kept: bool) -> None:
    assert agrees(example("p", verdicts), judging(minAgreement=least)) is kept


@pytest.mark.parametrize("n", range(1, 33))
def test_agreement_of_k_in_n_is_exact(n: int) -> None:
    for k in range(1, n + 1):
        settings = judging(n=n, minAgreement=k / n)
        assert agrees(example("p", "a" * k), settings)
        assert not agrees(example("p", "a" * (k - 1)), settings)


def kept_of(number_a: int, number_b: int) -> list[Kept]:
    a_wins = [example(f"p{number}", "a") for number in range(number_a)]
    b_wins = [example(f"p{number}", "b", Order.REJECTED_FIRST) for number in range(number_b)]
    return [Kept(one, one.samples[0]) for one in (*a_wins, *b_wins)]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9), st.randoms(use_true_random=False))
def test_balance_is_exact_and_leaves_out_as_few_as_possible(
    number_a: int, number_b: int, seed: int, shuffle: random.Random
) -> None:
    kept = kept_of(number_a, number_b)
    found = balanced(kept, seed, 1)
    labels = [one.sample.verdict for one in found]
    assert labels.count(A) == labels.count(B) == min(number_a, number_b)
    assert set(found) <= set(kept)
    shuffle.shuffle(kept)
    assert balanced(kept, seed, 1) == found, "not by the sequence"


def test_balance_leaves_out_at_random() -> None:
    counts = dict.fromkeys([f"p{number}" for number in range(10)], 0)
    for seed in range(1000):
        for one in balanced(kept_of(10, 5), seed, 1):
            if one.sample.verdict is A:
                counts[one.example.pair_id] += 1
    assert all(430 < count < 570 for count in counts.values())


def drawn(pairs: int, seed: int, n: int = 5) -> list[ExampleSamples]:
    rng = random.Random(seed)
    return [
        example(f"p{pair:03}", "".join(rng.choices("ab-", [5, 3, 1], k=n)), order)
        for pair in range(pairs)
        for order in Order
    ]


def adaptive_part(one: ExampleSamples, beyond: int) -> ExampleSamples:
    """What adaptive judging would have drawn, and a few more of the same wave."""
    first = one.correct[0].index if one.correct else len(one.samples)
    return ExampleSamples(one.pair_id, one.order, one.samples[: first + 1 + beyond], one.length_difference)


@given(st.integers(0, 30), st.integers(0, 10**6), st.integers(0, 3))
def test_adaptive_keeps_the_same_examples_as_fixed(pairs: int, seed: int, beyond: int) -> None:
    everything = drawn(pairs, seed)
    fixed = curate(everything, judging("Fixed"), 1)
    adaptive = curate([adaptive_part(one, beyond) for one in everything], judging("Adaptive"), 1)
    assert [(one.example.pair_id, one.example.order) for one in fixed.kept] == [
        (one.example.pair_id, one.example.order) for one in adaptive.kept
    ]
    assert fixed.statistics.first_correct_histogram == adaptive.statistics.first_correct_histogram


@given(st.integers(0, 10), st.integers(0, 10**6), st.floats(0, 1))
def test_what_judging_draws_adaptively_is_enough_to_decide(pairs: int, seed: int, least: float) -> None:
    everything = drawn(pairs, seed, n=15)
    adaptive = judging("Adaptive", n=15, minAgreement=least)
    parts = []
    for one in everything:
        correct: dict[int, bool] = {}
        while indexes := Draws.of(adaptive).next(correct):
            correct.update((index, one.samples[index].verdict is one.order.correct) for index in indexes)
        parts.append(replace(one, samples=tuple(one.samples[index] for index in correct)))
        kept = kept_sample(one, adaptive, 1).index if agrees(one, adaptive) else None
        assert Draws.of(adaptive).kept(correct) == kept
    assert [one.judgment_id for one in curate(parts, adaptive, 1).kept] == [
        one.judgment_id for one in curate(everything, adaptive, 1).kept
    ]


@given(
    st.integers(0, 20), st.integers(0, 10**6), st.sampled_from(list(JudgingStrategy)), st.sampled_from([0.0, 0.4, 1.0])
)
def test_curation(pairs: int, seed: int, strategy: JudgingStrategy, least: float) -> None:
    examples = drawn(pairs, seed)
    found = curate(examples, judging(strategy, minAgreement=least), 1)
    counts = found.statistics.counts
    ids = [one.judgment_id for one in found.kept]
    assert ids == sorted(set(ids))
    assert len({(one.example.pair_id, one.example.order) for one in found.kept}) == counts.kept == len(ids)
    assert all(one.sample.verdict is one.example.order.correct for one in found.kept)
    assert counts.kept_a == counts.kept_b == counts.kept / 2
    assert (counts.pairs, counts.examples, counts.samples) == (pairs, 2 * pairs, 10 * pairs)
    left_out = found.statistics.unsolved + found.statistics.below_agreement + found.statistics.left_out_for_balance
    assert counts.kept + left_out == counts.examples
    shuffled = random.Random(seed).sample(examples, len(examples))
    assert curate(shuffled, judging(strategy, minAgreement=least), 1).kept == found.kept


def test_one_order_is_not_balanced() -> None:
    found = curate([example("p", "a"), example("q", "ba")], judging(orders=Orders.CHOSEN_FIRST), 1)
    assert [one.judgment_id for one in found.kept] == ["p/ChosenFirst/0", "q/ChosenFirst/1"]


EXAMPLES = [
    example("p", "ab-", tokens=10, longer=5),
    example("p", "aab", Order.REJECTED_FIRST, tokens=20, longer=5),
    example("q", "-ba", tokens=30, longer=-1),
    example("q", "aa-", Order.REJECTED_FIRST, tokens=40, longer=-1),
]


def test_statistics_under_fixed_are_over_all_samples() -> None:
    found = curate(EXAMPLES, judging("Fixed", n=3), 1).statistics
    assert found.basis == "all samples of every example"
    assert found.correct_samples_histogram == (1, 3, 0, 0)
    assert found.first_correct_histogram == (1, 0, 2)
    assert (found.pass_rate, found.pass_rate_chosen_first, found.pass_rate_rejected_first) == (0.25, 0.3333, 0.1667)
    assert found.counts.prefers_a == round(6 / 9, 4)
    assert found.parse_failure_rate == 0.25
    assert found.drawn_lengths.most == 42


def test_statistics_under_adaptive_are_over_first_samples() -> None:
    """Later samples exist only where earlier ones failed: a rate over all of them would be too low."""
    found = curate(EXAMPLES, judging("Adaptive", n=3), 1).statistics
    assert found.basis.startswith("the first sample of every example")
    assert found.correct_samples_histogram is None
    assert (found.pass_rate, found.pass_rate_chosen_first, found.pass_rate_rejected_first) == (0.25, 0.5, 0)
    assert found.counts.prefers_a == 1
    assert found.parse_failure_rate == 0.25
    assert found.drawn_lengths.most == 40


def test_statistics_count_everything() -> None:
    found = curate(EXAMPLES, judging("Adaptive", n=3), 1).statistics
    counts = found.counts
    assert (counts.samples, counts.correct, counts.unparsable, counts.solved, counts.kept) == (12, 3, 3, 3, 2)
    assert (found.unsolved, found.below_agreement, found.left_out_for_balance) == (1, 0, 1)
    assert (found.solved_in_both_orders, found.solved_in_one_order) == (1, 1)
    assert (found.longer_is_better_of_all, found.longer_is_better_of_kept) in {(0.5, 1), (0.5, 0.5)}
    assert found.kept_lengths.least >= 10


def test_the_mean_pass_rate_under_adaptive_is_unbiased() -> None:
    """Half of the examples easy, half hard: the hard ones are sampled more often."""
    rng = random.Random(7)
    everything = [
        example(f"p{pair:04}", "".join(rng.choices("ab", [9, 1] if pair % 2 else [1, 9], k=5))) for pair in range(4000)
    ]
    adaptive = [adaptive_part(one, 0) for one in everything]
    naive = sum(len(one.correct) for one in adaptive) / sum(len(one.samples) for one in adaptive)
    assert naive < 0.35
    assert abs(curate(adaptive, judging("Adaptive"), 1).statistics.pass_rate - 0.5) < 0.03


def test_nothing_at_all() -> None:
    found = curate([], judging(), 1)
    assert found.kept == ()
    assert found.statistics.counts.prefers_a == 0.5


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([], (0, 0, 0, 0, 0, 0), id="none"),
        pytest.param([7], (7, 7, 7, 7, 7, 7), id="one"),
        pytest.param(list(range(100, 0, -1)), (1, 25, 50, 75, 95, 100), id="hundred"),
    ],
)
def test_lengths(lengths: list[int], expected: tuple[int, ...]) -> None:
    found = Lengths.of(lengths)
    assert (found.least, found.p25, found.p50, found.p75, found.p95, found.most) == expected
