"""What a stage is told, made when it starts and frozen from then on."""

from selftaught.api.references import ModelSource
from selftaught.api.results import Checkpoint, Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import (
    CurateConfig,
    EvaluateConfig,
    GenerateConfig,
    JudgeConfig,
    SelectConfig,
    StageConfig,
    TrainConfig,
)
from selftaught.loop.budget import token_allowance
from selftaught.loop.keys import Lineage, artifact_folder, keeps_all_epochs, pairs_iteration
from selftaught.loop.observed import Observed
from selftaught.loop.placement import engine, shards


def stage_config(run: SelfTaughtRun, stage: Stage, iteration: int, attempt: int, observed: Observed) -> StageConfig:
    """The config of an attempt at a stage; `iteration` is 0 for what happens once.

    Raises NotReadyError while a stage that it depends on is unfinished.
    """
    return Configs(run, observed).config(stage, iteration, attempt)


class Configs:
    """Makes the configs of one run."""

    def __init__(self, run: SelfTaughtRun, observed: Observed) -> None:
        self._run = run
        self._spec = run.spec
        self._observed = observed
        self._lineage = Lineage(run, observed)

    def config(self, stage: Stage, iteration: int, attempt: int) -> StageConfig:
        """The config of an attempt at a stage. Raises NotReadyError."""
        match stage:
            case Stage.SELECT:
                return self._select(attempt)
            case Stage.GENERATE:
                return self._generate(iteration, attempt)
            case Stage.JUDGE:
                return self._judge(iteration, attempt)
            case Stage.CURATE:
                return self._curate(iteration, attempt)
            case Stage.TRAIN:
                return self._train(iteration, attempt)
            case Stage.EVALUATE:
                return self._evaluate(iteration, attempt)

    def _select(self, attempt: int) -> SelectConfig:
        return SelectConfig(
            run=self._name,
            iteration=0,
            attempt=attempt,
            key=self._lineage.key(Stage.SELECT, 0),
            output=self._folder(Stage.SELECT, 0),
            shards=shards(self._spec, Stage.SELECT),
            model=self._lineage.generator(),
            engine=engine(self._spec, Stage.SELECT),
            prompts=self._observed.prompts,
            token_allowance=self._allowance,
            instructions=self._spec.instructions,
            evaluation=self._spec.evaluation,
        )

    def _generate(self, iteration: int, attempt: int) -> GenerateConfig:
        return GenerateConfig(
            run=self._name,
            iteration=iteration,
            attempt=attempt,
            key=self._lineage.key(Stage.GENERATE, iteration),
            output=self._folder(Stage.GENERATE, iteration),
            shards=shards(self._spec, Stage.GENERATE),
            model=self._lineage.generator(),
            engine=engine(self._spec, Stage.GENERATE),
            prompts=self._observed.prompts,
            token_allowance=self._allowance,
            instructions=self._folder(Stage.SELECT, 0),
            pairs=self._spec.pairs,
        )

    def _judge(self, iteration: int, attempt: int) -> JudgeConfig:
        return JudgeConfig(
            run=self._name,
            iteration=iteration,
            attempt=attempt,
            key=self._lineage.key(Stage.JUDGE, iteration),
            output=self._folder(Stage.JUDGE, iteration),
            shards=shards(self._spec, Stage.JUDGE),
            model=self._model(self._lineage.judge(iteration)),
            engine=engine(self._spec, Stage.JUDGE),
            prompts=self._observed.prompts,
            token_allowance=self._allowance,
            pairs=self._pairs(iteration),
            judging=self._spec.judging,
        )

    def _curate(self, iteration: int, attempt: int) -> CurateConfig:
        return CurateConfig(
            run=self._name,
            iteration=iteration,
            attempt=attempt,
            key=self._lineage.key(Stage.CURATE, iteration),
            output=self._folder(Stage.CURATE, iteration),
            pairs=self._pairs(iteration),
            judgments=self._folder(Stage.JUDGE, iteration),
            judging=self._spec.judging,
            prompts=self._observed.prompts,
            judge_model=self._model(self._lineage.judge(iteration)),
        )

    def _train(self, iteration: int, attempt: int) -> TrainConfig:
        return TrainConfig(
            run=self._name,
            iteration=iteration,
            attempt=attempt,
            key=self._lineage.key(Stage.TRAIN, iteration),
            output=self._folder(Stage.TRAIN, iteration),
            model=self._model(self._lineage.base(iteration)),
            examples=self._folder(Stage.CURATE, iteration),
            training=self._spec.training,
            keep_all_epochs=keeps_all_epochs(self._spec),
        )

    def _evaluate(self, iteration: int, attempt: int) -> EvaluateConfig:
        candidates = self._lineage.result(Stage.TRAIN, iteration).checkpoints if iteration else ()
        return EvaluateConfig(
            run=self._name,
            iteration=iteration,
            attempt=attempt,
            key=self._lineage.key(Stage.EVALUATE, iteration),
            output=self._folder(Stage.EVALUATE, iteration),
            shards=shards(self._spec, Stage.EVALUATE),
            # The engine starts with the first candidate, so that no pod fetches the seed in vain.
            model=self._model(candidates[0] if candidates else None),
            engine=engine(self._spec, Stage.EVALUATE),
            prompts=self._observed.prompts,
            token_allowance=self._allowance,
            candidates=candidates,
            evaluation=self._spec.evaluation,
            guided_verdict=self._spec.judging.guided_verdict,
        )

    @property
    def _name(self) -> str:
        return f"{self._run.metadata.namespace}/{self._run.metadata.name}"

    @property
    def _allowance(self) -> int | None:
        return token_allowance(self._spec, self._observed)

    def _model(self, checkpoint: Checkpoint | None) -> ModelSource:
        return self._spec.seed.model if checkpoint is None else ModelSource(uri=checkpoint.uri)

    def _pairs(self, iteration: int) -> str:
        return self._folder(Stage.GENERATE, pairs_iteration(self._spec, iteration))

    def _folder(self, stage: Stage, iteration: int) -> str:
        return artifact_folder(self._run, stage, iteration, self._lineage.key(stage, iteration))
