"""What the plugin reads of Jobs, pods, Events and Kueue's Workloads."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from selftaught.api.labels import JOB_INDEX_ANNOTATION


class View(BaseModel):
    """The part of an object that matters here; a null is an absent field."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


class Meta(View):
    """Metadata."""

    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class ConditionView(View):
    """A condition of a Job, pod or Workload."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Conditions(View):
    """A status with conditions."""

    conditions: tuple[ConditionView, ...] = ()

    def get(self, kind: str, status: str = "True") -> ConditionView | None:
        """The condition of a type, if it has this status."""
        return next((each for each in self.conditions if (each.type, each.status) == (kind, status)), None)


class JobSpec(View):
    """Spec of a Job."""

    suspend: bool = False
    parallelism: int | None = None
    completions: int | None = None


class JobStatus(Conditions):
    """Status of a Job."""

    active: int = 0
    succeeded: int = 0


class Job(View):
    """A Job."""

    metadata: Meta
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class Waiting(View):
    """A container that has not started."""

    reason: str = ""
    message: str = ""


class Running(View):
    """A container at work."""

    started_at: datetime | None = None


class Terminated(View):
    """A container that has ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class ContainerState(View):
    """One of three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(View):
    """A container."""

    name: str
    image: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Conditions):
    """Status of a pod."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()

    @property
    def containers(self) -> tuple[ContainerStatus, ...]:
        """All containers, those that prepare the others first."""
        return self.init_container_statuses + self.container_statuses


class Container(View):
    """A container of a pod's spec."""

    name: str


class PodSpec(View):
    """Spec of a pod."""

    containers: tuple[Container, ...] = ()


class Pod(View):
    """A pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def index(self) -> int:
        """Which shard it is."""
        told = self.metadata.annotations.get(JOB_INDEX_ANNOTATION, "0")
        return int(told) if told.isdigit() else 0

    @property
    def container(self) -> str:
        """The container at work; a mesh may have added others."""
        default = self.metadata.annotations.get("kubectl.kubernetes.io/default-container", "")
        names = [container.name for container in self.spec.containers]
        return default if default in names else next(iter(names), "")

    @property
    def started(self) -> bool:
        """Whether it has something to say."""
        return any(
            each.name == self.container and (each.state.running or each.state.terminated or each.last_state.terminated)
            for each in self.status.container_statuses
        )


class Involved(View):
    """What an Event is about."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Event(View):
    """An Event."""

    involved_object: Involved = Involved()
    type: str = ""
    reason: str = ""
    message: str = ""
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    first_timestamp: datetime | None = None
    metadata: Meta

    @property
    def time(self) -> datetime | None:
        """When it was last seen."""
        return self.last_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def since(self) -> datetime | None:
        """When it was first seen."""
        return self.first_timestamp or self.event_time or self.metadata.creation_timestamp


class Workload(View):
    """What Kueue makes of a Job."""

    metadata: Meta
    status: Conditions = Conditions()
