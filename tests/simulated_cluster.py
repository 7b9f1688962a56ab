"""An in-memory cluster that planners are let loose on: Jobs that live and die, a store, a status.

It checks what must hold whatever happens: one attempt alive at a time, finished work never started again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from builders import T0, a_result, an_entry, observed, some_curation
from selftaught.api.results import Stage, StageResult
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Approval, RunSpec
from selftaught.api.status import RunStatus
from selftaught.artifacts import Manifest
from selftaught.loop.configs import stage_config
from selftaught.loop.observed import Attempt, AttemptState, Failure, FailureKind, Observed
from selftaught.loop.planner import Plan, PlannedStage, plan, told_outcome
from selftaught.loop.status import summarise

Jobs = Mapping[str, Attempt]

STOPPED = Failure(reason="Interrupted", message="asked to stop", kind=FailureKind.INTERRUPTED)


class PlannerKilled(Exception):
    """The planner's process died."""


@dataclass
class SimulatedCluster:
    """A cluster with one run."""

    run: SelfTaughtRun
    kept: int = 80
    """Examples that every curation keeps."""
    write_ahead: bool = True
    """Whether a status is written before what it tells is started; else after."""
    now: datetime = T0
    jobs: dict[str, Attempt] = field(default_factory=dict)
    ledger: dict[str, Manifest] = field(default_factory=dict)
    approvals: list[Approval] = field(default_factory=list)
    pruned: set[str] = field(default_factory=set)
    status: RunStatus = field(default_factory=RunStatus)
    started: list[PlannedStage] = field(default_factory=list)
    """Every Job that was really created, in order."""
    done: list[str] = field(default_factory=list)
    """Every stage that finished, by key, in order."""
    steps: int = 0
    """Actions of all planners so far; one can be killed before each."""
    kill_before: int | None = None
    views: list[dict[str, Attempt]] = field(default_factory=lambda: [{}])
    """All states of the Jobs, for planners whose view is behind."""
    view: int = 0
    up_to_date: bool = True
    """Whether the last pass saw all Jobs as they were."""

    # What the planner's process does.

    def observe(self, lag: int = 0) -> Observed:
        """What a planner sees; its view of Jobs may be some states behind, but never goes back."""
        self.view = max(self.view, len(self.views) - 1 - lag)
        self.up_to_date = self.view == len(self.views) - 1
        return observed(
            *self.views[self.view].values(),
            ledger=dict(self.ledger),
            approvals=tuple(self.approvals),
            previous=self.status,
            pruned=frozenset(self.pruned),
        )

    def reconcile(self, lag: int = 0) -> Plan:
        """One pass of a planner, one action after the other. Raises PlannerKilled where it is to be killed."""
        seen = self.observe(lag)
        decided = plan(self.run, seen, self.now)
        told = summarise(self.run, seen, decided, self.now)
        assert plan(self.run, seen, self.now) == decided
        assert summarise(self.run, seen, decided, self.now) == told
        check_transitions(self.status, told)
        if self.write_ahead:
            self._write(told)
        for attempt in decided.stop:
            self._step()
            self.stop(attempt.name)
        for start in decided.start:
            self._step()
            self.start(start, seen)
        if not self.write_ahead:
            self._write(told)
        for folder in decided.prune:
            self._step()
            self.prune(folder)
        return decided

    def reconcile_or_die(self, lag: int = 0) -> Plan | None:
        """One pass; none if the planner was killed in it."""
        try:
            return self.reconcile(lag)
        except PlannerKilled:
            self.view = len(self.views) - 1  # the next process lists anew
            return None

    def _write(self, told: RunStatus) -> None:
        self._step()
        if told_outcome(self.status) is None:
            assert told.usage.output_tokens >= self.status.usage.output_tokens
            assert told.usage.active_seconds >= self.status.usage.active_seconds
        self.status = told

    def _step(self) -> None:
        if self.steps == self.kill_before:
            self.steps += 1
            raise PlannerKilled
        self.steps += 1

    # What the API server and the store do.

    def start(self, planned: PlannedStage, seen: Observed) -> None:
        """Create a Job, unless its name is taken."""
        if planned.name in self.jobs:
            return
        # A planner whose view is behind cannot know of a process that has yet to end; its work is done, though.
        beside = [job.name for job in self.alive if self.up_to_date or job.key not in self.ledger]
        assert not beside, f"{planned.name} would run beside {beside}"
        assert planned.key not in self.ledger, f"{planned.name} does finished work again"
        config = stage_config(self.run, planned.stage, planned.iteration, planned.attempt, seen)
        assert config.key == planned.key
        self.started.append(planned)
        self._put(
            Attempt(
                name=planned.name,
                stage=planned.stage,
                iteration=planned.iteration,
                number=planned.attempt,
                key=planned.key,
                state=AttemptState.PENDING,
            )
        )

    def stop(self, name: str) -> None:
        """Ask a Job to stop; it takes its time."""
        if name in self.jobs and self.jobs[name].alive:
            self._put(replace(self.jobs[name], stopping=True))

    def prune(self, folder: str) -> None:
        """Delete a checkpoint; nobody may need it any more."""
        best = self.status.best
        assert best is None or best.checkpoint is None or best.checkpoint.uri != folder
        self.pruned.add(folder)

    # What happens to Jobs.

    @property
    def alive(self) -> tuple[Attempt, ...]:
        """Jobs that are at work, or may soon be."""
        return tuple(job for job in self.jobs.values() if job.alive)

    def queue(self, name: str) -> None:
        """The queue holds a Job back."""
        self._put(
            replace(
                self.jobs[name], state=AttemptState.QUEUED, queued_since=self.now, start_time=None, message="no quota"
            )
        )

    def run_job(self, name: str) -> None:
        """The pods of a Job begin to run."""
        self._put(replace(self.jobs[name], state=AttemptState.RUNNING, start_time=self.now, message=""))

    def finish(self, name: str) -> None:
        """A Job ends well: first its artifact is complete, then it ends."""
        self.complete_artifact(name)
        job = self.jobs[name]
        self._put(
            replace(
                job,
                state=AttemptState.SUCCEEDED,
                stopping=False,
                start_time=job.start_time or self.now,
                end_time=self.now,
                result=self.ledger[job.key].result,
            )
        )

    def complete_artifact(self, name: str) -> None:
        """The artifact of a Job becomes complete, while its process still runs."""
        job = self.jobs[name]
        if job.key not in self.ledger:
            self.ledger[job.key] = an_entry(self.result(job), start=job.start_time or self.now, seconds=0.0).model_copy(
                update={"completion_time": self.now}
            )
            self.done.append(job.key)

    def result(self, job: Attempt) -> StageResult:
        """What a stage says at its end."""
        if job.stage is Stage.CURATE:
            return a_result(job.stage, job.iteration, job.key, curation=some_curation(self.kept))
        return a_result(job.stage, job.iteration, job.key)

    def fail(self, name: str, failure: Failure) -> None:
        """A Job fails."""
        job = self.jobs[name]
        self._put(
            replace(job, state=AttemptState.FAILED, stopping=False, end_time=self.now, failure=failure, message="")
        )

    def end_without_result(self, name: str) -> None:
        """A Job ends well, and its result is lost."""
        job = self.jobs[name]
        self._put(
            replace(
                job,
                state=AttemptState.SUCCEEDED,
                stopping=False,
                start_time=job.start_time or self.now,
                end_time=self.now,
            )
        )

    def delete(self, name: str) -> None:
        """Somebody deletes a Job; its pods are gone at once."""
        del self.jobs[name]
        self.views.append(dict(self.jobs))

    def delete_all(self) -> None:
        """Somebody deletes every child."""
        for name in list(self.jobs):
            self.delete(name)

    def recreate(self) -> None:
        """The run is deleted and created again: children and status are lost, the store stays."""
        self.delete_all()
        self.view = len(self.views) - 1
        self.status = RunStatus()

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    def edit(self, **fields: object) -> None:
        """The spec is edited; keywords as in Python."""
        spec = RunSpec.model_validate(self.run.spec.model_copy(update=fields).model_dump())
        generation = self.run.metadata.generation + 1
        metadata = self.run.metadata.model_copy(update={"generation": generation})
        self.run = self.run.model_copy(update={"spec": spec, "metadata": metadata})

    def annotate(self, name: str, value: str) -> None:
        """An annotation is set."""
        annotations = {**self.run.metadata.annotations, name: value}
        metadata = self.run.metadata.model_copy(update={"annotations": annotations})
        self.run = self.run.model_copy(update={"metadata": metadata})

    def _put(self, job: Attempt) -> None:
        self.jobs[job.name] = job
        self.views.append(dict(self.jobs))

    # A world in which nothing goes wrong.

    def settle(self, passes: int = 400, seconds: float = 60.0) -> None:
        """Let everything go well until the run has ended, or only a person can help."""
        for _ in range(passes):
            decided = self.reconcile_or_die()
            if decided is not None and self.rests(decided):
                return
            for job in self.alive:
                if job.stopping:
                    self.fail(job.name, STOPPED)
                else:
                    if job.state is not AttemptState.RUNNING:
                        self.run_job(job.name)
                    self.sleep(seconds)
                    self.finish(job.name)
            if not self.alive and decided is not None and decided.look_again is not None:
                self.now = max(self.now, decided.look_again)
        raise AssertionError(f"the run has not come to rest: {self.status.summary.reason}")

    def rests(self, decided: Plan) -> bool:
        """Whether nothing will happen by itself any more."""
        busy = decided.start or decided.stop or decided.prune or self.alive or decided.look_again
        return not busy and self.view == len(self.views) - 1

    def condition(self, kind: str) -> str:
        """The reason of a condition that is true; empty if it is not."""
        return next((c.reason for c in self.status.conditions if c.type == kind and c.status == "True"), "")


def check_transitions(before: RunStatus, after: RunStatus) -> None:
    """Every condition is there once, and its time changes exactly when its status does."""
    told = {condition.type: condition for condition in after.conditions}
    assert len(told) == len(after.conditions) == 6
    for old in before.conditions:
        new = told[old.type]
        assert (new.last_transition_time == old.last_transition_time) or new.status is not old.status


def names(planned: Iterable[PlannedStage]) -> list[str]:
    """Names of attempts."""
    return [start.name for start in planned]
