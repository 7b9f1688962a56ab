"""What is counted; series of runs that are gone vanish, and no label takes whatever somebody writes."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builders import a_run, at
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import IterationStatus, Phase, RunStatus, StageState, StageStatus
from selftaught_operator.metrics import Metrics
from selftaught_operator.passes import Body, Finished
from selftaught_operator.reconcile import Told

SCORE = {
    "benchmark": "choice",
    "accuracy": "0.853",
    "consistentAccuracy": "0.7",
    "confidenceInterval": ["0.8", "0.9"],
    "unparsable": "0.01",
    "pairs": 100,
}


def a_body(name: str = "demo", **status: Any) -> Body:
    return {"metadata": {"namespace": "lab", "name": name}, "status": status}


def series(metrics: Metrics, name: str) -> dict[str, float]:
    """Values of a metric by its labels, as they are scraped."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        ",".join(f"{key}={value}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def a_status(**stage: Any) -> RunStatus:
    given: dict[str, Any] = {"name": Stage.JUDGE, "state": StageState.PENDING, "job_name": "demo-i1-judge-a1"}
    iteration = IterationStatus(index=1, stages=(StageStatus(**(given | stage)),))
    return RunStatus(phase=Phase.RUNNING, iterations=(iteration,))


def told(before: RunStatus, after: RunStatus, seconds: float = 0, run: SelfTaughtRun | None = None) -> Told:
    return Told(run or a_run(), before, after, at(seconds))


def test_series_of_a_live_run() -> None:
    body = a_body(
        phase="Running",
        iteration=1,
        conditions=[
            {
                "type": kind,
                "status": status,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "AsExpected",
            }
            for kind, status in (("Complete", "False"), ("ProgressDeadlineExceeded", "True"))
        ],
        progress={"stage": "judge", "iteration": 1, "percentage": 43, "lastUpdatedTime": "2026-01-01T00:00:30Z"},
        baseline=[SCORE | {"accuracy": "0.6"}],
        iterations=[{"index": 0, "scores": [SCORE | {"accuracy": "0.6"}]}, {"index": 1, "scores": [SCORE]}],
        usage={"gpuSeconds": 7200, "inputTokens": 10, "outputTokens": 20},
    )
    metrics = Metrics()
    metrics.runs.see(body)
    where = "namespace=lab,run=demo"
    phases = series(metrics, "selftaught_run_phase")
    assert len(phases) == len(Phase)
    assert [labels for labels, value in phases.items() if value] == ["namespace=lab,phase=Running,run=demo"]
    assert series(metrics, "selftaught_run_condition") == {
        "condition=Complete,namespace=lab,run=demo": 0,
        "condition=ProgressDeadlineExceeded,namespace=lab,run=demo": 1,
    }
    assert series(metrics, "selftaught_run_iteration") == {where: 1}
    assert series(metrics, "selftaught_run_last_progress_timestamp_seconds") == {where: at(30).timestamp()}
    assert series(metrics, "selftaught_run_accuracy") == {
        "benchmark=choice,iteration=0,namespace=lab,run=demo": 0.6,
        "benchmark=choice,iteration=1,namespace=lab,run=demo": 0.853,
    }
    assert series(metrics, "selftaught_run_tokens") == {
        "kind=input,namespace=lab,run=demo": 10,
        "kind=output,namespace=lab,run=demo": 20,
    }
    assert series(metrics, "selftaught_run_gpu_seconds") == {where: 7200}


def test_series_of_runs_that_are_gone_vanish() -> None:
    metrics = Metrics()
    for name in ("demo", "other"):
        metrics.runs.see(a_body(name))
    assert 'run="demo"' in metrics.render().decode()
    metrics.runs.forget(a_body("demo"))
    text = metrics.render().decode()
    assert 'run="demo"' not in text
    assert 'run="other"' in text


def test_a_run_whose_status_cannot_be_read_does_not_spoil_the_others() -> None:
    metrics = Metrics()
    metrics.runs.see(a_body("odd", phase="Dancing"))
    metrics.runs.see(a_body("other"))
    assert set(series(metrics, "selftaught_run_iteration")) == {"namespace=lab,run=other"}


def test_passes_and_requests() -> None:
    metrics = Metrics()
    metrics.passed(Finished(0.2, ""))
    metrics.passed(Finished(0.3, "Timeout"))
    metrics.requested("PUT", "selftaughtruns/status", 200, 0.01)
    assert series(metrics, "selftaught_reconcile_duration_seconds_count") == {"": 2}
    assert series(metrics, "selftaught_reconcile_errors_total") == {"reason=Timeout": 1}
    assert series(metrics, "selftaught_api_requests_total") == {"resource=selftaughtruns/status,status=200,verb=PUT": 1}
    assert series(metrics, "selftaught_api_request_duration_seconds_count") == {"verb=PUT": 1}


def test_the_first_status_and_every_new_phase_are_transitions() -> None:
    metrics = Metrics()
    pending, running = RunStatus(), RunStatus(phase=Phase.RUNNING, conditions=())
    metrics.told(told(pending, pending))
    metrics.told(told(a_status(), running.model_copy(update={"phase": Phase.COMPLETE})))
    assert series(metrics, "selftaught_run_transitions_total") == {"phase=Pending": 1, "phase=Complete": 1}


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        pytest.param(StageState.SUCCEEDED, "succeeded", id="succeeded"),
        pytest.param(StageState.FAILED, "failed", id="failed"),
        pytest.param(StageState.PENDING, "failed", id="failed and planned again"),
    ],
)
def test_an_attempt_that_ends_is_timed_once(state: StageState, outcome: str) -> None:
    metrics = Metrics()
    before = a_status(state=StageState.RUNNING, attempts=1, active_seconds=40, start_time=at(0))
    after = a_status(state=state, attempts=1, ended=1, active_seconds=100, start_time=at(0))
    metrics.told(told(before, after))
    metrics.told(told(after, after))
    labels = f"outcome={outcome},stage=judge"
    assert series(metrics, "selftaught_stage_duration_seconds_count") == {labels: 1}
    assert series(metrics, "selftaught_stage_duration_seconds_sum") == {labels: 60}


def test_waiting_is_timed_from_the_plan_to_the_first_container() -> None:
    metrics = Metrics()
    planned = a_status(attempts=1)
    queued = a_status(attempts=1, state=StageState.QUEUED)
    running = a_status(attempts=1, state=StageState.RUNNING, start_time=at(90))
    for before, after, seconds in ((RunStatus(), planned, 10), (planned, queued, 20), (queued, running, 95)):
        metrics.told(told(before, after, seconds))
    metrics.told(told(queued, running, 100))
    assert series(metrics, "selftaught_stage_wait_seconds_sum") == {"stage=judge": 80}
    assert series(metrics, "selftaught_stage_wait_seconds_count") == {"stage=judge": 1}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param("OOMKilled: the pod needed more memory", "OOMKilled", id="the kubelet's"),
        pytest.param("Storage: the disk is full", "Storage", id="a stage's"),
        pytest.param("Vanished: it was deleted", "Vanished", id="the planner's"),
        pytest.param("Disrupted: the cluster ended the pod", "Disrupted", id="the cluster's"),
        pytest.param("a1b2c3: what a pod's own program wrote", "Other", id="a word that nobody knows"),
        pytest.param("two words: x", "Other", id="no word"),
        pytest.param("", "Unknown", id="nothing"),
    ],
)
def test_restarts_are_counted_by_reasons_that_are_known(message: str, reason: str) -> None:
    metrics = Metrics()
    before = a_status(state=StageState.FAILED, attempts=1, ended=1, message=message)
    metrics.told(told(RunStatus(), a_status(attempts=1)))
    assert series(metrics, "selftaught_stage_restarts_total") == {}
    metrics.told(told(before, a_status(attempts=2, ended=1, message=message)))
    assert series(metrics, "selftaught_stage_restarts_total") == {f"reason={reason},stage=judge": 1}


def test_a_restart_at_once_is_counted_by_the_failure_that_the_same_status_tells() -> None:
    metrics = Metrics()
    before = a_status(state=StageState.RUNNING, attempts=1)
    metrics.told(told(before, a_status(attempts=2, ended=1, message="Interrupted: the pod was asked to stop")))
    assert series(metrics, "selftaught_stage_restarts_total") == {"reason=Interrupted,stage=judge": 1}


def test_whatever_pods_write_the_number_of_series_is_bounded() -> None:
    metrics = Metrics()
    for number in range(100):
        message = f"Word{number}: x"
        before = a_status(state=StageState.FAILED, attempts=1, ended=1, message=message)
        metrics.told(told(before, a_status(attempts=2, ended=1, message=message)))
    assert series(metrics, "selftaught_stage_restarts_total") == {"reason=Other,stage=judge": 100}


def test_the_leader_is_told() -> None:
    metrics = Metrics()
    assert series(metrics, "selftaught_leader") == {"": 0}
    metrics.leading.set(1)
    assert series(metrics, "selftaught_leader") == {"": 1}
