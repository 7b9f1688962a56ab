"""Jobs and pods → attempts, as the planner knows them. Pure: no reads, no clock."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from selftaught.api.outcomes import FailureRecord, OutcomeRecord, ResultRecord
from selftaught.api.results import Stage, StageResult
from selftaught.errors import INTERRUPTED_EXIT_CODE, PERMANENT_EXIT_CODE
from selftaught.loop.observed import Attempt, AttemptProgress, AttemptState, Failure, FailureKind
from selftaught_operator.facts import FailureRule, JobFacts, Place, PodFacts

SIGKILL_EXIT_CODE = 137
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")

KINDS_BY_RULE: Mapping[FailureRule | None, tuple[str, FailureKind]] = {
    FailureRule.PERMANENT: ("StageFailed", FailureKind.PERMANENT),
    FailureRule.DISRUPTED: ("Disrupted", FailureKind.DISRUPTION),
    FailureRule.INTERRUPTED: ("Interrupted", FailureKind.INTERRUPTED),
}
"""Why a Job failed whose pods are gone: deleted ones, as those of drained nodes are, vanish before it says so."""

OUTCOME = TypeAdapter[ResultRecord | FailureRecord](OutcomeRecord)


@dataclass(frozen=True)
class Children:
    """The Jobs and pods of one run."""

    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()

    def of(self, run_uid: str) -> "Children":
        """Those of the run itself."""
        return Children(
            tuple(job for job in self.jobs if job.run_uid == run_uid),
            tuple(pod for pod in self.pods if pod.run_uid == run_uid),
        )

    def foreign(self, run_uid: str) -> "Children":
        """What an earlier run of the same name left."""
        return Children(
            tuple(job for job in self.jobs if job.run_uid != run_uid),
            tuple(pod for pod in self.pods if pod.run_uid != run_uid),
        )

    def without(self, uids: Container[str]) -> "Children":
        """Those that are not among the uids."""
        return Children(
            tuple(job for job in self.jobs if job.uid not in uids),
            tuple(pod for pod in self.pods if pod.uid not in uids),
        )

    @property
    def cleaners(self) -> tuple[JobFacts, ...]:
        """Jobs that delete folders."""
        return tuple(job for job in self.jobs if job.place is None)


def attempts_of(
    children: Children,
    progress: Callable[[str, int], AttemptProgress | None],
    words: Mapping[str, str],
) -> tuple[Attempt, ...]:
    """All attempts that can be seen.

    `progress` gives what the pods of a Job told, by name and number of pods; `words` why a Job that does not get
    on does not, by name: what neither it nor its pods say (a queue's and a quota's reasons).
    """
    pods: dict[str, list[PodFacts]] = defaultdict(list)
    for pod in children.pods:
        pods[pod.job].append(pod)
    seen = {job.name for job in children.jobs}
    attempts = [
        JobReading(job, job.place, pods[job.name], progress(job.name, tellers(job)), words.get(job.name, "")).attempt()
        for job in children.jobs
        if job.place is not None
    ]
    attempts += [
        orphan(name, orphans)
        for name, orphans in pods.items()
        if name not in seen and any(pod.alive and pod.place is not None for pod in orphans)
    ]
    return tuple(attempts)


def tellers(job: JobFacts) -> int:
    """How many pods of a Job tell progress: of a training only the first."""
    return 1 if job.place is not None and job.place.stage is Stage.TRAIN else job.pods


def orphan(job: str, pods: Sequence[PodFacts]) -> Attempt:
    """An attempt whose Job is gone while pods are still at work."""
    place = next(pod.place for pod in pods if pod.place is not None)
    return Attempt(
        name=job,
        stage=place.stage,
        iteration=place.iteration,
        number=place.attempt,
        key=place.key,
        state=AttemptState.RUNNING,
        start_time=first_start(pods),
        stopping=True,
        message="its Job is gone; its pods are ending",
    )


class JobReading:
    """Reads one Job and its pods."""

    def __init__(
        self, job: JobFacts, place: Place, pods: Sequence[PodFacts], progress: AttemptProgress | None, words: str
    ) -> None:
        self._job = job
        self._place = place
        self._pods = pods
        self._progress = progress
        self._words = words

    def attempt(self) -> Attempt:
        """The attempt that it is."""
        job, place = self._job, self._place
        state = self._state()
        ended = state in (AttemptState.SUCCEEDED, AttemptState.FAILED)
        result = self._result() if state is AttemptState.SUCCEEDED else None
        failure = None
        if state is AttemptState.FAILED:
            failure = self._failure()
        elif state is AttemptState.SUCCEEDED and result is None:
            # The artifact is there: another attempt reads its result and ends at once.
            text = "its pods were deleted before their result was read; it is asked for again"
            state, failure = (
                AttemptState.FAILED,
                Failure(reason="ResultLost", message=text, kind=FailureKind.INTERRUPTED),
            )
        return Attempt(
            name=job.name,
            stage=place.stage,
            iteration=place.iteration,
            number=place.attempt,
            key=place.key,
            state=state,
            start_time=None if state in (AttemptState.PENDING, AttemptState.QUEUED) else self._start(),
            end_time=job.end.time if job.end is not None else None,
            queued_since=(job.suspended_since or job.created) if state is AttemptState.QUEUED else None,
            stopping=job.deleting and not ended,
            result=result,
            failure=failure,
            progress=self._progress,
            message="" if ended or state is AttemptState.RUNNING else self._message(),
        )

    def _state(self) -> AttemptState:
        if self._job.end is not None:
            return AttemptState.SUCCEEDED if self._job.end.complete else AttemptState.FAILED
        if self._job.suspended and not any(pod.running for pod in self._pods):
            return AttemptState.QUEUED
        if any(pod.started is not None for pod in self._pods):
            return AttemptState.RUNNING
        return AttemptState.PENDING

    def _start(self) -> datetime | None:
        """Since when it runs: shards that ended before the Job was suspended and let go again do not count."""
        if self._job.suspended:
            return first_start(pod for pod in self._pods if pod.running)
        start = first_start(self._pods)
        return start if start is None or self._job.start is None else max(start, self._job.start)

    def _message(self) -> str:
        waiting = next((pod.waiting for pod in self._pods if pod.waiting), "")
        text = waiting or self._words
        if waiting.startswith(IMAGE_REASONS):
            text += "; correct the image in spec.stages, or make it available"
        return " ".join(text.split())[:1024]

    def _result(self) -> StageResult | None:
        """What the last shard to end said: it speaks for all."""
        results = [
            record.result
            for pod in self._pods
            if pod.end is not None and pod.end.exit_code == 0
            if isinstance(record := outcome_of(pod), ResultRecord)
        ]
        whole = [result for result in results if result.complete]
        return max(whole, key=lambda result: result.rows, default=None)

    def _failure(self) -> Failure:
        """The failure that explains best why the Job failed."""
        assert self._job.end is not None
        failures = [failure for pod in self._pods if (failure := pod_failure(pod)) is not None]
        order = (FailureKind.PERMANENT, FailureKind.DISRUPTION, FailureKind.PROGRAM, FailureKind.INTERRUPTED)
        best = min(failures, key=lambda failure: (order.index(failure.kind), failure.reason == "Error"), default=None)
        if best is not None:
            return best
        end = self._job.end
        text = " ".join(f"{end.reason}: {end.message}".split())
        reason, kind = KINDS_BY_RULE.get(end.rule, (end.reason or "JobFailed", FailureKind.PROGRAM))
        return Failure(reason=reason, message=text[:1024], kind=kind)


def pod_failure(pod: PodFacts) -> Failure | None:
    """Why a pod failed, if it did."""
    if pod.disruption and (pod.end is None or pod.end.exit_code != 0):
        text = f"the cluster ended the pod ({pod.disruption}); finished rows are kept"
        return Failure(reason="Disrupted", message=text[:1024], kind=FailureKind.DISRUPTION)
    if pod.rejection:
        text = f"its node did not take the pod ({pod.rejection})"
        return Failure(reason="Rejected", message=text[:1024], kind=FailureKind.DISRUPTION)
    end = pod.end
    if end is None or end.exit_code == 0:
        return None
    if end.reason == "OOMKilled":
        text = "the pod needed more memory than its limit; raise stages.<stage>.resources.limits.memory"
        return Failure(reason="OOMKilled", message=text, kind=FailureKind.PROGRAM)
    record = outcome_of(pod)
    if isinstance(record, FailureRecord):
        kind = FailureKind.PROGRAM
        if record.failure.permanent or end.exit_code == PERMANENT_EXIT_CODE:
            kind = FailureKind.PERMANENT
        elif end.exit_code == INTERRUPTED_EXIT_CODE:
            kind = FailureKind.INTERRUPTED
        return Failure(reason=record.failure.reason, message=record.failure.message, kind=kind)
    if end.exit_code == INTERRUPTED_EXIT_CODE:
        return Failure(reason="Interrupted", message="the pod was asked to stop", kind=FailureKind.INTERRUPTED)
    words = " ".join(end.message.split())[-300:]
    killed = (
        " (killed; out of memory on the node, or its grace period was over)"
        if end.exit_code == SIGKILL_EXIT_CODE
        else ""
    )
    text = f"pod {pod.name} ended with exit code {end.exit_code}{killed}{': ' if words else ''}{words}"
    return Failure(reason=end.reason or "Error", message=text, kind=FailureKind.PROGRAM)


def outcome_of(pod: PodFacts) -> ResultRecord | FailureRecord | None:
    """What a pod left as its termination message; none if it left something else."""
    if pod.end is None or not pod.end.message:
        return None
    try:
        return OUTCOME.validate_json(pod.end.message)
    except ValidationError:
        return None


def first_start(pods: Iterable[PodFacts]) -> datetime | None:
    """When the first container began to run."""
    return min((pod.started for pod in pods if pod.started is not None), default=None)
