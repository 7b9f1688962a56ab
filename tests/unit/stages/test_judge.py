from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from kills import Killed, killed_at
from selftaught.api.judging import Judging, JudgingStrategy, Orders
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource, Sampling
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import JudgeConfig
from selftaught.errors import BudgetError, DataError, Interrupted
from selftaught.judging.draws import Draws
from selftaught.judging.prompts import load
from selftaught.judging.verdicts import guided_pattern
from selftaught.records import Dropped, Judgment, Order, ResponsePair, Verdict
from selftaught.stages import judge
from selftaught.stages.engine import Request
from stub_context import StubWorld, write_artifact
from stub_engine import Reply, rng_of, verdict_reply

OUTPUT = "pvc://scratch/judgments"
SAMPLING = Sampling(max_tokens=100)
FIXED = Judging(strategy=JudgingStrategy.FIXED, sampling=SAMPLING)
ADAPTIVE = Judging(strategy=JudgingStrategy.ADAPTIVE, sampling=SAMPLING)


def config(judging: Judging = ADAPTIVE, **fields: object) -> JudgeConfig:
    defaults: dict[str, object] = {
        "run": "lab/demo",
        "iteration": 1,
        "key": "a" * 64,
        "output": OUTPUT,
        "model": ModelSource(uri="pvc://models/seed"),
        "engine": EngineSettings(),
        "prompts": load({"judge": "I {{instruction}} A {{response_a}} B {{response_b}}"}),
        "pairs": "pvc://scratch/pairs",
        "judging": judging,
    }
    return JudgeConfig.model_validate(defaults | fields)


def pair(number: int, instruction: str = "") -> ResponsePair:
    return ResponsePair(
        id=f"p{number:04d}",
        instruction_id=f"p{number:04d}",
        instruction=instruction or f"task {number}",
        chosen=f"right{number}",
        rejected=f"wrong{number}",
        modified_instruction="other",
    )


def a_world(folder: Path, pairs: Sequence[ResponsePair] = ()) -> StubWorld:
    world = StubWorld(folder, {"seed": verdict_reply()})
    if pairs:
        write_artifact(world.store.folder("pvc://scratch/pairs"), Stage.GENERATE, reversed(pairs))
    return world


def judgments(world: StubWorld) -> dict[str, Judgment]:
    """What the artifact holds, by id, in the order it was written."""
    folder = world.store.folder(OUTPUT)
    found = {row.id: row for row in folder.rows(Judgment)}
    lines = [line for name in folder.names() if name.startswith("rows") for line in folder.lines(name)]
    assert len(lines) == len(found), "a row is written twice"
    dropped = [line for name in folder.names() if name.startswith("dropped") for line in folder.lines(name)]
    assert len(dropped) == len({line for _, line in dropped}), "a row is written twice"
    return found


def by_example(rows: dict[str, Judgment]) -> dict[tuple[str, Order], dict[int, Judgment]]:
    examples: dict[tuple[str, Order], dict[int, Judgment]] = defaultdict(dict)
    for row in rows.values():
        examples[row.pair_id, row.order][row.index] = row
    return examples


def kept(rows: dict[str, Judgment], rule: Draws) -> dict[tuple[str, Order], str]:
    """Id of the kept judgment by example."""
    found = {}
    for example, samples in by_example(rows).items():
        index = rule.kept({index: row.correct for index, row in samples.items()})
        if index is not None:
            found[example] = samples[index].id
    return found


def without_seconds(result: StageResult) -> StageResult:
    return result.model_copy(update={"usage": result.usage.model_copy(update={"seconds": 0.0})})


def test_both_orders_of_every_pair_are_judged(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(1), pair(2)])
    result = judge.run(config(FIXED), world.context())
    rows = judgments(world)
    assert {(row.pair_id, row.order, row.index) for row in rows.values()} == {
        (name, order, index) for name in ("p0001", "p0002") for order in Order for index in range(15)
    }
    messages = {request.id: request.message for request in world.submitted}
    assert messages["p0001/ChosenFirst/3"] == "I task 1 A right1 B wrong1"
    assert messages["p0001/RejectedFirst/3"] == "I task 1 A wrong1 B right1"
    assert result.rows == 60
    assert result.usage.output_tokens == world.engines["seed"].output_tokens
    assert result.usage.input_tokens == 60 * 7


def test_one_order_if_asked(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(1)])
    judge.run(config(FIXED.model_copy(update={"orders": Orders.CHOSEN_FIRST})), world.context())
    assert {row.order for row in judgments(world).values()} == {Order.CHOSEN_FIRST}


def test_neighbours_share_their_prefix(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(number) for number in range(20)])
    judge.run(config(FIXED), world.context())
    messages = [request.message for request in world.submitted]
    changes = sum(one != other for one, other in pairwise(messages))
    assert changes == 39  # each of the 40 prompts stands in one run of 15


def test_every_sample_has_its_own_seed(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(number) for number in range(5)])
    judge.run(config(FIXED), world.context())
    other = a_world(tmp_path, [pair(number) for number in range(5)])
    judge.run(config(FIXED, iteration=2, output="pvc://scratch/other"), other.context())
    seeds = {request.seed for request in (*world.submitted, *other.submitted)}
    assert len(seeds) == 2 * 150


@pytest.mark.parametrize("guided", [True, False])
def test_a_guided_verdict_is_asked_of_the_engine(tmp_path: Path, guided: bool) -> None:
    world = a_world(tmp_path, [pair(1)])
    judge.run(config(FIXED.model_copy(update={"guided_verdict": guided})), world.context())
    assert {request.pattern for request in world.submitted} == {guided_pattern(100) if guided else None}


def test_a_judgment_that_was_cut_off_has_no_verdict(tmp_path: Path) -> None:
    def reply(_: Request) -> Reply:
        return "[[A]] [[A]] [[A]] and so on", "length", 9

    world = a_world(tmp_path, [pair(1)])
    world.replies = {"seed": reply}
    judge.run(config(), world.context())
    assert {row.verdict for row in judgments(world).values()} == {Verdict.UNPARSABLE}
    assert len(judgments(world)) == 30


@pytest.mark.parametrize("agreement", [0.0, 0.4, 0.8])
def test_adaptive_keeps_the_same_traces_as_fixed_for_fewer_tokens(tmp_path: Path, agreement: float) -> None:
    pairs = [pair(number) for number in range(150)]
    rows, tokens = [], []
    for number, judging in enumerate((FIXED, ADAPTIVE)):
        world = a_world(tmp_path / f"{number}", pairs)
        judge.run(config(judging.model_copy(update={"min_agreement": agreement})), world.context())
        rows.append(judgments(world))
        tokens.append(world.engines["seed"].output_tokens)
    rule = Draws.of(FIXED.model_copy(update={"min_agreement": agreement}))
    fixed, adaptive = rows
    assert adaptive.items() <= fixed.items()
    assert kept(adaptive, rule) == kept(fixed, rule)
    assert len(kept(fixed, rule)) == pytest.approx({0.0: 300, 0.4: 222, 0.8: 2}[agreement], abs=25)
    assert tokens[1] * (2.5 if agreement == 0 else 1.05) < tokens[0]


def ks_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Greatest distance of two empirical distribution functions, over its 1 % critical value."""
    points = sorted({*one, *other})

    def below(values: Sequence[float]) -> list[float]:
        ordered, found, position = sorted(values), [], 0
        for point in points:
            while position < len(ordered) and ordered[position] <= point:
                position += 1
            found.append(position / len(ordered))
        return found

    distance = max(abs(a - b) for a, b in zip(below(one), below(other), strict=True))
    return float(distance / (1.63 * ((len(one) + len(other)) / (len(one) * len(other))) ** 0.5))


def test_kept_traces_are_as_long_as_random_correct_ones(tmp_path: Path) -> None:
    """Keeping the first correct text to *finish* shortens what is trained on; the first by index does not."""
    pairs = [pair(number) for number in range(400)]
    fixed_world, world = a_world(tmp_path / "fixed", pairs), a_world(tmp_path / "adaptive", pairs)
    judge.run(config(FIXED), fixed_world.context())
    judge.run(config(), world.context())
    rows, adaptive = judgments(fixed_world), judgments(world)
    random_correct, first_finished = [], []
    for (name, order), samples in by_example(rows).items():
        correct = [row.output_tokens for row in samples.values() if row.correct]  # in the order they finished
        if correct:
            random_correct.append(rng_of(name, len(order)).choice(correct))
            first_finished.append(correct[0])
    lengths = [adaptive[name].output_tokens for name in kept(adaptive, Draws.of(ADAPTIVE)).values()]
    assert len(lengths) == len(random_correct) > 750
    assert ks_distance(lengths, random_correct) < 1
    assert ks_distance(first_finished, random_correct) > 3


def test_a_pair_longer_than_the_context_is_dropped_once_per_order(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(1, "long " * 3000), pair(2)])
    for judging in (FIXED, ADAPTIVE):
        output = f"pvc://scratch/{judging.strategy}"
        result = judge.run(config(judging, output=output), world.context())
        assert result.dropped == {"TooLong": 2}
        dropped = sorted(row.id for row in world.store.folder(output).rows(Dropped, "dropped"))
        assert dropped == ["p0001/ChosenFirst", "p0001/RejectedFirst"]
    assert {request.id.split("/")[0] for request in world.submitted} == {"p0002"}


def test_no_pairs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not complete"):
        judge.run(config(), a_world(tmp_path).context())


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(1)])
    first = judge.run(config(), world.context())
    world.store.folder(OUTPUT).delete("rows-00000-of-00001.jsonl")  # as retention may
    assert judge.run(config(attempt=2), StubWorld(tmp_path).context()) == first


LONG = pair(9, "long " * 3000)


@pytest.mark.parametrize("half_line", [pytest.param(False, id="between rows"), pytest.param(True, id="half a row")])
@pytest.mark.parametrize("judging", [pytest.param(FIXED, id="fixed"), pytest.param(ADAPTIVE, id="adaptive")])
def test_a_kill_at_any_row_loses_nothing_and_repeats_little(tmp_path: Path, judging: Judging, half_line: bool) -> None:
    pairs = [*(pair(number) for number in range(3)), LONG]
    judging = judging.model_copy(update={"samples_per_pair": 6})
    world = a_world(tmp_path / "unbroken", pairs)
    result = judge.run(config(judging), world.context())
    expected, tokens = judgments(world), world.engines["seed"].output_tokens
    moment = 0
    while True:
        moment += 1
        world = a_world(tmp_path / f"{moment}", pairs)
        with killed_at(moment, half_line=half_line):
            try:
                judge.run(config(judging), world.context())
            except Killed:
                pass
            else:
                break
        before = judgments(world).keys()
        spent = world.engines["seed"].output_tokens
        later = a_world(tmp_path / f"{moment}")
        assert without_seconds(judge.run(config(judging, attempt=2), later.context())) == without_seconds(result)
        assert judgments(later) == expected
        assert not before & {request.id for request in later.submitted}
        again = later.engines["seed"].output_tokens if later.engines else 0
        assert spent + again <= tokens + 8 * 63  # the texts of one step had ended when the kill came
    assert moment == len(expected) + 2 + 1  # judgments and two too long examples, then none is left to die at


def test_shards_together_draw_the_same(tmp_path: Path) -> None:
    pairs = [*(pair(number) for number in range(7)), LONG]
    whole = a_world(tmp_path / "whole", pairs)
    result = judge.run(config(), whole.context())
    world = a_world(tmp_path / "shards", pairs)
    results = [judge.run(config(shards=3), world.context(index, 3)) for index in (1, 2, 0)]
    assert [one.complete for one in results] == [False, False, True]
    assert without_seconds(results[-1]) == without_seconds(result)
    assert judgments(world) == judgments(whole)


def test_the_number_of_shards_may_change_in_between(tmp_path: Path) -> None:
    pairs = [*(pair(number) for number in range(7)), LONG]
    whole = a_world(tmp_path / "whole", pairs)
    result = judge.run(config(), whole.context())
    world = a_world(tmp_path / "changed", pairs)
    for index in range(3):
        with killed_at(4, half_line=True), pytest.raises(Killed):
            judge.run(config(shards=3), world.context(index, 3))
    assert without_seconds(judge.run(config(), world.context())) == without_seconds(result)
    assert judgments(world) == judgments(whole)


def test_a_request_to_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(number) for number in range(5)])
    checks = iter([False] * 40 + [True])
    world.stopping = lambda: next(checks)
    with pytest.raises(Interrupted):
        judge.run(config(), world.context())
    assert judgments(world)
    assert world.store.folder(OUTPUT).manifest() is None


@pytest.mark.parametrize("allowance", range(0, 2000, 200))
def test_the_allowance_holds_over_shards_and_restarts(tmp_path: Path, allowance: int) -> None:
    world = a_world(tmp_path, [pair(number) for number in range(10)])
    for attempt in (1, 2):
        for index in range(2):
            with suppress(BudgetError):
                judge.run(config(shards=2, attempt=attempt, token_allowance=allowance), world.context(index, 2))
    assert sum(row.output_tokens for row in judgments(world).values()) == world.engines["seed"].output_tokens
    assert world.engines["seed"].output_tokens <= allowance


def test_progress_counts_examples(tmp_path: Path) -> None:
    world = a_world(tmp_path, [pair(1), LONG])
    judge.run(config(), world.context())
    assert world.progress.updates[0] == (0, 4, "examples")
    assert world.progress.updates[-1] == (4, 4, "examples")
