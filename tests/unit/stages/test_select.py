import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import PROMPTS
from real_data import real_data
from selftaught.api.instructions import Category, ExpectedLength
from selftaught.api.stage_config import SelectConfig
from selftaught.errors import BudgetError, DataError, Interrupted
from selftaught.judging.categories import CATEGORIES_PATTERN, Properties, parse
from selftaught.records import Categorisation, Instruction
from selftaught.stages import select
from selftaught.stages.engine import Request
from selftaught.stages.select import run
from selftaught.stages.selection_overlap import NearDuplicates, jaccard, normalised, passages
from selftaught.stages.selection_pool import Candidate, LeftOut, LeftOutRow, mix
from stub_context import StubWorld
from stub_engine import Reply, rng_of

Generator = Callable[[Request], Reply]


def answer(category: str = "MathematicalReasoning", complexity: int = 5, length: str = "OneParagraph") -> str:
    return f'{{"category": "{category}", "complexity": {complexity}, "expectedLength": "{length}"}}'


def says(text: str, finish_reason: str = "stop") -> Generator:
    return lambda _: (text, finish_reason, 5)


def by_chance(share: float) -> Generator:
    """Mathematical reasoning this often, depending on the request alone."""

    def reply(request: Request) -> Reply:
        rng = rng_of(request.message, request.seed)
        return answer("MathematicalReasoning" if rng.random() < share else "Coding"), "stop", rng.randint(1, 9)

    return reply


def unlike(count: int, prefix: str = "") -> list[str]:
    """Texts that share no five words."""
    return [f"{prefix} " + " ".join(f"w{index}x{word}" for word in range(8)) for index in range(count)]


def write_rows(path: Path, texts: list[str], field: str = "instruction") -> str:
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return f"file://{path}"


def config(world: StubWorld, sources: list[dict[str, Any]], **settings: Any) -> SelectConfig:
    selection = settings.pop("selection", {})
    instructions = settings.pop("instructions", {})
    return SelectConfig.model_validate(
        {
            "run": "lab/demo",
            "iteration": 0,
            "key": "a" * 64,
            "output": f"file://{world.folder}/out",
            "model": {"uri": f"file://{world.folder}/generator"},
            "engine": {},
            "prompts": PROMPTS,
            "instructions": {"sources": sources, "selection": selection, **instructions},
            "evaluation": {"benchmarks": settings.pop("benchmarks", [])},
            **settings,
        }
    )


def source(path: Path, texts: list[str], name: str = "chat", **fields: Any) -> dict[str, Any]:
    return {"name": name, "uri": write_rows(path / f"{name}.jsonl", texts), **fields}


ALL: dict[str, Any] = {"selection": {"strategy": "All"}}


def rows_of(world: StubWorld) -> list[Instruction]:
    """Selected instructions, in the order of the file."""
    text = (world.folder / "out" / select.SELECTED).read_text()
    return [Instruction.model_validate_json(line) for line in text.splitlines()]


def left_out(world: StubWorld) -> list[LeftOutRow]:
    text = (world.folder / "out" / select.LEFT_OUT).read_text()
    return [LeftOutRow.model_validate_json(line) for line in text.splitlines()]


def test_all_asks_nothing(tmp_path: Path) -> None:
    world = StubWorld(tmp_path)
    result = run(config(world, [source(tmp_path, unlike(7))], **ALL), world.context())
    assert (result.rows, result.complete, result.usage.output_tokens) == (7, True, 0)
    assert world.loaded == []
    assert {row.instruction for row in rows_of(world)} == set(unlike(7))
    assert {row.id for row in rows_of(world)} == {f"chat-{index}" for index in range(7)}
    assert [row.source_row for row in rows_of(world)] != list(range(7)), "the order is shuffled"


def test_keeps_what_passes_the_filters(tmp_path: Path) -> None:
    replies = {
        "keep": answer(),
        "coding": answer("Coding"),
        "simple": answer(complexity=2),
        "complex": answer(complexity=10),
        "long": answer(length="ThreeOrMoreParagraphs"),
        "odd": "It is mathematics.",
    }
    world = StubWorld(tmp_path, {"generator": lambda request: (replies[request.message.split()[-1]], "stop", 4)})
    selection = {"minComplexity": 5, "maxComplexity": 5, "expectedLengths": ["OneParagraph"]}
    result = run(config(world, [source(tmp_path, list(replies))], selection=selection), world.context())
    assert result.dropped == {"unparsable": 1, "category": 1, "complexity": 2, "expectedLength": 1}
    (kept,) = rows_of(world)
    assert (kept.instruction, kept.category, kept.complexity) == ("keep", Category.MATHEMATICAL_REASONING, 5)
    assert kept.expected_length is ExpectedLength.PARAGRAPH
    assert {(row.reason, row.detail) for row in left_out(world)} == {
        (LeftOut.UNPARSABLE, "stop"),
        (LeftOut.CATEGORY, "Coding"),
        (LeftOut.COMPLEXITY, "2"),
        (LeftOut.COMPLEXITY, "10"),
        (LeftOut.EXPECTED_LENGTH, "ThreeOrMoreParagraphs"),
    }
    assert (result.usage.output_tokens, result.usage.input_tokens) == (6 * 4, 6 * 3)
    request = world.submitted[0]
    assert request.message.startswith("Which category? ")
    assert (request.pattern, request.sampling.temperature) == (CATEGORIES_PATTERN, 0.0)
    assert result.message == "1 of 6 rows selected: 1 from chat"


def test_leaves_out_what_needs_no_model_to_be_seen(tmp_path: Path) -> None:
    text = "Sort the numbers 5 3 8 1 9 2 from the least to the greatest and explain every step of your work."
    texts = [
        text,
        text.upper().replace(" ", "  "),
        text.replace("work.", "solution."),
        " \n",
        "z" * 200,
        "An instruction about something else.",
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps({"instruction": each}) + "\n" for each in texts) + '{"other": 1}\n')
    world = StubWorld(tmp_path)
    selection = {"strategy": "All", "maxCharacters": 150}
    settings = config(world, [{"name": "chat", "uri": f"file://{path}"}], selection=selection)
    result = run(settings, world.context())
    assert result.dropped == {"notText": 1, "empty": 1, "tooLong": 1, "duplicate": 1, "nearDuplicate": 1}
    assert result.rows == 2
    details = {row.reason: (row.id, row.detail) for row in left_out(world)}
    assert details[LeftOut.TOO_LONG] == ("chat-4", "200 characters")
    assert details[LeftOut.NEAR_DUPLICATE][1].startswith("of chat-")
    exact = settings.model_copy(
        update={
            "output": f"file://{tmp_path}/exact",
            "instructions": settings.instructions.model_copy(
                update={"deduplicate": settings.instructions.deduplicate.model_copy(update={"threshold": 1.0})}
            ),
        }
    )
    assert run(exact, world.context()).dropped["duplicate"] == 1
    assert "nearDuplicate" not in run(exact, world.context()).dropped


PASSAGE = "the quick brown fox jumps over the lazy dog while seven wizards watch quietly from afar"


@pytest.mark.parametrize(
    ("text", "contaminated"),
    [
        pytest.param("Short question?", True, id="equal"),
        pytest.param("  SHORT   question? ", True, id="equal-but-for-case-and-spacing"),
        pytest.param("Short question", False, id="punctuation-counts"),
        pytest.param(f"Say why: {PASSAGE}!", True, id="passage"),
        pytest.param("why " + PASSAGE.replace(" ", ", ") + " then", True, id="passage-without-punctuation"),
        pytest.param("why " + " ".join(PASSAGE.split()[:12]), False, id="twelve-words"),
        pytest.param("why " + " ".join(PASSAGE.split()[:13]), True, id="thirteen-words"),
    ],
)
def test_decontaminates_against_the_benchmarks(tmp_path: Path, text: str, contaminated: bool) -> None:
    pairs = [{"instruction": each, "chosen": "a", "rejected": "b"} for each in ("Short question?", f"Tell: {PASSAGE}.")]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    # All pairs count, also those that a limit leaves unjudged.
    benchmarks = [{"name": "bench", "uri": f"file://{tmp_path}/bench.jsonl", "limit": 1}]
    world = StubWorld(tmp_path)
    settings = config(world, [source(tmp_path, [text, "unrelated"])], benchmarks=benchmarks, **ALL)
    result = run(settings, world.context())
    assert result.dropped == ({"contaminated": 1} if contaminated else {})
    if contaminated:
        assert "bench" in left_out(world)[0].detail
    off = config(
        world,
        [source(tmp_path, [text, "unrelated"])],
        benchmarks=benchmarks,
        instructions={"decontaminate": False},
        output=f"file://{tmp_path}/off",
        **ALL,
    )
    assert run(off, world.context()).rows == 2


@pytest.mark.parametrize(
    ("pool", "field", "hits"),
    [
        pytest.param("arena_hard", "prompt", 1, id="arena-hard"),
        pytest.param("gsm8k/train.jsonl", "question", 0, id="gsm8k"),
        pytest.param("mbpp", "text", 0, id="mbpp"),
    ],
)
def test_finds_known_contamination_with_judge_bench(tmp_path: Path, pool: str, field: str, hits: int) -> None:
    name, _, file = pool.partition("/")
    uri = real_data(name) + (f"/{file}" if file else "")
    benchmarks = [{"name": "judgebench", "uri": real_data("judgebench"), "format": "JudgeBench"}]
    world = StubWorld(tmp_path)
    instructions = {"deduplicate": {"threshold": 1.0}}
    settings = config(
        world, [{"name": "pool", "uri": uri, "field": field}], benchmarks=benchmarks, instructions=instructions, **ALL
    )
    assert run(settings, world.context()).dropped.get("contaminated", 0) == hits


def test_finds_training_questions_that_share_a_passage_with_test_questions(tmp_path: Path) -> None:
    folder = Path(real_data("gsm8k").removeprefix("file://"))
    tests = [json.loads(line) for line in (folder / "test.jsonl").read_text().split("\n") if line]
    pairs = [{"instruction": row["question"], "chosen": "a", "rejected": "b"} for row in tests]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    world = StubWorld(tmp_path)
    settings = config(
        world,
        [{"name": "gsm8k", "uri": f"file://{folder}/train.jsonl", "field": "question"}],
        benchmarks=[{"name": "bench", "uri": f"file://{tmp_path}/bench.jsonl"}],
        instructions={"deduplicate": {"threshold": 1.0}},
        **ALL,
    )
    assert run(settings, world.context()).dropped["contaminated"] == 4


def test_mixes_sources_by_weight_until_enough(tmp_path: Path) -> None:
    world = StubWorld(tmp_path)
    sources = [
        source(tmp_path, unlike(2000, "a"), "one", weight=3.0),
        source(tmp_path, unlike(2000, "b"), "two", weight=1.0),
        source(tmp_path, unlike(10, "c"), "few", weight=1.0),
    ]
    selection = {"strategy": "All", "maxInstructions": 1000}
    result = run(
        config(world, sources, selection=selection, instructions={"deduplicate": {"threshold": 1}}), world.context()
    )
    counts = Counter(row.source for row in rows_of(world))
    assert result.rows == 1000
    assert counts["few"] == 10, "a small source is used up, the others go on"
    assert 2.5 < counts["one"] / counts["two"] < 3.6
    assert result.dropped == {"notNeeded": 3010}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_a_mixture_has_every_candidate_once_and_each_source_in_order(sizes: list[int], seed: int) -> None:
    sources = [[Candidate(f"s{index}", row, "") for row in range(size)] for index, size in enumerate(sizes)]
    mixed = list(mix(sources, [1.0 + index for index in range(len(sizes))], random.Random(seed)))
    for candidates in sources:
        assert [one for one in mixed if one in candidates] == candidates
    assert len(mixed) == sum(sizes)


def test_reads_fields_and_limits_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([{"turns": [{"content": f"json {row}"}]} for row in range(3)]))
    pyarrow.parquet.write_table(pyarrow.table({"q": [f"parquet {row}" for row in range(3)]}), tmp_path / "t.parquet")
    sources: list[dict[str, Any]] = [
        {"name": "json", "uri": f"file://{tmp_path}/list.json", "field": "turns[0].content", "limit": 2},
        {"name": "parquet", "uri": f"file://{tmp_path}/t.parquet", "field": "q"},
    ]
    world = StubWorld(tmp_path)
    run(config(world, sources, **ALL), world.context())
    assert sorted(row.instruction for row in rows_of(world)) == [
        "json 0",
        "json 1",
        *(f"parquet {row}" for row in range(3)),
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_selection_does_not_depend_on_shards(tmp_path: Path, count: int) -> None:
    selection = {"maxInstructions": 12}
    expected = StubWorld(tmp_path / "whole", {"generator": by_chance(0.4)})
    expected.folder.mkdir()
    settings = config(expected, [source(tmp_path, unlike(60))], selection=selection)
    whole = run(settings, expected.context())
    world = StubWorld(tmp_path, {"generator": by_chance(0.4)})
    settings = settings.model_copy(update={"output": f"file://{tmp_path}/out"})
    results = [run(settings, world.context(index, count)) for index in range(count)]
    assert [result.complete for result in results] == [False] * (count - 1) + [True]
    assert rows_of(world) == rows_of(expected)
    assert len(rows_of(world)) == 12
    assert (results[-1].rows, results[-1].dropped) == (whole.rows, whole.dropped)
    asked = Counter(request.id for request in world.submitted)
    assert max(asked.values()) == 1
    if count == 1:
        assert len(asked) < 60, "it stops when enough are found"


def test_shards_stop_when_all_together_have_found_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "REFRESH_SECONDS", 0.0)
    world = StubWorld(tmp_path, {"generator": says(answer())})
    settings = config(world, [source(tmp_path, unlike(200))], selection={"maxInstructions": 20})
    run(settings, world.context(0, 2))
    before = len(world.submitted)
    run(settings, world.context(1, 2))
    assert before < 60
    # The first shard found 20 at its first 20 positions, so of the second's own only the first 20 can matter.
    assert len(world.submitted) - before <= 20


def test_goes_on_after_a_kill_without_asking_twice(tmp_path: Path) -> None:
    calls = iter(range(10_000))
    world = StubWorld(tmp_path, {"generator": by_chance(0.5)}, stopping=lambda: next(calls) > 20)
    settings = config(world, [source(tmp_path, unlike(40))])
    with pytest.raises(Interrupted):
        run(settings, world.context())
    done = [row.id for row in world.store.folder(settings.output).rows(Categorisation, select.CATEGORIES)]
    assert 0 < len(done) < 40
    with (tmp_path / "out" / "categories-00000-of-00001.jsonl").open("a") as file:
        file.write('{"id": "half')
    again = StubWorld(tmp_path, {"generator": by_chance(0.5)})
    result = run(settings, again.context())
    asked = {request.id for request in again.submitted}
    assert asked.isdisjoint(done)
    assert len(asked) + len(done) == 40
    fresh = StubWorld(tmp_path / "fresh", {"generator": by_chance(0.5)})
    whole = run(settings.model_copy(update={"output": f"file://{fresh.folder}/out"}), fresh.context())
    assert rows_of(again) == rows_of(fresh)
    assert result.usage.output_tokens == whole.usage.output_tokens
    assert result.dropped == whole.dropped


def test_a_finished_selection_is_not_made_again(tmp_path: Path) -> None:
    world = StubWorld(tmp_path, {"generator": says(answer())})
    settings = config(world, [source(tmp_path, unlike(5))])
    result = run(settings, world.context())
    (tmp_path / "chat.jsonl").unlink()
    assert run(settings, world.context()) == result
    assert len(world.submitted) == 5
    with pytest.raises(DataError, match="another configuration"):
        run(settings.model_copy(update={"key": "b" * 64}), world.context())


def test_adding_a_source_leaves_the_order_of_the_others(tmp_path: Path) -> None:
    world = StubWorld(tmp_path)
    one = source(tmp_path, unlike(30, "a"), "one")
    run(config(world, [one], **ALL), world.context())
    alone = [row.id for row in rows_of(world)]
    other = source(tmp_path, unlike(30, "b"), "two")
    run(config(world, [one, other], output=f"file://{tmp_path}/both", **ALL), world.context())
    both = [json.loads(line)["id"] for line in (tmp_path / "both" / select.SELECTED).read_text().splitlines()]
    assert [identity for identity in both if identity.startswith("one")] == alone


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param('{"instruction": "a"}\n{"instr', "chat.jsonl line 2 is not JSON", id="half-row"),
        pytest.param('{"instruction": "a"}\n[1]\n', "chat.jsonl line 2 is not an object", id="not-an-object"),
        pytest.param(
            '{"prompt": "a", "n": 1}\n',
            "source chat: none of the 1 rows of .* at instruction; correct its field .the first row has n, prompt",
            id="wrong-field",
        ),
        pytest.param("", "the sources have no rows; correct instructions.sources", id="no-rows"),
        pytest.param(
            '{"instruction": " "}\n',
            r"no instruction is left of 1 rows \(1 empty\); correct the sources' field",
            id="blank",
        ),
    ],
)
def test_an_unusable_source_is_explained(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "chat.jsonl").write_text(content)
    world = StubWorld(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        run(config(world, [{"name": "chat", "uri": f"file://{tmp_path}/chat.jsonl"}]), world.context())
    assert "\n" not in str(caught.value)
    assert world.loaded == []


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        pytest.param(says(answer("Coding")), "widen selection.categories, or use strategy: All", id="category"),
        pytest.param(says("?"), "use another generator or prompt, or strategy: All", id="unparsable"),
        pytest.param(says(answer(), "length"), "use another generator or prompt", id="cut-off"),
    ],
)
def test_nothing_left_after_the_filters_is_explained(tmp_path: Path, reply: Generator, step: str) -> None:
    world = StubWorld(tmp_path, {"generator": reply})
    with pytest.raises(DataError, match=step):
        run(config(world, [source(tmp_path, unlike(3))]), world.context())
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_prompt_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    world = StubWorld(tmp_path, {"generator": says(answer())}, max_model_len=30)
    result = run(config(world, [source(tmp_path, ["short", "word " * 40])]), world.context())
    assert (result.rows, result.dropped) == (1, {"promptTooLong": 1})


def test_stays_within_the_token_allowance(tmp_path: Path) -> None:
    world = StubWorld(tmp_path, {"generator": says(answer())})
    with pytest.raises(BudgetError):
        run(config(world, [source(tmp_path, unlike(200))], token_allowance=600), world.context())
    assert 0 < world.engines["generator"].output_tokens <= 600


def test_many_left_out_rows_are_counted_but_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftaught.stages.selection_pool.LISTED", 3)
    world = StubWorld(tmp_path)
    result = run(config(world, [source(tmp_path, ["same"] * 10 + [" "] * 2)], **ALL), world.context())
    assert result.dropped == {"empty": 2, "duplicate": 9}
    assert Counter(row.reason for row in left_out(world)) == {LeftOut.EMPTY: 2, LeftOut.DUPLICATE: 3}


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        pytest.param(
            answer(), "stop", Properties(Category.MATHEMATICAL_REASONING, 5, ExpectedLength.PARAGRAPH), id="plain"
        ),
        pytest.param(
            f" {answer('Coding', 10)}\n", "stop", Properties(Category.CODING, 10, ExpectedLength.PARAGRAPH), id="ten"
        ),
        pytest.param(answer(), "length", None, id="cut-off"),
        pytest.param(answer(complexity=0), "stop", None, id="complexity-0"),
        pytest.param(answer(complexity=11), "stop", None, id="complexity-11"),
        pytest.param(answer("Cooking"), "stop", None, id="unknown-category"),
        pytest.param(answer() + answer(), "stop", None, id="two-answers"),
        pytest.param("Coding", "stop", None, id="no-object"),
        pytest.param("", "stop", None, id="nothing"),
    ],
)
def test_reads_the_answer_strictly(text: str, finish_reason: str, expected: Properties | None) -> None:
    assert parse(text, finish_reason) == expected


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12),
)
def test_near_duplicates_are_never_less_similar_than_the_threshold(one: list[str], other: list[str]) -> None:
    near = NearDuplicates(0.7)
    assert near.similar_to("one", " ".join(one)) is None
    found = near.similar_to("other", " ".join(other))
    if found:
        assert jaccard(passages(" ".join(one), 5), passages(" ".join(other), 5)) >= 0.7
    if one == other:
        assert found == "one"


def variants(text: list[str], rng: random.Random, changes: int) -> Iterator[str]:
    for _ in range(20):
        changed = list(text)
        for _ in range(changes):
            changed[rng.randrange(len(text))] = f"new{rng.randrange(10**9)}"
        yield " ".join(changed)


def test_near_duplicates_are_found_mostly() -> None:
    """Of texts just above the threshold, more than nine tenths."""
    rng = random.Random(1)
    found, above = 0, 0
    for trial in range(5):
        text = [f"t{trial}w{word}" for word in range(120)]
        near = NearDuplicates(0.8)
        assert near.similar_to("original", " ".join(text)) is None
        for index, changed in enumerate(variants(text, rng, 2)):
            if jaccard(passages(" ".join(text), 5), passages(changed, 5)) >= 0.83:
                above += 1
                found += near.similar_to(f"v{index}", changed) is not None
    assert above > 50
    assert found / above > 0.9


def test_equal_means_equal_but_for_case_spacing_and_unicode_variants() -> None:
    assert normalised("Ａ  b\u2003\nc") == normalised("a B c")
    assert normalised("1 + 2") != normalised("1 - 2")
