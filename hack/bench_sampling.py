"""How fast text is sampled: the generate and judge stages beside a bare `LLM.generate`, and what early stopping saves.

    python hack/bench_sampling.py [--cache DIR] [--parts smollm2,micro,adaptive] [--repeats 3] [--json FILE]

Each repeat measures both sides one after the other in this process, each going first in turn, with an engine of the
same settings that was started for it (starts are not counted); the ratio is the median over the repeats. Models are
made below the cache folder once: SmolLM2 from its package, the micro world by training its seed. Traffic: none but
files.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selftaught.api.instructions import Pairs
from selftaught.api.judging import Judging, JudgingStrategy
from selftaught.api.placement import Dtype
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource, Sampling
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import GenerateConfig, JudgeConfig, PromptTexts
from selftaught.artifacts import Folder, Store
from selftaught.errors import DataError
from selftaught.judging.draws import Draws
from selftaught.judging.prompts import BUILT_IN, load
from selftaught.records import Instruction, Judgment, Record, ResponsePair
from selftaught.stages import generate, judge
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.served_model import chat_tokens, load_tokenizer
from selftaught.stages.vllm_engine import VllmEngine, engine_arguments, shut_down

KEY = "0" * 64
INSTRUCTIONS = "pvc://scratch/instructions"
PAIRS = "pvc://scratch/pairs"
TEXT = """\
A reader asks what the difference is between a lake and a pond and how one could tell which of the two is near the
village. Explain the difference in plain words, name the two signs that help most, and warn of what is often mistaken.
Use the notes: depth, light on the ground, plants that root everywhere, wind and waves, streams that come and go."""


@dataclass(frozen=True)
class World:
    """A model and what to sample with it."""

    name: str
    folder: Path
    engine: EngineSettings
    prompts: PromptTexts
    instructions: Sequence[Instruction]
    sampling: Sampling
    samples: int
    """Per example, in the comparison with a bare engine."""


@dataclass
class Side:
    """What one side of a comparison did."""

    seconds: float
    cpu_seconds: float
    """Of all threads of this process: steadier than `seconds` where other work goes on beside."""
    output_tokens: int
    input_tokens: int
    cached_tokens: int
    unique_tokens: int
    """Tokens of the distinct prompts, each counted once."""
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def pace(self) -> float:
        """Generated tokens per second."""
        return self.output_tokens / self.seconds

    @property
    def computed_share(self) -> float:
        """Prompt tokens that were computed, that is not taken from the prefix cache, per token of a distinct prompt."""
        return (self.input_tokens - self.cached_tokens) / self.unique_tokens


class RecordingEngine:
    """The engine of a stage; keeps what was asked of it and what it answered."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.requests: list[Request] = []
        self.texts: dict[str, str] = {}

    def submit(self, request: Request) -> None:
        """As the engine does."""
        self._engine.submit(request)
        self.requests.append(request)

    def step(self) -> list[Completion]:
        """As the engine does."""
        finished = self._engine.step()
        self.texts.update((completion.id, completion.text) for completion in finished)
        return finished

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Quiet:
    """Progress that nobody reads."""

    def update(self, *, done: int, total: int, unit: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Nothing."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".selftaught/bench"))
    parser.add_argument("--parts", default="smollm2,micro,adaptive")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for part in arguments.parts.split(","):
        match part:
            case "smollm2":
                rows += compare(smollm2(arguments.cache), arguments.repeats)
            case "micro":
                rows += compare(micro(arguments.cache), arguments.repeats)
            case "adaptive":
                rows += early_stopping(micro(arguments.cache), arguments.repeats)
            case _:
                parser.error(f"unknown part {part!r}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def smollm2(cache: Path) -> World:
    """A real language model; instructions of some hundred tokens."""
    from selftaught.stages.smollm2 import build

    return World(
        name="smollm2",
        folder=build(cache / "smollm2"),
        engine=EngineSettings(max_num_seqs=64, max_model_len=2048, cpu_kv_cache_gib=2),
        prompts=BUILT_IN,
        instructions=[
            Instruction(id=f"{number:04d}", source="bench", source_row=number, instruction=f"Case {number}. {TEXT}")
            for number in range(12)
        ],
        sampling=Sampling(max_tokens=64),
        samples=4,
    )


def micro(cache: Path) -> World:
    """The micro world with its trained seed."""
    from selftaught.microworld.world import Size, build

    folder = cache / "micro"
    build(folder, size=Size.SMALL, seed=0, report=print)
    lines = (folder / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    return World(
        name="micro",
        folder=folder / "seed",
        engine=EngineSettings(max_num_seqs=128, cpu_kv_cache_gib=1, dtype=Dtype.FLOAT32),
        prompts=load({path.name: path.read_text(encoding="utf-8") for path in (folder / "prompts").iterdir()}),
        instructions=[
            Instruction(id=row["id"], source="bench", source_row=number, instruction=row["instruction"])
            for number, row in enumerate(map(json.loads, lines))
        ],
        sampling=Sampling(max_tokens=96),
        samples=15,
    )


def compare(world: World, repeats: int) -> list[dict[str, Any]]:
    """Stages beside a bare engine."""
    figures: dict[str, list[tuple[Side, Side]]] = {"generate": [], "judge": []}
    asked: dict[str, list[Request]] = {}
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as directory:
            store = Store(Path(directory))
            write(store.folder(INSTRUCTIONS), Stage.SELECT, world.instructions)
            for stage, sides in figures.items():
                if stage == "judge":
                    write(store.folder(PAIRS), Stage.GENERATE, made_pairs(world, store))
                config = (
                    generate_config(world)
                    if stage == "generate"
                    else judge_config(world, JudgingStrategy.FIXED, world.samples)
                )
                other = bare(world, asked[stage]) if repeat % 2 else None  # each goes first in turn
                ours, asked[stage] = sample(world, store, config)
                sides.append((ours, other or bare(world, asked[stage])))
    rows = []
    for stage, sides in figures.items():
        ours, other = sides[0]
        rows.append(
            {
                "world": world.name,
                "stage": stage,
                "requests": len(other.texts),
                "output_tokens": ours.output_tokens,
                "stage_tokens_per_second": [round(side.pace, 1) for side, _ in sides],
                "bare_tokens_per_second": [round(side.pace, 1) for _, side in sides],
                "median_ratio": round(statistics.median(one.pace / another.pace for one, another in sides), 3),
                "median_ratio_of_cpu_time": round(
                    statistics.median(another.cpu_seconds / one.cpu_seconds for one, another in sides), 3
                ),
                "same_texts": round(agreement(other.texts, ours.texts), 4),
                "computed_per_unique_prompt_token": round(ours.computed_share, 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def early_stopping(world: World, repeats: int) -> list[dict[str, Any]]:
    """Adaptive beside fixed N = 15: tokens, time, and whether the same examples and traces are kept."""
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as directory:
            store = Store(Path(directory))
            write(store.folder(INSTRUCTIONS), Stage.SELECT, world.instructions)
            sample(world, store, generate_config(world))
            write(store.folder(PAIRS), Stage.GENERATE, made_pairs(world, store))
            sides: dict[str, Side] = {}
            kept: dict[str, dict[str, str]] = {}
            for strategy in JudgingStrategy:
                config = judge_config(world, strategy, 15)
                sides[strategy], _ = sample(world, store, config)
                kept[strategy] = kept_traces(store.folder(config.output), Draws.of(config.judging))
        fixed, adaptive = sides[JudgingStrategy.FIXED], sides[JudgingStrategy.ADAPTIVE]
        keep_fixed, keep_adaptive = kept[JudgingStrategy.FIXED], kept[JudgingStrategy.ADAPTIVE]
        both = keep_fixed.keys() & keep_adaptive.keys()
        rows.append(
            {
                "world": world.name,
                "fixed_tokens": fixed.output_tokens,
                "adaptive_tokens": adaptive.output_tokens,
                "times_fewer_tokens": round(fixed.output_tokens / adaptive.output_tokens, 2),
                "times_faster": round(fixed.seconds / adaptive.seconds, 2),
                "kept_examples": len(keep_fixed),
                "same_kept_examples": round(len(both) / len(keep_fixed.keys() | keep_adaptive.keys()), 4),
                "same_kept_traces": round(sum(keep_fixed[one] == keep_adaptive[one] for one in both) / len(both), 4),
                "computed_per_unique_prompt_token": {
                    name: round(side.computed_share, 3) for name, side in sides.items()
                },
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def sample(world: World, store: Store, config: GenerateConfig | JudgeConfig) -> tuple[Side, list[Request]]:
    """Run a stage on a running engine."""
    with started(world) as engine:
        recorder = RecordingEngine(engine)
        context = StageContext(
            store=store,
            shard=Shard(0, 1),
            progress=Quiet(),
            now=lambda: datetime.now(UTC),
            models=lambda _: world.folder,
            engine=lambda *_: recorder,
            stopping=lambda: False,
        )
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            if isinstance(config, GenerateConfig):
                generate.run(config, context)
            else:
                judge.run(config, context)
        except DataError as error:  # a small language model writes no pair that can be used
            print(f"{world.name}: {error}", flush=True)
        side = Side(
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu_began,
            output_tokens=recorder.output_tokens,
            input_tokens=recorder.input_tokens,
            cached_tokens=recorder.cached_tokens,
            unique_tokens=sum(map(engine.count_tokens, {request.message for request in recorder.requests})),
            texts=recorder.texts,
        )
    return side, recorder.requests


def bare(world: World, requests: Sequence[Request]) -> Side:
    """The same requests through `LLM.generate`, each message put through the chat template once.

    Second calls, which need the first ones' answers, are a second batch.
    """
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    tokenizer = load_tokenizer(world.folder)
    llm = LLM(**engine_arguments(world.folder, world.engine))
    llm.generate([TokensPrompt(prompt_token_ids=[5, 6, 7])], SamplingParams(max_tokens=4), use_tqdm=False)
    side = Side(0.0, 0.0, 0, 0, 0, 0)
    second = [request for request in requests if request.id.endswith(f"/{generate.MODIFY}")]
    first = [request for request in requests if request not in second]
    for batch in filter(None, (first, second)):
        parameters = [
            SamplingParams(
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                max_tokens=request.sampling.max_tokens,
                seed=request.seed,
            )
            for request in batch
        ]
        began, cpu_began = time.perf_counter(), time.process_time()
        tokens = {message: chat_tokens(tokenizer, message) for message in {request.message for request in batch}}
        prompts = [TokensPrompt(prompt_token_ids=tokens[request.message]) for request in batch]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        side.seconds += time.perf_counter() - began
        side.cpu_seconds += time.process_time() - cpu_began
        for request, output in zip(batch, outputs, strict=True):
            side.texts[request.id] = output.outputs[0].text
            side.output_tokens += len(output.outputs[0].token_ids)
    shut_down(llm.llm_engine)
    return side


@contextmanager
def started(world: World) -> Iterator[VllmEngine]:
    """A fresh engine that has decoded once."""
    engine = VllmEngine(world.folder, world.engine)
    try:
        engine.submit(Request("warm-up", "a b c", Sampling(max_tokens=4), 0))
        while engine.active:
            engine.step()
        engine.input_tokens = engine.cached_tokens = engine.output_tokens = 0
        yield engine
    finally:
        engine.close()


def generate_config(world: World) -> GenerateConfig:
    """Pairs of all instructions."""
    return GenerateConfig(
        run="bench/bench",
        iteration=0,
        key=KEY,
        output="pvc://scratch/generated",
        model=ModelSource(uri="pvc://models/bench"),
        engine=world.engine,
        prompts=world.prompts,
        instructions=INSTRUCTIONS,
        pairs=Pairs(sampling=world.sampling),
    )


def judge_config(world: World, strategy: JudgingStrategy, samples: int) -> JudgeConfig:
    """Judgments of all pairs in both orders."""
    return JudgeConfig(
        run="bench/bench",
        iteration=1,
        key=KEY,
        output=f"pvc://scratch/judged-{strategy}",
        model=ModelSource(uri="pvc://models/bench"),
        engine=world.engine,
        prompts=world.prompts,
        pairs=PAIRS,
        judging=Judging(strategy=strategy, samples_per_pair=samples, sampling=world.sampling),
    )


def made_pairs(world: World, store: Store) -> list[ResponsePair]:
    """What the generate stage has made; made-up ones where the model cannot write a modification."""
    pairs = list(store.folder("pvc://scratch/generated").rows(ResponsePair))
    return pairs or [
        ResponsePair(
            id=row.id,
            instruction_id=row.id,
            instruction=row.instruction,
            chosen=f"{row.id}: depth and light decide, and plants that root everywhere. {TEXT[:200]}",
            rejected=f"{row.id}: a pond is a lake that is small. {TEXT[100:250]}",
            modified_instruction="What is a pond?",
        )
        for row in world.instructions
    ]


def kept_traces(folder: Folder, rule: Draws) -> dict[str, str]:
    """Text of the kept judgment by example."""
    examples: dict[str, dict[int, Judgment]] = {}
    for row in folder.rows(Judgment):
        examples.setdefault(f"{row.pair_id}/{row.order}", {})[row.index] = row
    found = {}
    for name, rows in examples.items():
        index = rule.kept({position: row.correct for position, row in rows.items()})
        if index is not None:
            found[name] = rows[index].text
    return found


def agreement(one: dict[str, str], other: dict[str, str]) -> float:
    """Share of texts that are the same."""
    return sum(other.get(name) == text for name, text in one.items()) / len(one)


def write(folder: Folder, stage: Stage, rows: Iterable[Record]) -> None:
    """A complete artifact."""
    with folder.writer(0, 1) as writer:
        for row in rows:
            writer.append(row)
    now = datetime.now(UTC)
    folder.complete(StageResult(stage=stage, iteration=0, key=KEY), now, now)


if __name__ == "__main__":
    main()
