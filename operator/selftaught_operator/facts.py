"""What is kept of Jobs and pods: a few fields, since an operator holds thousands of them in memory."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from sys import intern
from typing import Any

from selftaught.api.labels import (
    ATTEMPT_LABEL,
    FOLDERS_ANNOTATION,
    ITERATION_LABEL,
    JOB_INDEX_ANNOTATION,
    JOB_NAME_LABEL,
    KEY_ANNOTATION,
    RUN_LABEL,
    RUN_UID_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
)
from selftaught.api.results import Stage

Body = Mapping[str, Any]
"""An object as the API server sends it."""

RULE_INDEX = re.compile(r"rule at index ([0-2])$")
"""The end of what the Job controller says of a rule that matched."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which attempt at which stage of which run an object belongs to."""

    run: str
    run_uid: str
    stage: Stage
    iteration: int
    attempt: int
    key: str


class FailureRule(IntEnum):
    """Places of the rules in a Job's `podFailurePolicy`: by them it tells why it failed even if its pods are gone."""

    PERMANENT = 0
    DISRUPTED = 1
    INTERRUPTED = 2


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a Job ended."""

    complete: bool
    time: datetime
    reason: str = ""
    message: str = ""

    @property
    def rule(self) -> FailureRule | None:
        """The rule that failed it, if one did."""
        matched = RULE_INDEX.search(self.message) if self.reason == "PodFailurePolicy" else None
        return FailureRule(int(matched[1])) if matched is not None else None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A Job of a run."""

    name: str
    uid: str
    run_uid: str
    place: Place | None
    """None for a Job that deletes folders."""
    folders: tuple[str, ...]
    """What a Job without a place deletes."""
    created: datetime
    deleting: bool
    suspended: bool
    suspended_since: datetime | None
    start: datetime | None
    """When it was last let go: made, or no longer suspended."""
    template: str
    """Hash of its pods' spec as it was made."""
    pods: int
    """How many it wants at once."""
    end: JobEnd | None


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How the container of a pod ended."""

    exit_code: int
    reason: str
    message: str
    time: datetime | None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod of a run."""

    name: str
    uid: str
    run_uid: str
    job: str
    index: int
    place: Place | None
    phase: str
    deleting: bool
    started: datetime | None
    """When its container began to run (the last time, if it has ended)."""
    running: bool
    waiting: str
    """Why it does not run yet: the scheduler's or the kubelet's words."""
    end: PodEnd | None
    disruption: str
    """Why the cluster ended it, if it did (condition DisruptionTarget)."""
    rejection: str
    """Why its node did not take it, if so: such a pod has failed without a container."""

    @property
    def alive(self) -> bool:
        """Whether its processes may still be at work."""
        return self.phase in ("Pending", "Running", "Unknown")


def job_facts(body: Body) -> JobFacts:
    """What is kept of a Job."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    suspended = condition(status, "Suspended")
    annotations = meta.get("annotations", {})
    return JobFacts(
        name=intern(meta["name"]),
        uid=meta["uid"],
        run_uid=intern(meta.get("labels", {}).get(RUN_UID_LABEL, "")),
        place=place_of(meta.get("labels", {}), annotations),
        folders=tuple(filter(None, annotations.get(FOLDERS_ANNOTATION, "").split("\n"))),
        created=instant(meta["creationTimestamp"]),
        deleting=bool(meta.get("deletionTimestamp")),
        suspended=bool(spec.get("suspend")),
        suspended_since=instant(suspended["lastTransitionTime"]) if suspended else None,
        start=instant(status["startTime"]) if status.get("startTime") else None,
        template=annotations.get(TEMPLATE_ANNOTATION, ""),
        pods=int(spec.get("parallelism") or 1),
        end=job_end(status),
    )


def job_end(status: Body) -> JobEnd | None:
    """How a Job ended, if it did."""
    for kind in ("Complete", "Failed"):
        if (told := condition(status, kind)) is not None:
            return JobEnd(
                complete=kind == "Complete",
                time=instant(status.get("completionTime") or told["lastTransitionTime"]),
                reason=told.get("reason", ""),
                message=told.get("message", ""),
            )
    return None


def pod_facts(body: Body) -> PodFacts:
    """What is kept of a pod."""
    meta, status = body["metadata"], body.get("status", {})
    labels, annotations = meta.get("labels", {}), meta.get("annotations", {})
    container: Body = next(iter(status.get("containerStatuses", [])), {})
    state = container.get("state", {})
    running, ended = state.get("running"), state.get("terminated")
    disrupted = condition(status, "DisruptionTarget")
    started = (running or ended or {}).get("startedAt")
    return PodFacts(
        name=meta["name"],
        uid=meta["uid"],
        run_uid=intern(labels.get(RUN_UID_LABEL, "")),
        job=intern(labels.get(JOB_NAME_LABEL, "")),
        index=int(annotations.get(JOB_INDEX_ANNOTATION) or 0),
        place=place_of(labels, annotations),
        phase=status.get("phase", "Pending"),
        deleting=bool(meta.get("deletionTimestamp")),
        started=instant(started) if started else None,
        running=running is not None,
        waiting=waiting_words(status, state),
        end=PodEnd(
            exit_code=int(ended.get("exitCode", -1)),
            reason=ended.get("reason", ""),
            message=ended.get("message", ""),
            time=instant(ended["finishedAt"]) if ended.get("finishedAt") else None,
        )
        if ended
        else None,
        disruption=f"{disrupted.get('reason', '')}: {disrupted.get('message', '')}" if disrupted else "",
        rejection=f"{status.get('reason', '')}: {status.get('message', '')}" if rejected(status) else "",
    )


def rejected(status: Body) -> bool:
    """Whether a pod failed before it had a container: its node had no room or no device for it after all."""
    return status.get("phase") == "Failed" and bool(status.get("reason")) and not status.get("containerStatuses")


def waiting_words(status: Body, state: Body) -> str:
    """Why a pod does not run yet."""
    waiting = state.get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return f"{reason}: {message}" if message else reason
    for entry in status.get("conditions", []):
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            return f"{entry.get('reason', '')}: {entry.get('message', '')}"
    return ""


def place_of(labels: Body, annotations: Body) -> Place | None:
    """Where an object belongs, from its labels."""
    try:
        return Place(
            run=intern(labels[RUN_LABEL]),
            run_uid=intern(labels[RUN_UID_LABEL]),
            stage=Stage(labels[STAGE_LABEL]),
            iteration=int(labels[ITERATION_LABEL]),
            attempt=int(labels[ATTEMPT_LABEL]),
            key=intern(annotations.get(KEY_ANNOTATION, "")),
        )
    except (KeyError, ValueError):
        return None


def condition(status: Body, kind: str) -> Body | None:
    """A condition that is true."""
    entries: Iterable[Body] = status.get("conditions") or ()
    return next((entry for entry in entries if entry.get("type") == kind and entry.get("status") == "True"), None)


def instant(text: str) -> datetime:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text)
