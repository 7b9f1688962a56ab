"""Whatever happens in whatever order, what must hold holds, and every run comes to its end."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from builders import a_failure, a_run, an_approval
from selftaught.api.reasons import RETRY_ANNOTATION, Reason
from selftaught.api.spec import Decision
from selftaught.api.status import ConditionType, RunStatus
from selftaught.loop.observed import AttemptState, FailureKind, Observed
from selftaught.loop.planner import Plan, PlannedStage, told_outcome
from simulated_cluster import STOPPED, PlannerKilled, SimulatedCluster

SPECS = st.fixed_dictionaries(
    {
        "iterations": st.integers(1, 3),
        "failurePolicy": st.fixed_dictionaries({"maxRestarts": st.integers(0, 2)}),
        "pairs": st.fixed_dictionaries({"refresh": st.sampled_from(["Once", "EachIteration"])}),
        "approval": st.fixed_dictionaries(
            {"required": st.sampled_from(["Never", "Never", "EveryIteration", "BeforePromotion"])},
            optional={
                "timeoutSeconds": st.just(300),
                "onTimeout": st.sampled_from(["Suspend", "Approve", "Reject"]),
            },
        ),
        "stopping": st.sampled_from([{}, {"patience": 1}, {"targetAccuracy": "0.7"}]),
        "budget": st.sampled_from([{}, {}, {"generatedTokens": 4000}]),
        "storage": st.just({"uri": "pvc://artifacts/runs", "checkpoints": {"last": 1}}),
    },
    optional={
        "evaluation": st.just({"benchmarks": []}),
        "deadlines": st.sampled_from([{"activeSeconds": 1000}, {"queueSeconds": 500}]),
    },
)


class CountingCluster(SimulatedCluster):
    """A cluster that keeps its own account of the failures that a planner has told of."""

    counted: set[str]
    forgiven: set[str]
    view_of_pass: Observed

    def observe(self, lag: int = 0) -> Observed:
        self.view_of_pass = super().observe(lag)
        return self.view_of_pass

    def _write(self, told: RunStatus) -> None:
        was_failed = told_outcome(self.status) is not None and told_outcome(told) is None
        super()._write(told)
        if was_failed and self.status.restarts_counted == 0:
            self.forgiven |= self.counted
            self.counted.clear()
        if told_outcome(told) is not None and told.completion_time != self.now:
            return  # it had ended before
        for job in self.view_of_pass.attempts:
            broke = job.state is AttemptState.FAILED and job.failure == a_failure(FailureKind.PROGRAM)
            empty = job.state is AttemptState.SUCCEEDED and job.result is None
            if (broke or empty) and not (job.key in self.ledger and self._is_last(job.name)):
                self.counted |= {job.name} - self.forgiven

    def _is_last(self, name: str) -> bool:
        stem, number = name.rsplit("-a", 1)
        told = max(stage.attempts for i in self.status.iterations for stage in i.stages if self._stem(stage) == stem)
        return told == int(number)

    @staticmethod
    def _stem(stage: Any) -> str:
        return str(stage.job_name).rsplit("-a", 1)[0]

    def start(self, planned: PlannedStage, seen: Observed) -> None:
        before = len(self.started)
        super().start(planned, seen)
        if len(self.started) > before:
            spec = self.run.spec
            tokens = sum(m.result.usage.output_tokens for m in self.ledger.values() if m.result.stage != "train")
            assert spec.budget.generated_tokens is None or tokens < spec.budget.generated_tokens
            assert told_outcome(self.status) is None or not self.write_ahead
            if self.write_ahead:
                assert len(self.counted) <= spec.failure_policy.max_restarts


class AnySequence(RuleBasedStateMachine):
    """Planners, Jobs, people and accidents, interleaved."""

    cluster: CountingCluster

    @initialize(spec=SPECS, kept=st.sampled_from([80, 80, 80, 0]), write_ahead=st.booleans())
    def begin(self, spec: dict[str, Any], kept: int, write_ahead: bool) -> None:
        self.cluster = CountingCluster(a_run(**spec), kept=kept, write_ahead=write_ahead)
        self.cluster.counted, self.cluster.forgiven = set(), set()

    # The planner.

    @rule(lag=st.integers(0, 3))
    def planner_passes(self, lag: int) -> None:
        self._pass(lag)

    @rule(lag=st.integers(0, 1), steps=st.integers(0, 3))
    def planner_is_killed_in_a_pass(self, lag: int, steps: int) -> None:
        self.cluster.kill_before = self.cluster.steps + steps
        self._pass(lag)
        self.cluster.kill_before = None

    def _pass(self, lag: int) -> Plan | None:
        cluster = self.cluster
        before, ended = cluster.status, told_outcome(cluster.status) is not None
        may_open = self._may_open()
        started = len(cluster.started)
        try:
            decided = cluster.reconcile(lag)
        except PlannerKilled:
            decided = None
            cluster.view = len(cluster.views) - 1
        if ended and not may_open:
            assert len(cluster.started) == started
            assert told_outcome(cluster.status) == told_outcome(before)
            assert cluster.status.completion_time == before.completion_time
            assert cluster.status.usage == before.usage
        if decided is not None and decided.outcome is None:
            self._check_counters()
        return decided

    def _may_open(self) -> bool:
        status, run = self.cluster.status, self.cluster.run
        wish = run.metadata.annotations.get(RETRY_ANNOTATION, "")
        if self.cluster.condition(ConditionType.FAILED):
            return bool(wish) and wish != status.observed_retry
        done = self.cluster.condition(ConditionType.COMPLETE) == Reason.ITERATIONS_DONE
        return done and run.spec.iterations > status.iteration

    def _check_counters(self) -> None:
        status = self.cluster.status
        assert status.restarts_counted == len(self.cluster.counted)
        assert status.restarts_counted <= self.cluster.run.spec.failure_policy.max_restarts
        attempts = [stage.attempts for iteration in status.iterations for stage in iteration.stages]
        assert status.restarts == sum(max(0, number - 1) for number in attempts)

    # Jobs.

    @precondition(lambda self: self.cluster.alive)
    @rule()
    def job_runs(self) -> None:
        for job in self.cluster.alive:
            if job.state is not AttemptState.RUNNING:
                self.cluster.run_job(job.name)

    @precondition(lambda self: self.cluster.alive)
    @rule()
    def job_is_queued(self) -> None:
        for job in self.cluster.alive:
            self.cluster.queue(job.name)

    @precondition(lambda self: self.cluster.alive)
    @rule(seconds=st.sampled_from([0, 60]))
    def job_finishes(self, seconds: int) -> None:
        for job in self.cluster.alive:
            self.cluster.sleep(seconds)
            self.cluster.finish(job.name)

    @precondition(lambda self: self.cluster.alive)
    @rule()
    def artifact_is_complete_before_its_job(self) -> None:
        for job in self.cluster.alive:
            self.cluster.complete_artifact(job.name)

    @precondition(lambda self: self.cluster.alive)
    @rule()
    def job_ends_well_without_a_result(self) -> None:
        for job in self.cluster.alive:
            self.cluster.end_without_result(job.name)

    @precondition(lambda self: self.cluster.alive)
    @rule(kind=st.sampled_from([*FailureKind, FailureKind.PROGRAM]))
    def job_fails(self, kind: FailureKind) -> None:
        for job in self.cluster.alive:
            self.cluster.fail(job.name, a_failure(kind))

    @precondition(lambda self: any(job.stopping for job in self.cluster.alive))
    @rule()
    def stopped_job_ends(self) -> None:
        for job in self.cluster.alive:
            if job.stopping:
                self.cluster.fail(job.name, STOPPED)

    @precondition(lambda self: self.cluster.jobs)
    @rule(data=st.data())
    def job_is_deleted(self, data: st.DataObject) -> None:
        self.cluster.delete(data.draw(st.sampled_from(sorted(self.cluster.jobs))))

    @rule()
    def all_jobs_are_deleted(self) -> None:
        self.cluster.delete_all()

    # Time and people.

    @rule(seconds=st.sampled_from([1, 15, 60, 400]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.sleep(seconds)

    @rule(suspend=st.booleans())
    def person_suspends_or_resumes(self, suspend: bool) -> None:
        self.cluster.edit(suspend=suspend)

    @rule(iteration=st.integers(1, 3), decision=st.sampled_from(Decision))
    def person_decides(self, iteration: int, decision: Decision) -> None:
        self.cluster.approvals.append(an_approval(iteration, decision))

    @rule(value=st.sampled_from(["a", "b", "c"]))
    def person_asks_for_a_retry(self, value: str) -> None:
        self.cluster.annotate(RETRY_ANNOTATION, value)

    @precondition(lambda self: self.cluster.run.spec.iterations < 3)
    @rule()
    def person_wants_more_iterations(self) -> None:
        self.cluster.edit(iterations=self.cluster.run.spec.iterations + 1)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.settle()
        if told_outcome(cluster.status) is None:  # then it says for whom it waits
            assert cluster.condition("Suspended") or cluster.condition("AwaitingApproval")
            cluster.edit(suspend=False)
            cluster.approvals += [an_approval(iteration) for iteration in (1, 2, 3)]
            cluster.settle()
        assert told_outcome(cluster.status) is not None
        assert len(cluster.done) == len(set(cluster.done))


AnySequence.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnySequence = AnySequence.TestCase
