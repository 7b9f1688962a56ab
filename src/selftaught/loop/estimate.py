"""What a run will cost, before anything is spent: tokens, engine starts, GPU hours, storage."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from selftaught.api.instructions import Refresh, SelectionStrategy
from selftaught.api.judging import Judging, Orders, Precision
from selftaught.api.references import ModelSource
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import KeepCheckpoints, RunSpec
from selftaught.judging.draws import Draws
from selftaught.loop.assumptions import BENCHMARK_PAIRS, Assumptions, ModelSize, size_from_name, throughput
from selftaught.loop.costs import Draw, Estimate, StageEstimate, Storage, in_bytes, in_short, render
from selftaught.loop.keys import iteration_stages, keeps_all_epochs, preparation, selection_benchmark
from selftaught.loop.placement import engine, gpus, pods

__all__ = ["Pool", "draws", "estimate", "render"]

CATEGORIES = 15
SIMULATED_EXAMPLES = 4000


@dataclass(frozen=True)
class Pool:
    """What is known of the data; what is not known is assumed."""

    instructions: int | None = None
    """Rows of all sources; the sum of their limits if left out, or more than enough."""
    benchmarks: Mapping[str, int] = field(default_factory=dict)
    """Pairs by benchmark name."""
    models: Mapping[str, ModelSize] = field(default_factory=dict)
    """Sizes by URI; read from the model's name if left out."""


def estimate(run: SelfTaughtRun, pool: Pool | None = None, assumptions: Assumptions | None = None) -> Estimate:
    """Estimate the cost of a run from its spec, what is known of its data, and stated assumptions."""
    return _Estimator(run.spec, pool or Pool(), assumptions or Assumptions()).estimate()


def draws(judging: Judging, assumptions: Assumptions) -> Draw:
    """Mean number of samples per example, and share of kept examples, by simulating the very rule that judging uses."""
    rng, rule = random.Random(0), Draws.of(judging)
    samples = kept = 0
    for _ in range(SIMULATED_EXAMPLES):
        rate = rng.betavariate(assumptions.pass_rate_alpha, assumptions.pass_rate_beta)
        correct: dict[int, bool] = {}
        while wave := rule.next(correct):
            correct |= {index: rng.random() < rate for index in wave}
        samples += len(correct)
        kept += rule.kept(correct) is not None
    return Draw(samples=samples / SIMULATED_EXAMPLES, kept=kept / SIMULATED_EXAMPLES)


class _Estimator:
    def __init__(self, spec: RunSpec, pool: Pool, assumptions: Assumptions) -> None:
        self._spec = spec
        self._pool = pool
        self._assumed = assumptions
        self._draw = draws(spec.judging, assumptions)
        self._seed = self._size(spec.seed.model, Stage.JUDGE)
        self._generator = self._size(spec.generator.model, Stage.GENERATE) if spec.generator else self._seed
        self._examined, self._instructions = self._selected()
        self._pairs = round(self._instructions * assumptions.usable_pairs)
        self._orders = 2 if spec.judging.orders is Orders.BOTH else 1
        self._prompt = (
            assumptions.template_tokens
            + assumptions.instruction_tokens
            + 2 * self._length(assumptions.response_tokens, spec.pairs.sampling.max_tokens)
        )
        """Tokens of a judge prompt."""

    def estimate(self) -> Estimate:
        spec = self._spec
        once, each = preparation(spec), iteration_stages(spec)
        stages = []
        for stage in Stage:
            times = once.count(stage) + each.count(stage) * spec.iterations
            if times:
                stages.append(self._stage(stage, times))
        found = Estimate(
            stages=tuple(stages),
            instructions=self._instructions,
            pairs=self._pairs,
            draw=self._draw,
            storage=self._storage(stages),
            sizes=(
                (spec.seed.model.uri, self._seed),
                *([(spec.generator.model.uri, self._generator)] if spec.generator else []),
            ),
            assumptions=self._assumed,
            doubts=(),
        )
        return replace(found, doubts=tuple(self._doubts(found)))

    def _stage(self, stage: Stage, times: int) -> StageEstimate:
        match stage:
            case Stage.SELECT:
                return self._select()
            case Stage.GENERATE:
                return self._generate(times)
            case Stage.JUDGE:
                return self._judge(times)
            case Stage.CURATE:
                return self._timed(stage, times, seconds=60.0)
            case Stage.TRAIN:
                return self._train(times)
            case Stage.EVALUATE:
                return self._evaluate(times)

    def _select(self) -> StageEstimate:
        if self._spec.instructions.selection.strategy is SelectionStrategy.ALL:
            return self._timed(Stage.SELECT, 1, seconds=60.0)
        assumed = self._assumed
        prompt = assumed.template_tokens + assumed.instruction_tokens
        return self._sampled(
            Stage.SELECT,
            1,
            self._generator,
            read=self._examined * prompt,
            written=self._examined * assumed.category_tokens,
        )

    def _generate(self, times: int) -> StageEstimate:
        assumed = self._assumed
        response = self._length(assumed.response_tokens, self._spec.pairs.sampling.max_tokens)
        # Two calls: the chosen response; then, shown both, a modified instruction and the response to it.
        prompt = assumed.instruction_tokens * 2 + response + assumed.template_tokens
        written = response * 2 + assumed.instruction_tokens
        count = self._instructions * times
        return self._sampled(Stage.GENERATE, times, self._generator, read=count * prompt, written=count * written)

    def _judge(self, times: int) -> StageEstimate:
        examples = self._pairs * self._orders * times
        samples = examples * self._draw.samples
        return self._sampled(
            Stage.JUDGE,
            times,
            self._seed,
            read=samples * self._prompt,
            written=samples * self._judgment(),
            computed=examples * self._prompt,
        )

    def _evaluate(self, times: int) -> StageEstimate:
        evaluation = self._spec.evaluation
        counts = {
            one.name: min(
                self._pool.benchmarks.get(one.name, BENCHMARK_PAIRS[one.format]), one.limit or self._pool_limit
            )
            for one in evaluation.benchmarks
        }
        pairs = sum(counts.values()) * times
        chooses = selection_benchmark(self._spec)
        if chooses and keeps_all_epochs(self._spec):
            # All epochs are judged by on the selection benchmark, the best alone on the others; the seed has one.
            pairs += counts[chooses.name] * (self._spec.training.epochs - 1) * (times - 1)
        judgments = pairs * 2 * evaluation.votes
        written = self._length(self._assumed.judgment_tokens, evaluation.sampling.max_tokens)
        return self._sampled(
            Stage.EVALUATE,
            times,
            self._seed,
            read=judgments * self._prompt,
            written=judgments * written,
            computed=pairs * 2 * self._prompt,
        )

    def _train(self, times: int) -> StageEstimate:
        training = self._spec.training
        examples = self._pairs * self._orders * self._draw.kept
        tokens = examples * min(self._prompt + self._judgment(), training.max_length) * training.epochs * times
        held = gpus(self._spec, Stage.TRAIN)
        rate = throughput(self._seed, gpu=held > 0).train * (held or pods(self._spec, Stage.TRAIN))
        if training.lora is not None:
            rate *= 1.5  # no gradients of the weights themselves
        start = self._assumed.train_start_seconds if held else 15.0
        return self._timed(Stage.TRAIN, times, tokens / rate + start * times, written=tokens)

    def _sampled(
        self,
        stage: Stage,
        times: int,
        size: ModelSize,
        *,
        read: float,
        written: float,
        computed: float | None = None,
    ) -> StageEstimate:
        """A stage with an engine. `computed` are prompt tokens that no prefix cache has; all, if left out."""
        held, width = gpus(self._spec, stage), pods(self._spec, stage)
        rate = throughput(size, gpu=held > 0)
        devices = held or width
        computing = (read if computed is None else computed) / rate.prefill + written / rate.decode
        weights = size.total * 2 / self._assumed.load_bytes_per_second
        starting = (self._assumed.engine_start_seconds + weights) * times
        starts = width * times
        return self._timed(stage, times, computing / devices + starting, read=read, written=written, starts=starts)

    def _timed(
        self, stage: Stage, times: int, seconds: float, *, read: float = 0, written: float = 0, starts: int = 0
    ) -> StageEstimate:
        hours = seconds / 3600
        return StageEstimate(
            stage=stage,
            times=times,
            input_tokens=round(read),
            output_tokens=round(written),
            engine_starts=starts,
            hours=hours,
            gpu_hours=hours * gpus(self._spec, stage),
        )

    def _selected(self) -> tuple[int, int]:
        """Instructions that the generator is asked about, and those that are selected."""
        selection = self._spec.instructions.selection
        limit, wanted = self._pool_limit, selection.max_instructions
        if selection.strategy is SelectionStrategy.ALL:
            return 0, min(limit, wanted)
        share = len(selection.categories) / CATEGORIES
        examined = min(limit, math.ceil(wanted / share))
        return examined, min(wanted, round(examined * share))

    @property
    def _pool_limit(self) -> int:
        limits = [source.limit for source in self._spec.instructions.sources]
        known = sum(limit for limit in limits if limit is not None) if None not in limits else 10**12
        return min(known, self._pool.instructions) if self._pool.instructions is not None else known

    def _judgment(self) -> float:
        return self._length(self._assumed.judgment_tokens, self._spec.judging.sampling.max_tokens)

    def _length(self, mean: int, most: int) -> float:
        return min(mean, most * self._assumed.share_of_maximum)

    def _size(self, model: ModelSource, stage: Stage) -> ModelSize:
        if found := self._pool.models.get(model.uri) or size_from_name(model.uri):
            return found
        assumed = self._assumed.unknown_gpu_model if gpus(self._spec, stage) else self._assumed.unknown_cpu_model
        return ModelSize(total=assumed, active=assumed, known=False)

    def _storage(self, stages: list[StageEstimate]) -> Storage:
        training, checkpoints = self._spec.training, self._spec.storage.checkpoints
        weights = self._seed.total * (4 if training.precision is Precision.FP32 else 2)
        epochs = training.epochs if keeps_all_epochs(self._spec) else 1
        iterations = self._spec.iterations
        kept = iterations if checkpoints.keep is KeepCheckpoints.ALL else min(iterations, checkpoints.last + 1)
        sampled = sum(stage.output_tokens for stage in stages if stage.stage is not Stage.TRAIN)
        trained = self._pairs * self._orders * self._draw.kept * (self._prompt + self._judgment()) * iterations
        # To resume: weights, and two moments of AdamW in fp32 for each trained weight.
        state = weights if training.lora is not None else weights + self._seed.total * 8
        return Storage(
            rows=(sampled + trained) * self._assumed.bytes_per_token,
            checkpoints=kept * weights,
            working=state + (epochs - 1) * weights,
        )

    def _doubts(self, total: Estimate) -> Iterator[str]:
        spec, assumed = self._spec, self._assumed
        for stage, size in ((Stage.GENERATE, self._generator), (Stage.JUDGE, self._seed)):
            room = engine(spec, stage).tensor_parallel_size * assumed.gpu_bytes
            if gpus(spec, stage) and size.total * 2 > room * engine(spec, stage).gpu_memory_utilization:
                yield (
                    f"the weights of {stage} ({in_bytes(size.total * 2)}) do not fit into "
                    f"{engine(spec, stage).tensor_parallel_size} GPUs; raise tensorParallelSize"
                )
        held = gpus(spec, Stage.TRAIN)
        needed = self._seed.total * (2 if spec.training.lora is not None else 16)
        shared = held if spec.training.parallelism.strategy == "FSDP" else 1
        if held and needed > 0.9 * shared * assumed.gpu_bytes:
            yield (
                f"training needs {in_bytes(needed)} of GPU memory for weights, gradients and optimiser, and has "
                f"{in_bytes(shared * assumed.gpu_bytes)}; use FSDP over more GPUs, or lora"
            )
        processes = spec.training.parallelism.nodes * spec.training.parallelism.processes_per_node
        if held and held != processes:
            yield f"training holds {held} GPUs for {processes} processes; make nodes x processesPerNode equal to them"
        if spec.budget.gpu_hours is not None and total.gpu_hours > float(spec.budget.gpu_hours):
            yield f"{total.gpu_hours:,.0f} GPU hours exceed the budget of {spec.budget.gpu_hours}"
        if spec.budget.generated_tokens is not None and total.generated_tokens > spec.budget.generated_tokens:
            yield (
                f"{in_short(total.generated_tokens)} generated tokens exceed the budget of "
                f"{in_short(spec.budget.generated_tokens)}"
            )
        if spec.pairs.refresh is Refresh.ONCE and self._instructions < spec.instructions.selection.max_instructions:
            wanted = spec.instructions.selection.max_instructions
            yield f"the sources give about {self._instructions:,} of the {wanted:,} instructions that are wanted"
        for uri, size in total.sizes:
            if not size.known:
                yield f"the name of {uri} does not tell its size; {in_short(size.total)} parameters are assumed"
