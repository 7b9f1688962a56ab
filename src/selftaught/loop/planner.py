"""One pure decision: what to start, what to stop, whether the run has ended, and when to look again.

What it says is safe to do twice: names of attempts are deterministic, finished work is known by its key, an
end is read from the last status and never from what is absent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import ConditionType, RunStatus
from selftaught.loop.budget import (
    end_of_budget,
    gpu_hours_spent,
    overdue,
    tokens_spent,
    total_usage,
    usage_by_iteration,
)
from selftaught.loop.course import Course, Step, counted, course_of
from selftaught.loop.history import History, history_of
from selftaught.loop.names import attempt_name
from selftaught.loop.observed import Attempt, AttemptState, FailureKind, Observed
from selftaught.loop.outcome import Complete, Failed, Outcome
from selftaught.loop.placement import gpus
from selftaught.loop.retention import prunable
from selftaught.loop.retries import carried, condition_reason

LINGER = timedelta(minutes=2)
"""How long a process may stay after its artifact is complete."""

BUDGET_FAILURE = "Budget"
"""Reason of a stage that stopped at its token allowance."""


@dataclass(frozen=True)
class PlannedStage:
    """An attempt to start."""

    name: str
    stage: Stage
    iteration: int
    attempt: int
    key: str


@dataclass(frozen=True)
class Waiting:
    """Why nothing is to be started now."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do."""

    start: tuple[PlannedStage, ...] = ()
    stop: tuple[Attempt, ...] = ()
    """Attempts to stop; their rows are kept."""
    prune: tuple[str, ...] = ()
    """Folders of checkpoints to delete."""
    outcome: Outcome | None = None
    """How the run has ended; none while it goes on."""
    waiting: Waiting | None = None
    look_again: datetime | None = None
    """When time alone changes the plan."""
    course: Course = field(default_factory=Course)
    history: History = field(default_factory=History)
    carried: RunStatus = field(default_factory=RunStatus)
    """The last status, opened again if the run goes on after an end."""


def plan(run: SelfTaughtRun, observed: Observed, now: datetime) -> Plan:
    """What to do for a run, given all that is known of it."""
    return Planner(run, observed, now).plan()


def told_outcome(status: RunStatus) -> Outcome | None:
    """The end that a status tells."""
    for condition in status.conditions:
        if condition_reason(status, ConditionType(condition.type)) is None:
            continue
        if condition.type == ConditionType.COMPLETE:
            return Complete(condition.reason, condition.message)
        if condition.type == ConditionType.FAILED:
            return Failed(condition.reason, condition.message)
    return None


class Planner:
    """Makes one plan."""

    def __init__(self, run: SelfTaughtRun, observed: Observed, now: datetime) -> None:
        self._run = run
        self._spec = run.spec
        self._observed = observed
        self._now = now
        self._carried = carried(run, observed.previous)
        self._course = course_of(run, observed, now)
        held = {stage: gpus(run.spec, stage) for stage in Stage}
        self._history = history_of(observed, self._carried, self._course.done, held, now)
        used = usage_by_iteration(run.spec, observed, self._history, self._course.done)
        self._usage = total_usage(used, self._carried.usage)

    def plan(self) -> Plan:
        """The plan."""
        if (told := told_outcome(self._carried)) is not None:
            return self._ended(told)
        if self._run.metadata.deletion_timestamp is not None:
            return self._plan(stop=self._observed.alive, waiting=Waiting(Reason.DELETING, "the run is being deleted"))
        if (failed := self._failure()) is not None:
            return self._ended(failed)
        if self._spec.suspend:
            return self._suspended()
        if self._observed.alive:
            return self._at_work()
        if self._course.end is not None:
            return self._ended(self._course.end)
        if self._course.awaiting is not None:
            return self._awaiting()
        if (limit := self._limit() or self._token_limit()) is not None:
            return self._ended(limit)
        return self._next()

    def _plan(
        self,
        *,
        start: tuple[PlannedStage, ...] = (),
        stop: Iterable[Attempt] = (),
        outcome: Outcome | None = None,
        waiting: Waiting | None = None,
        look_again: Iterable[datetime | None] = (),
    ) -> Plan:
        later = [moment for moment in look_again if moment is not None and moment > self._now]
        return Plan(
            start=start,
            stop=tuple(attempt for attempt in stop if not attempt.stopping),
            prune=prunable(self._spec, self._course, self._observed),
            outcome=outcome,
            waiting=waiting,
            look_again=min(later, default=None),
            course=self._course,
            history=self._history,
            carried=self._carried,
        )

    def _ended(self, outcome: Outcome) -> Plan:
        return self._plan(outcome=outcome, stop=self._observed.alive)

    def _failure(self) -> Outcome | None:
        """The end that a new failure brings, if it does."""
        step = self._course.next
        if step is not None:
            past = self._history.at(step.iteration, step.stage)
            failure = past.failure
            if failure is not None and failure.kind is FailureKind.PERMANENT and past.failed_key == step.key:
                if failure.reason == BUDGET_FAILURE:
                    return self._out_of_budget(failure.message)
                return Failed(failure.reason, f"{place(step)} cannot work: {failure.message}")
        allowed = self._spec.failure_policy.max_restarts
        if self._history.new_errors and self._history.counted > allowed:
            failed = [past for past in self._history.stages.values() if past.failure is not None]
            last = failed[-1].message if failed else ""
            return Failed(
                Reason.RESTARTS_EXHAUSTED,
                f"a stage failed again after {allowed} counted restarts (failurePolicy.maxRestarts); last: {last}",
            )
        return None

    def _suspended(self) -> Plan:
        if self._observed.alive:
            waiting = Waiting(Reason.SUSPENDING, "spec.suspend is set; what runs is being stopped")
        else:
            waiting = Waiting(Reason.SUSPENDED, "spec.suspend is set; finished work is kept")
        return self._plan(stop=self._observed.alive, waiting=waiting)

    def _at_work(self) -> Plan:
        kept, *others = sorted(self._observed.alive, key=self._precedence)
        lingers = self._observed.entry(kept.key)
        if lingers is not None:
            patience = lingers.completion_time + LINGER
            return self._plan(
                stop=self._observed.alive if self._now >= patience else others,
                waiting=Waiting(Reason.RUNNING, f"{place(kept)} is done and about to end"),
                look_again=[patience],
            )
        if (limit := self._limit()) is not None:
            return self._ended(limit)
        queue_end = self._queue_end(kept)
        if queue_end is not None and self._now >= queue_end:
            message = f"{place(kept)} waited longer than deadlines.queueSeconds: {kept.message}"
            return self._ended(Failed(Reason.QUEUE_DEADLINE_EXCEEDED, message))
        running = kept.state is AttemptState.RUNNING
        budget_end = end_of_budget(self._spec, self._usage, gpus(self._spec, kept.stage), self._now)
        return self._plan(
            stop=others,
            waiting=Waiting(reason_of(kept), f"{place(kept)}{': ' if kept.message else ''}{kept.message}"),
            look_again=[queue_end, budget_end if running else None, stall_time(self._run, kept)],
        )

    def _precedence(self, attempt: Attempt) -> tuple[bool, bool, bool, int]:
        """Which attempt goes on if there are several by mistake: the one that is needed and furthest on."""
        step = self._course.next
        needed = step is not None and attempt.key == step.key
        return attempt.stopping, not needed, attempt.state is not AttemptState.RUNNING, attempt.number

    def _queue_end(self, attempt: Attempt) -> datetime | None:
        limit = self._spec.deadlines.queue_seconds
        if limit is None or attempt.queued_since is None or attempt.state is not AttemptState.QUEUED:
            return None
        return attempt.queued_since + timedelta(seconds=limit)

    def _awaiting(self) -> Plan:
        ruling = self._course.awaiting
        assert ruling is not None
        reason = Reason.APPROVAL_OVERDUE if ruling.overdue else Reason.AWAITING_APPROVAL
        waiting = Waiting(reason, f"iteration {ruling.iteration}: {ruling.message}")
        return self._plan(waiting=waiting, look_again=[ruling.deadline])

    def _limit(self) -> Outcome | None:
        """The end that running time or GPU hours bring, whether something is at work or not."""
        if overdue(self._spec, self._usage):
            limit = self._spec.deadlines.active_seconds
            return Failed(Reason.DEADLINE_EXCEEDED, f"the run has run longer than {limit} s (deadlines.activeSeconds)")
        words = gpu_hours_spent(self._spec, self._usage)
        return self._out_of_budget(words) if words is not None else None

    def _token_limit(self) -> Outcome | None:
        words = tokens_spent(self._spec, self._usage)
        return self._out_of_budget(words) if words is not None else None

    def _out_of_budget(self, words: str) -> Outcome:
        if self._course.rulings:
            return Complete(Reason.BUDGET_SPENT, f"{words}; {counted(len(self._course.rulings), 'iteration')} done")
        return Failed(Reason.BUDGET_SPENT, f"{words}, and no iteration is done; raise spec.budget")

    def _next(self) -> Plan:
        step = self._course.next
        assert step is not None
        past = self._history.at(step.iteration, step.stage)
        if past.retry_time is not None and self._now < past.retry_time:
            waiting = Waiting(Reason.BACKING_OFF, f"{place(step)} is started again soon; {past.message}")
            return self._plan(waiting=waiting, look_again=[past.retry_time])
        number = past.next_number
        name = attempt_name(self._run.metadata.name, step.stage, step.iteration, number)
        return self._plan(start=(PlannedStage(name, step.stage, step.iteration, number, step.key),))


def reason_of(attempt: Attempt) -> Reason:
    """What an attempt that is alive is doing."""
    if attempt.stopping:
        return Reason.STOPPING
    return {
        AttemptState.PENDING: Reason.PENDING,
        AttemptState.QUEUED: Reason.QUEUED,
        AttemptState.RUNNING: Reason.RUNNING,
    }[attempt.state]


def stall_time(run: SelfTaughtRun, attempt: Attempt) -> datetime | None:
    """When an attempt counts as stalled unless it tells progress; none if it is not running."""
    if attempt.state is not AttemptState.RUNNING or attempt.start_time is None:
        return None
    last = attempt.progress.time if attempt.progress is not None else attempt.start_time
    return max(last, attempt.start_time) + timedelta(seconds=run.spec.deadlines.stalled_after_seconds)


def place(where: Step | Attempt) -> str:
    """`judge of iteration 2`."""
    return f"{where.stage} of iteration {where.iteration}" if where.iteration else str(where.stage)
