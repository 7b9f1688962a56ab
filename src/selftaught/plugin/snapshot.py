"""All that tells why a run does not get on, as it was at one moment."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from selftaught.api.labels import JOB_NAME_LABEL, JOB_UID_LABEL, KUEUE_APIS
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import StageState, StageStatus
from selftaught.plugin.cluster import Cluster, ForbiddenError, JsonObject, escaped
from selftaught.plugin.objects import Event, Job, Pod, View, Workload

Value = TypeVar("Value")
SomeView = TypeVar("SomeView", bound=View)
AT_WORK = (StageState.RUNNING, StageState.QUEUED, StageState.PENDING)


@dataclass(frozen=True)
class StagePlace:
    """A stage of a run."""

    iteration: int
    stage: StageStatus


@dataclass(frozen=True)
class Snapshot:
    """A run with what belongs to the stage that it is at."""

    run: SelfTaughtRun
    now: datetime
    place: StagePlace | None = None
    """The stage at work, or the one that is to be started again."""
    job: Job | None = None
    pods: tuple[Pod, ...] = ()
    """Of the Job, by index."""
    warnings: tuple[Event, ...] = ()
    """About the Job and its pods, the latest first."""
    workload: Workload | None = None
    """Kueue's, if there is one."""
    hidden: frozenset[str] = frozenset()
    """What the user may not read: `jobs`, `pods`, `events`, `workloads`."""


def take(cluster: Cluster, run: SelfTaughtRun, now: datetime) -> Snapshot:
    """Read all of it; what may not be read is noted. Raises UnreachableError."""
    place = current(run)
    if place is None or not place.stage.job_name:
        return Snapshot(run, now, place)
    hidden: set[str] = set()

    def readable(kind: str, read: Callable[[], Value], otherwise: Value) -> Value:
        try:
            return read()
        except ForbiddenError:
            hidden.add(kind)
            return otherwise

    name = place.stage.job_name
    job = readable("jobs", lambda: job_of(cluster, name), None)
    pods: tuple[Pod, ...] = readable("pods", lambda: pods_of(cluster, name), tuple[Pod, ...]())
    names = {("Job", name), *(("Pod", pod.metadata.name) for pod in pods)}
    warnings = readable("events", lambda: warnings_about(cluster, names), tuple[Event, ...]())
    workload = readable("workloads", lambda: workload_of(cluster, job), None) if job and job.spec.suspend else None
    return Snapshot(run, now, place, job, pods, warnings, workload, frozenset(hidden))


def current(run: SelfTaughtRun) -> StagePlace | None:
    """The stage at work: a running one before one that waits; else one that is to be started again."""
    every = [StagePlace(each.index, stage) for each in run.status.iterations for stage in each.stages if stage.attempts]
    for state in AT_WORK:
        for place in every:
            if place.stage.state is state:
                return place
    failed = (p for p in every if p.stage.state is StageState.FAILED and p.stage.retry_time is not None)
    return next(failed, None)


def job_of(cluster: Cluster, name: str) -> Job | None:
    """A Job."""
    raw = cluster.get(f"/apis/batch/v1/namespaces/{escaped(cluster.namespace)}/jobs/{escaped(name)}", {})
    return next(iter(parsed(Job, [raw])), None) if raw is not None else None


def pods_of(cluster: Cluster, job: str) -> tuple[Pod, ...]:
    """The pods of a Job, by index, for each index the newest one last."""
    path = f"/api/v1/namespaces/{escaped(cluster.namespace)}/pods"
    found = parsed(Pod, items(cluster.get(path, {"labelSelector": f"{JOB_NAME_LABEL}={job}"})))
    return tuple(sorted(found, key=lambda pod: (pod.index, age(pod.metadata.creation_timestamp), pod.metadata.name)))


def newest(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """One pod per index: the newest."""
    return tuple({pod.index: pod for pod in pods}.values())


def warnings_about(cluster: Cluster, names: set[tuple[str, str]]) -> tuple[Event, ...]:
    """The warnings about some objects, the latest first."""
    path = f"/api/v1/namespaces/{escaped(cluster.namespace)}/events"
    found = parsed(Event, items(cluster.get(path, {"fieldSelector": "type=Warning"})))
    about = (event for event in found if (event.involved_object.kind, event.involved_object.name) in names)
    return tuple(sorted(about, key=lambda event: age(event.time), reverse=True))


def workload_of(cluster: Cluster, job: Job) -> Workload | None:
    """What Kueue makes of a Job."""
    for api in KUEUE_APIS:
        path = f"/apis/{api}/namespaces/{escaped(cluster.namespace)}/workloads"
        listing = cluster.get(path, {"labelSelector": f"{JOB_UID_LABEL}={job.metadata.uid}"})
        if listing is not None:
            return next(iter(parsed(Workload, items(listing))), None)
    return None


def items(listing: JsonObject | None) -> list[JsonObject]:
    """What a list holds; nothing if the cluster does not know such a kind."""
    return list(listing.get("items") or ()) if listing is not None else []


def parsed(kind: type[SomeView], bodies: Iterable[JsonObject]) -> list[SomeView]:
    """Objects, those that cannot be read left out."""
    views = []
    for body in bodies:
        try:
            views.append(kind.model_validate(body))
        except ValidationError:
            continue
    return views


def age(time: datetime | None) -> float:
    """Sorts by time, the unknown first."""
    return time.timestamp() if time is not None else 0.0
