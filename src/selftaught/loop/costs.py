"""What an estimate says, and how it is told."""

from dataclasses import dataclass

from selftaught.api.results import Stage
from selftaught.loop.assumptions import Assumptions, ModelSize, throughput


@dataclass(frozen=True)
class StageEstimate:
    """A stage, over all of its times."""

    stage: Stage
    times: int
    """How often it runs."""
    input_tokens: int = 0
    """Prompt tokens, cached ones included."""
    output_tokens: int = 0
    """Generated tokens; for train those trained on."""
    engine_starts: int = 0
    """In a cluster: one in each pod each time."""
    hours: float = 0.0
    """Running time."""
    gpu_hours: float = 0.0
    """GPUs held, times running time."""


@dataclass(frozen=True)
class Draw:
    """What judging one example comes to on average."""

    samples: float
    """Judgments drawn."""
    kept: float
    """Share of examples with a kept judgment."""


@dataclass(frozen=True)
class Storage:
    """Bytes in the artifact store."""

    rows: float
    """Texts."""
    checkpoints: float
    """Weights that stay."""
    working: float
    """More while a training and the evaluation of its epochs are at work."""


@dataclass(frozen=True)
class Estimate:
    """What a run will cost if all iterations are done, nothing fails and nothing stops it early."""

    stages: tuple[StageEstimate, ...]
    instructions: int
    pairs: int
    draw: Draw
    storage: Storage
    sizes: tuple[tuple[str, ModelSize], ...]
    """Of the seed, and of the generator if it is another."""
    assumptions: Assumptions
    doubts: tuple[str, ...]
    """What will not work or will cost more than it may."""

    @property
    def generated_tokens(self) -> int:
        """Of all stages that sample."""
        return sum(stage.output_tokens for stage in self.stages if stage.stage is not Stage.TRAIN)

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def hours(self) -> float:
        """Of all stages, one after another."""
        return sum(stage.hours for stage in self.stages)

    @property
    def engine_starts(self) -> int:
        """In a cluster; a local run needs one for each model."""
        return sum(stage.engine_starts for stage in self.stages)


def render(found: Estimate) -> str:
    """The estimate as text, with its assumptions."""
    assumed, spread = found.assumptions, found.storage
    lines = [
        f"{'stage':<10}{'times':>6}{'prompt tokens':>16}{'tokens':>12}{'engine starts':>15}"
        f"{'hours':>9}{'GPU hours':>11}"
    ]
    for row in found.stages:
        lines.append(
            f"{row.stage.value:<10}{row.times:>6}{in_short(row.input_tokens):>16}{in_short(row.output_tokens):>12}"
            f"{row.engine_starts:>15}{row.hours:>9.1f}{row.gpu_hours:>11.1f}"
        )
    lines += [
        f"{'total':<10}{'':>6}{in_short(sum(row.input_tokens for row in found.stages)):>16}"
        f"{in_short(found.generated_tokens):>12}{found.engine_starts:>15}{found.hours:>9.1f}{found.gpu_hours:>11.1f}",
        "",
        "The total of tokens is what is generated; train's tokens are those trained on. Engine starts are those in a",
        "cluster, one in each pod; a local run starts one for each model.",
        f"Storage: {in_bytes(spread.rows)} of texts, {in_bytes(spread.checkpoints)} of checkpoints, and "
        f"{in_bytes(spread.working)} more while training.",
        "",
        "Assumed, not measured:",
        f"- {found.instructions:,} instructions; {assumed.usable_pairs:.0%} of them give a pair: {found.pairs:,} pairs",
        f"- mean tokens: instruction {assumed.instruction_tokens}, response {assumed.response_tokens}, judgment "
        f"{assumed.judgment_tokens}, template {assumed.template_tokens}; at most "
        f"{assumed.share_of_maximum:.0%} of maxTokens",
        f"- {assumed.pass_rate:.0%} of judgments are right, unevenly (Beta({assumed.pass_rate_alpha}, "
        f"{assumed.pass_rate_beta})): {found.draw.samples:.1f} samples for each example, {found.draw.kept:.0%} kept",
        f"- an engine starts in {assumed.engine_start_seconds:.0f} s and reads weights at "
        f"{in_bytes(assumed.load_bytes_per_second)}/s; a training on GPUs "
        f"needs {assumed.train_start_seconds:.0f} s around it",
    ]
    on_gpu = found.gpu_hours > 0
    for uri, size in found.sizes:
        rate = throughput(size, gpu=on_gpu)
        device = "GPU (80 GB, about 1,000 TFLOP/s in bf16)" if on_gpu else "pod with two cores"
        lines.append(
            f"- {uri}: {in_short(size.total)} parameters; {rate.decode:,.0f} tokens/s generated, "
            f"{rate.prefill:,.0f} read, {rate.train:,.0f} trained on, for each {device}"
        )
    lines.append("- all iterations are done, nothing fails, nobody waits")
    if found.doubts:
        lines += ["", "Mind:", *(f"- {doubt}" for doubt in found.doubts)]
    return "\n".join(lines)


def in_short(number: float) -> str:
    """`1.2 G`, `850 k`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def in_bytes(number: float) -> str:
    """`140 GB`."""
    return f"{in_short(number)}B" if number >= 1e3 else f"{number:.0f} B"
