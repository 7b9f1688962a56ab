"""When a stage is started again, and what opens a run that has ended."""

from datetime import timedelta

import pytest

from builders import T0, a_run
from selftaught.api.reasons import RETRY_ANNOTATION, Reason
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
from selftaught.loop.observed import FailureKind
from selftaught.loop.retries import carried, condition_reason, restart_delay


@pytest.mark.parametrize(
    ("kind", "failures", "seconds"),
    [
        (FailureKind.PROGRAM, 1, 10),
        (FailureKind.PROGRAM, 2, 20),
        (FailureKind.DISRUPTION, 5, 160),
        (FailureKind.DISRUPTION, 6, 300),
        (FailureKind.DISRUPTION, 1000, 300),
        (FailureKind.INTERRUPTED, 3, 0),
    ],
)
def test_the_wait_doubles_up_to_five_minutes(kind: FailureKind, failures: int, seconds: int) -> None:
    assert restart_delay(kind, failures) == timedelta(seconds=seconds)


def ended(kind: ConditionType, reason: str, **fields: object) -> RunStatus:
    """The status of a run that ended in its second iteration after three counted restarts."""
    condition = Condition(type=kind, status=ConditionStatus.TRUE, last_transition_time=T0, reason=reason)
    stage = StageStatus(name=Stage.TRAIN, state=StageState.FAILED, attempts=4, ended=4, failures=4, retry_time=T0)
    iterations = (IterationStatus(index=0), IterationStatus(index=1), IterationStatus(index=2, stages=(stage,)))
    status = RunStatus(conditions=(condition,), iterations=iterations, restarts_counted=3, completion_time=T0)
    return status.model_copy(update=fields)


@pytest.mark.parametrize(
    ("status", "annotation", "iterations", "opens"),
    [
        pytest.param(ended(ConditionType.FAILED, "Data"), "", 2, False, id="failed, nobody asks"),
        pytest.param(ended(ConditionType.FAILED, "Data"), "now", 2, True, id="failed, asked"),
        pytest.param(ended(ConditionType.FAILED, "Data", observed_retry="now"), "now", 2, False, id="asked before"),
        pytest.param(ended(ConditionType.FAILED, "Data", observed_retry="once"), "now", 2, True, id="asked again"),
        pytest.param(ended(ConditionType.FAILED, "Data"), "", 5, False, id="failed, more iterations"),
        pytest.param(ended(ConditionType.COMPLETE, Reason.ITERATIONS_DONE), "", 3, True, id="done, more iterations"),
        pytest.param(ended(ConditionType.COMPLETE, Reason.ITERATIONS_DONE), "", 2, False, id="done"),
        pytest.param(ended(ConditionType.COMPLETE, Reason.ITERATIONS_DONE), "now", 2, False, id="done, retry asked"),
        pytest.param(ended(ConditionType.COMPLETE, Reason.TARGET_REACHED), "", 3, False, id="stopped early"),
        pytest.param(ended(ConditionType.COMPLETE, Reason.REJECTED), "", 3, False, id="rejected"),
    ],
)
def test_what_opens_a_run_that_has_ended(status: RunStatus, annotation: str, iterations: int, opens: bool) -> None:
    run = a_run(annotations={RETRY_ANNOTATION: annotation}, iterations=iterations)
    after = carried(run, status)
    assert (after != status) == opens
    if opens:
        assert not after.conditions
        assert after.completion_time is None


def test_a_retry_forgives_but_keeps_numbers_apart() -> None:
    after = carried(a_run(annotations={RETRY_ANNOTATION: "now"}), ended(ConditionType.FAILED, "Data"))
    stage = after.iterations[2].stages[0]
    assert (after.restarts_counted, stage.failures, stage.retry_time) == (0, 0, None)
    assert (stage.attempts, stage.ended) == (4, 4)


def test_more_iterations_forgive_nothing() -> None:
    after = carried(a_run(iterations=3), ended(ConditionType.COMPLETE, Reason.ITERATIONS_DONE))
    assert after.restarts_counted == 3


def test_a_condition_that_is_false_has_no_say() -> None:
    condition = Condition(
        type=ConditionType.FAILED, status=ConditionStatus.FALSE, last_transition_time=T0, reason="AsExpected"
    )
    assert condition_reason(RunStatus(conditions=(condition,)), ConditionType.FAILED) is None
