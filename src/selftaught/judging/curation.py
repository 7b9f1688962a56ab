"""Which judgments become training examples (paper, section 3.3): pure, the same on every machine.

An example is one pair in one order. Of its correct judgments one is kept: under `Adaptive` the first by index,
under `Fixed` a random one. Both follow the same law, because samples of one prompt are independent; taking the
first that *finished* would not, it favours short texts. Then labels are balanced by leaving out random examples
of the more frequent verdict.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selftaught.api.judging import Judging, JudgingStrategy, Orders
from selftaught.api.results import CurationStats
from selftaught.judging.statistics import CurationStatistics, Lengths
from selftaught.records import Order, Verdict


@dataclass(frozen=True)
class Sample:
    """What curation needs to know of a judgment."""

    index: int
    verdict: Verdict
    output_tokens: int


@dataclass(frozen=True)
class ExampleSamples:
    """A pair in one order, and all judgments of it."""

    pair_id: str
    order: Order
    samples: tuple[Sample, ...]
    """By index; none if no judgment was drawn."""
    length_difference: int
    """Characters of the chosen response minus those of the rejected one."""

    @property
    def correct(self) -> list[Sample]:
        """Judgments that agree with how the pair was built."""
        return [sample for sample in self.samples if sample.verdict is self.order.correct]


@dataclass(frozen=True)
class Kept:
    """A judgment to train on."""

    example: ExampleSamples
    sample: Sample

    @property
    def judgment_id(self) -> str:
        """As in `records.Judgment`."""
        return f"{self.example.pair_id}/{self.example.order}/{self.sample.index}"


@dataclass(frozen=True)
class Curation:
    """The outcome."""

    kept: tuple[Kept, ...]
    """Sorted by judgment id."""
    statistics: CurationStatistics


def curate(examples: Sequence[ExampleSamples], judging: Judging, iteration: int) -> Curation:
    """Choose what to train on. `examples` holds every pair in every order, in any sequence."""
    agreed = [example for example in examples if agrees(example, judging)]
    chosen = [Kept(example, kept_sample(example, judging, iteration)) for example in agreed]
    kept = chosen if judging.orders is Orders.CHOSEN_FIRST else balanced(chosen, judging.seed, iteration)
    kept = sorted(kept, key=lambda one: one.judgment_id)
    return Curation(kept=tuple(kept), statistics=_statistics(examples, len(chosen), kept, judging))


def agrees(example: ExampleSamples, judging: Judging) -> bool:
    """Whether enough of the N samples are correct; those that were not drawn are not."""
    correct = len(example.correct)
    return correct > 0 and correct / judging.samples_per_pair >= judging.min_agreement


def kept_sample(example: ExampleSamples, judging: Judging, iteration: int) -> Sample:
    """The one judgment that is kept of an example with correct ones.

    Under `Adaptive` a whole wave may have been drawn beyond the first correct sample; the first by index counts.
    """
    correct = sorted(example.correct, key=lambda sample: sample.index)
    if judging.strategy is JudgingStrategy.ADAPTIVE:
        return correct[0]
    return random.Random(f"{judging.seed}/{iteration}/{example.pair_id}/{example.order}").choice(correct)


def balanced(kept: Sequence[Kept], seed: int, iteration: int) -> list[Kept]:
    """As many A-wins as B-wins: random examples of the more frequent verdict are left out.

    The draw depends on which examples there are, not on which of their judgments was kept, nor on the sequence.
    """
    sides = [
        sorted(
            (one for one in kept if one.sample.verdict is verdict),
            key=lambda one: (one.example.pair_id, one.example.order),
        )
        for verdict in (Verdict.A, Verdict.B)
    ]
    count = min(len(side) for side in sides)
    rng = random.Random(f"{seed}/{iteration}/balance")
    return [one for side in sides for one in (rng.sample(side, count) if len(side) > count else side)]


def _statistics(
    examples: Sequence[ExampleSamples], agreed: int, kept: Sequence[Kept], judging: Judging
) -> CurationStatistics:
    fixed = judging.strategy is JudgingStrategy.FIXED
    drawn = [sample for example in examples for sample in example.samples]
    solved = [example for example in examples if example.correct]
    basis = [(example, sample) for example in examples for sample in example.samples if fixed or sample.index == 0]
    first = [min(sample.index for sample in example.correct) for example in solved]
    passes = [len(example.correct) for example in examples if example.samples]
    a_count = sum(sample.verdict is Verdict.A for _, sample in basis)
    b_count = sum(sample.verdict is Verdict.B for _, sample in basis)
    lengths = [one.sample.output_tokens for one in kept]
    orders_solved: dict[str, int] = {}
    for example in solved:
        orders_solved[example.pair_id] = orders_solved.get(example.pair_id, 0) + 1
    counts = CurationStats(
        pairs=len({example.pair_id for example in examples}),
        examples=len(examples),
        samples=len(drawn),
        correct=sum(passes),
        unparsable=sum(sample.verdict is Verdict.UNPARSABLE for sample in drawn),
        solved=len(solved),
        kept=len(kept),
        kept_a=sum(one.sample.verdict is Verdict.A for one in kept),
        kept_b=sum(one.sample.verdict is Verdict.B for one in kept),
        prefers_a=_share(a_count, a_count + b_count, nothing=0.5),
        mean_length=round(sum(lengths) / len(lengths), 2) if lengths else 0.0,
    )
    return CurationStatistics(
        counts=counts,
        strategy=judging.strategy,
        samples_per_pair=judging.samples_per_pair,
        min_agreement=judging.min_agreement,
        basis=ALL_SAMPLES if fixed else FIRST_SAMPLES,
        pass_rate=_pass_rate(basis),
        pass_rate_chosen_first=_pass_rate([one for one in basis if one[0].order is Order.CHOSEN_FIRST]),
        pass_rate_rejected_first=_pass_rate([one for one in basis if one[0].order is Order.REJECTED_FIRST]),
        parse_failure_rate=_share(sum(sample.verdict is Verdict.UNPARSABLE for _, sample in basis), len(basis)),
        correct_samples_histogram=_histogram(passes, judging.samples_per_pair + 1) if fixed else None,
        first_correct_histogram=_histogram(first, judging.samples_per_pair),
        unsolved=len(examples) - len(solved),
        below_agreement=len(solved) - agreed,
        left_out_for_balance=agreed - len(kept),
        solved_in_both_orders=sum(count == 2 for count in orders_solved.values()),
        solved_in_one_order=sum(count == 1 for count in orders_solved.values()),
        kept_lengths=Lengths.of(lengths),
        drawn_lengths=Lengths.of([sample.output_tokens for _, sample in basis]),
        longer_is_better_of_all=_longer_share([example.length_difference for example in examples]),
        longer_is_better_of_kept=_longer_share([one.example.length_difference for one in kept]),
    )


ALL_SAMPLES = "all samples of every example"
FIRST_SAMPLES = (
    "the first sample of every example: later ones were drawn only where earlier ones were wrong, so rates over all "
    "samples would be too low"
)


def _pass_rate(basis: Sequence[tuple[ExampleSamples, Sample]]) -> float:
    return _share(sum(sample.verdict is example.order.correct for example, sample in basis), len(basis))


def _histogram(values: Sequence[int], bins: int) -> tuple[int, ...]:
    counts = [0] * bins
    for value in values:
        counts[min(value, bins - 1)] += 1
    return tuple(counts)


def _longer_share(differences: Sequence[int]) -> float:
    longer = sum(difference > 0 for difference in differences)
    equal = sum(difference == 0 for difference in differences)
    return _share(longer + 0.5 * equal, len(differences), nothing=0.5)


def _share(part: float, whole: int, *, nothing: float = 0.0) -> float:
    return round(part / whole, 4) if whole else nothing
