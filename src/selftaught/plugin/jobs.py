"""Why a stage's Job does not get on: its queue, its quota, or (see `pods`) its pods."""

from datetime import timedelta

from selftaught.api.labels import QUEUE_LABEL
from selftaught.api.status import ConditionStatus, ConditionType
from selftaught.display.outcome import stage_name
from selftaught.display.table import duration
from selftaught.plugin.answer import FIND_OPERATOR, Answer, event_words, words
from selftaught.plugin.objects import Job
from selftaught.plugin.pods import why_of_pods
from selftaught.plugin.snapshot import Snapshot, StagePlace

OPERATOR_PATIENCE = timedelta(seconds=60)
CREATION_EVENTS = ("FailedCreate",)


def why_of_job(snapshot: Snapshot, place: StagePlace) -> Answer:
    """What the Job of a stage waits for."""
    name, job = stage_name(place.iteration, place.stage.name), snapshot.job
    if job is None:
        return without_job(snapshot, place, name)
    if (answer := ended(snapshot, job, name)) is not None:
        return answer
    if job.spec.suspend:
        return queued(snapshot, job, name)
    if not snapshot.pods and "pods" not in snapshot.hidden:
        return without_pods(snapshot, job, name)
    return why_of_pods(snapshot, name) or running(snapshot, place, name)


def without_job(snapshot: Snapshot, place: StagePlace, name: str) -> Answer:
    """Nothing can be seen of the stage but its status."""
    told = (place.stage.message, snapshot.run.status.summary.reason)
    if "jobs" in snapshot.hidden:
        return Answer(
            f"{name}; more cannot be told, since you may not read Jobs",
            since=place.stage.start_time,
            because=told,
            next_step="ask for the right to get Jobs, and to list pods and events",
        )
    return Answer(
        f"the operator: the Job of {name} ({place.stage.job_name}) does not exist",
        because=told,
        next_step=f"ask again in a few seconds; if it stays so, {FIND_OPERATOR}",
    )


def ended(snapshot: Snapshot, job: Job, name: str) -> Answer | None:
    """A Job that has ended while the run still counts on it."""
    condition = job.status.get("Complete") or job.status.get("Failed")
    if condition is None:
        return None
    since = condition.last_transition_time
    how = "is complete" if condition.type == "Complete" else "has failed"
    fresh = since is not None and snapshot.now - since < OPERATOR_PATIENCE
    return Answer(
        f"the operator: the Job of {name} {how}, which it has not acted on yet",
        since=since,
        because=(words(condition.reason, condition.message),),
        next_step="ask again in a few seconds" if fresh else FIND_OPERATOR,
    )


def queued(snapshot: Snapshot, job: Job, name: str) -> Answer:
    """A Job that is not admitted."""
    queue, workload = job.metadata.labels.get(QUEUE_LABEL, ""), snapshot.workload
    suspended = job.status.get("Suspended")
    since = suspended.last_transition_time if suspended is not None else job.metadata.creation_timestamp
    if not queue:
        return Answer(
            f"whoever suspended the Job of {name}: it is in no queue",
            since=since,
            because=(words(suspended.reason, suspended.message),) if suspended is not None else (),
            next_step=f'kubectl patch job {job.metadata.name} --type merge -p \'{{"spec":{{"suspend":false}}}}\'',
        )
    if workload is None:
        hidden = "workloads" in snapshot.hidden
        return Answer(
            f"admission of {name} to the queue {queue}",
            since=since,
            because=("you may not read Kueue's Workloads" if hidden else "Kueue has made no Workload of its Job",),
            next_step=f"see the queue: kubectl get localqueue {queue}"
            + ("" if hidden else "; if there is none, or Kueue does not run, the Job is never admitted"),
        )
    told = [
        words(condition.reason, condition.message)
        for kind, status in (("Evicted", "True"), ("QuotaReserved", "False"), ("Admitted", "False"))
        if (condition := workload.status.get(kind, status)) is not None
    ]
    evicted = workload.status.get("Evicted")
    if evicted is not None and evicted.reason.startswith("Deactivated"):
        return Answer(
            f"somebody to activate the Workload of {name}",
            since=evicted.last_transition_time,
            because=(words(evicted.reason, evicted.message),),
            next_step=f"kubectl patch workload {workload.metadata.name} --type merge "
            """-p '{"spec":{"active":true}}'""",
        )
    reserved = workload.status.get("QuotaReserved")
    times = [workload.status.get("QuotaReserved", "False"), evicted]
    return Answer(
        f"the checks of Kueue's admission of {name} (its quota is reserved)"
        if reserved is not None
        else f"quota of the queue {queue} for {name}",
        since=next((each.last_transition_time for each in times if each is not None), since),
        because=tuple(told),
        next_step=f"wait, or see who has the quota: kubectl describe localqueue {queue}   "
        f"(its Workload: kubectl describe workload {workload.metadata.name})",
    )


def without_pods(snapshot: Snapshot, job: Job, name: str) -> Answer:
    """A Job whose pods cannot be created."""
    refused = next((event for event in snapshot.warnings if event.reason in CREATION_EVENTS), None)
    if refused is None:
        return Answer(
            f"the pods of {name} to be created",
            since=job.metadata.creation_timestamp,
            because=event_words(snapshot.warnings),
            next_step=f"ask again in a few seconds, then: kubectl describe job {job.metadata.name}",
        )
    message = refused.message
    if "exceeded quota" in message:
        what = "room in the namespace's quota"
        step = "see it: kubectl describe resourcequota; lower spec.stages' resources, or have the quota raised"
    elif "PodSecurity" in message or "violates" in message:
        what = "pods that the namespace's Pod Security admits"
        step = "change spec.stages' template, or the namespace's pod-security.kubernetes.io/enforce label"
    elif "serviceaccount" in message.lower():
        what = "a ServiceAccount that exists"
        step = "create it, or correct spec.stages' serviceAccountName"
    else:
        what, step = "pods that the cluster lets be created", f"kubectl describe job {job.metadata.name}"
    return Answer(f"{what} ({name})", since=refused.since, because=(words("", message),), next_step=step)


def running(snapshot: Snapshot, place: StagePlace, name: str) -> Answer:
    """A stage that is at work, as far as can be seen."""
    run, progress = snapshot.run, snapshot.run.status.progress
    logs = f"kubectl selftaught logs {run.metadata.name} --follow"
    stalled = next(
        (
            condition
            for condition in run.status.conditions
            if condition.type == ConditionType.PROGRESS_DEADLINE_EXCEEDED and condition.status is ConditionStatus.TRUE
        ),
        None,
    )
    if stalled is not None:
        since = progress.last_updated_time if progress is not None else stalled.last_transition_time
        return Answer(
            f"{name}, which runs and tells no progress",
            since=since,
            because=(stalled.message, *event_words(snapshot.warnings)),
            next_step=f"read what it does: {logs}; to start it again, delete the Job {place.stage.job_name}",
        )
    told = ""
    if progress is not None and (progress.iteration, progress.stage) == (place.iteration, place.stage.name):
        parts = [f"{progress.percentage} % done", progress.throughput]
        if progress.estimated_remaining_seconds is not None:
            parts.append(f"{duration(progress.estimated_remaining_seconds)} left")
        told = ", ".join(filter(None, parts))
    return Answer(
        f"nothing: {name} is at work",
        since=place.stage.start_time,
        because=(told, place.stage.message),
        next_step=f"watch it: {logs}",
    )
