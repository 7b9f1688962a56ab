"""What a stage says when it ends: the termination message of its pod, and the heart of its ledger entry."""

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from selftaught.api.base import ApiModel, Fraction

MAX_RESULT_BYTES = 4096
"""Kubernetes keeps this much of a termination message."""


class Stage(StrEnum):
    """The stages, in the order of the loop."""

    SELECT = "select"
    GENERATE = "generate"
    JUDGE = "judge"
    CURATE = "curate"
    TRAIN = "train"
    EVALUATE = "evaluate"


class Usage(ApiModel):
    """What a stage used, over all of its shards and attempts that wrote something."""

    input_tokens: int = 0
    """Prompt tokens, cached ones included."""
    output_tokens: int = 0
    """Generated tokens (train: non-padding tokens trained on, times epochs)."""
    seconds: float = 0.0
    """Running time, summed over shards."""
    gpu_seconds: float = 0.0
    """GPUs times running time."""


class CurationStats(ApiModel):
    """What rejection sampling kept (one example = one pair in one order)."""

    pairs: int
    """Response pairs."""
    examples: int
    """Pairs times orders."""
    samples: int
    """Judgments that were drawn."""
    correct: int
    """Judgments with the right verdict."""
    unparsable: int
    """Judgments without a verdict."""
    solved: int
    """Examples with at least one correct judgment."""
    kept: int
    """Training rows after agreement threshold and balance."""
    kept_a: int
    """Kept rows whose verdict is A."""
    kept_b: int
    """Kept rows whose verdict is B."""
    prefers_a: Fraction
    """Share of A among the parsable verdicts: 0.5 is unbiased when both orders are judged."""
    mean_length: float
    """Mean length of a kept judgment, in tokens."""


class Score(ApiModel):
    """One judge on one benchmark, both orders."""

    benchmark: str
    """Name of the benchmark."""
    subset: str | None = None
    """A section or subset; the whole if left out."""
    pairs: int
    """Pairs judged."""
    accuracy: Fraction
    """Share of correct verdicts over both orders; no verdict counts as wrong."""
    low: Fraction
    """Lower end of the 95 % bootstrap interval of the accuracy (pairs resampled)."""
    high: Fraction
    """Upper end."""
    consistent_accuracy: Fraction
    """Share of pairs that are right in both orders."""
    prefers_first: Fraction
    """Share of verdicts for the response shown first."""
    prefers_longer: Fraction
    """Share of verdicts for the longer response."""
    longer_baseline: Fraction
    """Accuracy of always picking the longer response."""
    unparsable: Fraction
    """Share of judgments without a verdict."""


class Checkpoint(ApiModel):
    """Weights of a judge."""

    uri: str
    """Folder with safetensors."""
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """Hash over the names and hashes of its files."""
    epoch: int
    """Epoch it was taken after."""


class TrainingStats(ApiModel):
    """What a training did."""

    examples: int
    """Rows trained on."""
    dropped: int
    """Rows left out because the verdict would have been cut off."""
    steps: int
    """Optimiser steps."""
    tokens: int
    """Non-padding tokens, times epochs."""
    loss: float
    """Mean loss of the last epoch."""
    wrapped_as: str
    """How the model was spread over processes: `None`, `DDP`, `FSDP2`."""
    processes: int
    """Processes."""


class StageResult(ApiModel):
    """What a stage says when it has ended well; at most 4096 bytes as JSON."""

    stage: Stage
    """Stage."""
    iteration: int
    """Iteration; 0 for what happens once."""
    key: str
    """Hash of all that determines the result."""
    complete: bool = True
    """False for a shard that ended while others were still at work."""
    rows: int = 0
    """Rows of the artifact."""
    dropped: dict[str, int] = {}
    """Rows left out, by reason."""
    usage: Usage = Usage()
    """What it used."""
    curation: CurationStats | None = None
    """From curate."""
    training: TrainingStats | None = None
    """From train."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """From train: one per kept epoch, in order."""
    checkpoint: Checkpoint | None = None
    """From evaluate: the one that the scores belong to; none for the seed."""
    scores: tuple[Score, ...] = ()
    """From evaluate: whole benchmarks first, then sections."""
    message: str = ""
    """Something worth telling people."""


class StageFailure(ApiModel):
    """What a stage says when it has failed."""

    reason: str
    """CamelCase word."""
    message: str
    """One line: the cause and the next step."""
    permanent: bool
    """Whether another attempt would fail too."""
