"""Why a run does not get on: what it waits for, since when, and the next step."""

from collections.abc import Callable, Sequence
from textwrap import dedent
from typing import Any

import pytest

from builders import a_manifest, at
from selftaught.plugin.answer import lines_of, span
from selftaught.plugin.cluster import JsonObject
from selftaught.plugin.runs import read_run
from selftaught.plugin.snapshot import take
from selftaught.plugin.why import why
from stub_cluster import StubCluster, a_condition, a_job, a_pod, a_warning, an_object

JOB = "demo-i1-judge-a1"
NOW = at(600)
QUEUE = {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
CONDITIONS = ("Complete", "Failed", "Suspended", "AwaitingApproval", "Queued", "ProgressDeadlineExceeded")


def a_raw_run(
    *true: JsonObject,
    state: str = "Pending",
    meta: JsonObject | None = None,
    spec: JsonObject | None = None,
    **status: Any,
) -> JsonObject:
    """A run in the judge stage of its first iteration; the conditions given are true."""
    by_type = {each["type"]: each for each in true}
    judge = {"name": "judge", "state": state, "jobName": JOB, "attempts": 1, "startTime": "2026-01-01T00:00:10Z"}
    raw = a_manifest(**(spec or {}))
    raw["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "r1", **(meta or {})}
    raw["status"] = {
        "observedGeneration": 1,
        "phase": "Running",
        "conditions": [by_type.get(kind, a_condition(kind, "False", "AsExpected")) for kind in CONDITIONS],
        "iteration": 1,
        "iterations": [{"index": 0}, {"index": 1, "stages": [judge | status.pop("stage", {})]}],
        **status,
    }
    return raw


def answer(raw: JsonObject, *objects: JsonObject, prepare: Callable[[StubCluster], object] = lambda _: None) -> str:
    cluster = StubCluster(*objects)
    prepare(cluster)
    return "\n".join(lines_of(why(take(cluster, read_run(raw).run, NOW)), NOW))


SCORES = [
    {
        "benchmark": "choice",
        "accuracy": "0.7312",
        "consistentAccuracy": "0.6",
        "confidenceInterval": ["0.7", "0.76"],
        "unparsable": "0",
        "pairs": 100,
    }
]
WAITING = [{"index": 1, "decision": "AwaitingApproval", "scores": SCORES}]
BEST = {"iteration": 0, "benchmark": "choice", "accuracy": "0.7012"}
AWAITED = a_condition("AwaitingApproval", reason="AwaitingApproval", message="iteration 1 awaits a decision")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            a_manifest() | {"metadata": {"name": "demo", "creationTimestamp": "2026-01-01T00:00:00Z"}},
            """\
            waits for   the operator, which has not seen this run yet
            since       2026-01-01 00:00:00 UTC (10 min ago)
            next step   see whether the operator runs: kubectl get pods -A | grep selftaught-operator""",
            id="never seen",
        ),
        pytest.param(
            a_raw_run(meta={"generation": 3}),
            """\
            waits for   the operator, which has not acted on the last change yet
            because     the spec is at generation 3, acted on was 1
            next step   see whether the operator runs: kubectl get pods -A | grep selftaught-operator""",
            id="a change not seen",
        ),
        pytest.param(
            a_raw_run(meta={"deletionTimestamp": "2026-01-01T00:09:00Z"}),
            """\
            waits for   the end of its deletion: its pods are being stopped
            since       2026-01-01 00:09:00 UTC (60 s ago)
            next step   wait; if it does not vanish, see whether the operator runs: kubectl get pods -A | grep \
selftaught-operator""",
            id="being deleted",
        ),
        pytest.param(
            a_raw_run(
                a_condition("Failed", reason="RestartsExhausted", message="3 restarts were not enough"),
                stage={"state": "Failed", "message": "Storage: no space left"},
            ),
            """\
            waits for   nothing: it has failed
            since       2026-01-01 00:00:30 UTC (9 min ago)
            because     RestartsExhausted: 3 restarts were not enough
                        iteration 1: judge: Storage: no space left
            next step   mend the cause, then kubectl selftaught retry demo
                        (where the spec cannot change: delete the run and apply it again, what is done is kept)
                        (the log: kubectl selftaught logs demo)""",
            id="failed",
        ),
        pytest.param(
            a_raw_run(
                a_condition("Failed", reason="BudgetSpent", message="all tokens are used"),
                meta={"annotations": {"selftaught.dev/retry": "now"}},
            ),
            """\
            waits for   the operator, which has not acted on the wish to retry yet
            because     annotation selftaught.dev/retry: now
            next step   see whether the operator runs: kubectl get pods -A | grep selftaught-operator""",
            id="a retry not seen",
        ),
        pytest.param(
            a_raw_run(a_condition("Complete", reason="IterationsDone", message="all 2 iterations are done")),
            """\
            waits for   nothing: it is complete
            since       2026-01-01 00:00:30 UTC (9 min ago)
            because     IterationsDone: all 2 iterations are done
            next step   for more iterations, raise spec.iterations; see the scores: kubectl selftaught status demo""",
            id="complete",
        ),
        pytest.param(
            a_raw_run(
                a_condition("Suspended", reason="Suspended", message="spec.suspend is set"), spec={"suspend": True}
            ),
            """\
            waits for   a person: spec.suspend is set
            since       2026-01-01 00:00:30 UTC (9 min ago)
            because     spec.suspend is set
            next step   kubectl selftaught resume demo""",
            id="suspended",
        ),
        pytest.param(
            a_raw_run(
                a_condition("Suspended", "False", reason="Suspending", message="1 attempt is being stopped"),
                spec={"suspend": True},
            ),
            """\
            waits for   a person: spec.suspend is set, and what runs is being stopped
            because     1 attempt is being stopped
            next step   kubectl selftaught resume demo""",
            id="suspending",
        ),
        pytest.param(
            a_raw_run(
                AWAITED,
                iterations=WAITING,
                best=BEST,
                spec={"approval": {"required": "BeforePromotion", "timeoutSeconds": 3600, "onTimeout": "Reject"}},
                meta={"annotations": {"selftaught.dev/approval-1": "yes"}},
            ),
            """\
            waits for   a decision on the checkpoint of iteration 1
            since       2026-01-01 00:00:30 UTC (9 min ago)
            because     iteration 1 awaits a decision
                        accuracy on choice: 0.731, best so far 0.701 (the seed)
                        without a decision it is rejected at 2026-01-01 01:00:30 UTC
                        annotation selftaught.dev/approval-1: its value must be Approved, Rejected, or an approval \
as JSON
            next step   kubectl selftaught approve demo --iteration 1   (or the same with --reject)""",
            id="awaits approval",
        ),
        pytest.param(
            a_raw_run(AWAITED, iterations=WAITING, meta={"annotations": {"selftaught.dev/approval-1": "Approved"}}),
            """\
            waits for   the operator, which has not acted on the decision on iteration 1 yet
            because     annotation selftaught.dev/approval-1 is set
            next step   see whether the operator runs: kubectl get pods -A | grep selftaught-operator""",
            id="a decision not seen",
        ),
        pytest.param(
            a_raw_run(
                stage={
                    "state": "Failed",
                    "message": "Resource: memory ran out",
                    "completionTime": "2026-01-01T00:09:50Z",
                    "retryTime": "2026-01-01T00:10:10Z",
                },
                restartsCounted=2,
            ),
            """\
            waits for   the next attempt at iteration 1: judge, at 2026-01-01 00:10:10 UTC
            since       2026-01-01 00:09:50 UTC (10 s ago)
            because     Resource: memory ran out
                        2 of 3 restarts are used up
            next step   wait, or read what went wrong: kubectl selftaught logs demo""",
            id="backing off",
        ),
        pytest.param(
            a_raw_run(stage={"state": "Failed", "retryTime": "2026-01-01T00:05:00Z"}),
            """\
            waits for   the next attempt at iteration 1: judge, due since 2026-01-01 00:05:00 UTC
            because     0 of 3 restarts are used up
            next step   see whether the operator runs: kubectl get pods -A | grep selftaught-operator""",
            id="an attempt overdue",
        ),
    ],
)
def test_the_run_itself_tells(raw: JsonObject, expected: str) -> None:
    assert answer(raw) == dedent(expected)


def refused(message: str) -> Sequence[JsonObject]:
    return (a_job(), a_warning("FailedCreate", message))


UNSCHEDULABLE = a_condition(
    "PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
)
NO_CLAIM = a_condition("PodScheduled", "False", "Unschedulable", 'persistentvolumeclaim "nope" not found')
SCHEDULED = a_condition("PodScheduled")
BACK_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.example/x"'}}
RUNNING = {"running": {"startedAt": "2026-01-01T00:01:00Z"}}
SAID = '{"type":"failure","failure":{"reason":"Data","message":"row 3 has no text",\
"permanent":true},"exit_code":64}'


@pytest.mark.parametrize(
    ("objects", "pieces"),
    [
        pytest.param(
            (), ["the operator: the Job of iteration 1: judge (demo-i1-judge-a1) does not exist"], id="no Job"
        ),
        pytest.param(
            (a_job(JOB, a_condition("Failed", reason="BackoffLimitExceeded", message="too often")),),
            ["the Job of iteration 1: judge has failed, which it has not", "BackoffLimitExceeded: too often", "grep"],
            id="a Job that failed, unseen",
        ),
        pytest.param(
            (a_job(JOB, a_condition("Suspended"), spec={"suspend": True}),),
            ["whoever suspended the Job of iteration 1: judge: it is in no queue", "kubectl patch job demo-i1"],
            id="suspended by hand",
        ),
        pytest.param(
            (a_job(JOB, a_condition("Suspended"), spec={"suspend": True}, metadata=QUEUE),),
            ["admission of iteration 1: judge to the queue team-a", "no Workload", "kubectl get localqueue team-a"],
            id="no Workload",
        ),
        pytest.param(
            (
                a_job(JOB, a_condition("Suspended"), spec={"suspend": True}, metadata=QUEUE),
                an_object(
                    "Workload",
                    "job-demo",
                    metadata={"labels": {"kueue.x-k8s.io/job-uid": "u1"}},
                    status={
                        "conditions": [
                            a_condition("QuotaReserved", "False", "Pending", "insufficient unused quota, 2 more needed")
                        ]
                    },
                ),
            ),
            [
                "waits for   quota of the queue team-a for iteration 1: judge",
                "since       2026-01-01 00:00:30 UTC",
                "because     Pending: insufficient unused quota, 2 more needed",
                "kubectl describe workload job-demo",
            ],
            id="Kueue's quota is full",
        ),
        pytest.param(
            (
                a_job(JOB, a_condition("Suspended"), spec={"suspend": True}, metadata=QUEUE),
                an_object(
                    "Workload",
                    "job-demo",
                    metadata={"labels": {"kueue.x-k8s.io/job-uid": "u1"}},
                    status={
                        "conditions": [
                            a_condition("QuotaReserved", "False", "Pending", "The workload is deactivated"),
                            a_condition("Evicted", "True", "Deactivated", "The workload is deactivated"),
                        ]
                    },
                ),
            ),
            [
                "waits for   somebody to activate the Workload of iteration 1: judge",
                "because     Deactivated: The workload is deactivated",
                """kubectl patch workload job-demo --type merge -p '{"spec":{"active":true}}'""",
            ],
            id="deactivated in Kueue",
        ),
        pytest.param(
            refused('pods "demo-0" is forbidden: exceeded quota: gpus, requested: cpu=2, used: cpu=4, limited: cpu=4'),
            ["room in the namespace's quota", "requested: cpu=2", "2026-01-01 00:00:20", "describe resourcequota"],
            id="a full quota",
        ),
        pytest.param(
            refused('violates PodSecurity "restricted:latest": runAsNonRoot != true'),
            ["pods that the namespace's Pod Security admits", "runAsNonRoot"],
            id="Pod Security",
        ),
        pytest.param(
            refused('error looking up service account lab/judge: serviceaccount "judge" not found'),
            ["a ServiceAccount that exists", "spec.stages' serviceAccountName"],
            id="no ServiceAccount",
        ),
        pytest.param((a_job(),), ["the pods of iteration 1: judge to be created"], id="no pods yet"),
        pytest.param(
            (a_job(pods=4), a_pod(0, RUNNING, phase="Running"), *(a_pod(i, None, UNSCHEDULABLE) for i in (1, 2, 3))),
            ["a node that fits: 3 of 4 pods of iteration 1: judge", "Insufficient nvidia.com/gpu", "describe pod demo"],
            id="unschedulable",
        ),
        pytest.param(
            (a_job(), a_pod(0, None, NO_CLAIM)),
            [
                "its volume: the pod of iteration 1: judge",
                'persistentvolumeclaim "nope" not found',
                "create the Persist",
            ],
            id="no claim",
        ),
        pytest.param(
            (a_job(), a_pod(0, BACK_OFF, SCHEDULED)),
            ["the image registry.example/selftaught:1: the pod of iteration", "ImagePullBackOff: Back-off pulling"],
            id="no such image",
        ),
        pytest.param(
            (
                a_job(),
                a_pod(0, {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "t" not found'}}),
            ),
            ["its container to be made", 'CreateContainerConfigError: secret "t" not found', "create what is missing"],
            id="a Secret that is not there",
        ),
        pytest.param(
            (a_job(), a_pod(0, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed")),
            ["memory: the pod of iteration 1: judge ran out of it", "OOMKilled, exit code 137", "raise the memory"],
            id="out of memory",
        ),
        pytest.param(
            (
                a_job(),
                a_pod(0, {"terminated": {"exitCode": 64, "reason": "Error", "message": SAID}}, phase="Failed"),
            ),
            ["the next attempt: the pod of iteration 1: judge failed", "Data: row 3 has no text", "the run fails"],
            id="an error of the stage",
        ),
        pytest.param(
            (
                a_job(),
                a_pod(
                    0,
                    {"waiting": {"reason": "CrashLoopBackOff"}},
                    last={"terminated": {"exitCode": 1, "reason": "Error", "message": "boom"}},
                ),
            ),
            ["the next attempt", "Error, exit code 1: boom"],
            id="crashing",
        ),
        pytest.param(
            (
                a_job(),
                a_pod(0, {"waiting": {"reason": "ContainerCreating"}}, SCHEDULED),
                a_warning("FailedMount", 'claim "artifacts" not found', "Pod", f"{JOB}-0-x"),
                a_warning("FailedMount", "about another", "Pod", "another"),
            ),
            ["its volumes: the pod of iteration 1: judge", 'FailedMount: claim "artifacts"', "kubectl get pvc"],
            id="a volume that is not there",
        ),
        pytest.param(
            (a_job(), a_pod(0, {"waiting": {"reason": "ContainerCreating"}}, SCHEDULED)),
            ["its image and volumes", "a large image takes minutes"],
            id="pulling",
        ),
        pytest.param(
            (
                a_job(),
                a_pod(0, {"terminated": {"exitCode": 1}}, phase="Failed", creationTimestamp="2026-01-01T00:00:00Z"),
                a_pod(0, RUNNING, phase="Running", suffix="a", creationTimestamp="2026-01-01T00:02:00Z"),
            ),
            ["nothing: iteration 1: judge is at work"],
            id="a failed pod that was replaced",
        ),
    ],
)
def test_the_job_and_its_pods_tell(objects: Sequence[JsonObject], pieces: list[str]) -> None:
    said = answer(a_raw_run(), *objects)
    for piece in pieces:
        assert piece in said
    assert "another\n" not in said
    assert said.startswith("waits for ")


def test_a_stage_at_work_tells_how_far_it_is() -> None:
    progress = {
        "stage": "judge",
        "iteration": 1,
        "percentage": 43,
        "estimatedRemainingSeconds": 130,
        "lastUpdatedTime": "2026-01-01T00:09:00Z",
        "throughput": "812 tokens/s",
    }
    said = answer(a_raw_run(state="Running", progress=progress), a_job(), a_pod(0, RUNNING, phase="Running"))
    assert said == dedent("""\
        waits for   nothing: iteration 1: judge is at work
        since       2026-01-01 00:00:10 UTC (9 min ago)
        because     43 % done, 812 tokens/s, 2:10 left
        next step   watch it: kubectl selftaught logs demo --follow""")


def test_a_stalled_stage_is_not_at_work() -> None:
    stalled = a_condition("ProgressDeadlineExceeded", reason="NoProgress", message="judge has told no progress")
    said = answer(a_raw_run(stalled, state="Running"), a_job(), a_pod(0, RUNNING, phase="Running"))
    assert "iteration 1: judge, which runs and tells no progress" in said
    assert "judge has told no progress" in said


@pytest.mark.parametrize(
    ("kinds", "objects", "piece"),
    [
        pytest.param({"jobs"}, (), "you may not read Jobs", id="Jobs"),
        pytest.param({"pods", "events"}, (a_job(),), "is at work", id="pods and events"),
        pytest.param({"events"}, (a_job(), a_pod(0, None, UNSCHEDULABLE)), "a node that fits", id="events"),
        pytest.param(
            {"workloads"},
            (a_job(JOB, spec={"suspend": True}, metadata=QUEUE),),
            "you may not read Kueue's Workloads",
            id="Workloads",
        ),
    ],
)
def test_what_may_not_be_read_is_done_without(kinds: set[str], objects: Sequence[JsonObject], piece: str) -> None:
    assert piece in answer(a_raw_run(), *objects, prepare=lambda cluster: cluster.forbidden.update(kinds))


def test_a_cluster_without_kueue_is_none_the_worse() -> None:
    job = a_job(JOB, spec={"suspend": True}, metadata=QUEUE)
    assert "no Workload" in answer(a_raw_run(), job, prepare=lambda cluster: cluster.unknown.add("workloads"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (7320, "2 h 2 min"),
        (172800, "2 d"),
        (180000, "2 d 2 h"),
    ],
)
def test_spans(seconds: int, text: str) -> None:
    assert span(at(seconds) - at(0)) == text
