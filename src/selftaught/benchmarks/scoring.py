"""From verdicts to the scores of whole benchmarks, sections and subsets."""

from collections.abc import Mapping, Sequence

import numpy as np

from selftaught.api.base import ApiModel, Fraction
from selftaught.api.judging import Benchmark, BenchmarkFormat
from selftaught.api.results import Checkpoint, Score
from selftaught.benchmarks.reading import BenchmarkData
from selftaught.benchmarks.reward_bench import section_weights
from selftaught.judging.agreement import Group, PairResult, half_credit_accuracy, pair_result, score
from selftaught.judging.seeds import request_seed
from selftaught.records import BenchmarkPair, Order, Verdict

Votes = Mapping[str, Mapping[Order, Sequence[Verdict]]]
"""Verdicts by pair id and order."""


class BenchmarkScores(ApiModel):
    """All scores of one judge on one benchmark."""

    benchmark: str
    """Name."""
    left_out: dict[str, int]
    """Rows that cannot be used, by reason."""
    too_long: int
    """Pairs whose prompt does not fit into the context: no verdict, so wrong."""
    whole: Score
    """Of all pairs; RewardBench's Overall (the mean of its sections) for that format."""
    half_credit_accuracy: Fraction
    """Accuracy where no verdict counts as half right, as RewardBench's own runner has it."""
    sections: tuple[Score, ...] = ()
    """RewardBench's sections that have pairs."""
    subsets: tuple[Score, ...] = ()
    """Of each subset, where there are several."""


class CandidateScore(ApiModel):
    """A checkpoint that could have been chosen."""

    checkpoint: Checkpoint
    """Checkpoint."""
    score: Score
    """On the selection benchmark."""


class ScoreTable(ApiModel):
    """`scores.json`: everything that an evaluation found; the stage's result has as much of it as fits."""

    checkpoint: Checkpoint | None = None
    """The judge; none for the seed."""
    votes: int
    """Judgments per pair and order."""
    seed: int
    """Seed of the bootstrap."""
    candidates: tuple[CandidateScore, ...] = ()
    """What was chosen from, if there were several."""
    benchmarks: tuple[BenchmarkScores, ...] = ()
    """In the order of the spec."""


def benchmark_scores(
    benchmark: Benchmark, data: BenchmarkData, votes: Votes, *, seed: int, too_long: int = 0
) -> BenchmarkScores:
    """Score a judge on a benchmark. The intervals depend on `seed` and names alone, not on other benchmarks."""
    by_subset: dict[str, list[PairResult]] = {}
    for pair, result in _results(data.pairs, votes):
        by_subset.setdefault(pair.subset or "", []).append(result)
    whole = [Group([result for results in by_subset.values() for result in results])]
    sections: list[Score] = []
    if benchmark.format is BenchmarkFormat.REWARD_BENCH:
        weights = section_weights(frozenset(by_subset))
        for section, within in weights.items():
            groups = [Group(by_subset[subset], weight) for subset, weight in within.items()]
            sections.append(score(benchmark.name, groups, _rng(seed, benchmark, section), subset=section))
        if weights:
            whole = [
                Group(by_subset[subset], weight) for within in weights.values() for subset, weight in within.items()
            ]
    return BenchmarkScores(
        benchmark=benchmark.name,
        left_out=data.left_out,
        too_long=too_long,
        whole=score(benchmark.name, whole, _rng(seed, benchmark, "")),
        half_credit_accuracy=half_credit_accuracy(whole),
        sections=tuple(sections),
        subsets=tuple(
            score(benchmark.name, [Group(by_subset[subset])], _rng(seed, benchmark, subset), subset=subset or "none")
            for subset in sorted(by_subset)
        )
        if len(by_subset) > 1
        else (),
    )


def _results(pairs: Sequence[BenchmarkPair], votes: Votes) -> list[tuple[BenchmarkPair, PairResult]]:
    return [(pair, pair_result(pair, votes.get(pair.id, {}))) for pair in pairs]


def _rng(seed: int, benchmark: Benchmark, subset: str) -> np.random.Generator:
    return np.random.default_rng(request_seed(seed, 0, benchmark.name, subset, 0))
