"""What is started, what is stopped, and when to look again."""

from dataclasses import replace
from typing import Any

import pytest

from builders import T0, a_failure, a_result, a_run, an_attempt, an_entry, at, observed, some_progress
from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.loop.course import course_of
from selftaught.loop.observed import Attempt, AttemptState, FailureKind, Observed
from selftaught.loop.outcome import Complete, Failed
from selftaught.loop.planner import Plan, plan

GPUS = {"all": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}


def finished(run: SelfTaughtRun, stages: int) -> Observed:
    """A ledger in which that many stages are done, in order; the last one ended at T0."""
    known = observed()
    for _ in range(stages):
        step = course_of(run, known, T0).next
        assert step is not None
        entry = an_entry(a_result(step.stage, step.iteration, step.key), at(-60))
        known = replace(known, ledger={**known.ledger, step.key: entry})
    return known


def at_work(run: SelfTaughtRun, stages: int = 1, **fields: Any) -> Observed:
    """An attempt at the stage after those that are done, running since T0 unless told otherwise."""
    known = finished(run, stages)
    step = course_of(run, known, T0).next
    assert step is not None
    attempt = an_attempt(step.stage, step.iteration, **{"key": step.key, **fields})
    return replace(known, attempts=(attempt,))


def planned(run: SelfTaughtRun, known: Observed, seconds: float = 30) -> Plan:
    return plan(run, known, at(seconds))


@pytest.mark.parametrize(
    ("stages", "name"),
    [
        (0, "demo-evaluate-a1"),
        (1, "demo-select-a1"),
        (2, "demo-generate-a1"),
        (3, "demo-i1-judge-a1"),
        (7, "demo-i2-judge-a1"),
    ],
)
def test_the_first_stage_that_is_not_done_is_started(stages: int, name: str) -> None:
    run = a_run()
    decided = planned(run, finished(run, stages))
    assert [start.name for start in decided.start] == [name]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({}, Reason.RUNNING, id="running"),
        pytest.param({"state": AttemptState.PENDING}, Reason.PENDING, id="pending"),
        pytest.param({"state": AttemptState.QUEUED, "message": "no quota"}, Reason.QUEUED, id="queued"),
        pytest.param({"stopping": True}, Reason.STOPPING, id="stopping"),
        pytest.param({"key": "f" * 64}, Reason.RUNNING, id="begun before the spec was edited"),
    ],
)
def test_nothing_is_started_beside_an_attempt(fields: dict[str, Any], reason: Reason) -> None:
    run = a_run()
    decided = planned(run, at_work(run, **fields))
    assert not decided.start
    assert not decided.stop
    assert decided.waiting is not None
    assert decided.waiting.reason is reason
    assert fields.get("message", "") in decided.waiting.message


def test_of_two_attempts_the_one_that_is_needed_and_runs_goes_on() -> None:
    run = a_run()
    known = at_work(run)
    (good,) = known.attempts
    pending = replace(good, number=2, name="demo-select-a2", state=AttemptState.PENDING)
    other = an_attempt(Stage.TRAIN, 1, key="f" * 64)
    for order in ((good, pending, other), (other, pending, good)):
        decided = planned(run, replace(known, attempts=order))
        assert {attempt.name for attempt in decided.stop} == {pending.name, other.name}


@pytest.mark.parametrize(("seconds", "stopped"), [(119, False), (120, True)])
def test_a_process_that_does_not_end_after_its_artifact_is_stopped(seconds: float, stopped: bool) -> None:
    run = a_run()
    known = finished(run, 2)
    key = next(key for key, entry in known.ledger.items() if entry.result.stage is Stage.SELECT)
    decided = planned(run, replace(known, attempts=(an_attempt(Stage.SELECT, key=key),)), seconds)
    assert bool(decided.stop) == stopped
    assert not decided.start
    assert decided.look_again == (None if stopped else at(120))


def test_the_last_process_may_end_before_the_run_does() -> None:
    run = a_run(iterations=1)
    known = finished(run, 7)
    key = list(known.ledger)[-1]
    decided = planned(run, replace(known, attempts=(an_attempt(Stage.EVALUATE, 1, key=key),)))
    assert decided.outcome is None
    assert not decided.stop
    assert isinstance(planned(run, known).outcome, Complete)


@pytest.mark.parametrize(("seconds", "starts"), [(69, False), (70, True)])
def test_backing_off(seconds: float, starts: bool) -> None:
    run = a_run()
    known = at_work(run, state=AttemptState.FAILED)
    decided = planned(run, known, seconds)
    assert bool(decided.start) == starts
    if starts:
        assert decided.start[0].name == "demo-select-a2"
    else:
        assert decided.look_again == at(70)
        assert decided.waiting is not None
        assert decided.waiting.reason is Reason.BACKING_OFF
        assert "it broke" in decided.waiting.message


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        pytest.param(a_failure(FailureKind.PERMANENT, "Model"), Failed, id="a permanent failure"),
        pytest.param(a_failure(FailureKind.PERMANENT, "Budget"), Failed, id="tokens used up, no iteration done"),
        pytest.param(a_failure(FailureKind.PROGRAM), None, id="a program error within the budget"),
    ],
)
def test_failures_that_end_the_run(failure: Any, outcome: type | None) -> None:
    run = a_run()
    decided = planned(run, at_work(run, state=AttemptState.FAILED, failure=failure))
    assert (type(decided.outcome) if decided.outcome is not None else None) is outcome


def test_fewer_restarts_than_were_made_do_not_end_a_run_that_works() -> None:
    run = a_run(failurePolicy={"maxRestarts": 0})
    known = at_work(run, number=3)
    known = replace(known, previous=known.previous.model_copy(update={"restarts_counted": 2}))
    assert planned(run, known).outcome is None


def test_tokens_used_up_by_a_stage_after_an_iteration_complete_the_run() -> None:
    run = a_run()
    failure = a_failure(FailureKind.PERMANENT, "Budget", "the allowance is used up")
    decided = planned(run, at_work(run, 7, state=AttemptState.FAILED, failure=failure))
    assert isinstance(decided.outcome, Complete)
    assert decided.outcome.reason == "BudgetSpent"


def test_a_permanent_failure_of_other_inputs_is_tried_anew() -> None:
    run = a_run()
    failure = a_failure(FailureKind.PERMANENT, "Data")
    decided = planned(run, at_work(run, state=AttemptState.FAILED, failure=failure, key="f" * 64), 1000)
    assert decided.outcome is None
    assert [start.attempt for start in decided.start] == [2]


@pytest.mark.parametrize("failure", [FailureKind.PERMANENT, FailureKind.PROGRAM])
def test_a_failure_counts_even_while_suspended(failure: FailureKind) -> None:
    run = a_run(suspend=True, failurePolicy={"maxRestarts": 0})
    decided = planned(run, at_work(run, state=AttemptState.FAILED, failure=a_failure(failure)))
    assert isinstance(decided.outcome, Failed)


@pytest.mark.parametrize(
    ("spec", "before", "after", "reason"),
    [
        pytest.param({"deadlines": {"activeSeconds": 160}}, 99, 100, "DeadlineExceeded", id="running time"),
        pytest.param(
            {"budget": {"gpuHours": "0.1"}, "stages": GPUS}, 29, 30, "BudgetSpent", id="GPU hours, adopted ones too"
        ),
    ],
)
def test_limits_stop_what_runs(spec: dict[str, Any], before: float, after: float, reason: str) -> None:
    run = a_run(**spec)
    known = at_work(run)
    ledger = {
        key: entry.model_copy(
            update={
                "result": entry.result.model_copy(
                    update={"usage": entry.result.usage.model_copy(update={"gpu_seconds": 240.0})}
                )
            }
        )
        for key, entry in known.ledger.items()
    }
    known = replace(known, ledger=ledger)
    still = planned(run, known, before)
    assert still.outcome is None
    assert still.look_again == at(after)
    ended = planned(run, known, after)
    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.reason == reason
    assert ended.stop == known.attempts


def test_tokens_do_not_stop_what_runs_but_nothing_more_starts() -> None:
    run = a_run(budget={"generatedTokens": 1500})
    known = at_work(run, progress=some_progress(output_tokens=5000))
    assert planned(run, known).outcome is None
    assert isinstance(planned(run, finished(run, 2)).outcome, Failed)


@pytest.mark.parametrize(("seconds", "fails"), [(499, False), (500, True)])
def test_the_queue_deadline(seconds: float, fails: bool) -> None:
    run = a_run(deadlines={"queueSeconds": 500})
    decided = planned(run, at_work(run, state=AttemptState.QUEUED), seconds)
    assert isinstance(decided.outcome, Failed) == fails
    assert decided.look_again == (None if fails else at(500))


def test_waiting_in_a_queue_uses_no_running_time() -> None:
    run = a_run(deadlines={"activeSeconds": 160})
    assert planned(run, at_work(run, state=AttemptState.QUEUED), 1e6).outcome is None


def test_it_looks_again_when_an_attempt_would_be_stalled() -> None:
    run = a_run(deadlines={"stalledAfterSeconds": 600})
    assert planned(run, at_work(run)).look_again == at(600)
    assert planned(run, at_work(run, progress=some_progress(seconds=20))).look_again == at(620)


def test_a_run_that_is_being_deleted_starts_nothing() -> None:
    run = a_run()
    metadata = run.metadata.model_copy(update={"deletion_timestamp": T0})
    run = run.model_copy(update={"metadata": metadata})
    assert planned(run, finished(run, 1)).start == ()
    known = at_work(run)
    assert planned(run, known).stop == known.attempts


def test_what_is_stopping_is_not_stopped_again() -> None:
    run = a_run(suspend=True)
    known = at_work(run, stopping=True)
    decided = planned(run, known)
    assert decided.stop == ()
    assert decided.waiting is not None
    assert decided.waiting.reason is Reason.SUSPENDING


def test_a_succeeded_attempt_counts_before_the_ledger_shows_it() -> None:
    run = a_run()
    known = at_work(run)
    (attempt,) = known.attempts
    result = a_result(attempt.stage, attempt.iteration, attempt.key)
    done: Attempt = replace(attempt, state=AttemptState.SUCCEEDED, end_time=at(60), result=result)
    assert [start.stage for start in planned(run, replace(known, attempts=(done,))).start] == [Stage.GENERATE]
