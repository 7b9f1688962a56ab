"""Spec of judging, training and evaluation."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from selftaught.api.base import (
    ApiModel,
    DecimalString,
    Fraction,
    Name,
    RatioString,
    Uri,
    broken_rule,
    cel,
    repeated,
)
from selftaught.api.instructions import FieldPath
from selftaught.api.references import ConfigMapRef, Sampling


class Orders(StrEnum):
    """In which order the two responses are shown."""

    BOTH = "Both"
    CHOSEN_FIRST = "ChosenFirst"


class JudgingStrategy(StrEnum):
    """How many samples are drawn."""

    ADAPTIVE = "Adaptive"
    FIXED = "Fixed"


class Prompts(ApiModel):
    """Where the prompt templates come from; a template that is left out is the built-in one.

    Keys are `categorise`, `respond`, `modify` and `judge`, each a text with placeholders such as
    `{{instruction}}`.
    """

    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap whose keys are the names of templates (with or without `.txt`)."""
    uri: Uri | None = None
    """A folder with files such as `judge.txt`."""


class Judging(ApiModel):
    """How judgments are sampled and which are kept (paper, section 3.3)."""

    samples_per_pair: Annotated[int, Field(ge=1, le=1024)] = 15
    """N: most samples per pair and order."""
    orders: Orders = Orders.BOTH
    """`Both`: each pair is judged in both orders, each an example of its own."""
    strategy: JudgingStrategy = JudgingStrategy.ADAPTIVE
    """`Adaptive` stops at the first correct sample by index (the same kept pairs, fewer tokens); `Fixed` draws all."""
    min_agreement: Fraction = 0.0
    """Keep an example only if at least this fraction of the N samples is correct."""
    guided_verdict: bool = False
    """Constrain the judgment to end in a verdict; for small seeds that rarely write one."""
    sampling: Sampling = Sampling()
    """How judgments are sampled."""
    seed: int = 0
    """Seed of the sampling and of the choice among correct judgments."""


class Precision(StrEnum):
    """Number format of training."""

    BF16 = "BF16"
    FP32 = "FP32"


class TrainingMethod(StrEnum):
    """What is trained with."""

    SFT = "SFT"


class StartFrom(StrEnum):
    """Which weights a training starts from."""

    SEED = "Seed"
    PREVIOUS = "Previous"


class Schedule(StrEnum):
    """Course of the learning rate after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class KeepEpoch(StrEnum):
    """Which epoch's weights become the checkpoint."""

    BEST = "Best"
    LAST = "Last"


class ParallelStrategy(StrEnum):
    """How training is spread over processes."""

    DDP = "DDP"
    FSDP = "FSDP"


class Lora(ApiModel):
    """Low-rank adapters, merged before the checkpoint is written."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scale of the update."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""


class Parallelism(ApiModel):
    """Processes of a training."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes (GPUs) in each pod."""
    strategy: ParallelStrategy = ParallelStrategy.DDP
    """`DDP` keeps a copy of the model in each process, `FSDP` shards it (FSDP2)."""


class Training(ApiModel):
    """How a judge is fine-tuned on its kept judgments. The defaults are the paper's (section 4.1)."""

    method: TrainingMethod = TrainingMethod.SFT
    """`SFT` on the tokens of the judgment only."""
    start_from: StartFrom = StartFrom.SEED
    """`Seed`: every iteration starts from the seed model, as the authors did."""
    learning_rate: DecimalString = "1e-6"
    """Peak learning rate of AdamW."""
    schedule: Schedule = Schedule.COSINE
    """Course after the warm-up."""
    final_learning_rate_ratio: RatioString = "0.2"
    """Learning rate at the end, as a fraction of the peak (`Cosine`)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Passes over the examples."""
    keep_epoch: KeepEpoch = KeepEpoch.BEST
    """`Best` by accuracy on the selection benchmark, where there is one; else the last."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Examples per optimiser step, over all processes."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Examples per process and forward pass; found from the batch size if left out."""
    max_length: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Most tokens of an example; longer ones would lose the verdict and are dropped and counted."""
    weight_decay: DecimalString = "0.1"
    """Of AdamW."""
    betas: Annotated[tuple[RatioString, RatioString], Field(min_length=2, max_length=2)] = ("0.9", "0.95")
    """Of AdamW."""
    max_gradient_norm: DecimalString = "1.0"
    """Gradients are clipped to this norm."""
    precision: Precision = Precision.BF16
    """Number format."""
    gradient_checkpointing: bool = True
    """Recompute activations to save memory."""
    save_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints that a killed training resumes from."""
    seed: int = 0
    """Seed of the order of examples."""
    lora: Lora | None = None
    """Low-rank adapters; left out: all weights are trained."""
    parallelism: Parallelism = Parallelism()
    """Processes of a training."""


class BenchmarkFormat(StrEnum):
    """How rows of a benchmark are read."""

    PAIRS = "Pairs"
    REWARD_BENCH = "RewardBench"
    LLMBAR = "LLMBar"
    JUDGE_BENCH = "JudgeBench"


class BenchmarkRole(StrEnum):
    """What a benchmark decides."""

    SELECTION = "Selection"
    GATE = "Gate"
    REPORT = "Report"


class PairFields(ApiModel):
    """Where the parts of a pair lie in a row of format `Pairs`."""

    instruction: FieldPath = "instruction"
    """The instruction."""
    chosen: FieldPath = "chosen"
    """The better response."""
    rejected: FieldPath = "rejected"
    """The worse response."""
    subset: FieldPath = "subset"
    """The subset, if rows have one."""


class Benchmark(ApiModel):
    """A set of pairs with known better response."""

    name: Name
    """Short name, used in status, metrics and reports."""
    uri: Uri
    """File, folder, or data set on the hub."""
    revision: Annotated[str, StringConstraints(pattern=r"^[-._/a-zA-Z0-9]+$", max_length=128)] | None = None
    """Commit of a data set on the hub."""
    config: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=128)] | None = None
    """Configuration of a data set on the hub."""
    split: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=64)] | None = None
    """Split of a data set on the hub; the format's usual one if left out."""
    format: BenchmarkFormat = BenchmarkFormat.PAIRS
    """How its rows are read."""
    fields: PairFields = PairFields()
    """Where the parts lie, for format `Pairs`."""
    role: BenchmarkRole = BenchmarkRole.REPORT
    """`Selection` chooses the checkpoint and stops early, `Gate` must not fall, `Report` is only reported."""
    max_drop: RatioString = "0.01"
    """For `Gate`: how far accuracy may fall below the baseline."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many pairs, drawn with a fixed seed."""


class SeedCheck(ApiModel):
    """What the baseline evaluation must show before more is spent on the run."""

    enabled: bool = True
    """Fail the run when the seed cannot judge at all."""
    min_parsable: RatioString = "0.5"
    """Least share of judgments with a verdict."""
    min_accuracy: RatioString = "0.5"
    """Least accuracy; the run fails when the 95 % interval lies wholly below it."""


class GreedySampling(Sampling):
    """How text is sampled; greedy if left out, also when only `maxTokens` is given."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass."""

    @model_validator(mode="before")
    @classmethod
    def _from_sampling(cls, value: Any) -> Any:
        return value.model_dump() if type(value) is Sampling else value


class Evaluation(ApiModel):
    """How judges are measured."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.votes == 1 || self.sampling.temperature > 0.0", "votes above 1 need a temperature above 0"),
        )
    )

    benchmarks: Annotated[
        tuple[Benchmark, ...],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Benchmarks; the first with role `Selection` decides (else the first `Gate`, else the first)."""
    sampling: GreedySampling = GreedySampling()
    """Greedy by default."""
    votes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Judgments per pair and order whose majority is the verdict; more than one needs a temperature."""
    seed_check: SeedCheck = SeedCheck()
    """What the seed must show."""
    seed: int = 0
    """Seed of the sampling and of the bootstrap."""

    @field_validator("benchmarks")
    @classmethod
    def _names_differ(cls, benchmarks: tuple[Benchmark, ...]) -> tuple[Benchmark, ...]:
        if name := repeated([benchmark.name for benchmark in benchmarks]):
            raise broken_rule("", f"two benchmarks are named {name}", "give each benchmark a name of its own")
        return benchmarks

    @model_validator(mode="after")
    def _votes_need_temperature(self) -> Self:
        if self.votes > 1 and self.sampling.temperature == 0:
            raise broken_rule(
                "votes",
                f"{self.votes} votes at temperature 0 are {self.votes} times the same verdict",
                "write `votes: 1`, or set sampling.temperature above 0 (the paper: 32 votes at 0.7)",
            )
        return self
