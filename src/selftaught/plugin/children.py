"""Why a stage's Job does not get on: its queue, its quota, its nodes, its image, its memory, its own errors."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from selftaught.api.labels import QUEUE_LABEL
from selftaught.api.outcomes import FailureRecord, OutcomeRecord, ResultRecord
from selftaught.api.status import ConditionStatus, ConditionType
from selftaught.display.outcome import stage_name
from selftaught.display.table import duration
from selftaught.plugin.answer import FIND_OPERATOR, Answer
from selftaught.plugin.objects import ContainerStatus, Event, Job, Pod, Terminated
from selftaught.plugin.snapshot import Snapshot, StagePlace, newest

OUTCOME = TypeAdapter[ResultRecord | FailureRecord](OutcomeRecord)
OPERATOR_PATIENCE = timedelta(seconds=60)
MAX_WORDS = 400

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
PREPARING = ("ContainerCreating", "PodInitializing", "")
CREATION_EVENTS = ("FailedCreate",)
VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
OOM = "OOMKilled"


def why_of_job(snapshot: Snapshot, place: StagePlace) -> Answer:
    """What the Job of a stage waits for."""
    name, job = stage_name(place.iteration, place.stage.name), snapshot.job
    if job is None:
        return without_job(snapshot, place, name)
    if (answer := ended(snapshot, job, name)) is not None:
        return answer
    if job.spec.suspend:
        return queued(snapshot, job, name)
    pods = newest(pod for pod in snapshot.pods if pod.status.phase != "Succeeded")
    if not snapshot.pods and "pods" not in snapshot.hidden:
        return without_pods(snapshot, job, name)
    for decide in (unscheduled, no_image, misconfigured, crashed, unprepared):
        if (answer := decide(snapshot, pods, name)) is not None:
            return answer
    return running(snapshot, place, name)


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
    reserved = workload.status.get("QuotaReserved")
    times = [workload.status.get("QuotaReserved", "False"), workload.status.get("Evicted")]
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


def unscheduled(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods without a node."""
    found = [(pod, told) for pod in pods if (told := pod.status.get("PodScheduled", "False")) is not None]
    if not found:
        return None
    first, told = found[0]
    gated = told.reason == "SchedulingGated"
    what = "its scheduling gates" if gated else "a node that fits"
    return Answer(
        f"{what}: {share(found, pods, snapshot)} of {name}",
        since=told.last_transition_time,
        because=(words(told.reason, told.message),),
        next_step=f"add such nodes, or ask for less in spec.stages   (see: kubectl describe pod {first.metadata.name})",
    )


def waiting(pods: Sequence[Pod], wanted: Callable[[str], bool]) -> list[tuple[Pod, ContainerStatus]]:
    """Containers that wait for one of some reasons, with their pods: one for each pod."""
    return [
        (pod, found[0])
        for pod in pods
        if (
            found := [
                each
                for each in pod.status.containers
                if each.state.waiting is not None and wanted(each.state.waiting.reason)
            ]
        )
    ]


def no_image(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods whose image cannot be pulled."""
    found = waiting(pods, IMAGE_REASONS.__contains__)
    if not found:
        return None
    pod, container = found[0]
    assert container.state.waiting is not None
    pulled = [event.message for event in snapshot.warnings if event.reason == "Failed" and "pull" in event.message]
    told = words(container.state.waiting.reason, container.state.waiting.message)
    return Answer(
        f"the image {container.image}: {share(found, pods, snapshot)} of {name}",
        since=scheduled(pod),
        because=(told, *(words("", each) for each in pulled[:1])),
        next_step="correct spec.stages' image, or its imagePullSecrets; a run that waits takes a new image up "
        "once it is suspended and resumed",
    )


def misconfigured(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods whose container cannot be made, such as for a Secret that is not there."""
    found = waiting(pods, CONFIG_REASONS.__contains__)
    if not found:
        return None
    pod, container = found[0]
    assert container.state.waiting is not None
    return Answer(
        f"its container to be made: {share(found, pods, snapshot)} of {name}",
        since=scheduled(pod),
        because=(words(container.state.waiting.reason, container.state.waiting.message),),
        next_step=f"create what is missing   (see: kubectl describe pod {pod.metadata.name})",
    )


def crashed(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods that have ended in failure, or do so again and again."""
    found = [(pod, end) for pod in pods if (end := failure(pod)) is not None]
    if not found:
        return None
    pod, end = found[0]
    logs = f"kubectl selftaught logs {snapshot.run.metadata.name}"
    step = f"wait: it is started again; what it said: {logs}"
    if end.reason == OOM:
        step = "raise the memory in spec.stages' resources, or ask for more shards or smaller batches"
    return Answer(
        ("memory" if end.reason == OOM else "another start")
        + f": {share(found, pods, snapshot)} of {name} "
        + ("ran out of it" if end.reason == OOM else "failed"),
        since=end.finished_at,
        because=(told_by(end), pod.status.message),
        next_step=step,
    )


def failure(pod: Pod) -> Terminated | None:
    """How a pod's container failed, now or (if it is not at work again) before."""
    for container in pod.status.containers:
        end = container.state.terminated or (container.last_state.terminated if container.state.waiting else None)
        if end is not None and end.exit_code != 0:
            return end
    if pod.status.phase == "Failed":
        return Terminated(exit_code=-1, reason=pod.status.reason or "Failed")
    return None


def told_by(end: Terminated) -> str:
    """What a container left as its last words, or its exit code."""
    try:
        record = OUTCOME.validate_json(end.message)
    except ValidationError:
        code = f", exit code {end.exit_code}" if end.exit_code >= 0 else ""
        return words(f"{end.reason or 'Error'}{code}", end.message)
    if isinstance(record, FailureRecord):
        return words(record.failure.reason, record.failure.message)
    return words(end.reason, "")


def unprepared(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods that have a node and do not run: volumes, network, a long pull."""
    found = waiting(pods, PREPARING.__contains__) + [
        (pod, ContainerStatus(name="")) for pod in pods if pod.status.phase == "Pending" and not pod.status.containers
    ]
    if not found:
        return None
    pod = found[0][0]
    names = {each.metadata.name for each, _ in found}
    about = [event for event in snapshot.warnings if event.involved_object.name in names]
    volume = any(event.reason in VOLUME_EVENTS for event in about)
    return Answer(
        ("its volumes" if volume else "its image and volumes") + f": {share(found, pods, snapshot)} of {name}",
        since=scheduled(pod),
        because=event_words(about),
        next_step=f"see the claims: kubectl get pvc; and: kubectl describe pod {pod.metadata.name}"
        if volume
        else f"wait; a large image takes minutes   (see: kubectl describe pod {pod.metadata.name})",
    )


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


def scheduled(pod: Pod) -> datetime | None:
    """When a pod got its node."""
    condition = pod.status.get("PodScheduled")
    return condition.last_transition_time if condition is not None else pod.metadata.creation_timestamp


def share(found: Sequence[object], pods: Sequence[Pod], snapshot: Snapshot) -> str:
    """`its pod`, or `2 of 4 pods`."""
    job = snapshot.job
    wanted = job.spec.completions or job.spec.parallelism or 1 if job is not None else 1
    every = max(len(pods), len(newest(snapshot.pods)), wanted)
    return "the pod" if every == 1 else f"{len(found)} of {every} pods"


def event_words(events: Sequence[Event]) -> tuple[str, ...]:
    """The latest warning of each kind, at most three."""
    by_reason = {event.reason: event for event in reversed(events)}
    latest = [event for event in events if by_reason[event.reason] is event]
    return tuple(words(event.reason, event.message) for event in latest[:3])


def words(reason: str, message: str) -> str:
    """`Reason: message`, on one line, cut where it is endless."""
    text = " ".join(f"{reason}: {message}".split()) if reason and message else " ".join((reason or message).split())
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"
