"""Runs on a real API server with a real Job controller, while everything around the operator breaks."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cluster.operator_lab import WORKING, Object, OperatorLab, condition, words
from cluster.stub_kubelet import Course
from real_cluster import ROOT
from selftaught.api.outcomes import FailureRecord
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.results import StageFailure
from selftaught.errors import PERMANENT_EXIT_CODE

ONCE = ["evaluate", "select", "generate"]
KILLS = 20
KEPT = 2
"""Checkpoints that the default retention keeps of a run that gets better all the time."""
ITERATIONS = 5
"""An operator that lives less than a stage takes starts one stage at most: so many that none is the last."""


def stages(iterations: int = 1) -> list[str]:
    """The stages of a run, in order."""
    loop = ("judge", "curate", "train", "evaluate")
    return ONCE + [f"i{iteration}-{stage}" for iteration in range(1, iterations + 1) for stage in loop]


def without_times(value: Any) -> Any:
    """A status without times: those differ when somebody dies on the way."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if "Time" not in key and "econds" not in key}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def comparable(lab: OperatorLab, run: str, status: Object) -> Object:
    """A status without times and names."""
    text = json.dumps(without_times(status)).replace(lab.namespace, "lab").replace(run, "run")
    plain: Object = json.loads(text)
    return plain


def settled(lab: OperatorLab, run: str) -> Object:
    """The status of a run that has ended, once the Jobs that delete its old checkpoints have ended, too."""

    def pruned(status: Object) -> bool:
        told = [each["checkpoint"]["pruned"] for each in status["iterations"] if each.get("checkpoint")]
        return told.count(True) == ITERATIONS - KEPT

    return comparable(lab, run, lab.wait_for(run, pruned, f"old checkpoints of {run} are deleted"))


# What befalls runs that one operator looks after, all at the same time. Each returns when it has been seen to.


def goes_well(lab: OperatorLab) -> None:
    lab.apply_run("plain", iterations=ITERATIONS)
    lab.kubectl("wait", "selftaughtruns/plain", "--for=condition=Complete", "--timeout=90s")
    status = lab.status("plain")
    assert condition(status, "Complete") == "IterationsDone"
    assert status["restarts"] == 0
    assert lab.worked("plain") == stages(ITERATIONS)
    header, row = lab.kubectl("get", "selftaughtruns", "plain").splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "BEST", "AGE"]
    assert row.split()[:5] == ["plain", "Complete", "5/5", "0.850", "(i5)"]
    header, row = lab.kubectl("get", "str", "plain", "--output=wide").splitlines()
    assert header.split()[7:] == ["BASELINE", "QUEUE", "RESTARTS", "REASON"]
    assert "IterationsDone: 5 iterations done" in row
    assert "0.600" in row


def is_evicted(lab: OperatorLab) -> None:
    lab.kubelet.send(lab.namespace, "evicted-evaluate-a1", Course(disrupted=True))
    lab.kubelet.send(lab.namespace, "evicted-i1-train-a1", Course(disrupted=True))
    lab.apply_run("evicted", failurePolicy={"maxRestarts": 0})
    status = lab.wait_until_complete("evicted")
    assert status["restartsCounted"] == 0
    assert lab.jobs_of("evicted")[:2] == ["evicted-evaluate-a1", "evicted-select-a1"], "a pod is replaced in its Job"
    assert lab.jobs_of("evicted")[-3:] == [f"evicted-i1-{each}" for each in ("train-a1", "train-a2", "evaluate-a1")]
    assert lab.worked("evicted") == stages()


def runs_out_of_memory(lab: OperatorLab) -> None:
    lab.kubelet.send(lab.namespace, "hungry-select-a1", Course(exit_code=137, reason="OOMKilled"))
    lab.apply_run("hungry")
    status = lab.wait_until_complete("hungry")
    assert (status["restarts"], status["restartsCounted"]) == (1, 1)
    assert "StageFailed: select, attempt 1: OOMKilled: the pod needed more memory" in lab.events("hungry")


def loses_a_pod(lab: OperatorLab) -> None:
    with lab.kubelet.hold(lab.namespace, "podless-select-a1"):
        lab.apply_run("podless")
        lab.wait_until_at_work("podless", "select")
        (pod,) = [name for name in lab.owned("pods", "podless") if name.startswith("podless-select-")]
        lab.kubectl("delete", "pod", pod)
    status = lab.wait_until_complete("podless")
    assert (status["restarts"], status["restartsCounted"]) == (0, 0), "a pod is replaced in its Job"
    assert lab.worked("podless") == stages()


def is_drained(lab: OperatorLab) -> None:
    with lab.kubelet.hold(lab.namespace, "drained-i1-train-a1"):
        lab.apply_run("drained", failurePolicy={"maxRestarts": 0})
        lab.wait_until_at_work("drained", "train", 1)
        (pod,) = [name for name in lab.owned("pods", "drained") if "-train-" in name]
        wish = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": lab.namespace}}
        path = f"/api/v1/namespaces/{lab.namespace}/pods/{pod}/eviction"
        lab.cluster.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(wish))
        status = lab.wait_until_complete("drained")
    assert (status["restarts"], status["restartsCounted"]) == (1, 0)
    assert "train of iteration 1, attempt 1: Disrupted" in lab.events("drained")
    assert lab.worked("drained") == stages()


def loses_its_jobs(lab: OperatorLab) -> None:
    with lab.kubelet.hold(lab.namespace, "jobless-generate-a1"):
        lab.apply_run("jobless")
        lab.wait_until_at_work("jobless", "generate")
        lab.kubectl("delete", "jobs", "--selector=selftaught.dev/run=jobless", "--wait=false")
        status = lab.wait_until_complete("jobless")
    assert (status["restarts"], status["restartsCounted"]) == (1, 0)
    assert lab.jobs_of("jobless")[:4] == [f"jobless-{each}-a1" for each in ONCE] + ["jobless-generate-a2"]
    assert lab.worked("jobless") == stages()


def is_made_again(lab: OperatorLab) -> None:
    with lab.kubelet.hold(lab.namespace, "again-i1-judge-a1"):
        lab.apply_run("again")
        lab.wait_until_at_work("again", "judge", 1)
        lab.kubectl("delete", "selftaughtruns", "again")
        lab.apply_run("again")
        lab.wait_until_at_work("again", "judge", 1)
    status = lab.wait_until_complete("again")
    assert status["restartsCounted"] == 0
    assert lab.worked("again") == stages()


def is_suspended(lab: OperatorLab) -> None:
    with lab.kubelet.hold(lab.namespace, "sleepy-select-a1"):
        lab.apply_run("sleepy")
        lab.wait_until_at_work("sleepy", "select")
        lab.patch_run("sleepy", {"spec": {"suspend": True}})
        lab.kubectl("wait", "selftaughtruns/sleepy", "--for=condition=Suspended", "--timeout=60s")
        assert not [name for name in lab.owned("pods", "sleepy") if "select" in name]
    lab.patch_run("sleepy", {"spec": {"suspend": False}})
    status = lab.wait_until_complete("sleepy")
    assert condition(status, "Suspended") == ""
    assert status["restartsCounted"] == 0
    assert lab.worked("sleepy") == stages()


def is_approved(lab: OperatorLab) -> None:
    lab.apply_run("gated", approval={"required": "BeforePromotion"})
    lab.wait_for("gated", lambda status: condition(status, "AwaitingApproval") != "", "gated waits for a person")
    lab.kubectl("annotate", "selftaughtruns/gated", "selftaught.dev/approval-1=Approved")
    status = lab.wait_until_complete("gated")
    assert status["iterations"][1]["decision"] == "Promoted"
    assert condition(status, "AwaitingApproval") == ""


def is_retried(lab: OperatorLab) -> None:
    failure = StageFailure(reason="Data", message="there are no instructions", permanent=True)
    message = FailureRecord(failure=failure, exit_code=PERMANENT_EXIT_CODE).model_dump_json()
    lab.kubelet.send(lab.namespace, "unlucky-select-a1", Course(exit_code=PERMANENT_EXIT_CODE, message=message))
    lab.apply_run("unlucky")
    status = lab.wait_for("unlucky", lambda status: condition(status, "Failed") != "", "unlucky fails")
    assert words(status, "Failed") == "Data: select cannot work: there are no instructions"
    lab.kubectl("annotate", "selftaughtruns/unlucky", f"{RETRY_ANNOTATION}=now")
    status = lab.wait_until_complete("unlucky")
    assert condition(status, "Failed") == ""
    assert lab.jobs_of("unlucky")[:3] == ["unlucky-evaluate-a1", "unlucky-select-a1", "unlucky-select-a2"]
    assert lab.worked("unlucky") == stages()


def is_cleaned_up(lab: OperatorLab) -> None:
    lab.apply_run("tidy", ttlSecondsAfterFinished=1)
    lab.wait_until_complete("tidy")
    lab.wait(lambda: not lab.owned("jobs", "tidy") and not lab.owned("pods", "tidy"), "Jobs and pods are deleted")
    assert condition(lab.status("tidy"), "Complete") == "IterationsDone"


def has_no_image(lab: OperatorLab) -> None:
    lab.apply_run("imageless", stages={"all": {"image": "selftaught/nowhere:1"}})
    status = lab.wait_for("imageless", lambda status: "Image" in words(status), "the message tells of the image")
    assert words(status).startswith("Pending: evaluate: ")
    assert "selftaught/nowhere:1" in words(status)
    assert "correct the image" in words(status)


def is_killed_for_memory(lab: OperatorLab) -> None:
    limits = {"limits": {"memory": "40Mi", "cpu": "1"}}
    lab.apply_run("starved", failurePolicy={"maxRestarts": 0}, stages={"all": {"resources": limits}})
    status = lab.wait_for("starved", lambda status: condition(status, "Failed") != "", "the kernel kills the stage")
    assert condition(status, "Failed") == "RestartsExhausted"
    assert "OOMKilled: the pod needed more memory than its limit" in words(status, "Failed")


# One test each, though they happen at once.

FATES = (
    goes_well,
    is_evicted,
    runs_out_of_memory,
    is_drained,
    loses_a_pod,
    loses_its_jobs,
    is_made_again,
    is_suspended,
    is_approved,
    is_retried,
    is_cleaned_up,
    has_no_image,
    is_killed_for_memory,
)


@pytest.fixture(scope="module")
def fates(attended: OperatorLab) -> Iterator[dict[str, Future[None]]]:
    """All of them at once: what takes time is waiting."""
    with ThreadPoolExecutor(len(FATES)) as pool:
        yield {fate.__name__: pool.submit(fate, attended) for fate in FATES}


@pytest.mark.parametrize("fate", [pytest.param(fate, id=fate.__name__) for fate in FATES])
def test_a_run_that(fate: Callable[[OperatorLab], None], fates: dict[str, Future[None]]) -> None:
    fates[fate.__name__].result()


# What befalls the operator, or its namespace.


def test_killed_again_and_again_the_end_is_the_same(
    lab: OperatorLab, attended: OperatorLab, fates: dict[str, Future[None]]
) -> None:
    """Stages go on while no operator is there, and end at any moment of one's life."""
    moments = random.Random(20)
    lab.apply_run("broken", iterations=ITERATIONS)
    for _ in range(KILLS):
        operator = lab.start()
        operator.wait_until_working()
        time.sleep(moments.uniform(0, 0.5))
        operator.kill()
    assert condition(lab.status("broken"), "Complete") == "", "all were killed during the run"
    fates["goes_well"].result()
    with lab.operator():
        lab.wait_until_complete("broken")
        unbroken = settled(attended, "plain")
        assert settled(lab, "broken") == unbroken
    assert lab.worked("broken") == stages(ITERATIONS)
    assert lab.jobs_of("broken") == [f"broken-{stage}-a1" for stage in stages(ITERATIONS)]


def test_a_full_quota_is_told_and_waited_for(lab: OperatorLab) -> None:
    lab.kubectl("create", "quota", "jobs", "--hard=count/jobs.batch=0")
    lab.kubectl("create", "quota", "pods", "--hard=pods=0")
    lab.wait(lambda: lab.kubectl("get", "quota", "--output=jsonpath={.items[*].status.hard}").count("{") == 2, "quotas")
    with lab.operator():
        lab.apply_run("poor")
        status = lab.wait_for("poor", lambda status: "quota" in words(status), "a Job is refused")
        assert words(status).startswith("Pending: poor-evaluate-a1 cannot be created: ")
        assert "exceeded quota: jobs" in words(status)
        lab.kubectl("delete", "quota", "jobs")
        status = lab.wait_for("poor", lambda status: "quota: pods" in words(status), "pods are refused")
        assert words(status).startswith("Pending: evaluate: FailedCreate: ")
        assert lab.owned("jobs", "poor") == ["poor-evaluate-a1"]
        lab.kubectl("delete", "quota", "pods")
        status = lab.wait_until_complete("poor")
        assert (status["restarts"], status["restartsCounted"]) == (0, 0)
        assert lab.worked("poor") == stages()


def test_of_two_operators_one_works_and_the_other_takes_over(lab: OperatorLab) -> None:
    with lab.operator(leader_election=True) as first:
        second = lab.start(leader_election=True)
        try:
            with lab.kubelet.hold(lab.namespace, "inherited-evaluate-a1"):
                lab.apply_run("inherited")
                lab.wait_until_at_work("inherited", "evaluate")
                lab.wait(
                    lambda: 'resource="leases"' in second.get("/metrics"), "the second operator asks for the Lease"
                )
                assert WORKING not in second.said
                assert first.get("/readyz") == second.get("/readyz") == first.get("/healthz") == "ok\n"
                first.kill()
                second.wait_until_working()
            lab.wait(lambda: "inherited-select-a1" in lab.jobs_of("inherited"), "the second operator goes on")
        finally:
            second.kill()
    assert lab.jobs_of("inherited")[:2] == ["inherited-evaluate-a1", "inherited-select-a1"]


def test_two_operators_that_both_work_start_nothing_twice(lab: OperatorLab) -> None:
    with lab.operator(), lab.operator():
        lab.apply_run("shared")
        status = lab.wait_until_complete("shared")
    assert (status["restarts"], status["restartsCounted"]) == (0, 0)
    assert lab.worked("shared") == stages()
    assert lab.jobs_of("shared") == [f"shared-{stage}-a1" for stage in stages()]


def test_a_run_that_is_deleted_while_no_operator_is_there_leaves_nothing(lab: OperatorLab) -> None:
    with lab.operator() as operator, lab.kubelet.hold(lab.namespace, "deleted-select-a1"):
        lab.apply_run("deleted")
        lab.wait_until_at_work("deleted", "select")
        operator.kill()
        lab.kubectl("delete", "selftaughtruns", "deleted", "--timeout=30s")
        kinds = ("jobs", "pods", "configmaps")
        lab.wait(lambda: not any(lab.owned(kind, "deleted") for kind in kinds), "what the run owns is deleted")


def test_the_api_server_may_go_away_and_come_back(lab: OperatorLab) -> None:
    if not lab.cluster.ours:
        return
    with lab.operator() as operator:
        with lab.kubelet.hold(lab.namespace, "cut-off-select-a1"):
            lab.apply_run("cut-off")
            lab.wait_until_at_work("cut-off", "select")
            restart = [sys.executable, "-m", "hack.cluster", "restart-apiserver", "--down-seconds=1"]
            subprocess.run(restart, cwd=ROOT, check=True, timeout=120)
        status = lab.wait_until_complete("cut-off")
        assert operator.process.poll() is None
    assert (status["restarts"], status["restartsCounted"]) == (0, 0)
    assert lab.worked("cut-off") == stages()
    assert lab.jobs_of("cut-off") == [f"cut-off-{stage}-a1" for stage in stages()]
