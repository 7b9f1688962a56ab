"""What scores must show: the seed before anything is spent, a checkpoint before it is promoted."""

from selftaught.api.judging import Benchmark, BenchmarkRole, Evaluation
from selftaught.api.results import Score, StageResult
from selftaught.api.spec import RunSpec

ROUNDING = 1e-9
"""Differences of accuracies below this are the floating point's."""


def deciding_benchmark(evaluation: Evaluation) -> Benchmark | None:
    """The benchmark that promotes and stops: the first for selection, else the first gate, else the first."""
    for role in (BenchmarkRole.SELECTION, BenchmarkRole.GATE):
        for benchmark in evaluation.benchmarks:
            if benchmark.role is role:
                return benchmark
    return evaluation.benchmarks[0] if evaluation.benchmarks else None


def score_on(result: StageResult, benchmark: Benchmark) -> Score | None:
    """The score on a whole benchmark."""
    for score in result.scores:
        if score.benchmark == benchmark.name and score.subset is None:
            return score
    return None


def accuracy_of(evaluation: Evaluation, result: StageResult | None) -> float | None:
    """Accuracy on the deciding benchmark; none if nothing decides."""
    benchmark = deciding_benchmark(evaluation)
    score = score_on(result, benchmark) if result is not None and benchmark is not None else None
    return score.accuracy if score is not None else None


def seed_problem(spec: RunSpec, baseline: StageResult) -> str | None:
    """Why the seed cannot be improved by this method, with the advice that fits; none if it can."""
    check = spec.evaluation.seed_check
    benchmark = deciding_benchmark(spec.evaluation)
    score = score_on(baseline, benchmark) if benchmark is not None else None
    if not check.enabled or score is None:
        return None
    parsable = 1 - score.unparsable
    if parsable < float(check.min_parsable) - ROUNDING:
        if not spec.judging.guided_verdict:
            advice = "set judging.guidedVerdict: true, or choose an instruction-tuned seed"
        else:
            advice = "raise evaluation.sampling.maxTokens, or choose another seed"
        return (
            f"only {parsable:.1%} of the seed's judgments on {score.benchmark} have a verdict "
            f"(evaluation.seedCheck.minParsable: {check.min_parsable}); {advice}"
        )
    if score.high < float(check.min_accuracy) - ROUNDING:
        return (
            f"the seed's accuracy on {score.benchmark} is {score.accuracy:.3f} ({score.low:.3f} to {score.high:.3f}), "
            f"below evaluation.seedCheck.minAccuracy: {check.min_accuracy}; choose another seed, or look whether "
            f"chosen and rejected are swapped in the benchmark"
        )
    return None


def gate_problem(evaluation: Evaluation, baseline: StageResult | None, result: StageResult) -> str | None:
    """Which gate a checkpoint fails; none if it passes all."""
    for benchmark in evaluation.benchmarks:
        if benchmark.role is not BenchmarkRole.GATE or baseline is None:
            continue
        before, after = score_on(baseline, benchmark), score_on(result, benchmark)
        if before is None or after is None:
            return f"there is no score on {benchmark.name}"
        if after.accuracy < before.accuracy - float(benchmark.max_drop) - ROUNDING:
            return (
                f"accuracy on {benchmark.name} fell from {before.accuracy:.3f} to {after.accuracy:.3f}, "
                f"by more than {benchmark.max_drop}"
            )
    return None
