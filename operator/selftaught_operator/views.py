"""What the watches have seen, as the reconciler asks for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from selftaught.loop.observed import AttemptProgress
from selftaught_operator.facts import JobFacts, PodFacts
from selftaught_operator.observe import Children
from selftaught_operator.passes import RunKey
from selftaught_operator.progress import PodIdentity
from selftaught_operator.reports import AttemptPod, ProgressBoard

JobIndex = Mapping[RunKey, Collection[JobFacts]]
PodIndex = Mapping[RunKey, Collection[PodFacts]]
PodNames = Mapping[tuple[str, str], Collection[tuple[RunKey, PodFacts]]]


@dataclass
class Views:
    """Indexes that are kept up to date elsewhere."""

    board: ProgressBoard
    jobs: JobIndex = field(default_factory=dict)
    pods: PodIndex = field(default_factory=dict)
    names: PodNames = field(default_factory=dict)

    def children(self, namespace: str, run: str) -> Children:
        """Jobs and pods with the label of a run."""
        key = (namespace, run)
        jobs = sorted(self.jobs.get(key, ()), key=lambda job: job.name)
        pods = sorted(self.pods.get(key, ()), key=lambda pod: pod.name)
        return Children(tuple(jobs), tuple(pods))

    def progress(self, namespace: str, job: str, pods: int) -> AttemptProgress | None:
        """What the pods of a Job told."""
        return self.board.progress(namespace, job, pods)

    def forget_progress(self, namespace: str) -> None:
        """Drop what pods told whose Jobs are gone."""
        known = {job.name for (where, _), jobs in self.jobs.items() if where == namespace for job in jobs}
        self.board.forget(namespace, known)

    def owner_of(self, identity: PodIdentity) -> AttemptPod | None:
        """The attempt that a pod belongs to; none if it is no run's, or another pod of the same name."""
        for (_, run), pod in self.names.get((identity.namespace, identity.pod_name), ()):
            if pod.uid == identity.pod_uid and pod.place is not None:
                return AttemptPod(namespace=identity.namespace, run=run, attempt=pod.job, index=pod.index)
        return None
