"""Runs on a real API server with a real Job controller, while everything around the operator breaks."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cluster.operator_lab import Object, OperatorLab, condition, words
from cluster.stub_kubelet import Course
from selftaught.api.outcomes import FailureRecord
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.results import StageFailure
from selftaught.errors import PERMANENT_EXIT_CODE

ONCE = ["evaluate", "select", "generate"]
KILLS = 20
ITERATIONS = 3


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
    assert row.split()[:5] == ["plain", "Complete", "3/3", "0.750", "(i3)"]
    header, row = lab.kubectl("get", "str", "plain", "--output=wide").splitlines()
    assert header.split()[7:] == ["BASELINE", "QUEUE", "RESTARTS", "REASON"]
    assert "IterationsDone: 3 iterations done" in row
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
