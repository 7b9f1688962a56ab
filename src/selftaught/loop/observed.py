"""What a planner knows about a run: its attempts, its ledger, and what was last told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from selftaught.api.base import ApiModel
from selftaught.api.results import Stage, StageResult
from selftaught.api.spec import Approval
from selftaught.api.stage_config import PromptTexts
from selftaught.api.status import RunStatus
from selftaught.artifacts import Manifest


class AttemptState(StrEnum):
    """State of an attempt."""

    PENDING = "Pending"
    """Started, and not running yet (scheduling, pulling an image)."""
    QUEUED = "Queued"
    """Waits for admission."""
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class FailureKind(StrEnum):
    """Whose fault a failure is, and what follows from it."""

    PROGRAM = "Program"
    """An error of the stage: started again, and counted."""
    PERMANENT = "Permanent"
    """Can never work: the run fails at once."""
    DISRUPTION = "Disruption"
    """Eviction, preemption, a lost node: started again for free, after a while."""
    INTERRUPTED = "Interrupted"
    """Stopped on purpose: started again for free, at once."""


class Failure(ApiModel):
    """Why an attempt failed."""

    reason: str
    """CamelCase word."""
    message: str
    """One line: the cause and the next step."""
    kind: FailureKind
    """Whose fault it is."""


@dataclass(frozen=True)
class AttemptProgress:
    """How far an attempt is."""

    fraction: float
    """0 to 1."""
    time: datetime
    """When it was told."""
    remaining_seconds: float | None = None
    throughput: str = ""
    input_tokens: int = 0
    """Of this attempt so far, over all shards."""
    output_tokens: int = 0


@dataclass(frozen=True)
class Attempt:
    """One try at a stage: a Job with its pods, or a local process."""

    name: str
    stage: Stage
    iteration: int
    number: int
    """1-based; names never repeat within a run."""
    key: str
    """Hash of all that determines the result, as it was when the attempt was started."""
    state: AttemptState
    start_time: datetime | None = None
    """When it began to run; none while it is pending or queued."""
    end_time: datetime | None = None
    queued_since: datetime | None = None
    """Since when it has waited for admission."""
    stopping: bool = False
    """Told to stop, but alive: a new attempt must wait."""
    result: StageResult | None = None
    failure: Failure | None = None
    progress: AttemptProgress | None = None
    message: str = ""
    """Why it is not running: the scheduler's, the registry's or the queue's own words."""

    @property
    def alive(self) -> bool:
        """Whether it may still be at work."""
        return self.state not in (AttemptState.SUCCEEDED, AttemptState.FAILED)

    def running_seconds(self, now: datetime) -> float:
        """How long it has run; waiting does not count."""
        if self.start_time is None:
            return 0.0
        return max(0.0, ((self.end_time or now) - self.start_time).total_seconds())


@dataclass(frozen=True)
class Observed:
    """All that decides, besides the run and the time.

    `attempts` may lack any that ended: what they did is in `ledger`, what they cost in `previous`.
    """

    prompts: PromptTexts
    """Resolved templates, frozen at the start of the run."""
    attempts: tuple[Attempt, ...] = ()
    ledger: Mapping[str, Manifest] = field(default_factory=dict)
    """Complete artifacts by key."""
    approvals: tuple[Approval, ...] = ()
    """Decisions made by hand, oldest first; those of the manifest come from the spec."""
    previous: RunStatus = field(default_factory=RunStatus)
    """The status as last written."""
    pruned: frozenset[str] = frozenset()
    """URIs of checkpoint folders that retention has deleted."""

    @property
    def alive(self) -> tuple[Attempt, ...]:
        """Attempts that may still be at work."""
        return tuple(attempt for attempt in self.attempts if attempt.alive)

    def finished(self) -> dict[str, Manifest]:
        """All finished stages by key."""
        ended_well = {attempt.key for attempt in self.attempts if succeeded(attempt)} - self.ledger.keys()
        found = {key: entry for key in ended_well if (entry := self.entry(key)) is not None}
        return {**self.ledger, **found}

    def entry(self, key: str) -> Manifest | None:
        """The finished stage with a key: from the ledger, else from an attempt that ended well."""
        if (manifest := self.ledger.get(key)) is not None:
            return manifest if usable(manifest.result) else None
        for attempt in self.attempts:
            if attempt.key == key and succeeded(attempt):
                assert attempt.result is not None
                end = attempt.end_time or attempt.start_time
                if end is not None:
                    return Manifest(
                        result=attempt.result, files=(), start_time=attempt.start_time or end, completion_time=end
                    )
        return None


def ledger_of(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Manifests by key, unfinished shards left out."""
    return {manifest.result.key: manifest for manifest in manifests if manifest.result.complete}


def usable(result: StageResult) -> bool:
    """Whether a result says what the stages after it need."""
    match result.stage:
        case Stage.CURATE:
            return result.complete and result.curation is not None
        case Stage.TRAIN:
            return result.complete and bool(result.checkpoints)
        case Stage.EVALUATE:
            return result.complete and bool(result.scores)
        case _:
            return result.complete


def succeeded(attempt: Attempt) -> bool:
    """Whether an attempt ended well and left a result of its own."""
    return (
        attempt.state is AttemptState.SUCCEEDED
        and attempt.result is not None
        and attempt.result.key == attempt.key
        and usable(attempt.result)
    )
