"""The small seed, trained for real, in the real engine: it answers, modifies, and judges weakly."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftaught.api.placement import Dtype
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import Sampling
from selftaught.judging.modifications import parse_modification
from selftaught.judging.prompts import render
from selftaught.judging.verdicts import parse_verdict
from selftaught.microworld.prompts import PROMPTS
from selftaught.microworld.world import build
from selftaught.records import BenchmarkPair, Verdict
from selftaught.stages.engine import Completion, Engine, Request
from selftaught.stages.engine_holder import EngineHolder

pytestmark = [
    pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning"),  # vLLM calls xgrammar
]

GREEDY = Sampling(temperature=0, top_p=1, max_tokens=48)
SETTINGS = EngineSettings(max_num_seqs=256, cpu_kv_cache_gib=1, dtype=Dtype.FLOAT32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("microworld")
    build(folder, size="small", seed=0, report=print)
    return folder


@pytest.fixture(scope="module")
def engine(world: Path) -> Iterator[Engine]:
    holder = EngineHolder()
    yield holder.engine(world / "seed", SETTINGS)
    holder.close()


@pytest.fixture(scope="module")
def pairs(world: Path) -> list[BenchmarkPair]:
    lines = (world / "development.jsonl").read_text().splitlines()
    return [BenchmarkPair(**json.loads(line)) for line in lines]


def completions(engine: Engine, prompt: str, values: list[dict[str, str]]) -> list[Completion]:
    for number, value in enumerate(values):
        engine.submit(Request(str(number), render(PROMPTS[prompt], value), GREEDY, seed=number))
    found: list[Completion] = []
    while engine.active:
        found += engine.step()
    assert {completion.finish_reason for completion in found} == {"stop"}
    return sorted(found, key=lambda completion: int(completion.id))


def test_it_answers_tasks_that_it_never_saw(engine: Engine, pairs: list[BenchmarkPair]) -> None:
    answers = completions(engine, "respond", [{"instruction": pair.instruction} for pair in pairs])
    right = sum(answer.text.strip() == pair.chosen for answer, pair in zip(answers, pairs, strict=True))
    assert right / len(pairs) > 0.9


def test_it_writes_modified_instructions_with_answers(engine: Engine, pairs: list[BenchmarkPair]) -> None:
    values = [{"instruction": pair.instruction, "response": pair.chosen} for pair in pairs]
    found = [parse_modification(completion.text) for completion in completions(engine, "modify", values)]
    useful = [
        modification is not None
        and modification.instruction != pair.instruction
        and modification.response != pair.chosen
        for modification, pair in zip(found, pairs, strict=True)
    ]
    assert sum(useful) / len(pairs) > 0.8


def test_it_judges_better_than_chance_but_weakly(engine: Engine, pairs: list[BenchmarkPair]) -> None:
    right, texts = 0, []
    for better in Verdict.A, Verdict.B:
        values = []
        for pair in pairs:
            first, second = (pair.chosen, pair.rejected) if better is Verdict.A else (pair.rejected, pair.chosen)
            values.append({"instruction": pair.instruction, "response_a": first, "response_b": second})
        found = [completion.text for completion in completions(engine, "judge", values)]
        right += sum(parse_verdict(text) is better for text in found)
        texts += found
    parsable = sum(parse_verdict(text) in (Verdict.A, Verdict.B) for text in texts)
    assert parsable / len(texts) > 0.9
    assert 0.54 < right / len(texts) < 0.82
