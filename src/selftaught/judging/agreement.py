"""How well verdicts agree with the known better response: pure statistics.

Each pair is judged in both orders. Where several votes were drawn per order, their majority is the verdict. A set
of pairs is one group, or several groups with weights (RewardBench's subsets in a section); every number of a
weighted set is the weighted mean of its groups' numbers.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selftaught.api.results import Score
from selftaught.records import BenchmarkPair, Order, Verdict

RESAMPLES = 2000
UNDECIDED = 0.5
"""A preference that nothing is known about."""


@dataclass(frozen=True)
class PairResult:
    """What one judge said about one pair."""

    verdicts: tuple[Verdict, Verdict]
    """With the chosen response first, and with the rejected response first."""
    judgments: int
    """Judgments that were asked for."""
    unparsable: int
    """Those of them without a verdict."""
    length_difference: int
    """Characters of the chosen response minus those of the rejected one."""

    @property
    def right(self) -> tuple[bool, bool]:
        """Whether each verdict is correct; no verdict is wrong."""
        return self.verdicts[0] is Verdict.A, self.verdicts[1] is Verdict.B


@dataclass(frozen=True)
class Group:
    """Pairs that count alike."""

    results: Sequence[PairResult]
    weight: float = 1.0
    """Relative to the other groups of the set."""


Number = Callable[[Sequence[PairResult]], float]
"""A number of pairs that count alike."""


def majority(votes: Iterable[Verdict]) -> Verdict:
    """The verdict of most votes that have one; none if there is no such vote, or as many for A as for B."""
    lead = sum({Verdict.A: 1, Verdict.B: -1}.get(vote, 0) for vote in votes)
    if lead == 0:
        return Verdict.UNPARSABLE
    return Verdict.A if lead > 0 else Verdict.B


def pair_result(pair: BenchmarkPair, votes: Mapping[Order, Sequence[Verdict]]) -> PairResult:
    """Sum up the votes on a pair. An order that is missing counts as one judgment without a verdict."""
    asked = {order: votes.get(order) or (Verdict.UNPARSABLE,) for order in Order}
    every = [vote for given in asked.values() for vote in given]
    return PairResult(
        verdicts=(majority(asked[Order.CHOSEN_FIRST]), majority(asked[Order.REJECTED_FIRST])),
        judgments=len(every),
        unparsable=every.count(Verdict.UNPARSABLE),
        length_difference=len(pair.chosen) - len(pair.rejected),
    )


def score(benchmark: str, groups: Sequence[Group], rng: np.random.Generator, *, subset: str | None = None) -> Score:
    """All numbers of one judge on a set of pairs.

    The interval is a percentile bootstrap with 2,000 resamples: pairs are drawn, not verdicts, since the two
    verdicts on a pair depend on each other, and each group's pairs on their own. Raises ValueError for a set
    without pairs.
    """
    groups = [group for group in groups if group.results]
    if not groups:
        raise ValueError(f"no pairs in {benchmark} {subset or ''}")
    accuracy = _mean(groups, accuracy_of)
    low, high = bootstrap_interval(groups, rng)
    return Score(
        benchmark=benchmark,
        subset=subset,
        pairs=sum(len(group.results) for group in groups),
        accuracy=_rounded(accuracy),
        low=_rounded(min(low, accuracy)),
        high=_rounded(max(high, accuracy)),
        consistent_accuracy=_rounded(_mean(groups, _consistent)),
        prefers_first=_rounded(_mean(groups, _prefers_first)),
        prefers_longer=_rounded(_mean(groups, _prefers_longer)),
        longer_baseline=_rounded(_mean(groups, _longer_baseline)),
        unparsable=_rounded(_mean(groups, _unparsable)),
    )


def half_credit_accuracy(groups: Sequence[Group]) -> float:
    """Accuracy where no verdict counts as half right, as in RewardBench's own generative runner."""
    return _rounded(_mean([group for group in groups if group.results], _half_credit))


def bootstrap_interval(groups: Sequence[Group], rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the accuracy.

    A pair's share of right verdicts is 0, 0.5 or 1, so a resample of n pairs is a draw from a multinomial
    distribution over these three: the same law as drawing pairs one by one, at a cost that does not grow with n.
    """
    total = sum(group.weight for group in groups)
    means: npt.NDArray[np.float64] = np.zeros(RESAMPLES)
    for group in groups:
        counts = np.bincount([sum(result.right) for result in group.results], minlength=3)
        draws = rng.multinomial(len(group.results), counts / len(group.results), size=RESAMPLES)
        means += (draws @ np.array([0.0, 0.5, 1.0]) / len(group.results)) * (group.weight / total)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def accuracy_of(results: Sequence[PairResult]) -> float:
    """Share of correct verdicts over both orders."""
    return math.fsum(sum(result.right) / 2 for result in results) / len(results)


def _consistent(results: Sequence[PairResult]) -> float:
    return sum(all(result.right) for result in results) / len(results)


def _half_credit(results: Sequence[PairResult]) -> float:
    missing = sum(result.verdicts.count(Verdict.UNPARSABLE) for result in results)
    return accuracy_of(results) + 0.25 * missing / len(results)


def _prefers_first(results: Sequence[PairResult]) -> float:
    first = sum(result.verdicts.count(Verdict.A) for result in results)
    second = sum(result.verdicts.count(Verdict.B) for result in results)
    return _share(first, first + second)


def _prefers_longer(results: Sequence[PairResult]) -> float:
    longer = given = 0
    for result in results:
        for verdict, correct in zip(result.verdicts, result.right, strict=True):
            if verdict is not Verdict.UNPARSABLE and result.length_difference != 0:
                given += 1
                longer += correct == (result.length_difference > 0)
    return _share(longer, given)


def _longer_baseline(results: Sequence[PairResult]) -> float:
    longer = sum(result.length_difference > 0 for result in results)
    equal = sum(result.length_difference == 0 for result in results)
    return (longer + 0.5 * equal) / len(results)


def _unparsable(results: Sequence[PairResult]) -> float:
    return sum(result.unparsable for result in results) / sum(result.judgments for result in results)


def _mean(groups: Sequence[Group], number: Number) -> float:
    total = math.fsum(group.weight for group in groups)
    return math.fsum(group.weight / total * number(group.results) for group in groups)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else UNDECIDED


def _rounded(value: float) -> float:
    """To the fourth digit: well below any interval, and short in a status."""
    return round(float(min(1.0, max(0.0, value))), 4)
