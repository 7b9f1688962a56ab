"""What curation tells about the judgments, in `statistics.json`."""

from collections.abc import Sequence
from typing import Self

from selftaught.api.base import ApiModel, Fraction
from selftaught.api.judging import JudgingStrategy
from selftaught.api.results import CurationStats


class Lengths(ApiModel):
    """Lengths in tokens, as percentiles."""

    least: int = 0
    """Shortest."""
    p25: int = 0
    """A quarter is no longer."""
    p50: int = 0
    """Half are no longer."""
    p75: int = 0
    """Three quarters are no longer."""
    p95: int = 0
    """95 % are no longer."""
    most: int = 0
    """Longest."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """Percentiles by the nearest rank; zeros for none."""
        if not lengths:
            return cls()
        ordered = sorted(lengths)
        ranks = [max(0, -(-percent * len(ordered) // 100) - 1) for percent in (0, 25, 50, 75, 95, 100)]
        least, p25, p50, p75, p95, most = (ordered[rank] for rank in ranks)
        return cls(least=least, p25=p25, p50=p50, p75=p75, p95=p95, most=most)


class CurationStatistics(ApiModel):
    """`statistics.json` of the training examples."""

    counts: CurationStats
    """What was drawn and kept; its `prefersA` is on `basis`, its other counts are of all samples."""
    strategy: JudgingStrategy
    """How many samples were drawn."""
    samples_per_pair: int
    """N."""
    min_agreement: Fraction
    """Least share of the N samples that had to be correct."""
    basis: str
    """Which samples the rates and `drawnLengths` are over. Only such that were drawn whatever the others said give
    unbiased rates."""
    pass_rate: Fraction
    """Share of correct samples."""
    pass_rate_chosen_first: Fraction
    """The same where the better response is A; the difference to the next is the position bias."""
    pass_rate_rejected_first: Fraction
    """The same where the better response is B."""
    parse_failure_rate: Fraction
    """Share of samples without a verdict."""
    correct_samples_histogram: tuple[int, ...] | None
    """`Fixed`: how many examples have k correct samples, k = 0 … N. None under `Adaptive`, which does not know."""
    first_correct_histogram: tuple[int, ...]
    """How many examples have their first correct sample at index k, k = 0 … N-1."""
    unsolved: int
    """Examples without a correct sample."""
    below_agreement: int
    """Examples with a correct sample but too few of them."""
    left_out_for_balance: int
    """Examples left out so that A and B win equally often."""
    solved_in_both_orders: int
    """Pairs with a correct sample in both orders."""
    solved_in_one_order: int
    """Pairs with a correct sample in one order only."""
    kept_lengths: Lengths
    """Of the kept judgments."""
    drawn_lengths: Lengths
    """Of the samples on `basis`."""
    longer_is_better_of_all: Fraction
    """Share of examples whose better response is the longer one, by characters; equal lengths count half."""
    longer_is_better_of_kept: Fraction
    """The same of the kept ones; far from the former, curation teaches a preference for length."""
