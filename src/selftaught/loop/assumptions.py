"""What an estimate takes for granted: printed beside the result, since none of it is measured where a run will be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from selftaught.api.judging import BenchmarkFormat


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model."""

    total: float
    active: float
    """Parameters that each token passes through; fewer than all in a mixture of experts."""
    known: bool = True
    """False if it was assumed for want of a hint."""


@dataclass(frozen=True)
class Throughput:
    """Tokens per second of one device, for models up to a size."""

    parameters: float
    """Active parameters up to which the row holds."""
    decode: float
    """Generated, with hundreds of sequences at once."""
    prefill: float
    """Prompt tokens computed."""
    train: float
    """Trained on, all weights, with activations recomputed."""


GPU_THROUGHPUT = (
    Throughput(1.5e9, decode=25_000, prefill=150_000, train=25_000),
    Throughput(4e9, decode=12_000, prefill=60_000, train=11_000),
    Throughput(9e9, decode=6_500, prefill=27_000, train=5_400),
    Throughput(15e9, decode=3_500, prefill=15_000, train=2_900),
    Throughput(35e9, decode=1_400, prefill=6_500, train=1_250),
    Throughput(75e9, decode=600, prefill=3_000, train=600),
    Throughput(150e9, decode=300, prefill=1_500, train=300),
    Throughput(float("inf"), decode=100, prefill=500, train=100),
)
"""Per GPU with 80 GB and about 1,000 TFLOP/s in bf16: decoding at about a tenth of its peak, prefill at two fifths,
training at a third (torchtitan tells of 5,762 tokens/s per H100 for 8 B parameters)."""

CPU_THROUGHPUT = (
    Throughput(5e6, decode=12_000, prefill=60_000, train=20_000),
    Throughput(2e8, decode=175, prefill=1_000, train=168),
    Throughput(1e9, decode=30, prefill=150, train=25),
    Throughput(float("inf"), decode=2, prefill=10, train=2),
)
"""Of a pod with two cores; the rows for 0.4 M and 135 M parameters were measured on one such machine."""

BENCHMARK_PAIRS: Mapping[BenchmarkFormat, int] = {
    BenchmarkFormat.REWARD_BENCH: 2985,
    BenchmarkFormat.LLMBAR: 419,
    BenchmarkFormat.JUDGE_BENCH: 620,
    BenchmarkFormat.PAIRS: 1000,
}
"""Pairs of the published sets; a guess for sets of one's own."""


@dataclass(frozen=True)
class Assumptions:
    """Mean lengths in tokens, shares and rates."""

    instruction_tokens: int = 150
    response_tokens: int = 400
    judgment_tokens: int = 350
    template_tokens: int = 200
    """What a prompt template adds."""
    category_tokens: int = 40
    """An answer to `prompts.categorise`."""
    share_of_maximum: float = 0.5
    """No mean length is above this share of `maxTokens`."""
    usable_pairs: float = 0.85
    """Share of instructions that come to a response pair."""
    pass_rate_alpha: float = 0.8
    pass_rate_beta: float = 0.4
    """Pass rates of examples are spread as Beta(alpha, beta): many nearly always right, some nearly never."""
    engine_start_seconds: float = 90.0
    """Start of an engine, besides reading the weights."""
    load_bytes_per_second: float = 2e9
    """Reading weights, for each pod."""
    train_start_seconds: float = 300.0
    """Start and end of a training: wrapping the model, writing the checkpoint."""
    bytes_per_token: float = 4.5
    """Of text, on disk."""
    gpu_bytes: float = 80e9
    unknown_gpu_model: float = 8e9
    """Parameters of a model that runs on GPUs and whose name does not tell."""
    unknown_cpu_model: float = 1.35e8
    """The same without GPUs."""

    @property
    def pass_rate(self) -> float:
        """Mean share of judgments that are right."""
        return self.pass_rate_alpha / (self.pass_rate_alpha + self.pass_rate_beta)


def size_from_name(uri: str) -> ModelSize | None:
    """The size that a model's name tells (`Llama-3.1-70B-Instruct`, `SmolLM2-135M`, `Mixtral-8x22B`), if it does."""
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    if match := re.search(r"(?<![A-Za-z0-9.])(\d+)x(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])", name):
        experts, each = int(match[1]), float(match[2]) * 1e9
        # Experts share all but their feed-forward layers, and two are active (Mixtral: 8x7B has 47 B, 8x22B 141 B).
        return ModelSize(total=0.8 * experts * each, active=1.8 * each)
    if match := re.search(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])", name):
        parameters = float(match[1]) * (1e9 if match[2] in "bB" else 1e6)
        return ModelSize(total=parameters, active=parameters)
    return None


def throughput(size: ModelSize, *, gpu: bool) -> Throughput:
    """The row of the table for a model."""
    table = GPU_THROUGHPUT if gpu else CPU_THROUGHPUT
    return next(row for row in table if size.active <= row.parameters)
