"""Whole runs in a simulated cluster: where they end, and that neither kills nor deletions change it."""

from typing import Any

import pytest

from builders import T0, a_failure, a_run, an_approval
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.spec import Decision
from selftaught.api.status import RunStatus
from selftaught.loop.observed import FailureKind
from simulated_cluster import SimulatedCluster, names

TWO_ITERATIONS = [
    "demo-evaluate-a1",
    "demo-select-a1",
    "demo-generate-a1",
    "demo-i1-judge-a1",
    "demo-i1-curate-a1",
    "demo-i1-train-a1",
    "demo-i1-evaluate-a1",
    "demo-i2-judge-a1",
    "demo-i2-curate-a1",
    "demo-i2-train-a1",
    "demo-i2-evaluate-a1",
]


def a_cluster(**spec: Any) -> SimulatedCluster:
    return SimulatedCluster(a_run(**spec))


def settled(**spec: Any) -> SimulatedCluster:
    cluster = a_cluster(**spec)
    cluster.settle()
    return cluster


def test_the_seed_is_measured_before_anything_else_is_spent() -> None:
    assert names(settled().started) == TWO_ITERATIONS


def test_a_fixed_point_starts_and_tells_nothing_new() -> None:
    cluster = settled()
    before = cluster.status
    cluster.sleep(1e6)
    decided = cluster.reconcile()
    assert not decided.start
    assert not decided.stop
    assert cluster.status == before


@pytest.mark.parametrize("write_ahead", [True, False])
def test_killed_before_any_single_step_it_ends_the_same(write_ahead: bool) -> None:
    whole = SimulatedCluster(a_run(), write_ahead=write_ahead)
    whole.settle()
    for step in range(whole.steps):
        cluster = SimulatedCluster(a_run(), write_ahead=write_ahead, kill_before=step)
        cluster.settle()
        assert timeless(cluster.status) == timeless(whole.status), f"killed before step {step}"
        assert names(cluster.started) == TWO_ITERATIONS


def timeless(status: RunStatus) -> RunStatus:
    """A status without when its conditions changed: a killed planner may tell of it later."""
    conditions = tuple(condition.model_copy(update={"last_transition_time": T0}) for condition in status.conditions)
    return status.model_copy(update={"conditions": conditions, "completion_time": T0})


@pytest.mark.parametrize("state", ["pending", "running", "done"])
def test_all_children_deleted_at_any_stage_cost_at_most_that_attempt(state: str) -> None:
    for position in range(len(TWO_ITERATIONS)):
        cluster = a_cluster()
        for _ in range(position):
            one_stage(cluster)
        cluster.reconcile()
        (job,) = cluster.alive
        if state != "pending":
            cluster.run_job(job.name)
            cluster.reconcile()
        if state == "done":
            cluster.finish(job.name)
            cluster.reconcile()
        cluster.delete_all()
        cluster.settle()
        assert cluster.condition("Complete") == "IterationsDone"
        assert len(cluster.done) == len(TWO_ITERATIONS)
        # What was never seen running is created again by the same name; what ran has a successor.
        assert len(set(names(cluster.started)) - set(TWO_ITERATIONS)) == (state == "running")
        assert cluster.status.restarts == (state == "running")
        assert cluster.status.restarts_counted == 0
        failures = sum(stage.failures for iteration in cluster.status.iterations for stage in iteration.stages)
        assert failures == (state == "running")


def one_stage(cluster: SimulatedCluster) -> None:
    """Start a stage and let it end well."""
    while not cluster.alive:
        cluster.reconcile()
    for job in cluster.alive:
        cluster.run_job(job.name)
        cluster.sleep(60)
        cluster.finish(job.name)


def test_deleting_every_child_of_a_finished_run_starts_nothing() -> None:
    cluster = settled()
    before = cluster.status
    cluster.delete_all()
    assert not cluster.reconcile().start
    assert cluster.status == before


def test_a_finished_run_is_not_started_again_even_without_its_artifacts() -> None:
    cluster = settled()
    before = cluster.status
    cluster.delete_all()
    cluster.ledger.clear()
    assert not cluster.reconcile().start
    assert cluster.status == before


@pytest.mark.parametrize("finished", range(len(TWO_ITERATIONS) + 1))
def test_a_run_that_is_created_again_adopts_what_was_finished(finished: int) -> None:
    cluster = a_cluster()
    for _ in range(finished):
        one_stage(cluster)
    cluster.recreate()
    cluster.started.clear()
    cluster.settle()
    assert names(cluster.started) == TWO_ITERATIONS[finished:]
    assert cluster.condition("Complete") == "IterationsDone"
    whole = settled().status
    assert cluster.status.usage.output_tokens == whole.usage.output_tokens
    for adopted, made in zip(cluster.status.iterations, whole.iterations, strict=True):
        times = [(stage.start_time, stage.completion_time) for stage in adopted.stages]
        assert times == [(stage.start_time, stage.completion_time) for stage in made.stages]


def test_program_errors_use_up_the_restarts_and_then_fail_the_run() -> None:
    cluster = a_cluster(failurePolicy={"maxRestarts": 2})
    fail_until_rest(cluster, FailureKind.PROGRAM)
    assert names(cluster.started) == ["demo-evaluate-a1", "demo-evaluate-a2", "demo-evaluate-a3"]
    assert cluster.condition("Failed") == "RestartsExhausted"
    assert (cluster.status.restarts, cluster.status.restarts_counted) == (2, 2)


def fail_until_rest(cluster: SimulatedCluster, kind: FailureKind, rounds: int = 20) -> int:
    """Let every attempt fail; how many did before the run came to rest."""
    for failures in range(rounds):
        decided = cluster.reconcile()
        while decided.look_again is not None and not decided.start:
            cluster.now = decided.look_again
            decided = cluster.reconcile()
        if not cluster.alive:
            return failures
        for job in cluster.alive:
            cluster.run_job(job.name)
            cluster.fail(job.name, a_failure(kind))
    return rounds


@pytest.mark.parametrize("kind", [FailureKind.DISRUPTION, FailureKind.INTERRUPTED])
def test_disruptions_and_interruptions_are_free(kind: FailureKind) -> None:
    cluster = a_cluster(failurePolicy={"maxRestarts": 0})
    assert fail_until_rest(cluster, kind, rounds=20) == 20
    cluster.settle()
    assert cluster.condition("Complete") == "IterationsDone"
    assert (cluster.status.restarts, cluster.status.restarts_counted) == (20, 0)


def test_a_permanent_failure_ends_the_run_at_once_with_its_own_words() -> None:
    cluster = a_cluster()
    cluster.reconcile()
    cluster.fail("demo-evaluate-a1", a_failure(FailureKind.PERMANENT, "Data", "row 7 has no chosen"))
    cluster.reconcile()
    assert cluster.condition("Failed") == "Data"
    assert "row 7 has no chosen" in cluster.status.summary.reason
    assert not cluster.reconcile().start


def test_a_new_retry_annotation_opens_a_failed_run_with_fresh_restarts() -> None:
    cluster = a_cluster(failurePolicy={"maxRestarts": 1})
    fail_until_rest(cluster, FailureKind.PROGRAM)
    cluster.delete_all()
    cluster.annotate(RETRY_ANNOTATION, "2026-01-02T00:00:00Z")
    decided = cluster.reconcile()
    assert names(decided.start) == ["demo-evaluate-a3"]
    assert cluster.status.restarts_counted == 0
    assert fail_until_rest(cluster, FailureKind.PROGRAM) == 2
    assert cluster.condition("Failed") == "RestartsExhausted"
    assert not cluster.reconcile().start  # the same annotation opens it once only


def test_a_retry_annotation_from_before_the_failure_does_nothing() -> None:
    cluster = a_cluster(failurePolicy={"maxRestarts": 0})
    cluster.annotate(RETRY_ANNOTATION, "2026-01-01T00:00:00Z")
    fail_until_rest(cluster, FailureKind.PROGRAM)
    assert cluster.condition("Failed") == "RestartsExhausted"
    assert not cluster.reconcile().start


def test_more_iterations_open_a_run_that_did_all_of_them() -> None:
    cluster = settled()
    cluster.edit(iterations=3)
    cluster.settle()
    assert names(cluster.started)[len(TWO_ITERATIONS) :] == [
        "demo-i3-judge-a1",
        "demo-i3-curate-a1",
        "demo-i3-train-a1",
        "demo-i3-evaluate-a1",
    ]
    assert cluster.condition("Complete") == "IterationsDone"
    assert cluster.status.summary.iteration == "3/3"


def test_more_iterations_do_not_open_a_run_that_stopped_early() -> None:
    cluster = settled(stopping={"targetAccuracy": "0.65"})
    assert cluster.condition("Complete") == "TargetReached"
    cluster.edit(iterations=3)
    assert not cluster.reconcile().start


def test_suspending_stops_what_runs_and_resuming_goes_on_at_once() -> None:
    cluster = a_cluster()
    one_stage(cluster)
    cluster.reconcile()
    cluster.run_job("demo-select-a1")
    cluster.edit(suspend=True)
    assert [attempt.name for attempt in cluster.reconcile().stop] == ["demo-select-a1"]
    assert not cluster.condition("Suspended")
    cluster.reconcile()
    assert not cluster.condition("Suspended")  # its pods are not gone yet
    cluster.delete("demo-select-a1")
    cluster.reconcile()
    assert cluster.condition("Suspended") == "Suspended"
    assert cluster.status.phase == "Suspended"
    cluster.edit(suspend=False)
    assert names(cluster.reconcile().start) == ["demo-select-a2"]
    assert (cluster.status.restarts, cluster.status.restarts_counted) == (1, 0)


def test_resuming_while_an_attempt_still_stops_waits_for_it() -> None:
    cluster = a_cluster()
    cluster.reconcile()
    cluster.run_job("demo-evaluate-a1")
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.edit(suspend=False)
    decided = cluster.reconcile()
    assert not decided.start
    assert decided.waiting is not None
    assert decided.waiting.reason == "Stopping"
    cluster.delete("demo-evaluate-a1")
    assert names(cluster.reconcile().start) == ["demo-evaluate-a2"]  # stopped by us: no backing off


def test_no_example_kept_in_the_first_iteration_fails_with_advice() -> None:
    cluster = SimulatedCluster(a_run(), kept=0)
    cluster.settle()
    assert cluster.condition("Failed") == "NoExamples"
    assert "minAgreement" in cluster.status.summary.reason
    assert "demo-i1-train-a1" not in names(cluster.started)


def test_no_example_kept_later_completes_with_the_best_so_far() -> None:
    cluster = a_cluster()
    for _ in range(7):
        one_stage(cluster)
    cluster.kept = 0
    cluster.settle()
    assert cluster.condition("Complete") == "NoExamples"
    assert cluster.status.best is not None
    assert cluster.status.best.iteration == 1


def test_without_benchmarks_the_last_checkpoint_judges() -> None:
    cluster = settled(evaluation={"benchmarks": []})
    assert not [name for name in names(cluster.started) if "evaluate" in name]
    assert cluster.condition("Complete") == "IterationsDone"
    assert cluster.status.best is not None
    assert cluster.status.best.iteration == 2
    assert [stage.state for stage in cluster.status.iterations[0].stages] == ["Skipped", "Succeeded", "Succeeded"]


def test_pairs_made_in_each_iteration() -> None:
    cluster = settled(pairs={"refresh": "EachIteration"})
    generated = [name for name in names(cluster.started) if "generate" in name]
    assert generated == ["demo-i1-generate-a1", "demo-i2-generate-a1"]


def test_a_spent_token_budget_completes_with_what_there_is() -> None:
    cluster = settled(budget={"generatedTokens": 5000})
    assert cluster.condition("Complete") == "BudgetSpent"
    assert cluster.status.iteration == 2
    assert cluster.status.usage.output_tokens == 5000


def test_a_token_budget_spent_before_any_iteration_fails() -> None:
    assert settled(budget={"generatedTokens": 2500}).condition("Failed") == "BudgetSpent"


@pytest.mark.parametrize(
    ("decision", "reason", "best"),
    [
        pytest.param(Decision.APPROVED, "IterationsDone", 2, id="approved"),
        pytest.param(Decision.REJECTED, "Rejected", None, id="rejected"),
    ],
)
def test_every_iteration_waits_for_a_person(decision: Decision, reason: str, best: int | None) -> None:
    cluster = settled(approval={"required": "EveryIteration"})
    assert cluster.condition("AwaitingApproval") == "AwaitingApproval"
    assert cluster.status.phase == "AwaitingApproval"
    assert cluster.status.iterations[1].decision == "AwaitingApproval"
    cluster.approvals.append(an_approval(1, decision))
    cluster.settle()
    if decision is Decision.APPROVED:
        cluster.approvals.append(an_approval(2, decision))
        cluster.settle()
    assert cluster.condition("Complete") == reason
    assert cluster.status.iterations[1].approval == an_approval(1, decision)
    assert cluster.status.best is not None
    assert (cluster.status.best.iteration or None) == best


def test_a_rejection_before_promotion_goes_on_without_it() -> None:
    cluster = settled(approval={"required": "BeforePromotion"})
    cluster.approvals.append(an_approval(1, Decision.REJECTED))
    cluster.settle()
    cluster.approvals.append(an_approval(2))
    cluster.settle()
    assert [iteration.decision for iteration in cluster.status.iterations[1:]] == ["Rejected", "Promoted"]


def test_old_checkpoints_are_pruned_and_the_best_and_last_kept() -> None:
    cluster = settled(iterations=5, storage={"uri": "pvc://artifacts/runs", "checkpoints": {"last": 1}})
    assert sorted(cluster.pruned) == [f"pvc://artifacts/runs/lab/demo/i{i}-train/epoch-1" for i in (1, 2, 3, 4)]
    told = [iteration.checkpoint for iteration in cluster.status.iterations[1:]]
    assert [checkpoint.pruned for checkpoint in told if checkpoint is not None] == [True, True, True, True, False]


def test_scores_in_status_are_those_of_whole_benchmarks() -> None:
    cluster = settled()
    assert [score.benchmark for score in cluster.status.baseline] == ["choice", "guard"]
    assert cluster.status.summary.baseline == "0.600"
    assert cluster.status.summary.best == "0.700 (i2)"
