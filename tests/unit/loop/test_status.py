"""What people and programs are told."""

from dataclasses import replace
from typing import Any

import pytest

from builders import a_failure, a_result, a_run, an_attempt, an_entry, at, observed, some_progress
from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.status import ConditionType, RunStatus, StageState
from selftaught.loop.observed import AttemptState, FailureKind, Observed
from selftaught.loop.planner import Waiting, plan
from selftaught.loop.status import summarise
from simulated_cluster import SimulatedCluster


def told(known: Observed, seconds: float = 0, **spec: Any) -> RunStatus:
    run = a_run(**spec)
    return summarise(run, known, plan(run, known, at(seconds)), at(seconds))


def stage(status: RunStatus, iteration: int, name: Stage) -> Any:
    return next(s for s in status.iterations[iteration].stages if s.name is name)


def condition(status: RunStatus, kind: ConditionType) -> Any:
    return next(c for c in status.conditions if c.type == kind)


def evaluating(**fields: Any) -> Observed:
    """The seed's evaluation at work, as the planner would have started it."""
    run = a_run()
    key = plan(run, observed(), at(0)).start[0].key
    return observed(an_attempt(Stage.EVALUATE, **{"key": key, **fields}))


def test_the_first_status_has_every_condition_and_what_is_started() -> None:
    status = told(observed())
    assert [c.type for c in status.conditions] == list(ConditionType)
    assert {c.status for c in status.conditions} == {"False"}
    assert status.phase == "Pending"
    assert (status.observed_generation, status.summary.iteration, status.summary.stage) == (1, "0/2", "evaluate")
    assert [(s.name, s.state, s.attempts) for s in status.iterations[0].stages] == [
        ("evaluate", "Pending", 1),
        ("select", "Pending", 0),
        ("generate", "Pending", 0),
    ]
    assert stage(status, 0, Stage.EVALUATE).job_name == "demo-evaluate-a1"


@pytest.mark.parametrize(
    ("fields", "phase", "state"),
    [
        pytest.param({}, "Running", StageState.RUNNING, id="running"),
        pytest.param({"state": AttemptState.PENDING}, "Pending", StageState.PENDING, id="pending"),
        pytest.param({"state": AttemptState.QUEUED}, "Queued", StageState.QUEUED, id="queued"),
    ],
)
def test_phase_and_state_of_an_attempt(fields: dict[str, Any], phase: str, state: StageState) -> None:
    status = told(evaluating(**fields), 30)
    assert status.phase == phase
    assert stage(status, 0, Stage.EVALUATE).state is state


def test_what_was_waited_for_is_not_told_of_an_attempt_that_runs() -> None:
    waiting = told(evaluating(state=AttemptState.PENDING, message="ImagePullBackOff: no such image"))
    assert "ImagePullBackOff" in stage(waiting, 0, Stage.EVALUATE).message
    running = told(replace(evaluating(), previous=waiting))
    assert stage(running, 0, Stage.EVALUATE).message == ""


def test_what_another_configuration_left_in_the_store_is_not_counted() -> None:
    left = an_entry(a_result(Stage.JUDGE, 1, "f" * 64))
    assert left.result.usage.output_tokens
    status = told(observed(ledger={left.result.key: left}))
    assert (status.usage.output_tokens, status.usage.active_seconds) == (0, 0)


def test_why_it_is_pending_is_one_line() -> None:
    status = told(evaluating(state=AttemptState.QUEUED, message="quota exceeded: 8 GPUs"), 30)
    assert condition(status, ConditionType.QUEUED).message == "evaluate: quota exceeded: 8 GPUs"
    assert status.summary.reason == "Queued: evaluate: quota exceeded: 8 GPUs"
    assert stage(status, 0, Stage.EVALUATE).message == "quota exceeded: 8 GPUs"


def test_progress_is_told_as_it_came() -> None:
    progress = some_progress(0.437, 20, remaining_seconds=26.4, throughput="812 tokens/s")
    status = told(evaluating(progress=progress), 30)
    assert status.progress is not None
    assert status.progress.percentage == 43
    assert status.progress.estimated_remaining_seconds == 26
    assert status.progress.last_updated_time == at(20)
    assert (status.summary.progress, status.summary.stage) == ("43%", "evaluate")


@pytest.mark.parametrize(("seconds", "stalled"), [(1799, "False"), (1800, "True")])
def test_a_stall_is_told_and_does_not_fail_the_run(seconds: float, stalled: str) -> None:
    status = told(evaluating(), seconds)
    assert condition(status, ConditionType.PROGRESS_DEADLINE_EXCEEDED).status == stalled
    assert status.phase == "Running"


def test_a_failure_and_its_next_attempt_are_told() -> None:
    failed = evaluating(state=AttemptState.FAILED, failure=a_failure(message="no space left"))
    status = told(failed, 65)
    entry = stage(status, 0, Stage.EVALUATE)
    assert (entry.state, entry.attempts, entry.retry_time) == ("Failed", 1, at(70))
    assert entry.message == "Storage: no space left"
    assert (status.restarts, status.restarts_counted) == (0, 1)
    again = told(replace(failed, previous=status), 70)
    entry = stage(again, 0, Stage.EVALUATE)
    assert (entry.state, entry.attempts, entry.retry_time) == ("Pending", 2, None)
    assert (again.restarts, again.restarts_counted) == (1, 1)


def test_the_failure_that_ends_the_run_is_no_restart() -> None:
    failed = evaluating(state=AttemptState.FAILED)
    status = told(failed, 65, failurePolicy={"maxRestarts": 0})
    assert (status.phase, status.restarts_counted) == ("Failed", 0)
    assert status.completion_time == at(65)


@pytest.mark.parametrize("reason", ["disk full", "", "x" * 1025, "Data/Rows", "9lives"])
def test_a_reason_that_is_no_word_is_replaced(reason: str) -> None:
    failure = a_failure(FailureKind.PERMANENT, reason)
    status = told(evaluating(state=AttemptState.FAILED, failure=failure), 65)
    assert condition(status, ConditionType.FAILED).reason == "StageFailed"


def test_an_attempt_that_could_not_be_started_is_not_counted() -> None:
    run = a_run()
    decided = replace(plan(run, observed(), at(0)), start=(), waiting=Waiting(Reason.PENDING, "exceeded quota: jobs"))
    status = summarise(run, observed(), decided, at(0))
    assert stage(status, 0, Stage.EVALUATE).attempts == 0
    assert status.summary.reason == "Pending: exceeded quota: jobs"


def test_running_time_changes_the_status_once_a_minute() -> None:
    statuses = [told(evaluating(), seconds) for seconds in (60, 119, 120)]
    same = [status.model_copy(update={"conditions": ()}) for status in statuses]
    assert same[0] == same[1] != same[2]
    assert same[0].usage.active_seconds == 60


def test_transition_times_change_only_with_the_status() -> None:
    first = told(observed(), 0)
    queued = told(replace(evaluating(state=AttemptState.QUEUED), previous=first), 10)
    still = told(replace(evaluating(state=AttemptState.QUEUED), previous=queued), 20)
    running = told(replace(evaluating(), previous=still), 30)
    times = [condition(s, ConditionType.QUEUED).last_transition_time for s in (first, queued, still, running)]
    assert times == [at(0), at(10), at(10), at(30)]
    assert condition(running, ConditionType.COMPLETE).last_transition_time == at(0)


def test_a_finished_run_tells_its_whole_story() -> None:
    cluster = SimulatedCluster(a_run())
    cluster.settle()
    status = cluster.status
    assert status.phase == "Complete"
    assert status.summary.reason.startswith("IterationsDone: 2 iterations done; the best is iteration 2")
    assert [iteration.index for iteration in status.iterations] == [0, 1, 2]
    first = status.iterations[1]
    assert {s.state for s in first.stages} == {StageState.SUCCEEDED}
    assert first.curation is not None
    assert (first.curation.kept, first.curation.yield_, first.curation.label_balance) == (80, "0.5000", "0.5000")
    assert [(score.benchmark, score.accuracy) for score in first.scores] == [("choice", "0.6500"), ("guard", "0.6000")]
    assert first.scores[0].confidence_interval == ("0.6000", "0.7000")
    assert first.decision == "Promoted"
    assert first.checkpoint is not None
    assert first.usage.active_seconds == 4 * 60
    assert first.usage.output_tokens == 2000
    assert status.usage.active_seconds == 11 * 60
    assert status.best is not None
    assert (status.best.iteration, status.best.benchmark, status.best.accuracy) == (2, "choice", "0.7000")


def test_a_seed_that_is_never_beaten_stays_the_best() -> None:
    cluster = SimulatedCluster(a_run())
    cluster.reconcile()
    cluster.finish("demo-evaluate-a1")
    cluster.reconcile()
    assert cluster.status.best is not None
    assert (cluster.status.best.iteration, cluster.status.best.accuracy) == (0, "0.6000")
    assert cluster.status.best.checkpoint is None
    assert cluster.status.summary.best == ""


def test_the_stages_of_a_failed_run_that_never_began_are_skipped() -> None:
    cluster = SimulatedCluster(a_run(), kept=0)
    cluster.settle()
    states = [(s.name.value, s.state.value) for s in cluster.status.iterations[1].stages]
    assert states == [("judge", "Succeeded"), ("curate", "Succeeded"), ("train", "Skipped"), ("evaluate", "Skipped")]


def test_a_status_survives_json() -> None:
    cluster = SimulatedCluster(a_run())
    cluster.settle()
    assert RunStatus.model_validate_json(cluster.status.model_dump_json(exclude_defaults=True)) == cluster.status
