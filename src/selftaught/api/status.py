"""The status of a run: what the operator (or the local runner) tells."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from selftaught.api.base import ApiModel
from selftaught.api.results import Stage
from selftaught.api.spec import Approval


class Phase(StrEnum):
    """A word for people; programs read the conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    AWAITING_APPROVAL = "AwaitingApproval"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Types of conditions; all are present from the first pass on."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    AWAITING_APPROVAL = "AwaitingApproval"
    QUEUED = "Queued"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"


class ConditionStatus(StrEnum):
    """As metav1.ConditionStatus."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """As metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Type."""
    status: ConditionStatus
    """Status."""
    observed_generation: int = 0
    """Generation of the spec it was made from."""
    last_transition_time: datetime
    """When the status last changed."""
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    """CamelCase word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """A sentence for people."""


class StageState(StrEnum):
    """State of a stage."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class StageStatus(ApiModel):
    """One stage of an iteration."""

    name: Stage
    """Stage."""
    state: StageState
    """State."""
    job_name: str = ""
    """Name of the Job of the last attempt."""
    attempts: int = 0
    """Attempts made."""
    start_time: datetime | None = None
    """Start of the first attempt."""
    completion_time: datetime | None = None
    """End of the last attempt."""
    retry_time: datetime | None = None
    """When the next attempt may start, after a failure."""
    ended: int = 0
    """Attempts that have ended: those with a number up to this one are in all counters."""
    failures: int = 0
    """Attempts that failed; interrupted ones are left out. Spaces the next attempts."""
    active_seconds: int = 0
    """Running time of the attempts that have ended, and of the one at work before it was preempted."""
    gpu_seconds: int = 0
    """GPU seconds in that time."""
    running_seconds: int = 0
    """Running time of the attempt at work, in whole minutes."""
    message: str = ""
    """Last failure, or what is worth telling."""


class CurationStatus(ApiModel):
    """What rejection sampling kept."""

    pairs: int
    """Response pairs."""
    judged: int
    """Judgments drawn."""
    kept: int
    """Training examples."""
    parse_failures: int
    """Judgments without a verdict."""
    yield_: str = Field(alias="yield")
    """Share of examples with a correct judgment."""
    label_balance: str
    """Share of A among the kept verdicts."""


class ScoreStatus(ApiModel):
    """Accuracy on one benchmark; fractions as strings."""

    benchmark: str
    """Benchmark."""
    accuracy: str
    """Accuracy over both orders."""
    consistent_accuracy: str
    """Right in both orders."""
    confidence_interval: tuple[str, str]
    """95 %."""
    unparsable: str
    """Judgments without a verdict."""
    pairs: int
    """Pairs judged."""


class CheckpointStatus(ApiModel):
    """Weights of a judge."""

    uri: str
    """Folder."""
    sha256: str
    """Hash."""
    pruned: bool = False
    """Whether retention has deleted the weights."""


class IterationDecision(StrEnum):
    """What the gate decided on an iteration."""

    PROMOTED = "Promoted"
    KEPT = "Kept"
    REJECTED = "Rejected"
    GATE_FAILED = "GateFailed"
    AWAITING_APPROVAL = "AwaitingApproval"


class UsageStatus(ApiModel):
    """What the run has used."""

    gpu_seconds: int = 0
    """GPU seconds."""
    input_tokens: int = 0
    """Prompt tokens."""
    output_tokens: int = 0
    """Generated tokens."""
    active_seconds: int = 0
    """Running time; waiting does not count."""


class IterationStatus(ApiModel):
    """One iteration; index 0 is what happens once (select, generate, baseline evaluation)."""

    index: int
    """1-based; 0 for the preparation."""
    stages: tuple[StageStatus, ...] = ()
    """Stages, in order."""
    curation: CurationStatus | None = None
    """What was kept."""
    scores: tuple[ScoreStatus, ...] = ()
    """Accuracy per benchmark."""
    checkpoint: CheckpointStatus | None = None
    """The judge that came out."""
    decision: IterationDecision | None = None
    """What the gate decided."""
    decision_message: str = ""
    """Why."""
    approval: Approval | None = None
    """Who decided, if a person did."""
    usage: UsageStatus = UsageStatus()
    """What its stages used."""


class Progress(ApiModel):
    """How far the running stage is."""

    stage: Stage
    """Stage."""
    iteration: int
    """Iteration."""
    percentage: int
    """0 to 100."""
    estimated_remaining_seconds: int | None = None
    """Time left in the stage."""
    last_updated_time: datetime
    """When progress was last made."""
    throughput: str = ""
    """Such as `812 tokens/s`."""


class Best(ApiModel):
    """The promoted judge."""

    iteration: int
    """Iteration; 0 is the seed."""
    benchmark: str
    """The deciding benchmark."""
    accuracy: str
    """Accuracy on it."""
    checkpoint: CheckpointStatus | None = None
    """Its weights; none for the seed."""


class Summary(ApiModel):
    """Ready-made columns of `kubectl get`, since a column can neither join nor choose fields."""

    iteration: str = ""
    """Such as `2/5`."""
    stage: str = ""
    """The stage at work."""
    progress: str = ""
    """Such as `43%`."""
    best: str = ""
    """Best accuracy and its iteration, such as `0.853 (i3)`."""
    baseline: str = ""
    """Accuracy of the seed."""
    reason: str = ""
    """Why the run is where it is."""


class RunStatus(ApiModel):
    """What is known about a run."""

    observed_generation: int = 0
    """Generation of the spec that was last acted on."""
    phase: Phase = Phase.PENDING
    """For people only."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    """Conditions."""
    start_time: datetime | None = None
    """When the first stage started."""
    completion_time: datetime | None = None
    """When the run ended."""
    iteration: int = 0
    """The iteration at work."""
    progress: Progress | None = None
    """How far the running stage is."""
    baseline: tuple[ScoreStatus, ...] = ()
    """Scores of the seed."""
    iterations: Annotated[tuple[IterationStatus, ...], Field(max_length=101)] = ()
    """Iterations, oldest first."""
    best: Best | None = None
    """The promoted judge."""
    restarts: int = 0
    """All restarts of stages."""
    restarts_counted: int = 0
    """Those that count against `failurePolicy.maxRestarts`."""
    observed_retry: str = ""
    """Value of the annotation `selftaught.dev/retry` that was last acted on."""
    usage: UsageStatus = UsageStatus()
    """What the run has used."""
    summary: Summary = Summary()
    """Ready-made columns of `kubectl get`."""
