"""How wide a stage runs, and on what: the stage's own settings over those for all."""

from selftaught.api.placement import Engine, StageSettings
from selftaught.api.results import Stage
from selftaught.api.spec import RunSpec


def stage_settings(spec: RunSpec, stage: Stage) -> StageSettings:
    """Settings of a stage; each field that it leaves out comes from `stages.all`."""
    own: StageSettings = getattr(spec.stages, stage.value)
    chosen = {name: getattr(own, name) for name in StageSettings.model_fields if getattr(own, name) is not None}
    return spec.stages.all.model_copy(update=chosen)


def engine(spec: RunSpec, stage: Stage) -> Engine:
    """Engine settings of a stage."""
    return stage_settings(spec, stage).engine or Engine()


def shards(spec: RunSpec, stage: Stage) -> int:
    """Processes that share a stage's rows; a training spreads by `training.parallelism` instead."""
    if stage in (Stage.CURATE, Stage.TRAIN):
        return 1
    return stage_settings(spec, stage).shards or 1


def pods(spec: RunSpec, stage: Stage) -> int:
    """Pods of a stage."""
    return spec.training.parallelism.nodes if stage is Stage.TRAIN else shards(spec, stage)


def gpus(spec: RunSpec, stage: Stage) -> int:
    """GPUs that a stage holds, over all of its pods: limits whose name ends in `/gpu`."""
    resources = stage_settings(spec, stage).resources
    if resources is None:
        return 0
    amounts = [str(amount) for name, amount in resources.limits.items() if name.endswith("/gpu")]
    per_pod = sum(int(amount) for amount in amounts if amount.isdigit())
    return per_pod * pods(spec, stage)
