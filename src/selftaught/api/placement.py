"""Spec of how and on what stages run: engine, resources, pod template."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from selftaught.api.base import ApiModel
from selftaught.api.references import ResourceName

Quantity = Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
"""An amount of a resource: `8`, `500m`, `64Gi`."""

LabelValue = Annotated[str, StringConstraints(max_length=63)]
"""Value of a label or node label."""

AnnotationValue = Annotated[str, StringConstraints(max_length=32768)]
"""Value of an annotation."""


class Dtype(StrEnum):
    """Number format of the engine's weights and activations."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Engine(ApiModel):
    """Settings of the vLLM engine that a run may choose. No other engine argument is reachable."""

    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share one copy of the model."""
    max_model_len: Annotated[int, Field(ge=64, le=10_000_000)] | None = None
    """Longest prompt and answer together, in tokens; the model's own limit if left out."""
    dtype: Dtype = Dtype.AUTO
    """Number format."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of GPU memory for weights and KV cache."""
    max_num_seqs: Annotated[int, Field(ge=1, le=8192)] = 256
    """Most sequences decoded at once."""
    block_size: Annotated[int, Field(ge=8, le=256)] | None = None
    """Tokens of a KV cache block, the grain of prefix reuse; 32 on a CPU, vLLM's choice on a GPU if left out."""
    enforce_eager: bool = False
    """Start faster, run a little slower."""
    cpu_kv_cache_gib: Annotated[int, Field(ge=1, le=1024)] = 4
    """KV cache on a CPU, in GiB."""


class Toleration(ApiModel):
    """Lets pods run on tainted nodes; fields as in the core API."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """Taint key; empty with operator `Exists` matches all."""
    operator: Annotated[str, StringConstraints(pattern="^(Exists|Equal)$", max_length=6)] | None = None
    """`Exists` or `Equal`."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Taint value."""
    effect: (
        Annotated[str, StringConstraints(pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$", max_length=16)] | None
    ) = None
    """Taint effect."""
    toleration_seconds: int | None = None
    """How long `NoExecute` is tolerated."""


class EnvVar(ApiModel):
    """An environment variable with a plain value. Secrets are named by `…SecretRef` fields."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
    """Name."""
    value: Annotated[str, StringConstraints(max_length=32768)] = ""
    """Value."""


class PodTemplate(ApiModel):
    """The part of a pod that a run may choose. The security context is not among it."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=64)] = {}
    """Labels."""
    annotations: Annotated[dict[str, AnnotationValue], Field(max_length=64)] = {}
    """Annotations."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=64)] = {}
    """Node labels."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Tolerations."""
    affinity: (
        Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None
    ) = None
    """Affinity, as in the core API; validated by the API server when the Job is made."""
    priority_class_name: ResourceName | None = None
    """Priority class."""
    scheduler_name: ResourceName | None = None
    """Scheduler."""
    runtime_class_name: ResourceName | None = None
    """Runtime class."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment."""
    image_pull_secrets: Annotated[tuple[ResourceName, ...], Field(max_length=16)] = ()
    """Names of pull Secrets."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 120
    """Time to save a checkpoint after SIGTERM."""


class Resources(ApiModel):
    """Compute resources of a pod."""

    limits: Annotated[dict[str, Quantity], Field(max_length=32)] = {}
    """Limits, such as `nvidia.com/gpu: 8`."""
    requests: Annotated[dict[str, Quantity], Field(max_length=32)] = {}
    """Requests; the limits if left out."""


class StageSettings(ApiModel):
    """How wide a stage runs, and on what."""

    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Pods that share the rows of the stage; 1 if left out."""
    image: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    """Container image; the operator's default if left out."""
    service_account_name: ResourceName | None = None
    """Service account of the pods; its token is not mounted."""
    engine: Engine | None = None
    """vLLM engine."""
    resources: Resources | None = None
    """Compute resources."""
    template: PodTemplate | None = None
    """Further pod settings."""


class Stages(ApiModel):
    """Settings per stage; a field that a stage leaves out comes from `all`."""

    all: StageSettings = StageSettings()
    """Defaults."""
    select: StageSettings = StageSettings()
    """Selecting instructions."""
    generate: StageSettings = StageSettings()
    """Writing response pairs."""
    judge: StageSettings = StageSettings()
    """Sampling judgments."""
    curate: StageSettings = StageSettings()
    """Keeping correct judgments."""
    train: StageSettings = StageSettings()
    """Fine-tuning."""
    evaluate: StageSettings = StageSettings()
    """Scoring on benchmarks."""
