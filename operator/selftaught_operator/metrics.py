"""Prometheus metrics. Series of single runs are made from what the watch shows, so they vanish with the run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError

from selftaught.api.status import ConditionStatus, Phase, RunStatus, StageState, StageStatus
from selftaught_operator.passes import Finished, key_of
from selftaught_operator.reconcile import Told

STAGE_BUCKETS = (10, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
RESTART_REASONS = frozenset(
    [
        *("Manifest", "Data", "Model", "Budget", "Storage", "Resource", "Interrupted"),  # of stages: selftaught.errors
        *("Error", "OOMKilled", "StartError", "ContainerCannotRun"),  # of the kubelet
        *("BackoffLimitExceeded", "FailedIndexes", "PodFailurePolicy"),  # of the Job controller
        *("Disrupted", "Rejected", "ResultLost", "NoResult", "Vanished", "StageFailed", "Unknown"),  # ours
    ]
)
"""Values of a label: whatever else a pod wrote as its reason is `Other`, so that series stay few."""


class Metrics:
    """What the operator counts."""

    def __init__(self) -> None:
        self.runs = Runs()
        self.registry = CollectorRegistry()
        self.leading = Gauge("selftaught_leader", "Whether this replica works", registry=self.registry)
        self._stages = Histogram(
            "selftaught_stage_duration_seconds",
            "Running time of ended attempts at a stage",
            ["stage", "outcome"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._waits = Histogram(
            "selftaught_stage_wait_seconds",
            "From the planning of a stage to the start of its first container, queues included",
            ["stage"],
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self._transitions = Counter(
            "selftaught_run_transitions_total", "Changes of the phase of runs", ["phase"], registry=self.registry
        )
        self._restarts = Counter(
            "selftaught_stage_restarts_total", "Attempts after the first", ["stage", "reason"], registry=self.registry
        )
        self._passes = Histogram(
            "selftaught_reconcile_duration_seconds", "Time of a pass", buckets=PASS_BUCKETS, registry=self.registry
        )
        self._errors = Counter(
            "selftaught_reconcile_errors_total", "Passes that failed", ["reason"], registry=self.registry
        )
        self._requests = Counter(
            "selftaught_api_requests_total",
            "Requests to the API server",
            ["verb", "resource", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "selftaught_api_request_duration_seconds",
            "Time of requests to the API server",
            ["verb"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        )
        self._planned: dict[tuple[str, str], datetime] = {}
        self.registry.register(self.runs)

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)

    def requested(self, verb: str, resource: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(verb, resource, str(status)).inc()
        self._latency.labels(verb).observe(seconds)

    def passed(self, finished: Finished) -> None:
        """A pass ended."""
        self._passes.observe(finished.seconds)
        if finished.error:
            self._errors.labels(finished.error).inc()

    def told(self, told: Told) -> None:
        """A status was written."""
        if told.before.phase is not told.after.phase or not told.before.conditions:
            self._transitions.labels(told.after.phase).inc()
        before = stages_of(told.before)
        for place, stage in stages_of(told.after).items():
            earlier = before.get(place)
            self._count_stage(earlier, stage)
            if stage.attempts > (earlier.attempts if earlier is not None else 0):
                self._planned[told.run.metadata.uid, stage.job_name] = told.time
            if stage.start_time is not None:
                planned = self._planned.pop((told.run.metadata.uid, stage.job_name), None)
                if planned is not None and stage.start_time >= planned:
                    self._waits.labels(stage.name).observe((stage.start_time - planned).total_seconds())

    def _count_stage(self, earlier: StageStatus | None, stage: StageStatus) -> None:
        ended_before = earlier.ended if earlier is not None else 0
        if stage.ended > ended_before:
            seconds = stage.active_seconds - (earlier.active_seconds if earlier is not None else 0)
            outcome = "succeeded" if stage.state is StageState.SUCCEEDED else "failed"
            self._stages.labels(stage.name, outcome).observe(max(0, seconds))
        attempts_before = earlier.attempts if earlier is not None else 0
        if attempts_before and stage.attempts > attempts_before:
            reason = stage.message.split(":", 1)[0] or "Unknown"
            self._restarts.labels(stage.name, reason if reason in RESTART_REASONS else "Other").inc()


def stages_of(status: RunStatus) -> dict[tuple[int, str], StageStatus]:
    """Stages by iteration and name."""
    return {(each.index, stage.name): stage for each in status.iterations for stage in each.stages}


@dataclass(frozen=True, slots=True)
class RunSeries:
    """What is kept of a run's status, as long as the run exists."""

    phase: str
    conditions: tuple[tuple[str, bool], ...]
    iteration: int
    progress_time: float | None
    accuracies: tuple[tuple[str, str, float], ...]
    """Benchmark, iteration (0: the seed), accuracy."""
    input_tokens: int
    output_tokens: int
    gpu_seconds: int


def series_of(status: RunStatus) -> RunSeries:
    """What is kept of a status."""
    told = status.progress
    return RunSeries(
        phase=status.phase,
        conditions=tuple((each.type, each.status is ConditionStatus.TRUE) for each in status.conditions),
        iteration=status.iteration,
        progress_time=told.last_updated_time.timestamp() if told is not None else None,
        accuracies=tuple(
            (score.benchmark, str(done.index), float(score.accuracy))
            for done in status.iterations
            for score in (status.baseline if done.index == 0 else done.scores)
        ),
        input_tokens=status.usage.input_tokens,
        output_tokens=status.usage.output_tokens,
        gpu_seconds=status.usage.gpu_seconds,
    )


class Runs(Collector):
    """Series of the runs that exist, those that have ended among them."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], RunSeries] = {}

    def see(self, body: Mapping[str, Any]) -> None:
        """A run was added or changed. A status that cannot be read is left out."""
        try:
            self._runs[key_of(body)] = series_of(RunStatus.model_validate(body.get("status", {})))
        except ValidationError:
            self.forget(body)

    def forget(self, body: Mapping[str, Any]) -> None:
        """A run was deleted."""
        self._runs.pop(key_of(body), None)

    def collect(self) -> Iterator[Metric]:
        """All series."""
        run = ["namespace", "run"]
        phase = GaugeMetricFamily("selftaught_run_phase", "1 for the phase that a run is in", labels=[*run, "phase"])
        condition = GaugeMetricFamily(
            "selftaught_run_condition", "1 for each condition of a run that is true", labels=[*run, "condition"]
        )
        iteration = GaugeMetricFamily("selftaught_run_iteration", "The iteration at work", labels=run)
        progress = GaugeMetricFamily(
            "selftaught_run_last_progress_timestamp_seconds", "When the running stage last told progress", labels=run
        )
        accuracy = GaugeMetricFamily(
            "selftaught_run_accuracy", "Accuracy of a judge", labels=[*run, "benchmark", "iteration"]
        )
        tokens = GaugeMetricFamily("selftaught_run_tokens", "Tokens used", labels=[*run, "kind"])
        gpu = GaugeMetricFamily("selftaught_run_gpu_seconds", "GPU seconds used", labels=run)
        for key, series in self._runs.items():
            labels = list(key)
            for each in Phase:
                phase.add_metric([*labels, each], float(series.phase == each))
            for kind, true in series.conditions:
                condition.add_metric([*labels, kind], float(true))
            iteration.add_metric(labels, series.iteration)
            if series.progress_time is not None:
                progress.add_metric(labels, series.progress_time)
            for benchmark, index, value in series.accuracies:
                accuracy.add_metric([*labels, benchmark, index], value)
            tokens.add_metric([*labels, "input"], series.input_tokens)
            tokens.add_metric([*labels, "output"], series.output_tokens)
            gpu.add_metric(labels, series.gpu_seconds)
        yield from (phase, condition, iteration, progress, accuracy, tokens, gpu)
