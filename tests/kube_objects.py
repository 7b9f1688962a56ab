"""Jobs and pods of a run as an API server sends them."""

from typing import Any

from builders import at
from selftaught.api.labels import (
    ATTEMPT_LABEL,
    ITERATION_LABEL,
    JOB_INDEX_ANNOTATION,
    JOB_NAME_LABEL,
    KEY_ANNOTATION,
    RUN_LABEL,
    RUN_UID_LABEL,
    STAGE_LABEL,
)
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import StageFailure, StageResult
from selftaught_operator.facts import JobFacts, PodFacts, job_facts, pod_facts
from simulated_api_server import stamp

Object = dict[str, Any]

JOB = "demo-i1-judge-a1"
RUN_UID = "uid-run"
KEY = "a" * 64


def labels(**others: str | None) -> dict[str, str]:
    """Labels of a judging in iteration 1; None takes one away."""
    given = {
        RUN_LABEL: "demo",
        RUN_UID_LABEL: RUN_UID,
        STAGE_LABEL: "judge",
        ITERATION_LABEL: "1",
        ATTEMPT_LABEL: "1",
    }
    return {name: value for name, value in (given | others).items() if value is not None}


def a_condition(kind: str, seconds: float = 0, reason: str = "", message: str = "", status: str = "True") -> Object:
    """A condition of a Job or a pod."""
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": stamp(at(seconds)),
        "lastTransitionTime": stamp(at(seconds)),
        "reason": reason,
        "message": message,
    }


def a_job(
    *conditions: Object,
    name: str = JOB,
    suspend: bool = False,
    deleting: bool = False,
    parallelism: int = 1,
    job_labels: dict[str, str] | None = None,
    **status: Any,
) -> JobFacts:
    """A Job made at T0."""
    meta: Object = {
        "name": name,
        "namespace": "lab",
        "uid": f"uid-{name}",
        "creationTimestamp": stamp(at(0)),
        "labels": labels() if job_labels is None else job_labels,
        "annotations": {KEY_ANNOTATION: KEY},
    }
    if deleting:
        meta |= {"deletionTimestamp": stamp(at(90)), "finalizers": ["foregroundDeletion"]}
    spec = {"parallelism": parallelism, "completions": parallelism, "suspend": suspend}
    body = {"metadata": meta, "spec": spec, "status": status | ({"conditions": list(conditions)} if conditions else {})}
    return job_facts(body)


def a_pod(
    state: Object | None = None,
    *conditions: Object,
    index: int = 0,
    job: str = JOB,
    name: str | None = None,
    phase: str = "Running",
    deleting: bool = False,
    pod_labels: dict[str, str] | None = None,
    **status: Any,
) -> PodFacts:
    """A pod whose container is in a state; without one, it has no container yet."""
    meta: Object = {
        "name": name or f"{job}-{index}-x7k2p",
        "namespace": "lab",
        "uid": f"uid-{name or f'{job}-{index}'}",
        "labels": (labels() if pod_labels is None else pod_labels) | {JOB_NAME_LABEL: job},
        "annotations": {KEY_ANNOTATION: KEY, JOB_INDEX_ANNOTATION: str(index)},
    }
    if deleting:
        meta["deletionTimestamp"] = stamp(at(90))
    told: Object = {"phase": phase, **status}
    if conditions:
        told["conditions"] = list(conditions)
    if state is not None:
        told["containerStatuses"] = [{"name": "stage", "state": state, "lastState": {}, "restartCount": 0}]
    return pod_facts({"metadata": meta, "spec": {}, "status": told})


def running(seconds: float = 10) -> Object:
    """State of a container at work since then."""
    return {"running": {"startedAt": stamp(at(seconds))}}


def waiting(reason: str, message: str = "") -> Object:
    """State of a container that does not run yet."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def ended(exit_code: int, message: str = "", reason: str = "", start: float = 10, end: float = 70) -> Object:
    """State of a container that has ended."""
    told = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if exit_code == 0 else "Error"),
        "startedAt": stamp(at(start)),
        "finishedAt": stamp(at(end)),
        "containerID": "containerd://0123",
    }
    return {"terminated": told | ({"message": message} if message else {})}


def result_message(result: StageResult) -> str:
    """The termination message of a shard that ended well."""
    return ResultRecord(result=result).model_dump_json(exclude_none=True, by_alias=True)


def failure_message(reason: str, message: str, exit_code: int) -> str:
    """The termination message of a shard that failed."""
    failure = StageFailure(reason=reason, message=message, permanent=exit_code == 64)
    return FailureRecord(failure=failure, exit_code=exit_code).model_dump_json(by_alias=True)
