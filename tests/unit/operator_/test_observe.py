"""Jobs and pods in many states → the attempts that they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import a_result, at, some_progress
from kube_objects import (
    JOB,
    KEY,
    RUN_UID,
    a_condition,
    a_job,
    a_pod,
    ended,
    failure_message,
    labels,
    result_message,
    running,
    waiting,
)
from selftaught.api.labels import ATTEMPT_LABEL, ITERATION_LABEL, RUN_UID_LABEL, STAGE_LABEL
from selftaught.api.results import Stage
from selftaught.loop.observed import Attempt, AttemptProgress, AttemptState, FailureKind
from selftaught_operator.facts import JobFacts, PodFacts
from selftaught_operator.observe import Children, attempts_of
from simulated_api_server import stamp

COMPLETE = a_condition("Complete", 80, "CompletionsReached")
FAILED = a_condition("Failed", 80, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: not helpful."


def attempts(jobs: tuple[JobFacts, ...], pods: tuple[PodFacts, ...] = (), words: str = "") -> tuple[Attempt, ...]:
    return attempts_of(Children(jobs, pods), lambda *_: None, {JOB: words} if words else {})


def only(job: JobFacts, *pods: PodFacts, words: str = "") -> Attempt:
    (attempt,) = attempts((job,), pods, words)
    return attempt


@pytest.mark.parametrize(
    ("job", "pods", "state", "message"),
    [
        pytest.param(a_job(), (), AttemptState.PENDING, "", id="just made"),
        pytest.param(
            a_job(suspend=True), (), AttemptState.QUEUED, "", id="made suspended for Kueue, not looked at yet"
        ),
        pytest.param(
            a_job(a_condition("Suspended", 20, "JobSuspended"), suspend=True),
            (a_pod(ended(143), phase="Failed"),),
            AttemptState.QUEUED,
            "",
            id="preempted by Kueue",
        ),
        pytest.param(
            a_job(a_condition("Suspended", 20, "JobSuspended"), suspend=True),
            (a_pod(running(), deleting=True),),
            AttemptState.RUNNING,
            "",
            id="being suspended: a pod still saves its work",
        ),
        pytest.param(
            a_job(active=1),
            (a_pod(None, a_condition("PodScheduled", 1, "Unschedulable", UNSCHEDULABLE, "False"), phase="Pending"),),
            AttemptState.PENDING,
            f"Unschedulable: {UNSCHEDULABLE}",
            id="unschedulable",
        ),
        pytest.param(
            a_job(active=1),
            (a_pod(waiting("ImagePullBackOff", 'Back-off pulling image "x:1"'), phase="Pending"),),
            AttemptState.PENDING,
            'ImagePullBackOff: Back-off pulling image "x:1"; correct the image in spec.stages, or make it available',
            id="image",
        ),
        pytest.param(
            a_job(active=1),
            (a_pod(waiting("CreateContainerConfigError", 'secret "hub" not found'), phase="Pending"),),
            AttemptState.PENDING,
            'CreateContainerConfigError: secret "hub" not found',
            id="secret",
        ),
        pytest.param(
            a_job(active=1),
            (a_pod(waiting("ContainerCreating"), phase="Pending"),),
            AttemptState.PENDING,
            "",
            id="a container that is being created is no trouble",
        ),
        pytest.param(a_job(active=1, ready=1), (a_pod(running()),), AttemptState.RUNNING, "", id="running"),
        pytest.param(
            a_job(a_condition("Suspended", 5, "JobResumed", status="False"), active=1),
            (a_pod(running()),),
            AttemptState.RUNNING,
            "",
            id="admitted by Kueue",
        ),
        pytest.param(
            a_job(parallelism=2, active=2),
            (
                a_pod(ended(75, "x"), phase="Failed"),
                a_pod(waiting("ContainerCreating"), phase="Pending", name="again"),
                a_pod(running(), index=1),
            ),
            AttemptState.RUNNING,
            "",
            id="one shard of two is retried",
        ),
        pytest.param(
            a_job(a_condition("FailureTarget", 75), active=0, terminating=1),
            (a_pod(ended(64), phase="Failed"), a_pod(running(), index=1, deleting=True)),
            AttemptState.RUNNING,
            "",
            id="failing: other pods are still ending",
        ),
    ],
)
def test_an_attempt_that_is_alive(job: JobFacts, pods: tuple[PodFacts, ...], state: AttemptState, message: str) -> None:
    attempt = only(job, *pods)
    assert (attempt.state, attempt.message) == (state, message)
    assert attempt.alive
    assert attempt.failure is None
    assert attempt.end_time is None
    assert (attempt.start_time is not None) is (state is AttemptState.RUNNING)


def test_an_attempt_is_where_its_labels_say() -> None:
    attempt = only(a_job(), a_pod(running()))
    assert (attempt.name, attempt.stage, attempt.iteration, attempt.number) == (JOB, Stage.JUDGE, 1, 1)
    assert attempt.key == KEY


def test_waiting_for_admission_counts_from_the_suspension() -> None:
    made = only(a_job(suspend=True))
    preempted = only(a_job(a_condition("Suspended", 20), suspend=True))
    assert (made.queued_since, preempted.queued_since) == (at(0), at(20))


@pytest.mark.parametrize(
    ("job", "pods", "start"),
    [
        pytest.param(a_job(startTime=stamp(at(5))), (a_pod(running(10)),), 10, id="never queued"),
        pytest.param(
            a_job(startTime=stamp(at(200)), parallelism=2),
            (a_pod(ended(0), phase="Succeeded"), a_pod(running(205), index=1)),
            200,
            id="admitted again, a shard was done before",
        ),
        pytest.param(
            a_job(suspend=True, parallelism=2),
            (a_pod(ended(0), phase="Succeeded"), a_pod(running(205), index=1, deleting=True)),
            205,
            id="being preempted for the second time",
        ),
        pytest.param(
            a_job(a_condition("Suspended", 90), suspend=True, parallelism=2),
            (a_pod(ended(0), phase="Succeeded"),),
            None,
            id="in the queue again, a shard was done before",
        ),
    ],
)
def test_an_attempt_runs_since_it_was_last_admitted(
    job: JobFacts, pods: tuple[PodFacts, ...], start: float | None
) -> None:
    assert only(job, *pods).start_time == (None if start is None else at(start))


def test_what_others_say_is_told_when_the_pods_say_nothing() -> None:
    quota = "FailedCreate: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0"
    assert only(a_job(), words=quota).message == quota
    pod = a_pod(waiting("ErrImagePull", "not found"), phase="Pending")
    assert only(a_job(), pod, words=quota).message.startswith("ErrImagePull: not found; correct")


def test_a_job_that_is_deleted_while_it_runs_is_stopping() -> None:
    attempt = only(a_job(deleting=True, active=1), a_pod(running(), deleting=True))
    assert attempt.stopping
    assert attempt.alive
    assert not only(a_job(COMPLETE, deleting=True), a_pod(ended(0), phase="Succeeded")).stopping


def whole(rows: int = 100) -> str:
    return result_message(a_result(Stage.JUDGE, 1, KEY, rows=rows))


def part() -> str:
    return result_message(a_result(Stage.JUDGE, 1, KEY, rows=50, complete=False))


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param((a_pod(ended(0, whole()), phase="Succeeded"),), id="one pod"),
        pytest.param(
            (a_pod(ended(0, part()), phase="Succeeded"), a_pod(ended(0, whole()), index=1, phase="Succeeded")),
            id="the shard that ended last speaks for all",
        ),
        pytest.param(
            (
                a_pod(ended(75, failure_message("Storage", "full", 75)), phase="Failed"),
                a_pod(ended(0, whole()), name="again", phase="Succeeded"),
                a_pod(ended(0, part()), index=1, phase="Succeeded"),
            ),
            id="a shard failed and was retried",
        ),
        pytest.param(
            (a_pod(ended(0, whole(30)), phase="Succeeded"), a_pod(ended(0, whole()), index=1, phase="Succeeded")),
            id="two ended at once: the one that saw more",
        ),
    ],
)
def test_a_job_that_is_complete_has_a_result(pods: tuple[PodFacts, ...]) -> None:
    attempt = only(a_job(COMPLETE, succeeded=len(pods), completionTime="2026-01-01T00:01:15Z"), *pods)
    assert attempt.state is AttemptState.SUCCEEDED
    assert attempt.result is not None
    assert attempt.result.rows == 100
    assert (attempt.start_time, attempt.end_time) == (at(10), at(75))


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param((), id="all pods are gone"),
        pytest.param((a_pod(ended(0, "not json"), phase="Succeeded"),), id="no JSON"),
        pytest.param((a_pod(ended(0), phase="Succeeded"),), id="no message"),
        pytest.param((a_pod(ended(0, '{"type": "result"}'), phase="Succeeded"),), id="JSON of another kind"),
        pytest.param((a_pod(ended(0, part()), phase="Succeeded"),), id="only the first of two shards is left"),
    ],
)
def test_a_job_that_is_complete_without_a_word_is_asked_again_for_free(pods: tuple[PodFacts, ...]) -> None:
    attempt = only(a_job(COMPLETE), *pods)
    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is not None
    assert (attempt.failure.reason, attempt.failure.kind) == ("ResultLost", FailureKind.INTERRUPTED)


DISRUPTED = a_condition("DisruptionTarget", 60, "PreemptionByScheduler", "preempting to accommodate a higher priority")


@pytest.mark.parametrize(
    ("pods", "reason", "kind", "words"),
    [
        pytest.param(
            (a_pod(ended(64, failure_message("Model", "no chat template", 64)), phase="Failed"),),
            "Model",
            FailureKind.PERMANENT,
            "no chat template",
            id="64: can never work",
        ),
        pytest.param(
            (a_pod(ended(75, failure_message("Storage", "the disk is full", 75)), phase="Failed"),),
            "Storage",
            FailureKind.PROGRAM,
            "disk is full",
            id="75: may work next time",
        ),
        pytest.param(
            (a_pod(ended(143, failure_message("Interrupted", "asked to stop", 143)), phase="Failed"),),
            "Interrupted",
            FailureKind.INTERRUPTED,
            "asked to stop",
            id="143: interrupted",
        ),
        pytest.param(
            (a_pod(ended(143, "some log line"), phase="Failed"),),
            "Interrupted",
            FailureKind.INTERRUPTED,
            "asked to stop",
            id="143 without a record",
        ),
        pytest.param(
            (a_pod(ended(137, "", "OOMKilled"), phase="Failed"),),
            "OOMKilled",
            FailureKind.PROGRAM,
            "resources.limits.memory",
            id="out of memory",
        ),
        pytest.param(
            (a_pod(ended(137), phase="Failed"),),
            "Error",
            FailureKind.PROGRAM,
            "exit code 137 (killed; out of memory on the node",
            id="killed from outside",
        ),
        pytest.param(
            (a_pod(ended(1, "Traceback …\nValueError: broken  row"), phase="Failed"),),
            "Error",
            FailureKind.PROGRAM,
            "exit code 1: Traceback … ValueError: broken row",
            id="a termination message that is no JSON",
        ),
        pytest.param(
            (a_pod(ended(128, 'exec: "selftaught": executable file not found', "StartError"), phase="Failed"),),
            "StartError",
            FailureKind.PROGRAM,
            "executable file not found",
            id="an image without the program",
        ),
        pytest.param(
            (a_pod(ended(143, failure_message("Interrupted", "stop", 143)), DISRUPTED, phase="Failed"),),
            "Disrupted",
            FailureKind.DISRUPTION,
            "PreemptionByScheduler: preempting",
            id="preempted: DisruptionTarget",
        ),
        pytest.param(
            (a_pod(running(), DISRUPTED, phase="Failed", deleting=True),),
            "Disrupted",
            FailureKind.DISRUPTION,
            "PreemptionByScheduler",
            id="its node is lost: nobody tells how the container ended",
        ),
        pytest.param(
            (
                a_pod(
                    phase="Failed",
                    reason="UnexpectedAdmissionError",
                    message="Pod was rejected: Allocate failed due to no healthy devices present",
                ),
            ),
            "Rejected",
            FailureKind.DISRUPTION,
            "UnexpectedAdmissionError: Pod was rejected: Allocate failed",
            id="its node did not take it",
        ),
        pytest.param(
            (
                a_pod(ended(1), phase="Failed"),
                a_pod(ended(137, "", "OOMKilled"), index=1, phase="Failed"),
                a_pod(ended(0, part()), index=2, phase="Succeeded"),
            ),
            "OOMKilled",
            FailureKind.PROGRAM,
            "memory",
            id="of several shards the one that says most",
        ),
        pytest.param(
            (
                a_pod(ended(143, failure_message("Interrupted", "stop", 143)), phase="Failed"),
                a_pod(ended(64, failure_message("Data", "no rows", 64)), index=1, phase="Failed"),
            ),
            "Data",
            FailureKind.PERMANENT,
            "no rows",
            id="what can never work before what was stopped for it",
        ),
        pytest.param(
            (),
            "BackoffLimitExceeded",
            FailureKind.PROGRAM,
            "BackoffLimitExceeded: Job has reached the specified backoff limit",
            id="pods are gone: the Job's own words",
        ),
    ],
)
def test_a_job_that_failed_tells_why(pods: tuple[PodFacts, ...], reason: str, kind: FailureKind, words: str) -> None:
    attempt = only(a_job(FAILED, failed=len(pods)), *pods)
    assert attempt.state is AttemptState.FAILED
    assert attempt.end_time == at(80)
    assert attempt.failure is not None
    assert (attempt.failure.reason, attempt.failure.kind) == (reason, kind)
    assert words in attempt.failure.message
    assert "\n" not in attempt.failure.message


@pytest.mark.parametrize(
    ("words", "reason", "kind"),
    [
        pytest.param(
            "Container stage for pod lab/x failed with exit code 64 matching FailJob rule at index 0",
            "StageFailed",
            FailureKind.PERMANENT,
            id="it can never work",
        ),
        pytest.param(
            "Pod lab/x has condition DisruptionTarget matching FailJob rule at index 1",
            "Disrupted",
            FailureKind.DISRUPTION,
            id="its node was drained",
        ),
        pytest.param(
            "Container stage for pod lab/x failed with exit code 143 matching FailJob rule at index 2",
            "Interrupted",
            FailureKind.INTERRUPTED,
            id="it was deleted by hand",
        ),
        pytest.param("another controller's words", "PodFailurePolicy", FailureKind.PROGRAM, id="words we do not know"),
    ],
)
def test_a_job_whose_pods_are_gone_tells_by_its_rule_why_it_failed(words: str, reason: str, kind: FailureKind) -> None:
    told = only(a_job(a_condition("Failed", 80, "PodFailurePolicy", words))).failure
    assert told is not None
    assert (told.reason, told.kind) == (reason, kind)
    assert words in told.message


def test_the_pod_failure_policy_ends_a_job_for_exit_code_64() -> None:
    words = "Container stage for pod lab/x failed with exit code 64 matching FailJob rule at index 0"
    failed = a_condition("Failed", 80, "PodFailurePolicy", words)
    pod = a_pod(ended(64, failure_message("Budget", "no tokens left", 64)), phase="Failed")
    told = only(a_job(failed), pod).failure
    assert told is not None
    assert (told.reason, told.kind) == ("Budget", FailureKind.PERMANENT)


def test_pods_whose_job_is_gone_are_an_attempt_that_is_stopping() -> None:
    (orphan,) = attempts((), (a_pod(running(), deleting=True),))
    assert (orphan.name, orphan.stage, orphan.iteration, orphan.number, orphan.key) == (JOB, Stage.JUDGE, 1, 1, KEY)
    assert orphan.stopping
    assert orphan.start_time == at(10)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(ended(0), phase="Succeeded"), id="ended"),
        pytest.param(a_pod(running(), pod_labels=labels(**{STAGE_LABEL: None})), id="of a Job that deletes folders"),
    ],
)
def test_other_pods_without_a_job_are_no_attempt(pod: PodFacts) -> None:
    assert attempts((), (pod,)) == ()


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({STAGE_LABEL: "dance"}, id="unknown stage"),
        pytest.param({STAGE_LABEL: None}, id="no stage"),
        pytest.param({ITERATION_LABEL: "one"}, id="iteration that is no number"),
        pytest.param({ATTEMPT_LABEL: None}, id="no attempt"),
    ],
)
def test_a_job_with_unknown_labels_is_no_attempt(others: dict[str, str | None]) -> None:
    job = a_job(job_labels=labels(**others))
    assert attempts((job,)) == ()
    assert Children((job,)).cleaners == (job,)


def test_what_an_earlier_run_of_the_name_left_is_told_apart() -> None:
    other = labels(**{RUN_UID_LABEL: "uid-earlier"})
    ours, theirs = a_job(), a_job(name="demo-i1-judge-a9", job_labels=other)
    pod = a_pod(running(), job="demo-i1-judge-a9", pod_labels=other)
    children = Children((ours, theirs), (pod,))
    assert children.of(RUN_UID) == Children((ours,), ())
    assert children.foreign(RUN_UID) == Children((theirs,), (pod,))
    assert children.without({theirs.uid, pod.uid}) == Children((ours,), ())


@pytest.mark.parametrize(
    ("stage", "tellers"),
    [pytest.param("judge", 4, id="every shard"), pytest.param("train", 1, id="the first pod of a training")],
)
def test_progress_is_asked_of_those_who_tell(stage: str, tellers: int) -> None:
    asked: list[tuple[str, int]] = []

    def progress(name: str, pods: int) -> AttemptProgress:
        asked.append((name, pods))
        return some_progress()

    job = a_job(parallelism=4, job_labels=labels(**{STAGE_LABEL: stage}))
    (attempt,) = attempts_of(Children((job,)), progress, {})
    assert asked == [(JOB, tellers)]
    assert attempt.progress == some_progress()


STATES = st.sampled_from([None, running(), waiting("ErrImagePull"), ended(0), ended(0, whole()), ended(75), ended(64)])
PODS = st.lists(
    st.builds(
        lambda state, number, phase: a_pod(state, name=f"p{number}", phase=phase),
        STATES,
        st.integers(0, 3),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    ),
    max_size=4,
)
JOBS = st.lists(
    st.builds(
        lambda ends, suspend, deleting: a_job(*ends, suspend=suspend, deleting=deleting),
        st.sampled_from([(), (COMPLETE,), (FAILED,), (a_condition("Suspended", 3),)]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=1,
)


@given(JOBS, PODS)
def test_whatever_is_seen_an_attempt_is_whole(jobs: list[JobFacts], pods: list[PodFacts]) -> None:
    for attempt in attempts(tuple(jobs), tuple(pods)):
        assert (attempt.failure is not None) is (attempt.state is AttemptState.FAILED)
        assert (attempt.result is not None) is (attempt.state is AttemptState.SUCCEEDED)
        assert (attempt.end_time is not None) is (not attempt.alive)
        assert (attempt.queued_since is not None) is (attempt.state is AttemptState.QUEUED)
        assert attempt.alive or not attempt.stopping
