from contextlib import suppress
from pathlib import Path

import pytest

from kills import Killed, killed_at
from selftaught.api.instructions import Pairs, Refresh
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource, Sampling
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import GenerateConfig
from selftaught.errors import BudgetError, DataError, Interrupted
from selftaught.judging.modifications import guided_form
from selftaught.judging.prompts import BUILT_IN, load
from selftaught.records import ChosenResponse, Dropped, Instruction, ResponsePair
from selftaught.stages import generate
from selftaught.stages.engine import Request
from stub_context import StubWorld, write_artifact
from stub_engine import Reply, rng_of

PROMPTS = load({"modify": "modify {{instruction}} answered {{response}}"})
OUTPUT = "pvc://scratch/pairs"


def reply(request: Request) -> Reply:
    """Answers whose first words say what is to happen to the pair; lengths vary with the seed."""
    rng = rng_of(request.message, request.seed)
    tokens = rng.randint(1, 30)
    words = request.message.split()
    wanted, second = (words[1], True) if words[0] == "modify" else (words[0], False)
    pair = f"<instruction>other {wanted} {rng.random()}</instruction><response>{rng.random()}</response>"
    match wanted:
        case "chosenempty" if not second:
            return "  ", "stop", 1
        case "chosencut" if not second:
            return "so", "length", 50
        case "cut" if second:
            return pair[:30], "length", 50
        case "unparsable" if second:
            return f"Sure: {pair}", "stop", tokens
        case "empty" if second:
            return "<instruction>x</instruction><response> </response>", "stop", tokens
        case "sameinstruction" if second:
            return f"<instruction> {words[1]}  {words[2]}</instruction><response>y</response>", "stop", tokens
        case "sameresponse" if second:
            return f"<instruction>x</instruction><response> {' '.join(words[4:])}\n</response>", "stop", tokens
    return (pair if second else f" answer {rng.random()} "), "stop", tokens


def config(**fields: object) -> GenerateConfig:
    defaults: dict[str, object] = {
        "run": "lab/demo",
        "iteration": 0,
        "key": "a" * 64,
        "output": OUTPUT,
        "model": ModelSource(uri="pvc://models/seed"),
        "engine": EngineSettings(),
        "prompts": PROMPTS,
        "instructions": "pvc://scratch/instructions",
        "pairs": Pairs(sampling=Sampling(max_tokens=50)),
    }
    return GenerateConfig.model_validate(defaults | fields)


def a_world(folder: Path, instructions: list[str]) -> StubWorld:
    world = StubWorld(folder, {"seed": reply})
    rows = [
        Instruction(id=f"i{number:03d}", source="chat", source_row=number, instruction=text)
        for number, text in enumerate(instructions)
    ]
    if instructions:
        write_artifact(world.store.folder("pvc://scratch/instructions"), Stage.SELECT, reversed(rows))
    return world


@pytest.mark.parametrize("guided", [True, False])
def test_only_the_second_call_is_guided_and_only_if_asked(tmp_path: Path, guided: bool) -> None:
    world = a_world(tmp_path, ["fine 1"])
    pairs = Pairs(guided_modification=guided, sampling=Sampling(max_tokens=50))
    generate.run(config(pairs=pairs), world.context())
    assert [request.pattern for request in world.submitted] == [None, guided_form(50) if guided else None]


MIXED = [f"{word} {number}" for number in range(3) for word in ("fine", "unparsable", "good", "chosencut")]


def rows(world: StubWorld) -> dict[str, str]:
    """What the artifact holds, by id."""
    folder = world.store.folder(OUTPUT)
    pairs = {row.id: row.model_dump_json() for row in folder.rows(ResponsePair)}
    dropped = {row.id: row.model_dump_json() for row in folder.rows(Dropped, "dropped")}
    assert not pairs.keys() & dropped.keys()
    lines = [line for name in folder.names() if name.startswith(("rows", "dropped")) for line in folder.lines(name)]
    assert len(lines) == len(pairs) + len(dropped), "a row is written twice"
    return pairs | dropped


def unbroken(folder: Path, instructions: list[str]) -> tuple[dict[str, str], StageResult, int]:
    world = a_world(folder, instructions)
    result = generate.run(config(), world.context())
    return rows(world), result, world.engines["seed"].output_tokens


def without_seconds(result: StageResult) -> StageResult:
    return result.model_copy(update={"usage": result.usage.model_copy(update={"seconds": 0.0})})


def test_a_pair_is_an_answer_and_a_good_answer_to_something_else(tmp_path: Path) -> None:
    world = a_world(tmp_path, ["fine one"])
    result = generate.run(config(), world.context())
    (pair,) = world.store.folder(OUTPUT).rows(ResponsePair)
    respond, modify = world.submitted
    assert (respond.message, pair.instruction) == ("fine one", "fine one")
    assert modify.message == f"modify fine one answered {pair.chosen}"
    assert pair.chosen == reply(respond)[0].strip()
    assert f"<response>{pair.rejected}</response>" in reply(modify)[0]
    assert f"<instruction>{pair.modified_instruction}</instruction>" in reply(modify)[0]
    assert (pair.id, pair.instruction_id) == ("i000", "i000")
    assert (result.rows, result.dropped, result.complete) == (1, {}, True)
    assert result.usage.output_tokens == world.engines["seed"].output_tokens
    assert result.usage.input_tokens == 2 + 5 + len(pair.chosen.split()) - 1


@pytest.mark.parametrize(
    ("instruction", "reason", "calls"),
    [
        pytest.param("chosencut x", "CutOff", 1, id="chosen response cut off"),
        pytest.param("chosenempty x", "Empty", 1, id="chosen response empty"),
        pytest.param("cut x", "CutOff", 2, id="modification cut off"),
        pytest.param("unparsable x", "Unparsable", 2, id="modification unparsable"),
        pytest.param("empty x", "Empty", 2, id="rejected response empty"),
        pytest.param("sameinstruction x", "Identical", 2, id="instruction not modified"),
        pytest.param("sameresponse x", "Identical", 2, id="responses identical"),
        pytest.param("x " * 3000, "TooLong", 0, id="instruction longer than the context"),
    ],
)
def test_unusable_pairs_are_dropped_by_reason(tmp_path: Path, instruction: str, reason: str, calls: int) -> None:
    world = a_world(tmp_path, [instruction, "fine"])
    result = generate.run(config(), world.context())
    assert (result.rows, result.dropped) == (1, {reason: 1})
    assert len(world.submitted) == 2 + calls
    assert result.usage.output_tokens == world.engines["seed"].output_tokens
    (dropped,) = world.store.folder(OUTPUT).rows(Dropped, "dropped")
    assert (dropped.id, dropped.reason) == ("i000", reason)


def test_a_second_prompt_longer_than_the_context_costs_the_first_call_only(tmp_path: Path) -> None:
    world = a_world(tmp_path, ["fine " * 8, "fine"])
    world.max_model_len = 10
    result = generate.run(config(prompts=load({"modify": PROMPTS.modify})), world.context())
    assert (result.rows, result.dropped) == (1, {"TooLong": 1})
    assert result.usage.output_tokens == world.engines["seed"].output_tokens


def test_no_pair_at_all_is_an_error_that_tells_why(tmp_path: Path) -> None:
    world = a_world(tmp_path, ["unparsable 1", "unparsable 2", "chosencut 3"])
    with pytest.raises(DataError, match=r"no response pair came out \(1 CutOff, 2 Unparsable\)"):
        generate.run(config(), world.context())
    assert world.store.folder(OUTPUT).manifest() is None


def test_no_instructions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not complete"):
        generate.run(config(), a_world(tmp_path, []).context())


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    world = a_world(tmp_path, MIXED)
    first = generate.run(config(), world.context())
    world.store.folder(OUTPUT).delete("rows-00000-of-00001.jsonl")  # as retention may
    again = StubWorld(tmp_path)  # has no engine to give
    assert generate.run(config(attempt=2), again.context()) == first


def test_pairs_of_each_iteration_have_their_own_names_and_texts(tmp_path: Path) -> None:
    pairs = Pairs(refresh=Refresh.EACH_ITERATION, sampling=Sampling(max_tokens=50))
    chosen = set()
    for iteration in (1, 2):
        world = a_world(tmp_path, ["fine"])
        output = f"pvc://scratch/pairs-{iteration}"
        generate.run(config(pairs=pairs, iteration=iteration, output=output), world.context())
        (pair,) = world.store.folder(output).rows(ResponsePair)
        assert (pair.id, pair.instruction_id) == (f"i000#r{iteration}", "i000")
        chosen.add(pair.chosen)
    assert len(chosen) == 2


@pytest.mark.parametrize("half_line", [pytest.param(False, id="between rows"), pytest.param(True, id="half a row")])
def test_a_kill_at_any_row_loses_nothing_and_repeats_little(tmp_path: Path, half_line: bool) -> None:
    expected, result, tokens = unbroken(tmp_path / "unbroken", MIXED)
    moment = 0
    while True:
        moment += 1
        world = a_world(tmp_path / f"{moment}", MIXED)
        with killed_at(moment, half_line=half_line) as appended:
            try:
                generate.run(config(), world.context())
            except Killed:
                pass
            else:
                break
        kept = [row.id for row in world.store.folder(OUTPUT).rows(ChosenResponse, "responses")]
        assert appended() == moment
        spent = world.engines["seed"].output_tokens
        later = a_world(tmp_path / f"{moment}", [])
        assert without_seconds(generate.run(config(attempt=2), later.context())) == without_seconds(result)
        assert rows(later) == expected
        assert not {f"{name}/respond" for name in kept} & {request.id for request in later.submitted}
        again = later.engines["seed"].output_tokens if later.engines else 0
        in_one_step = 8 * 50  # texts of a step that had ended when the kill came
        assert spent + again <= tokens + in_one_step
    assert moment > len(MIXED)


def test_kill_after_kill_ends(tmp_path: Path) -> None:
    expected, result, _ = unbroken(tmp_path / "unbroken", MIXED)
    a_world(tmp_path / "killed", MIXED)
    for attempt in range(1, 100):
        world = a_world(tmp_path / "killed", [])
        with killed_at(3, half_line=True):
            try:
                got = generate.run(config(attempt=attempt), world.context())
            except Killed:
                continue
            break
    assert attempt > 5
    assert rows(world) == expected
    assert without_seconds(got) == without_seconds(result)


def test_shards_together_make_the_same_pairs(tmp_path: Path) -> None:
    expected, result, _ = unbroken(tmp_path / "unbroken", MIXED)
    world = a_world(tmp_path / "shards", MIXED)
    results = [generate.run(config(shards=3), world.context(index, 3)) for index in (2, 0, 1)]
    assert [one.complete for one in results] == [False, False, True]
    assert without_seconds(results[-1]) == without_seconds(result)
    assert rows(world) == expected


def test_the_number_of_shards_may_change_in_between(tmp_path: Path) -> None:
    expected, result, _ = unbroken(tmp_path / "unbroken", MIXED)
    world = a_world(tmp_path / "changed", MIXED)
    with killed_at(9, half_line=True), pytest.raises(Killed):
        generate.run(config(), world.context())
    results = [generate.run(config(shards=2), world.context(index, 2)) for index in range(2)]
    assert without_seconds(results[-1]) == without_seconds(result)
    assert rows(world) == expected


def test_a_request_to_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    expected, *_ = unbroken(tmp_path / "unbroken", MIXED)
    world = a_world(tmp_path / "stopped", MIXED)
    checks = iter([False] * 30 + [True])
    world.stopping = lambda: next(checks)
    with pytest.raises(Interrupted):
        generate.run(config(), world.context())
    assert 0 < len(rows(world)) < len(expected)
    world.stopping = lambda: False
    generate.run(config(), world.context())
    assert rows(world) == expected


@pytest.mark.parametrize("allowance", range(0, 600, 40))
def test_the_allowance_holds_over_restarts(tmp_path: Path, allowance: int) -> None:
    world = a_world(tmp_path, MIXED)
    for _ in range(3):
        with suppress(BudgetError):
            generate.run(config(token_allowance=allowance), world.context())
    assert sum(engine.output_tokens for engine in world.engines.values()) <= allowance


def test_progress_tells_pairs_and_counts_earlier_ones(tmp_path: Path) -> None:
    world = a_world(tmp_path, MIXED)
    with killed_at(12, half_line=False), pytest.raises(Killed):
        generate.run(config(), world.context())
    done = world.progress.updates[-1][0]
    assert 0 < done < len(MIXED)
    world.progress.updates.clear()
    generate.run(config(), world.context())
    assert world.progress.updates[0] == (done, len(MIXED), "pairs")
    assert world.progress.updates[-1] == (len(MIXED), len(MIXED), "pairs")


def test_the_built_in_prompt_asks_for_what_is_parsed(tmp_path: Path) -> None:
    assert "<instruction>the modified instruction</instruction><response>" in BUILT_IN.modify
