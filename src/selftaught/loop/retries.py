"""When a stage that failed is started again."""

from datetime import timedelta

from selftaught.api.reasons import RETRY_ANNOTATION, Reason
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import ConditionStatus, ConditionType, IterationStatus, RunStatus
from selftaught.loop.observed import FailureKind

FIRST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(minutes=5)


def restart_delay(kind: FailureKind, failures: int) -> timedelta:
    """How long to wait after the `failures`-th failure of a stage: 10 s, doubled each time, at most 5 minutes.

    What was stopped on purpose goes on at once.
    """
    if kind is FailureKind.INTERRUPTED:
        return timedelta(0)
    doublings = min(max(failures, 1) - 1, 16)
    return min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)


def condition_reason(status: RunStatus, condition: ConditionType) -> str | None:
    """The reason of a condition that is true; none if it is not."""
    for entry in status.conditions:
        if entry.type == condition and entry.status is ConditionStatus.TRUE:
            return entry.reason
    return None


def carried(run: SelfTaughtRun, previous: RunStatus) -> RunStatus:
    """What the last status hands on: as it is, or, if an ended run may go on, opened again.

    A failed run goes on when the annotation `selftaught.dev/retry` has a value that it did not have when the
    run failed; its restart budget is fresh then. A run that did all of its iterations goes on when there are
    to be more. Nothing else opens a run that has ended.
    """
    if condition_reason(previous, ConditionType.FAILED) is not None:
        wish = run.metadata.annotations.get(RETRY_ANNOTATION, "")
        if wish and wish != previous.observed_retry:
            return reopened(previous).model_copy(
                update={"restarts_counted": 0, "iterations": tuple(map(forgiven, previous.iterations))}
            )
    elif condition_reason(previous, ConditionType.COMPLETE) == Reason.ITERATIONS_DONE:
        done = max((iteration.index for iteration in previous.iterations), default=0)
        if run.spec.iterations > done:
            return reopened(previous)
    return previous


def reopened(status: RunStatus) -> RunStatus:
    """A status without its end."""
    ends = (ConditionType.COMPLETE, ConditionType.FAILED)
    conditions = tuple(condition for condition in status.conditions if condition.type not in ends)
    return status.model_copy(update={"conditions": conditions, "completion_time": None})


def forgiven(iteration: IterationStatus) -> IterationStatus:
    """An iteration whose stages may be started again at once."""
    stages = tuple(stage.model_copy(update={"failures": 0, "retry_time": None}) for stage in iteration.stages)
    return iteration.model_copy(update={"stages": stages})
