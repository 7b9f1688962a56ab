"""model(s) → scores on every benchmark.

Of several checkpoints, all are judged by on the selection benchmark, and the best alone on the others. Shards
therefore meet once: each needs all rows of the selection to know the best. A shard waits for the others as long
as they get on; what a silent one owes, it does itself, so that no shard ever depends on another being started.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selftaught.api.judging import Benchmark, BenchmarkRole
from selftaught.api.results import MAX_RESULT_BYTES, Checkpoint, Score, StageResult, Usage
from selftaught.api.stage_config import EvaluateConfig
from selftaught.artifacts import Folder
from selftaught.benchmarks.reading import BenchmarkData, read
from selftaught.benchmarks.scoring import BenchmarkScores, CandidateScore, ScoreTable, benchmark_scores
from selftaught.errors import DataError, Interrupted
from selftaught.stages import shards
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.evaluation_rows import (
    TOO_LONG,
    Judging,
    Outcome,
    Question,
    questions,
    read_outcomes,
    votes_by_pair,
)
from selftaught.stages.feed import Allowance

SCORES = "scores.json"
CHOICE = "choice.json"
SILENT_SECONDS = 300.0
"""A shard that adds no row for this long is not waited for."""
POLL_SECONDS = 2.0
RESERVED_BYTES = 128
"""For what is wrapped around a result in a termination message."""
MESSAGE_CHARACTERS = 512

_ROLES = (BenchmarkRole.SELECTION, BenchmarkRole.GATE, BenchmarkRole.REPORT)


@dataclass(frozen=True)
class Plan:
    """What there is to judge."""

    config: EvaluateConfig
    data: Mapping[str, BenchmarkData]
    """By name of the benchmark."""
    shard: Shard

    @property
    def selection(self) -> Benchmark | None:
        """The benchmark to choose by, if there is a choice."""
        if len(self.config.candidates) < 2:
            return None
        benchmarks = self.config.evaluation.benchmarks
        return next((one for one in benchmarks if one.role is BenchmarkRole.SELECTION), None)

    def asked(self, benchmark: Benchmark, checkpoint: Checkpoint | None, *, owned: bool) -> list[Question]:
        """Judgments of a benchmark by a judge."""
        data, votes = self.data[benchmark.name], self.config.evaluation.votes
        return list(questions(benchmark.name, data, checkpoint, votes, self.shard.owns if owned else lambda _: True))

    def of_selection(self, *, owned: bool) -> list[Question]:
        """Judgments that the choice needs; none if there is no choice."""
        selection = self.selection
        if selection is None:
            return []
        return [
            question
            for candidate in self.config.candidates
            for question in self.asked(selection, candidate, owned=owned)
        ]

    def of_chosen(self, chosen: Checkpoint | None, *, owned: bool) -> list[Question]:
        """All judgments by the chosen judge but those that the choice needed."""
        return [
            question
            for benchmark in self.config.evaluation.benchmarks
            if benchmark != self.selection
            for question in self.asked(benchmark, chosen, owned=owned)
        ]


def run(config: EvaluateConfig, context: StageContext) -> StageResult:
    """Judge every benchmark pair in both orders, and score.

    Rows are `EvaluationJudgment`, streamed; a row that is there is never sampled again. A prompt that does not fit
    the context is a row without a verdict, so it counts as wrong. `scores.json` has all scores, the result as many
    as fit. Raises DataError for an unusable benchmark, ModelError, BudgetError, Interrupted.
    """
    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    with shards.Clock(folder, config.key, context) as clock:
        data = {benchmark.name: read(benchmark, context.store) for benchmark in config.evaluation.benchmarks}
        plan = Plan(config, data, context.shard)
        known = read_outcomes(folder)
        # Where the choice is still open, there are no rows beyond it, and any candidate stands in for the chosen one.
        expected = _chosen_before(folder) or (config.candidates[-1] if config.candidates else None)
        own = [*plan.of_selection(owned=True), *plan.of_chosen(expected, owned=True)]
        with folder.writer(context.shard.index, context.shard.count) as writer:
            judging = Judging(
                config=config,
                context=context,
                writer=writer,
                clock=clock,
                known=known,
                allowance=Allowance.of_shard(config.token_allowance, context.shard.count, _spent(own, known)),
                total=len(own),
                done=sum(question.id in known for question in own),
            )
            chosen = _choose(plan, judging, folder, context)
            judging.answer(plan.of_chosen(chosen, owned=True), chosen)
    own = [*plan.of_selection(owned=True), *plan.of_chosen(chosen, owned=True)]
    partial = StageResult(
        stage=config.stage,
        iteration=config.iteration,
        key=config.key,
        rows=len(own),
        usage=Usage(
            input_tokens=sum(known[question.id].input_tokens for question in own),
            output_tokens=_spent(own, known),
        ),
        checkpoint=chosen,
    )
    return shards.finish(folder, context, partial, lambda merged: _conclude(plan, folder, merged))


def _choose(plan: Plan, judging: Judging, folder: Folder, context: StageContext) -> Checkpoint | None:
    """The judge to score: the best candidate, ties going to the earlier epoch."""
    candidates = plan.config.candidates
    if not candidates:
        return None
    if plan.selection is None:
        return candidates[-1]
    for candidate in candidates:
        judging.answer(plan.asked(plan.selection, candidate, owned=True), candidate)
    _meet(plan, judging, folder, context)
    if not folder.exists(CHOICE):
        scores = _candidate_scores(plan, judging.known)
        best = min(scores, key=lambda one: (-one.score.accuracy, one.checkpoint.epoch))
        folder.write(CHOICE, best.model_dump_json().encode())
    # Read back, so that all shards go on with the same one even where two have written.
    return _chosen_before(folder)


def _chosen_before(folder: Folder) -> Checkpoint | None:
    if not folder.exists(CHOICE):
        return None
    return CandidateScore.model_validate_json(folder.read(CHOICE)).checkpoint


def _meet(plan: Plan, judging: Judging, folder: Folder, context: StageContext) -> None:
    """Wait until all rows of the selection are there; do what nobody seems to be doing."""
    asked = plan.of_selection(owned=False)
    others = [Shard(index, plan.shard.count) for index in range(plan.shard.count) if index != plan.shard.index]
    heard = context.now()
    while missing := [question for question in asked if question.id not in judging.known]:
        if context.stopping():
            raise Interrupted("asked to stop; finished rows are kept, the next start goes on from there")
        found = read_outcomes(folder)
        if any(question.id in found for question in missing):
            judging.known.update((identity, row) for identity, row in found.items() if identity not in judging.known)
            heard = context.now()
            continue
        owing = [shard for shard in others if any(shard.owns(question.position) for question in missing)]
        silent = (context.now() - heard).total_seconds() >= SILENT_SECONDS
        if silent or not any(shards.started(folder, shard) for shard in owing):
            for candidate in plan.config.candidates:
                judging.answer([question for question in missing if question.checkpoint == candidate], candidate)
            return
        judging.clock.tick()
        time.sleep(POLL_SECONDS)


def _conclude(plan: Plan, folder: Folder, merged: StageResult) -> StageResult:
    """Scores from the rows of all shards."""
    evaluation = plan.config.evaluation
    known = read_outcomes(folder)
    needed = [*plan.of_selection(owned=False), *plan.of_chosen(merged.checkpoint, owned=False)]
    if missing := sum(question.id not in known for question in needed):
        raise DataError(f"{folder.uri} lacks {missing} rows of shards that had ended; delete it to evaluate again")
    scored = [_scores(plan, benchmark, merged.checkpoint, known) for benchmark in evaluation.benchmarks]
    candidates = _candidate_scores(plan, known)
    table = ScoreTable(
        checkpoint=merged.checkpoint,
        votes=evaluation.votes,
        seed=evaluation.seed,
        candidates=candidates,
        benchmarks=tuple(scored),
    )
    folder.write(SCORES, table.model_dump_json(indent=1, exclude_none=True).encode())
    dropped: dict[str, int] = {}
    for one in scored:
        for reason, count in one.left_out.items():
            dropped[reason] = dropped.get(reason, 0) + count
    result = merged.model_copy(
        update={"dropped": dict(sorted(dropped.items())), "message": _message(scored, candidates, merged.checkpoint)}
    )
    role = {benchmark.name: _ROLES.index(benchmark.role) for benchmark in evaluation.benchmarks}
    ordered = sorted(scored, key=lambda one: role[one.benchmark])
    return fitted(result, list(in_order_of_weight(ordered)))


def in_order_of_weight(scored: Sequence[BenchmarkScores]) -> Iterable[Score]:
    """Whole benchmarks first, then sections, then subsets of benchmarks that have no sections."""
    yield from (one.whole for one in scored)
    yield from (section for one in scored for section in one.sections)
    yield from (subset for one in scored if not one.sections for subset in one.subsets)


def fitted(result: StageResult, scores: Sequence[Score]) -> StageResult:
    """The result with as many scores as a termination message holds, and a word about the others."""
    for count in range(len(scores), -1, -1):
        left = len(scores) - count
        note = (
            f"{left} of {len(scores)} scores (of subsets) are too many to tell here: see {SCORES} in the artifact"
            if left
            else ""
        )
        fitting = result.model_copy(
            update={
                "scores": tuple(scores[:count]),
                "message": "; ".join(part for part in (note, result.message) if part)[:MESSAGE_CHARACTERS],
            }
        )
        if len(fitting.model_dump_json().encode()) <= MAX_RESULT_BYTES - RESERVED_BYTES:
            return fitting
    return result.model_copy(update={"message": f"the scores are too many to tell here: see {SCORES} in the artifact"})


def _scores(
    plan: Plan, benchmark: Benchmark, checkpoint: Checkpoint | None, known: Mapping[str, Outcome]
) -> BenchmarkScores:
    asked = plan.asked(benchmark, checkpoint, owned=False)
    too_long = {question.pair.id for question in asked if known[question.id].finish_reason == TOO_LONG}
    return benchmark_scores(
        benchmark,
        plan.data[benchmark.name],
        votes_by_pair(asked, known),
        seed=plan.config.evaluation.seed,
        too_long=len(too_long),
    )


def _candidate_scores(plan: Plan, known: Mapping[str, Outcome]) -> tuple[CandidateScore, ...]:
    selection = plan.selection
    if selection is None:
        return ()
    return tuple(
        CandidateScore(checkpoint=candidate, score=_scores(plan, selection, candidate, known).whole)
        for candidate in plan.config.candidates
    )


def _spent(asked: Iterable[Question], known: Mapping[str, Outcome]) -> int:
    return sum(known[question.id].output_tokens for question in asked if question.id in known)


def _message(scored: Sequence[BenchmarkScores], candidates: Sequence[CandidateScore], chosen: Checkpoint | None) -> str:
    parts = []
    if candidates and chosen:
        figures = ", ".join(f"epoch {one.checkpoint.epoch}: {one.score.accuracy:.3f}" for one in candidates[:8])
        parts.append(f"epoch {chosen.epoch} chosen ({figures})")
    if too_long := [f"{one.too_long} of {one.benchmark}" for one in scored if one.too_long]:
        parts.append(
            f"pairs that do not fit into the context count as wrong ({', '.join(too_long[:8])}); "
            "raise stages.evaluate.engine.maxModelLen"
        )
    if left_out := [f"{sum(one.left_out.values())} of {one.benchmark}" for one in scored if one.left_out]:
        parts.append(f"rows that cannot be used were left out ({', '.join(left_out[:8])})")
    if not scored:
        parts.append("there is no benchmark, so nothing was measured; add one to evaluation.benchmarks")
    return "; ".join(parts)
