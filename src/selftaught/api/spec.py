"""The spec of a run: what a user asks for."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from selftaught.api.base import ApiModel, DecimalString, RatioString, Uri, broken_rule, cel
from selftaught.api.instructions import Instructions, Pairs
from selftaught.api.judging import Evaluation, Judging, Prompts, Training
from selftaught.api.placement import Stages
from selftaught.api.references import Judge, SecretRef


class Stopping(ApiModel):
    """When a run ends before its last iteration. All on the deciding benchmark's accuracy."""

    target_accuracy: RatioString | None = None
    """Stop once an iteration reaches this accuracy."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many iterations in a row without enough improvement over the best."""
    min_improvement: RatioString = "0"
    """What counts as improvement."""


class ApprovalRequired(StrEnum):
    """When a person must agree."""

    NEVER = "Never"
    EVERY_ITERATION = "EveryIteration"
    BEFORE_PROMOTION = "BeforePromotion"


class OnTimeout(StrEnum):
    """What happens when nobody decides in time."""

    SUSPEND = "Suspend"
    APPROVE = "Approve"
    REJECT = "Reject"


class ApprovalPolicy(ApiModel):
    """Whether a person decides on checkpoints."""

    required: ApprovalRequired = ApprovalRequired.NEVER
    """`EveryIteration`: before the next begins; `BeforePromotion`: before a checkpoint becomes the best."""
    timeout_seconds: Annotated[int, Field(ge=1)] | None = None
    """How long to wait; for ever if left out."""
    on_timeout: OnTimeout = OnTimeout.SUSPEND
    """What happens then. `Suspend` goes on waiting."""


class Decision(StrEnum):
    """What a person decided."""

    APPROVED = "Approved"
    REJECTED = "Rejected"


class Approval(ApiModel):
    """A person's decision on the checkpoint of an iteration."""

    iteration: Annotated[int, Field(ge=1)]
    """Iteration."""
    decision: Decision
    """Decision."""
    by: Annotated[str, StringConstraints(max_length=256)] = ""
    """Who."""
    note: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why."""
    time: datetime | None = None
    """When, if known."""


class KeepCheckpoints(StrEnum):
    """Which checkpoints stay."""

    ALL = "All"
    BEST = "Best"


class CheckpointRetention(ApiModel):
    """Which checkpoints stay in the store."""

    keep: KeepCheckpoints = KeepCheckpoints.BEST
    """`Best`: the best one and the last ones."""
    last: Annotated[int, Field(ge=1)] = 2
    """How many of the last ones, with `Best`."""


class Storage(ApiModel):
    """Where artifacts lie."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!self.uri.startsWith('hf://')", "the hub is no place for artifacts; use pvc://, s3:// or gs://")
        )
    )

    uri: Uri
    """A folder on a volume (`pvc://claim/path`), in an object store, or (local runs) `file:///path`."""
    credentials_secret_ref: SecretRef | None = None
    """A Secret whose keys become environment variables of the pods, such as `AWS_ACCESS_KEY_ID`."""
    checkpoints: CheckpointRetention = CheckpointRetention()
    """Which checkpoints stay."""

    @model_validator(mode="after")
    def _not_on_the_hub(self) -> Self:
        if self.uri.startswith("hf://"):
            hint = "use pvc://claim/path, s3://bucket/path, gs://bucket/path, or file:///path for a local run"
            raise broken_rule("uri", "the hub is no place for artifacts", hint)
        return self


class FailurePolicy(ApiModel):
    """How failures are borne."""

    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    """Restarts of the whole run after program errors; evictions and preemptions are free."""


class Deadlines(ApiModel):
    """Limits in time. Waiting in a queue, suspended or for approval does not count as running."""

    stalled_after_seconds: Annotated[int, Field(ge=1)] = 1800
    """No progress for this long while running: `ProgressDeadlineExceeded`."""
    active_seconds: Annotated[int, Field(ge=1)] | None = None
    """Most running time of the whole run."""
    queue_seconds: Annotated[int, Field(ge=1)] | None = None
    """Most time that a stage may wait in a queue."""


class Budget(ApiModel):
    """Limits in cost. No stage starts that would exceed them; the best checkpoint so far is kept."""

    gpu_hours: DecimalString | None = None
    """GPU hours, as GPUs requested times running time."""
    generated_tokens: Annotated[int, Field(ge=1)] | None = None
    """Output tokens of all stages."""


class RunSpec(ApiModel):
    """What a user asks for."""

    iterations: Annotated[int, Field(ge=1, le=100)] = 5
    """How many times the judge is retrained; may be raised while running."""
    suspend: bool = False
    """Stop what runs and start nothing; finished work and checkpoints are kept."""
    seed: Judge
    """The model that judges first, and that every training starts from. It must be instruction-tuned."""
    generator: Judge | None = None
    """The model that selects instructions and writes responses; the seed if left out."""
    prompts: Prompts = Prompts()
    """Prompt templates that replace the built-in ones."""
    instructions: Instructions
    """Where instructions come from."""
    pairs: Pairs = Pairs()
    """How response pairs are made."""
    judging: Judging = Judging()
    """How judgments are sampled and kept."""
    training: Training = Training()
    """How a judge is trained."""
    evaluation: Evaluation = Evaluation()
    """How judges are measured."""
    stopping: Stopping = Stopping()
    """When to stop early."""
    approval: ApprovalPolicy = ApprovalPolicy()
    """Whether a person decides on checkpoints."""
    approvals: Annotated[tuple[Approval, ...], Field(max_length=200)] = ()
    """Decisions; the last one for an iteration counts."""
    storage: Storage
    """Where artifacts lie."""
    stages: Stages = Stages()
    """How wide stages run, and on what."""
    failure_policy: FailurePolicy = FailurePolicy()
    """How failures are borne."""
    deadlines: Deadlines = Deadlines()
    """Limits in time."""
    budget: Budget = Budget()
    """Limits in cost."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Delete Jobs and Pods of a finished run after this time; never the run or its artifacts."""
