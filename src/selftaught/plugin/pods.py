"""Why pods do not get on: nodes, image, volumes, memory, their own errors."""

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from selftaught.api.outcomes import FailureRecord, OutcomeRecord, ResultRecord
from selftaught.plugin.answer import Answer, event_words, words
from selftaught.plugin.objects import ContainerStatus, Pod, Terminated
from selftaught.plugin.snapshot import Snapshot, newest

OUTCOME = TypeAdapter[ResultRecord | FailureRecord](OutcomeRecord)
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
PREPARING = ("ContainerCreating", "PodInitializing", "")
VOLUME_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
OOM = "OOMKilled"


def why_of_pods(snapshot: Snapshot, name: str) -> Answer | None:
    """What keeps pods of a stage from their work; none if nothing does. One pod per index counts: the newest."""
    pods = [pod for pod in newest(snapshot.pods) if pod.status.phase != "Succeeded"]
    for decide in (unscheduled, no_image, misconfigured, crashed, unprepared):
        if (answer := decide(snapshot, pods, name)) is not None:
            return answer
    return None


def unscheduled(snapshot: Snapshot, pods: Sequence[Pod], name: str) -> Answer | None:
    """Pods without a node."""
    found = [(pod, told) for pod in pods if (told := pod.status.get("PodScheduled", "False")) is not None]
    if not found:
        return None
    first, told = found[0]
    gated = told.reason == "SchedulingGated"
    what = "its scheduling gates" if gated else "a node that fits"
    advice = "add such nodes, or ask for less in spec.stages"
    if "persistentvolumeclaim" in told.message:
        what, advice = (
            "its volume",
            "create the PersistentVolumeClaim that the message names, or wait until it is bound",
        )
    return Answer(
        f"{what}: {share(found, pods, snapshot)} of {name}",
        since=told.last_transition_time,
        because=(words(told.reason, told.message),),
        next_step=f"{advice}   (see: kubectl describe pod {first.metadata.name})",
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
        next_step="correct spec.stages' image, or its imagePullSecrets; a Job that has not begun is made again",
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
    record = outcome(end)
    if isinstance(record, FailureRecord) and record.failure.permanent:
        step = f"mend the cause: the run fails, since another attempt would too; what it said: {logs}"
    else:
        step = f"wait: it is started again; what it said: {logs}"
    if end.reason == OOM:
        step = "raise the memory in spec.stages' resources, or ask for more shards or smaller batches"
    return Answer(
        ("memory" if end.reason == OOM else "the next attempt")
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


def outcome(end: Terminated) -> ResultRecord | FailureRecord | None:
    """What a stage left as its last words; none if it left none."""
    try:
        return OUTCOME.validate_json(end.message)
    except ValidationError:
        return None


def told_by(end: Terminated) -> str:
    """What a container left as its last words, or its exit code."""
    record = outcome(end)
    if record is None:
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
