"""What is told of a run: its status, from the same facts as its plan. Equal facts give an equal status."""

from datetime import datetime

from selftaught.api.reasons import RETRY_ANNOTATION, Reason
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import (
    Best,
    IterationStatus,
    Progress,
    RunStatus,
    StageState,
    StageStatus,
    Summary,
    UsageStatus,
)
from selftaught.artifacts import Manifest
from selftaught.loop.budget import total_usage, usage_by_iteration
from selftaught.loop.conditions import conditions_of, phase_of
from selftaught.loop.gates import accuracy_of, deciding_benchmark
from selftaught.loop.history import StageHistory
from selftaught.loop.keys import iteration_stages, preparation
from selftaught.loop.names import attempt_name
from selftaught.loop.observed import Attempt, AttemptState, Observed
from selftaught.loop.planner import Plan, told_outcome
from selftaught.loop.scores import checkpoint_status, curation_status, decimal, score_statuses

PREPARATION_ORDER = (Stage.EVALUATE, *(stage for stage in Stage if stage is not Stage.EVALUATE))
ITERATION_ORDER = tuple(Stage)
USAGE_GRAIN_SECONDS = 60
"""The running time of the attempt at work is told in whole minutes."""


def summarise(run: SelfTaughtRun, observed: Observed, plan: Plan, now: datetime) -> RunStatus:
    """The status after a plan has been carried out.

    A run that has ended keeps the status that it ended with. If an attempt could not be started, hand in the
    plan without it (`dataclasses.replace(plan, start=(), waiting=…)`): it is not counted then.
    """
    return Summariser(run, observed, plan, now).status()


class Summariser:
    """Makes one status."""

    def __init__(self, run: SelfTaughtRun, observed: Observed, plan: Plan, now: datetime) -> None:
        self._run = run
        self._spec = run.spec
        self._observed = observed
        self._plan = plan
        self._now = now
        self._previous = plan.carried
        self._course = plan.course
        self._used = usage_by_iteration(run.spec, observed, plan.history, plan.course.done, USAGE_GRAIN_SECONDS)

    def status(self) -> RunStatus:
        """The status."""
        if told_outcome(self._previous) is not None:
            return self._frozen()
        generation = self._run.metadata.generation
        conditions = conditions_of(self._run, self._observed, self._plan, self._now)
        started = self._start_time()
        status = RunStatus(
            observed_generation=generation,
            phase=phase_of(conditions, started=started is not None),
            conditions=conditions,
            start_time=started,
            completion_time=self._now if self._plan.outcome is not None else None,
            iteration=self._iteration,
            progress=self._progress(),
            baseline=score_statuses(self._course.baseline),
            iterations=tuple(self._iteration_status(index) for index in range(self._iteration + 1)),
            best=self._best(),
            restarts=sum(max(0, self._attempts(*place) - 1) for place in self._places()),
            restarts_counted=self._restarts_counted(),
            observed_retry=self._run.metadata.annotations.get(RETRY_ANNOTATION, ""),
            usage=total_usage(self._used, self._previous.usage).status(),
        )
        return status.model_copy(update={"summary": self._summary(status)})

    def _frozen(self) -> RunStatus:
        """The status of a run that ended earlier: only what retention deletes is still noted."""
        generation = self._run.metadata.generation
        previous = self._previous
        best = previous.best
        if best is not None and best.checkpoint is not None:
            best = best.model_copy(update={"checkpoint": checkpoint_status(best.checkpoint, self._observed)})
        iterations = tuple(
            iteration.model_copy(update={"checkpoint": checkpoint_status(iteration.checkpoint, self._observed)})
            if iteration.checkpoint is not None
            else iteration
            for iteration in previous.iterations
        )
        conditions = tuple(c.model_copy(update={"observed_generation": generation}) for c in previous.conditions)
        return previous.model_copy(
            update={
                "observed_generation": generation,
                "conditions": conditions,
                "iterations": iterations,
                "best": best,
            }
        )

    @property
    def _iteration(self) -> int:
        return max([self._course.iteration, *(iteration for iteration, _ in self._places())])

    def _places(self) -> set[tuple[int, Stage]]:
        planned = {(start.iteration, start.stage) for start in self._plan.start}
        return set(self._plan.history.stages) | planned

    def _attempts(self, iteration: int, stage: Stage) -> int:
        planned = [s.attempt for s in self._plan.start if (s.iteration, s.stage) == (iteration, stage)]
        return max([self._plan.history.at(iteration, stage).attempts, *planned])

    def _restarts_counted(self) -> int:
        """Those that a restart followed, or will: the failure that ended the run is none of them."""
        counted, new = self._plan.history.counted, self._plan.history.new_errors
        if self._plan.outcome is not None and self._plan.outcome.reason == Reason.RESTARTS_EXHAUSTED:
            return max(counted - new, min(counted, self._spec.failure_policy.max_restarts))
        return counted

    def _start_time(self) -> datetime | None:
        starts = [past.start_time for past in self._plan.history.stages.values() if past.start_time is not None]
        starts += [entry.start_time for entry in self._course.done.values()]
        if self._previous.start_time is not None:
            starts.append(self._previous.start_time)
        return min(starts, default=None)

    def _iteration_status(self, index: int) -> IterationStatus:
        wanted = preparation(self._spec) if index == 0 else iteration_stages(self._spec)
        order = PREPARATION_ORDER if index == 0 else ITERATION_ORDER
        # What was tried stays, even if the spec wants it no more: its counters are kept here.
        shown = [s for s in order if s in wanted or s is Stage.EVALUATE or (index, s) in self._plan.history.stages]
        curated = self._course.done.get((index, Stage.CURATE))
        evaluated = self._course.done.get((index, Stage.EVALUATE))
        ruling = next((ruling for ruling in self._course.rulings if ruling.iteration == index), None)
        used = self._used.get(index)
        return IterationStatus(
            index=index,
            stages=tuple(self._stage_status(index, stage, skipped=stage not in wanted) for stage in shown),
            curation=curation_status(curated.result) if curated is not None else None,
            scores=score_statuses(evaluated.result if evaluated is not None else None),
            checkpoint=checkpoint_status(ruling.checkpoint, self._observed) if ruling is not None else None,
            decision=ruling.decision if ruling is not None else None,
            decision_message=ruling.message if ruling is not None else "",
            approval=ruling.approval if ruling is not None else None,
            usage=used.status() if used is not None else UsageStatus(),
        )

    def _stage_status(self, index: int, stage: Stage, *, skipped: bool) -> StageStatus:
        past = self._plan.history.at(index, stage)
        entry = self._course.done.get((index, stage))
        attempts = self._attempts(index, stage)
        # The last attempt may be too new to be seen, even while an older one still seems to be alive.
        shown = past.alive is not None and past.alive.number == attempts
        starts = attempts > past.ended and not shown
        return StageStatus(
            name=stage,
            state=StageState.SKIPPED if skipped else self._state((index, stage), past, entry, starts=starts),
            job_name=attempt_name(self._run.metadata.name, stage, index, attempts) if attempts else "",
            attempts=attempts,
            start_time=past.start_time or (entry.start_time if entry is not None else None),
            completion_time=entry.completion_time if entry is not None else past.end_time,
            retry_time=past.retry_time if entry is None and not starts and self._plan.outcome is None else None,
            ended=past.ended,
            failures=past.failures,
            active_seconds=past.active_seconds,
            gpu_seconds=past.gpu_seconds,
            running_seconds=int(past.running_seconds // USAGE_GRAIN_SECONDS * USAGE_GRAIN_SECONDS),
            message=self._message(past, entry),
        )

    def _state(
        self, place: tuple[int, Stage], past: StageHistory, entry: Manifest | None, *, starts: bool
    ) -> StageState:
        if entry is not None:
            return StageState.SUCCEEDED
        if self._plan.outcome is not None:
            return StageState.FAILED if past.attempts else StageState.SKIPPED
        if starts:
            return StageState.PENDING
        if past.alive is not None:
            if past.alive.stopping and self._ran(place):
                return StageState.RUNNING  # its pods are gone already; told as pending it would be started again
            return StageState(past.alive.state.value)
        if past.failures and past.retry_time is not None:
            return StageState.FAILED
        return StageState.PENDING

    def _ran(self, place: tuple[int, Stage]) -> bool:
        """Whether a stage was told to be running."""
        return any(
            (each.index, stage.name) == place and stage.state is StageState.RUNNING
            for each in self._previous.iterations
            for stage in each.stages
        )

    def _message(self, past: StageHistory, entry: Manifest | None) -> str:
        if entry is not None:
            return entry.result.message[:1024]
        if past.alive is not None:
            return past.alive.message[:1024]
        return past.message

    def _alive(self) -> Attempt | None:
        alive = [past.alive for past in self._plan.history.stages.values() if past.alive is not None]
        running = [attempt for attempt in alive if attempt.state is AttemptState.RUNNING]
        return next(iter(running or alive), None)

    def _progress(self) -> Progress | None:
        alive = self._alive()
        if alive is None or alive.progress is None or self._plan.outcome is not None:
            return None
        told = alive.progress
        remaining = told.remaining_seconds
        return Progress(
            stage=alive.stage,
            iteration=alive.iteration,
            percentage=int(100 * min(max(told.fraction, 0.0), 1.0)),
            estimated_remaining_seconds=round(remaining) if remaining is not None else None,
            last_updated_time=told.time,
            throughput=told.throughput,
        )

    def _best(self) -> Best | None:
        benchmark = deciding_benchmark(self._spec.evaluation)
        name = benchmark.name if benchmark is not None else ""
        ruling = self._course.best
        if ruling is not None:
            return Best(
                iteration=ruling.iteration,
                benchmark=name,
                accuracy=decimal(ruling.accuracy),
                checkpoint=checkpoint_status(ruling.checkpoint, self._observed),
            )
        accuracy = accuracy_of(self._spec.evaluation, self._course.baseline)
        return Best(iteration=0, benchmark=name, accuracy=decimal(accuracy)) if accuracy is not None else None

    def _summary(self, status: RunStatus) -> Summary:
        plan = self._plan
        alive = self._alive()
        at_work = alive if plan.outcome is None else None
        stage = at_work.stage if at_work is not None else next((start.stage for start in plan.start), None)
        best = self._course.best
        baseline = accuracy_of(self._spec.evaluation, self._course.baseline)
        if plan.outcome is not None:
            reason = f"{plan.outcome.reason}: {plan.outcome.message}"
        elif plan.waiting is not None:
            reason = f"{plan.waiting.reason}: {plan.waiting.message}"
        else:
            reason = str(Reason.STARTING)
        return Summary(
            iteration=f"{status.iteration}/{self._spec.iterations}",
            stage=str(stage or ""),
            progress=f"{status.progress.percentage}%" if status.progress is not None else "",
            best=f"{decimal(best.accuracy, 3)} (i{best.iteration})".strip() if best is not None else "",
            baseline=decimal(baseline, 3),
            reason=reason,
        )
