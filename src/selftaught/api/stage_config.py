"""What a stage is told: the planner serialises one of these, the stage's process parses the very same class.

Frozen when the stage starts, so that an edited spec or prompt never changes running work. `key` names all
that determines the result; `shards`, `attempt` and `token_allowance` do not.
"""

from typing import Annotated, Literal

from pydantic import Field

from selftaught.api.base import ApiModel
from selftaught.api.instructions import Instructions, Pairs
from selftaught.api.judging import Evaluation, Judging, Training
from selftaught.api.placement import Engine
from selftaught.api.references import ModelSource
from selftaught.api.results import Checkpoint, Stage


class PromptTexts(ApiModel):
    """Resolved prompt templates."""

    categorise: str
    """Asks for category, complexity and expected length of `{{instruction}}`."""
    respond: str
    """Asks for an answer to `{{instruction}}`."""
    modify: str
    """Asks for a modified instruction and a good answer to it, given `{{instruction}}` and `{{response}}`."""
    judge: str
    """Asks which of `{{response_a}}` and `{{response_b}}` answers `{{instruction}}` better."""


class StageConfigBase(ApiModel):
    """What every stage is told."""

    run: str
    """`namespace/name` of the run."""
    iteration: int
    """Iteration; 0 for what happens once."""
    attempt: int = 1
    """Attempt, 1-based."""
    key: str
    """Hash of all that determines the result (64 hex digits)."""
    output: str
    """URI of the folder the artifact is written to."""
    shards: int = 1
    """Processes that share the rows; each is told its index on its own."""


class EngineStageConfig(StageConfigBase):
    """A stage that samples text."""

    model: ModelSource
    """The model to load."""
    engine: Engine
    """Engine settings."""
    prompts: PromptTexts
    """Prompt templates."""
    token_allowance: int | None = None
    """Generated tokens that the run's budget still allows, for all shards and attempts of the stage together."""


class SelectConfig(EngineStageConfig):
    """instruction sources → selected instructions."""

    stage: Literal[Stage.SELECT] = Stage.SELECT
    """Stage."""
    instructions: Instructions
    """Sources and selection."""
    evaluation: Evaluation
    """Benchmarks to decontaminate against."""


class GenerateConfig(EngineStageConfig):
    """instructions → response pairs."""

    stage: Literal[Stage.GENERATE] = Stage.GENERATE
    """Stage."""
    instructions: str
    """URI of the selected instructions."""
    pairs: Pairs
    """How pairs are made."""


class JudgeConfig(EngineStageConfig):
    """pairs → judgments."""

    stage: Literal[Stage.JUDGE] = Stage.JUDGE
    """Stage."""
    pairs: str
    """URI of the response pairs."""
    judging: Judging
    """How judgments are sampled."""


class CurateConfig(StageConfigBase):
    """judgments → training examples."""

    stage: Literal[Stage.CURATE] = Stage.CURATE
    """Stage."""
    pairs: str
    """URI of the response pairs."""
    judgments: str
    """URI of the judgments."""
    judging: Judging
    """Which judgments are kept."""
    prompts: PromptTexts
    """The templates that the judgments were asked with."""
    judge_model: ModelSource
    """The model that judged, for the data card."""


class TrainConfig(StageConfigBase):
    """examples → checkpoints, one per epoch that is kept."""

    stage: Literal[Stage.TRAIN] = Stage.TRAIN
    """Stage."""
    model: ModelSource
    """The weights to start from."""
    examples: str
    """URI of the training examples."""
    training: Training
    """How to train."""
    keep_all_epochs: bool = False
    """Write a checkpoint after every epoch, for the evaluation to choose from; else after the last only."""


class EvaluateConfig(EngineStageConfig):
    """model(s) → scores on every benchmark."""

    stage: Literal[Stage.EVALUATE] = Stage.EVALUATE
    """Stage."""
    candidates: tuple[Checkpoint, ...] = ()
    """Checkpoints to choose from by the selection benchmark; empty: `model` itself (the seed) is scored."""
    evaluation: Evaluation
    """Benchmarks."""
    guided_verdict: bool = False
    """Constrain judgments to end in a verdict."""


StageConfig = Annotated[
    SelectConfig | GenerateConfig | JudgeConfig | CurateConfig | TrainConfig | EvaluateConfig,
    Field(discriminator="stage"),
]
"""Any of them; parse with `pydantic.TypeAdapter(StageConfig)`."""
