"""The key of a stage: a hash over everything that determines its result, and nothing else.

Keys form a Merkle tree: a key contains those of the stages it reads from. Shards, attempts, resources,
images, names and uids are not in it, so that finished work is found again by a run that was deleted and
re-created, moved, or spread more widely. Data are known by URI and revision: a file that is changed in place
is not noticed.
"""

from pydantic import JsonValue

from selftaught.api.base import ApiModel
from selftaught.api.instructions import Refresh, SelectionStrategy
from selftaught.api.judging import Benchmark, BenchmarkFormat, BenchmarkRole, JudgingStrategy, KeepEpoch, StartFrom
from selftaught.api.references import ModelSource
from selftaught.api.results import Checkpoint, Stage, StageResult
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import RunSpec
from selftaught.artifacts import Manifest, fingerprint
from selftaught.loop.observed import Observed
from selftaught.loop.placement import engine

VERSION = 1
"""Raised when a stage's meaning changes, so that old artifacts are not taken for new ones."""

ENGINE_FIELDS = {"dtype", "max_model_len"}
TRAINING_FIELDS_WITHOUT_EFFECT = {
    "parallelism",
    "micro_batch_size",
    "gradient_checkpointing",
    "save_steps",
    "keep_epoch",
    "start_from",
}
SELECTION_FIELDS_OF_CATEGORISE = {"categories", "min_complexity", "max_complexity", "expected_lengths"}
BENCHMARK_FIELDS = {"name", "uri", "revision", "config", "split", "format", "limit"}

Inputs = dict[str, JsonValue]


class NotReadyError(LookupError):
    """A key depends on a stage that has not finished."""


def run_folder(run: SelfTaughtRun) -> str:
    """URI of the folder with all artifacts of a run."""
    return f"{run.spec.storage.uri.rstrip('/')}/{run.metadata.namespace}/{run.metadata.name}"


def artifact_folder(run: SelfTaughtRun, stage: Stage, iteration: int, key: str) -> str:
    """URI of the folder with the artifact of a stage."""
    prefix = f"i{iteration}-" if iteration else ""
    return f"{run_folder(run)}/{prefix}{stage}-{key[:12]}"


def preparation(spec: RunSpec) -> tuple[Stage, ...]:
    """What happens once, in order: the seed is measured first, before anything else is spent."""
    stages = [Stage.EVALUATE] if spec.evaluation.benchmarks else []
    stages.append(Stage.SELECT)
    if spec.pairs.refresh is Refresh.ONCE:
        stages.append(Stage.GENERATE)
    return tuple(stages)


def iteration_stages(spec: RunSpec) -> tuple[Stage, ...]:
    """What happens in each iteration, in order."""
    stages = [Stage.GENERATE] if spec.pairs.refresh is Refresh.EACH_ITERATION else []
    stages += [Stage.JUDGE, Stage.CURATE, Stage.TRAIN]
    if spec.evaluation.benchmarks:
        stages.append(Stage.EVALUATE)
    return tuple(stages)


def pairs_iteration(spec: RunSpec, iteration: int) -> int:
    """The iteration whose generate stage makes the pairs of an iteration; 0 if they are made once."""
    return iteration if spec.pairs.refresh is Refresh.EACH_ITERATION else 0


def selection_benchmark(spec: RunSpec) -> Benchmark | None:
    """The benchmark that chooses among the epochs of a training."""
    return next((b for b in spec.evaluation.benchmarks if b.role is BenchmarkRole.SELECTION), None)


def keeps_all_epochs(spec: RunSpec) -> bool:
    """Whether a training keeps a checkpoint per epoch, for the evaluation to choose from."""
    wanted = spec.training.keep_epoch is KeepEpoch.BEST and spec.training.epochs > 1
    return wanted and selection_benchmark(spec) is not None


class Lineage:
    """Keys of a run's stages, worked out when asked for and remembered."""

    def __init__(self, run: SelfTaughtRun, observed: Observed) -> None:
        self._spec = run.spec
        self._prompts = observed.prompts
        self._observed = observed
        self._keys: dict[tuple[Stage, int], str] = {}

    def key(self, stage: Stage, iteration: int) -> str:
        """The key of a stage. Raises NotReadyError while a stage that it depends on is unfinished."""
        known = self._keys.get((stage, iteration))
        if known is None:
            known = fingerprint({"version": VERSION, "stage": str(stage), **self._inputs(stage, iteration)})
            self._keys[stage, iteration] = known
        return known

    def entry(self, stage: Stage, iteration: int) -> Manifest | None:
        """The finished stage, if it is."""
        return self._observed.entry(self.key(stage, iteration))

    def result(self, stage: Stage, iteration: int) -> StageResult:
        """What a finished stage said. Raises NotReadyError."""
        entry = self.entry(stage, iteration)
        if entry is None:
            raise NotReadyError(f"{stage} of iteration {iteration} has not finished")
        return entry.result

    def checkpoint(self, iteration: int) -> Checkpoint:
        """The judge that an iteration brought forth. Raises NotReadyError."""
        trained = self.result(Stage.TRAIN, iteration).checkpoints
        if not self._spec.evaluation.benchmarks:
            return trained[-1]
        return self.result(Stage.EVALUATE, iteration).checkpoint or trained[-1]

    def judge(self, iteration: int) -> Checkpoint | None:
        """The checkpoint that judges in an iteration; none is the seed. Raises NotReadyError."""
        if (Stage.JUDGE, iteration - 1) not in self._keys:
            for earlier in range(1, iteration - 1):
                self.checkpoint(earlier)  # from the first on, so that no key is worked out by deep recursion
        return self.checkpoint(iteration - 1) if iteration > 1 else None

    def base(self, iteration: int) -> Checkpoint | None:
        """The checkpoint that a training starts from; none is the seed. Raises NotReadyError."""
        return None if self._spec.training.start_from is StartFrom.SEED else self.judge(iteration)

    def generator(self) -> ModelSource:
        """The model that selects instructions and writes responses."""
        return (self._spec.generator or self._spec.seed).model

    def _inputs(self, stage: Stage, iteration: int) -> Inputs:
        match stage:
            case Stage.SELECT:
                return self._select()
            case Stage.GENERATE:
                return self._generate(iteration)
            case Stage.JUDGE:
                return self._judge(iteration)
            case Stage.CURATE:
                return self._curate(iteration)
            case Stage.TRAIN:
                return self._train(iteration)
            case Stage.EVALUATE:
                return self._evaluate(iteration)

    def _select(self) -> Inputs:
        instructions = self._spec.instructions
        asks = instructions.selection.strategy is SelectionStrategy.CATEGORISE
        without = set() if asks else SELECTION_FIELDS_OF_CATEGORISE
        inputs: Inputs = {
            "sources": [plain(source) for source in instructions.sources],
            "selection": plain(instructions.selection, without),
            "deduplicate": plain(instructions.deduplicate),
            "decontaminate": self._benchmarks() if instructions.decontaminate else None,
        }
        if asks:
            inputs |= {
                "model": plain(self.generator()),
                "engine": self._engine(Stage.SELECT),
                "categorise": self._prompts.categorise,
            }
        return inputs

    def _generate(self, iteration: int) -> Inputs:
        return {
            "select": self.key(Stage.SELECT, 0),
            "iteration": iteration,
            "pairs": plain(self._spec.pairs, {"refresh"}),
            "model": plain(self.generator()),
            "engine": self._engine(Stage.GENERATE),
            "respond": self._prompts.respond,
            "modify": self._prompts.modify,
        }

    def _judge(self, iteration: int) -> Inputs:
        judging = self._spec.judging
        # Drawing all samples needs no threshold; stopping early does.
        without = {"min_agreement"} if judging.strategy is JudgingStrategy.FIXED else set()
        return {
            "generate": self.key(Stage.GENERATE, pairs_iteration(self._spec, iteration)),
            "iteration": iteration,
            "judging": plain(judging, without),
            "model": self._model(self.judge(iteration)),
            "engine": self._engine(Stage.JUDGE),
            "prompt": self._prompts.judge,
        }

    def _curate(self, iteration: int) -> Inputs:
        return {"judge": self.key(Stage.JUDGE, iteration), "judging": plain(self._spec.judging)}

    def _train(self, iteration: int) -> Inputs:
        return {
            "curate": self.key(Stage.CURATE, iteration),
            "model": self._model(self.base(iteration)),
            "training": plain(self._spec.training, TRAINING_FIELDS_WITHOUT_EFFECT),
            "keep_all_epochs": keeps_all_epochs(self._spec),
        }

    def _evaluate(self, iteration: int) -> Inputs:
        evaluation = self._spec.evaluation
        inputs: Inputs = {
            "benchmarks": self._benchmarks(),
            "sampling": plain(evaluation.sampling),
            "votes": evaluation.votes,
            "seed": evaluation.seed,
            "guided_verdict": self._spec.judging.guided_verdict,
            "engine": self._engine(Stage.EVALUATE),
            "prompt": self._prompts.judge,
        }
        if iteration == 0:
            return inputs | {"model": self._model(None)}
        candidates = self.result(Stage.TRAIN, iteration).checkpoints
        chooser = selection_benchmark(self._spec)
        inputs["candidates"] = [candidate.sha256 for candidate in candidates]
        inputs["chooser"] = chooser.name if chooser is not None and len(candidates) > 1 else None
        return inputs

    def _model(self, checkpoint: Checkpoint | None) -> JsonValue:
        return plain(self._spec.seed.model) if checkpoint is None else {"sha256": checkpoint.sha256}

    def _engine(self, stage: Stage) -> JsonValue:
        return engine(self._spec, stage).model_dump(mode="json", include=ENGINE_FIELDS)

    def _benchmarks(self) -> list[JsonValue]:
        return [
            benchmark.model_dump(
                mode="json",
                include=BENCHMARK_FIELDS | ({"fields"} if benchmark.format is BenchmarkFormat.PAIRS else set()),
            )
            for benchmark in self._spec.evaluation.benchmarks
        ]


def plain(model: ApiModel, without: set[str] | None = None) -> JsonValue:
    """A model as JSON, some fields left out."""
    dumped: JsonValue = model.model_dump(mode="json", exclude=without)
    return dumped
