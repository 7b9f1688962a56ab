"""Attempts and failures are counted once, whatever is deleted and whoever is killed."""

from typing import Any

import pytest

from builders import T0, a_failure, a_result, an_attempt, an_entry, at, observed
from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    IterationStatus,
    RunStatus,
    StageState,
    StageStatus,
)
from selftaught.loop.history import History, history_of
from selftaught.loop.observed import Attempt, AttemptState, FailureKind, Observed

KEY = "0" * 64


def told(state: StageState = StageState.RUNNING, counted: int = 0, **fields: Any) -> RunStatus:
    """A status that knows of the judge stage of iteration 1."""
    stage = StageStatus(name=Stage.JUDGE, state=state, **fields)
    iterations = (IterationStatus(index=0), IterationStatus(index=1, stages=(stage,)))
    return RunStatus(iterations=iterations, restarts_counted=counted)


def merged(known: Observed, *, done: bool = False, now: float = 100) -> History:
    places = [(1, Stage.JUDGE)] if done else []
    return history_of(known, known.previous, places, {Stage.JUDGE: 8}, at(now))


def judge(number: int = 1, state: AttemptState = AttemptState.RUNNING, **fields: Any) -> Attempt:
    return an_attempt(Stage.JUDGE, 1, number, state, **fields)


def failed(number: int = 1, kind: FailureKind = FailureKind.PROGRAM, **fields: Any) -> Attempt:
    return judge(number, AttemptState.FAILED, failure=a_failure(kind), **fields)


DONE = {KEY: an_entry(a_result(Stage.JUDGE, 1, KEY))}


@pytest.mark.parametrize(
    ("known", "counted", "next_number"),
    [
        pytest.param(observed(), 0, 1, id="nothing yet"),
        pytest.param(observed(judge()), 0, 1, id="at work"),
        pytest.param(observed(failed()), 1, 2, id="failed"),
        pytest.param(observed(failed(), previous=told(attempts=1)), 1, 2, id="failed, and told of as running"),
        pytest.param(
            observed(failed(), previous=told(StageState.FAILED, 1, attempts=1, ended=1)), 1, 2, id="counted before"
        ),
        pytest.param(
            observed(previous=told(StageState.FAILED, 1, attempts=1, ended=1)), 1, 2, id="counted, then deleted"
        ),
        pytest.param(observed(failed(), judge(2)), 1, 2, id="started again, the status not yet written"),
        pytest.param(observed(failed(), failed(2)), 2, 3, id="two unknown failures"),
        pytest.param(observed(failed(kind=FailureKind.PERMANENT)), 0, 2, id="permanent"),
        pytest.param(observed(failed(kind=FailureKind.DISRUPTION)), 0, 2, id="disrupted"),
        pytest.param(observed(failed(kind=FailureKind.INTERRUPTED)), 0, 2, id="interrupted"),
        pytest.param(observed(judge(1, AttemptState.SUCCEEDED)), 1, 2, id="ended well without a result"),
        pytest.param(
            observed(judge(1, AttemptState.SUCCEEDED, result=a_result(Stage.JUDGE, 1, "f" * 64))),
            1,
            2,
            id="ended well with another's result",
        ),
        pytest.param(
            observed(judge(1, AttemptState.SUCCEEDED, result=a_result(Stage.JUDGE, 1, KEY))), 0, 2, id="ended well"
        ),
        pytest.param(observed(failed(), ledger=DONE), 0, 2, id="failed after its artifact was complete"),
        pytest.param(
            observed(failed(), judge(2, AttemptState.SUCCEEDED, result=DONE[KEY].result), ledger=DONE),
            1,
            3,
            id="failed, and the next one finished",
        ),
        pytest.param(observed(previous=told(StageState.RUNNING, attempts=1)), 0, 2, id="deleted while running"),
        pytest.param(observed(previous=told(StageState.QUEUED, attempts=1)), 0, 2, id="deleted while queued"),
        pytest.param(observed(previous=told(StageState.PENDING, attempts=1)), 0, 1, id="planned and not seen"),
        pytest.param(observed(judge(3)), 0, 3, id="the first ones are gone with the status"),
    ],
)
def test_every_failure_is_counted_once(known: Observed, counted: int, next_number: int) -> None:
    history = merged(known, done=bool(known.ledger))
    assert history.counted == counted
    past = history.at(1, Stage.JUDGE)
    assert (past.alive.number if past.alive is not None else past.next_number) == next_number


def test_a_second_look_after_the_status_was_written_counts_nothing() -> None:
    first = merged(observed(failed(), previous=told(attempts=1)))
    past = first.at(1, Stage.JUDGE)
    status = told(StageState.FAILED, first.counted, attempts=past.attempts, ended=past.ended, failures=past.failures)
    second = merged(observed(failed(), previous=status))
    assert (second.counted, second.new_errors) == (1, 0)
    assert second.at(1, Stage.JUDGE).failure is None


@pytest.mark.parametrize(
    ("known", "retry_time"),
    [
        pytest.param(observed(failed()), at(60 + 10), id="the first failure"),
        pytest.param(observed(failed(1), failed(2)), at(60 + 20), id="the second"),
        pytest.param(
            observed(failed(3), previous=told(attempts=3, ended=2, failures=2)),
            at(60 + 40),
            id="the third, two deleted",
        ),
        pytest.param(observed(failed(kind=FailureKind.INTERRUPTED)), at(60), id="interrupted: at once"),
        pytest.param(observed(previous=told(attempts=1)), at(100 + 10), id="vanished: from when it was missed"),
        pytest.param(
            observed(previous=told(StageState.FAILED, attempts=1, ended=1, retry_time=at(70))), at(70), id="as told"
        ),
    ],
)
def test_when_the_next_attempt_may_start(known: Observed, retry_time: object) -> None:
    assert merged(known).at(1, Stage.JUDGE).retry_time == retry_time


@pytest.mark.parametrize("reason", [Reason.SUSPENDED, Reason.SUSPENDING, Reason.STOPPING])
def test_what_was_stopped_and_is_gone_may_start_at_once(reason: Reason) -> None:
    condition = Condition(
        type=ConditionType.SUSPENDED, status=ConditionStatus.FALSE, last_transition_time=T0, reason=reason
    )
    previous = told(attempts=1).model_copy(update={"conditions": (condition,)})
    past = merged(observed(previous=previous)).at(1, Stage.JUDGE)
    assert (past.retry_time, past.failures) == (at(100), 0)


def test_running_time_is_kept_when_attempts_are_deleted() -> None:
    before = told(attempts=2, ended=1, active_seconds=60, gpu_seconds=480, running_seconds=120)
    past = merged(observed(previous=before)).at(1, Stage.JUDGE)
    assert (past.active_seconds, past.gpu_seconds) == (180, 480 + 120 * 8)


def test_waiting_is_not_running() -> None:
    past = merged(observed(judge(1, AttemptState.QUEUED))).at(1, Stage.JUDGE)
    assert past.running_seconds == 0


QUEUED = judge(1, AttemptState.QUEUED)


@pytest.mark.parametrize(
    ("known", "active", "running"),
    [
        pytest.param(
            observed(judge(), previous=told(attempts=1, running_seconds=60)), 0, 100, id="at work as it was told"
        ),
        pytest.param(
            observed(QUEUED, previous=told(attempts=1, running_seconds=120)),
            120,
            0,
            id="preempted: what it ran is kept",
        ),
        pytest.param(
            observed(QUEUED, previous=told(StageState.QUEUED, attempts=1, active_seconds=120, gpu_seconds=960)),
            120,
            0,
            id="only once",
        ),
        pytest.param(
            observed(
                judge(start_time=at(90)),
                previous=told(StageState.QUEUED, attempts=1, active_seconds=120, gpu_seconds=960),
            ),
            120,
            10,
            id="admitted again",
        ),
        pytest.param(
            observed(judge(1, AttemptState.PENDING), previous=told(attempts=1, running_seconds=60)),
            60,
            0,
            id="its pods are being replaced",
        ),
        pytest.param(
            observed(failed(start_time=None), previous=told(attempts=1, running_seconds=60)),
            60,
            0,
            id="its pods are gone",
        ),
        pytest.param(
            observed(
                judge(2, AttemptState.QUEUED), previous=told(attempts=2, ended=1, active_seconds=60, gpu_seconds=480)
            ),
            60,
            0,
            id="another attempt waits",
        ),
    ],
)
def test_running_time_before_a_preemption_is_kept(known: Observed, active: int, running: float) -> None:
    past = merged(known).at(1, Stage.JUDGE)
    assert (past.active_seconds, past.gpu_seconds, past.running_seconds) == (active, active * 8, running)


def test_several_vanished_attempts_share_the_running_time_told_once() -> None:
    past = merged(observed(previous=told(attempts=3, ended=1, running_seconds=60))).at(1, Stage.JUDGE)
    assert (past.ended, past.active_seconds) == (3, 60)


def test_restarts_are_the_attempts_beyond_the_first() -> None:
    history = merged(observed(failed(1), failed(2), an_attempt(Stage.SELECT), judge(3)))
    assert history.restarts == 2


def test_an_attempt_that_is_gone_after_it_finished_did_not_fail() -> None:
    past = merged(observed(previous=told(attempts=1), ledger=DONE), done=True).at(1, Stage.JUDGE)
    assert (past.ended, past.failures, past.message) == (1, 0, "")
