import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import PROMPTS
from selftaught.api.references import ModelSource
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import CurateConfig
from selftaught.errors import DataError, Interrupted
from selftaught.judging.verdicts import verdict_of
from selftaught.records import Example, Judgment, Order, ResponsePair, Verdict
from selftaught.stages.curate import run
from stub_context import StubWorld, write_artifact

PAIRS = [
    ResponsePair(
        id=f"p{index:02}",
        instruction_id=f"p{index:02}",
        instruction=f"question {index}",
        chosen=f"good {index}",
        rejected=f"bad {index}",
        modified_instruction="m",
    )
    for index in range(12)
]


def judgment(pair: str, order: Order, index: int, text: str) -> Judgment:
    return Judgment(
        id=f"{pair}/{order}/{index}",
        pair_id=pair,
        order=order,
        index=index,
        text=text,
        verdict=verdict_of(text, "stop"),
        finish_reason="stop",
        input_tokens=5,
        output_tokens=len(text),
    )


def judgments(say: str = "mixed", n: int = 3) -> list[Judgment]:
    rng = random.Random(1)
    texts = {"mixed": ["[[A]]", "[[B]]", "none"], "A": ["[[A]]"], "nothing": ["none"]}[say]
    found = [
        judgment(pair.id, order, index, f"because {pair.id} {order} {index} {rng.choice(texts)}")
        for pair in PAIRS
        for order in Order
        for index in range(n)
    ]
    return rng.sample(found, len(found))


def config(world: StubWorld, **judging: Any) -> CurateConfig:
    base = f"file://{world.folder}"
    return CurateConfig.model_validate(
        {
            "run": "lab/demo",
            "iteration": 2,
            "key": "a" * 64,
            "output": f"{base}/out",
            "pairs": f"{base}/pairs",
            "judgments": f"{base}/judgments",
            "judging": {"strategy": "Fixed", "samplesPerPair": 3, **judging},
            "prompts": PROMPTS,
            "judge_model": ModelSource(uri="hf://owner/judge", revision="c0ffee"),
        }
    )


def world_with(tmp_path: Path, rows: list[Judgment], pairs: list[ResponsePair] = PAIRS) -> StubWorld:
    world = StubWorld(tmp_path)
    write_artifact(world.store.folder(f"file://{tmp_path}/pairs"), Stage.GENERATE, pairs)
    write_artifact(world.store.folder(f"file://{tmp_path}/judgments"), Stage.JUDGE, rows)
    return world


def curate(world: StubWorld, **judging: Any) -> tuple[StageResult, list[Example]]:
    settings = config(world, **judging)
    result = run(settings, world.context())
    return result, list(world.store.folder(settings.output).rows(Example))


def test_writes_kept_judgments_in_the_form_of_the_trainer(tmp_path: Path) -> None:
    rows = judgments()
    result, examples = curate(world_with(tmp_path, rows))
    texts = {row.id: row.text for row in rows}
    assert examples
    for example in examples:
        pair_id, order, _ = example.id.split("/")
        number = int(pair_id[1:])
        good, bad = f"good {number}", f"bad {number}"
        first, second = (good, bad) if order == Order.CHOSEN_FIRST else (bad, good)
        message = f"Which is better for question {number}: {first} or {second}?"
        assert example.prompt == [{"role": "user", "content": message}]
        assert example.completion == [{"role": "assistant", "content": texts[example.id]}]
        assert example.verdict is Order(order).correct
    assert [example.id for example in examples] == sorted({example.id for example in examples})
    assert result.curation is not None
    assert result.rows == result.curation.kept == len(examples)
    assert result.curation.kept_a == result.curation.kept_b
    assert result.curation.examples == 24
    assert sum(result.dropped.values()) + result.rows == 24
    assert result.complete


def test_a_placeholder_inside_a_response_is_left_alone(tmp_path: Path) -> None:
    pair = PAIRS[0].model_copy(update={"chosen": "{{response_b}}"})
    rows = [judgment(pair.id, order, 0, f"[[{order.correct}]]") for order in Order]
    _, examples = curate(world_with(tmp_path, rows, [pair]))
    assert [example.prompt[0]["content"] for example in examples] == [
        "Which is better for question 0: {{response_b}} or bad 0?",
        "Which is better for question 0: bad 0 or {{response_b}}?",
    ]


def test_writes_statistics_and_a_card(tmp_path: Path) -> None:
    world = world_with(tmp_path, judgments())
    result, examples = curate(world)
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert result.curation is not None
    assert statistics["counts"] == json.loads(result.curation.model_dump_json())
    assert sum(statistics["correctSamplesHistogram"]) == 24
    card = (tmp_path / "out" / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["license"] == "other"
    assert front_matter["configs"] == [{"config_name": "default", "data_files": "rows-*.jsonl"}]
    for expected in (
        f"| kept | {len(examples)} |",
        "hf://owner/judge",
        "c0ffee",
        "a" * 64,
        "iteration 2",
        "## Licence",
    ):
        assert expected in card
    manifest = world.store.folder(f"file://{tmp_path}/out").manifest()
    assert manifest is not None
    assert {"README.md", "statistics.json", "rows-00000-of-00001.jsonl"} <= {entry.name for entry in manifest.files}


def test_the_same_rows_whatever_the_sequence_of_judgments(tmp_path: Path) -> None:
    rows = judgments()
    _, first = curate(world_with(tmp_path / "a", rows))
    _, second = curate(world_with(tmp_path / "b", rows[::-1]))
    assert first == second


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    world = world_with(tmp_path, judgments())
    left = Example(prompt=[], completion=[], id="p00/ChosenFirst/99", verdict=Verdict.A)
    with world.store.folder(f"file://{tmp_path}/out").writer(0, 1) as writer:
        writer.append(left)
    _, examples = curate(world)
    assert left not in examples


def test_a_finished_artifact_is_not_made_again(tmp_path: Path) -> None:
    world = world_with(tmp_path, judgments())
    first, _ = curate(world)
    (tmp_path / "pairs" / "manifest.json").unlink()
    assert curate(world)[0] == first


@pytest.mark.parametrize(
    ("rows", "judging", "advice"),
    [
        pytest.param([], {}, "there were none", id="no judgments"),
        pytest.param(judgments("nothing"), {}, "guidedVerdict: true", id="no verdicts"),
        pytest.param(judgments("A"), {}, "right verdicts are all A", id="always A"),
        pytest.param(
            [judgment(p.id, order, 0, f"[[{'AB'[order.correct == 'A']}]]") for p in PAIRS for order in Order],
            {},
            "no verdict is right",
            id="always wrong",
        ),
        pytest.param(
            [judgment(p.id, order, 0, f"[[{order.correct}]]") for p in PAIRS for order in Order],
            {"minAgreement": 0.9},
            "lower judging.minAgreement",
            id="too few agree",
        ),
    ],
)
def test_keeping_nothing_is_a_result_with_the_next_step(
    tmp_path: Path, rows: list[Judgment], judging: dict[str, Any], advice: str
) -> None:
    result, examples = curate(world_with(tmp_path, rows), **judging)
    assert examples == []
    assert result.curation is not None
    assert (result.rows, result.curation.kept) == (0, 0)
    assert advice in result.message
    assert len(result.model_dump_json().encode()) < 4096


def test_one_order_is_not_balanced_and_says_so(tmp_path: Path) -> None:
    rows = [judgment(pair.id, Order.CHOSEN_FIRST, 0, "[[A]]") for pair in PAIRS]
    result, examples = curate(world_with(tmp_path, rows), orders="ChosenFirst")
    assert len(examples) == len(PAIRS)
    assert "every kept verdict is A" in result.message


def test_judgments_of_other_pairs_are_refused(tmp_path: Path) -> None:
    world = world_with(tmp_path, [judgment("stranger", Order.CHOSEN_FIRST, 0, "[[A]]")])
    with pytest.raises(DataError, match="stranger"):
        curate(world)


@pytest.mark.parametrize("name", ["pairs", "judgments"])
def test_incomplete_inputs_are_refused(tmp_path: Path, name: str) -> None:
    world = world_with(tmp_path, judgments())
    (tmp_path / name / "manifest.json").unlink()
    with pytest.raises(DataError, match=f"{name} is not complete"):
        curate(world)


def test_stops_when_asked_to(tmp_path: Path) -> None:
    world = world_with(tmp_path, judgments())
    world.stopping = lambda: True
    with pytest.raises(Interrupted):
        curate(world)
    world.stopping = lambda: False
    assert curate(world)[0].rows > 0
