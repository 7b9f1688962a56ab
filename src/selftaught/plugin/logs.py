"""What the pods of a stage print."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from selftaught.api.run import SelfTaughtRun
from selftaught.display.outcome import stage_name
from selftaught.errors import SelfTaughtError
from selftaught.plugin.cluster import Cluster, RefusedError, escaped
from selftaught.plugin.objects import Pod
from selftaught.plugin.snapshot import StagePlace, age, current, newest, pods_of

POLL_SECONDS = 2.0
Say = Callable[[str], None]
Pause = Callable[[float], object]


def chosen_stage(run: SelfTaughtRun, stage: str | None, iteration: int | None) -> StagePlace:
    """The stage asked for; else the one at work, else the one that was started last. Raises RefusedError."""
    started = [
        StagePlace(each.index, status) for each in run.status.iterations for status in each.stages if status.job_name
    ]
    fitting = [
        place for place in started if stage in (None, str(place.stage.name)) and iteration in (None, place.iteration)
    ]
    if not fitting:
        known = ", ".join(f"{place.stage.name} (iteration {place.iteration})" for place in started)
        asked = " ".join(filter(None, (stage, f"of iteration {iteration}" if iteration is not None else "")))
        raise RefusedError(
            f"{run.metadata.name} has not started {asked or 'any stage'} yet; "
            + (f"started so far: {known}" if known else f"see: kubectl selftaught why {run.metadata.name}")
        )
    if (at_work := current(run)) in fitting:
        assert at_work is not None
        return at_work
    return max(fitting, key=lambda place: (age(place.stage.start_time), place.iteration))


def log_lines(
    cluster: Cluster, run: SelfTaughtRun, place: StagePlace, *, follow: bool, every: bool, say: Say, pause: Pause
) -> Iterator[str]:
    """The lines of one pod, or of all with their index before each. Raises RefusedError, UnreachableError."""
    name = stage_name(place.iteration, place.stage.name)
    pods = started_pods(cluster, run, place, follow=follow, say=say, pause=pause)
    if not every:
        pod = next((each for each in pods if each.status.phase == "Running"), pods[0])
        more = f", 1 of {len(pods)}; --all-pods shows all" if len(pods) > 1 else ""
        say(f"{name}: pod {pod.metadata.name}{more}")
        yield from pod_lines(cluster, pod, follow=follow)
        return
    say(f"{name}: {len(pods)} pod{'s' if len(pods) > 1 else ''} of Job {place.stage.job_name}")
    source = merged(cluster, pods) if follow else one_by_one(cluster, pods)
    for pod, line in source:
        yield f"[{pod.index}] {line}"


def started_pods(
    cluster: Cluster, run: SelfTaughtRun, place: StagePlace, *, follow: bool, say: Say, pause: Pause
) -> tuple[Pod, ...]:
    """The newest pod for each index that has begun to print; with `follow`, waits for the first."""
    told, seen = False, False
    while True:
        pods = newest(pods_of(cluster, place.stage.job_name))
        if started := tuple(pod for pod in pods if pod.started):
            return started
        why = f"kubectl selftaught why {run.metadata.name}"
        at_work = current(run) == place
        if not pods and (seen or not at_work):
            raise RefusedError(f"no pod of Job {place.stage.job_name} is left; its log went with it")
        if not follow:
            raise RefusedError(f"no pod of Job {place.stage.job_name} has started yet; see: {why}")
        if not told:
            say(f"waiting for a pod of Job {place.stage.job_name} to start; see: {why}")
        told, seen = True, seen or bool(pods)
        pause(POLL_SECONDS)


def pod_lines(cluster: Cluster, pod: Pod, *, follow: bool) -> Iterator[str]:
    """What one pod prints."""
    path = f"/api/v1/namespaces/{escaped(cluster.namespace)}/pods/{escaped(pod.metadata.name)}/log"
    return cluster.lines(path, {"container": pod.container} | ({"follow": "true"} if follow else {}))


def one_by_one(cluster: Cluster, pods: Sequence[Pod]) -> Iterator[tuple[Pod, str]]:
    """What pods have printed, one after the other."""
    for pod in pods:
        for line in pod_lines(cluster, pod, follow=False):
            yield pod, line


def merged(cluster: Cluster, pods: Sequence[Pod]) -> Iterator[tuple[Pod, str]]:
    """What pods print, as it comes. The first error ends it, once the other pods' lines so far are told."""
    lines: queue.SimpleQueue[tuple[Pod, str | Exception | None]] = queue.SimpleQueue()

    def read(pod: Pod) -> None:
        try:
            for line in pod_lines(cluster, pod, follow=True):
                lines.put((pod, line))
        except SelfTaughtError as error:
            lines.put((pod, error))
        else:
            lines.put((pod, None))

    for pod in pods:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    alive = len(pods)
    while alive:
        pod, line = lines.get()
        if isinstance(line, Exception):
            raise line
        if line is None:
            alive -= 1
        else:
            yield pod, line
