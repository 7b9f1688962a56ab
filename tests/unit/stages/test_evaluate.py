import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import PROMPTS
from real_data import real_data
from selftaught.api.results import MAX_RESULT_BYTES, Score, StageResult
from selftaught.api.stage_config import EvaluateConfig
from selftaught.benchmarks.scoring import ScoreTable
from selftaught.errors import BudgetError, DataError, Interrupted
from selftaught.judging.seeds import request_seed
from selftaught.judging.verdicts import guided_pattern
from selftaught.records import EvaluationJudgment, Order, Verdict
from selftaught.stages import evaluate, shards
from selftaught.stages.engine import Request
from selftaught.stages.evaluate import run
from stub_context import StubWorld
from stub_engine import Reply, rng_of

Judge = Callable[[Request], Reply]
ASKED = re.compile(r"Which is better for (.*): (.*) or (.*)\?$", re.DOTALL)


def sides(request: Request) -> tuple[str, str]:
    """What the prompt shows as A and as B."""
    match = ASKED.match(request.message)
    assert match
    return match[2], match[3]


def says(text: str, finish_reason: str = "stop") -> Judge:
    return lambda request: (text, finish_reason, 3)


def prefers(better: Callable[[str, str], bool]) -> Judge:
    """Says A where `better(A, B)`."""
    return lambda request: (f"I think [[{'A' if better(*sides(request)) else 'B'}]]", "stop", 4)


def right_with(probability: float) -> Judge:
    """Right this often, depending on the request alone."""

    def reply(request: Request) -> Reply:
        rng = rng_of(request.message, request.seed)
        good_first = sides(request)[0].startswith("good")
        right = rng.random() < probability
        return f"so [[{'A' if good_first == right else 'B'}]]", "stop", rng.randint(1, 9)

    return reply


PERFECT = prefers(lambda a, b: a.startswith("good"))


def write_pairs(folder: Path, name: str, count: int, **extra: Any) -> str:
    rows = [
        {
            "id": f"{name}{index}",
            "instruction": f"{name} question {index}",
            "chosen": f"good {'x' * (index % 4)}",
            "rejected": "bad xx",
            **extra,
        }
        for index in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file://{folder}/{name}.jsonl"


def world_with(tmp_path: Path, **judges: Judge) -> StubWorld:
    """Judges by name; `seed` is the model itself."""
    return StubWorld(tmp_path, judges)


def config(world: StubWorld, benchmarks: list[dict[str, Any]], **settings: Any) -> EvaluateConfig:
    evaluation = {"benchmarks": benchmarks, **settings.pop("evaluation", {})}
    return EvaluateConfig.model_validate(
        {
            "run": "lab/demo",
            "iteration": 1,
            "key": "a" * 64,
            "output": f"file://{world.folder}/out",
            "model": {"uri": f"file://{world.folder}/seed"},
            "engine": {},
            "prompts": PROMPTS,
            "evaluation": evaluation,
            **settings,
        }
    )


def candidates(world: StubWorld, *names: str) -> list[dict[str, Any]]:
    return [
        {"uri": f"file://{world.folder}/{name}", "sha256": f"{epoch:064x}", "epoch": epoch}
        for epoch, name in enumerate(names, start=1)
    ]


def rows_of(settings: EvaluateConfig, world: StubWorld) -> list[EvaluationJudgment]:
    return list(world.store.folder(settings.output).rows(EvaluationJudgment))


def raw_lines(world: StubWorld) -> list[str]:
    return [line for path in sorted((world.folder / "out").glob("rows-*")) for line in path.read_text().splitlines()]


def table_of(world: StubWorld) -> ScoreTable:
    return ScoreTable.model_validate_json((world.folder / "out" / "scores.json").read_text())


def whole(result: StageResult) -> dict[str, Score]:
    return {score.benchmark: score for score in result.scores if score.subset is None}


@pytest.mark.parametrize(
    ("judge", "expected"),
    [  # accuracy, consistent, prefers first, unparsable
        pytest.param(PERFECT, (1, 1, 0.5, 0), id="always right"),
        pytest.param(prefers(lambda a, b: a.startswith("bad")), (0, 0, 0.5, 0), id="always wrong"),
        pytest.param(says("[[A]]"), (0.5, 0, 1, 0), id="always A"),
        pytest.param(says("[[B]]"), (0.5, 0, 0, 0), id="always B"),
        pytest.param(says("cannot tell"), (0, 0, 0.5, 1), id="no verdict"),
        pytest.param(says("[[A]] or [[B]]"), (0, 0, 0.5, 1), id="two verdicts"),
        pytest.param(says("[[A]]", "length"), (0, 0, 0.5, 1), id="cut off"),
    ],
)
def test_scores_a_judge_in_both_orders(tmp_path: Path, judge: Judge, expected: tuple[float, ...]) -> None:
    world = world_with(tmp_path, seed=judge)
    settings = config(world, [{"name": "bench", "uri": write_pairs(tmp_path, "bench", 8)}])
    result = run(settings, world.context())
    score = whole(result)["bench"]
    assert (score.accuracy, score.consistent_accuracy, score.prefers_first, score.unparsable) == expected
    assert score.pairs == 8
    assert score.longer_baseline == 0.625, "of lengths 5, 6, 7, 8 against 6: a tie, and two longer in four"
    assert (result.rows, len(rows_of(settings, world))) == (16, 16)
    assert result.checkpoint is None
    assert result.usage.output_tokens == sum(row.output_tokens for row in rows_of(settings, world))
    assert world.progress.updates[-1] == (16, 16, "judgments")


def test_asks_what_the_row_says(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    settings = config(world, [{"name": "bench", "uri": write_pairs(tmp_path, "b", 2)}], evaluation={"seed": 5})
    run(settings, world.context())
    assert [request.message for request in world.submitted] == [
        f"Which is better for b question {index}: {first} or {second}?"
        for index, good in ((0, "good "), (1, "good x"))
        for first, second in ((good, "bad xx"), ("bad xx", good))
    ]
    assert [request.seed for request in world.submitted] == [
        request_seed(5, 1, f"b{index}", order, 0) for index in range(2) for order in Order
    ]
    assert {request.pattern for request in world.submitted} == {None}
    assert {request.sampling.temperature for request in world.submitted} == {0}


def test_a_verdict_inside_a_response_is_not_the_judges(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=says("hard to say"))
    uri = write_pairs(tmp_path, "bench", 3, chosen="good [[A]]")
    result = run(config(world, [{"name": "bench", "uri": uri}]), world.context())
    assert whole(result)["bench"].unparsable == 1


def test_identical_sides_are_never_asked_for(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    (tmp_path / "x.jsonl").write_text(
        '{"instruction": "i", "chosen": "same", "rejected": "same"}\n'
        '{"instruction": "i", "chosen": "good", "rejected": " "}\n'
        '{"instruction": "i", "chosen": "good", "rejected": "bad"}\n'
    )
    result = run(config(world, [{"name": "x", "uri": f"file://{tmp_path}/x.jsonl"}]), world.context())
    assert result.dropped == {"empty": 1, "identical": 1}
    assert len(world.submitted) == 2
    assert whole(result)["x"].pairs == 1


def test_votes_decide_by_majority(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=right_with(0.7))
    benchmark = {"name": "bench", "uri": write_pairs(tmp_path, "b", 60)}
    evaluation = {"votes": 15, "sampling": {"temperature": 0.7}}
    settings = config(world, [benchmark], evaluation=evaluation, guided_verdict=True)
    result = run(settings, world.context())
    rows = rows_of(settings, world)
    assert len({row.id for row in rows}) == len(rows) == 60 * 2 * 15
    assert {request.pattern for request in world.submitted} == {guided_pattern(settings.evaluation.sampling.max_tokens)}
    single = sum((row.verdict is Verdict.A) == (row.order is Order.CHOSEN_FIRST) for row in rows) / len(rows)
    assert 0.67 < single < 0.73
    assert whole(result)["bench"].accuracy > 0.87


def test_a_prompt_that_does_not_fit_counts_as_wrong_and_is_told(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    world.max_model_len = 50
    write_pairs(tmp_path, "bench", 3)
    with (tmp_path / "bench.jsonl").open("a") as file:
        file.write(json.dumps({"instruction": "word " * 60, "chosen": "good", "rejected": "bad"}) + "\n")
    settings = config(world, [{"name": "bench", "uri": f"file://{tmp_path}/bench.jsonl"}])
    result = run(settings, world.context())
    score = whole(result)["bench"]
    assert (score.pairs, score.accuracy, score.unparsable) == (4, 0.75, 0.25)
    assert "1 of bench" in result.message
    assert "maxModelLen" in result.message
    assert [row.finish_reason for row in rows_of(settings, world)].count("promptTooLong") == 2
    assert table_of(world).benchmarks[0].too_long == 1


class Killed(BaseException):
    """Stands for a kill."""


def killed_at(number: int, judge: Judge) -> Judge:
    calls = iter(range(1, 10**6))

    def reply(request: Request) -> Reply:
        if next(calls) == number:
            raise Killed
        return judge(request)

    return reply


@pytest.mark.parametrize("number", [1, 2, 17, 40, 63])
def test_goes_on_after_a_kill(tmp_path: Path, number: int) -> None:
    judge = right_with(0.6)
    unbroken = world_with(tmp_path / "unbroken", seed=judge)
    broken = world_with(tmp_path / "broken", seed=killed_at(number, judge))
    benchmarks = [
        {"name": name, "uri": write_pairs(tmp_path / "data", name, 16), "role": role}
        for name, role in (("a", "Report"), ("b", "Gate"))
    ]
    expected = run(config(unbroken, benchmarks), unbroken.context())
    settings = config(broken, benchmarks)
    with pytest.raises(Killed):
        run(settings, broken.context())
    kept = len(rows_of(settings, broken))
    (again := world_with(tmp_path / "broken", seed=judge)).progress.updates.clear()
    result = run(settings, again.context())
    assert len(again.submitted) == 64 - kept
    assert len(raw_lines(again)) == len(set(raw_lines(again))) == 64
    assert sorted(raw_lines(again)) == sorted(raw_lines(unbroken))
    assert result.scores == expected.scores
    assert (result.rows, result.usage.output_tokens) == (expected.rows, expected.usage.output_tokens)


def test_a_finished_evaluation_is_not_done_again(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    settings = config(world, [{"name": "bench", "uri": write_pairs(tmp_path, "b", 2)}])
    first = run(settings, world.context())
    (tmp_path / "b.jsonl").unlink()
    world.engines.clear()
    assert run(settings, world.context()) == first
    assert world.submitted == []


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    settings = config(world, [{"name": "bench", "uri": write_pairs(tmp_path, "b", 2)}])
    run(settings, world.context())
    with pytest.raises(DataError, match="another configuration"):
        run(settings.model_copy(update={"key": "b" * 64}), world.context())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_share_the_pairs_and_the_last_one_scores_all(tmp_path: Path, count: int) -> None:
    judge = right_with(0.6)
    benchmarks = [{"name": "bench", "uri": write_pairs(tmp_path / "data", "b", 16)}]
    single = world_with(tmp_path / "single", seed=judge)
    expected = run(config(single, benchmarks), single.context())
    world = world_with(tmp_path / "sharded", seed=judge)
    settings = config(world, benchmarks, shards=count)
    results = [run(settings, world.context(index, count)) for index in reversed(range(count))]
    assert [result.complete for result in results] == [False] * (count - 1) + [True]
    assert results[-1].scores == expected.scores
    assert (results[-1].rows, len(raw_lines(world))) == (32, 32)
    assert results[-1].usage.output_tokens == expected.usage.output_tokens


SELECTION = {"name": "choice", "role": "Selection"}


def several(world: StubWorld, tmp_path: Path, *names: str, **settings: Any) -> EvaluateConfig:
    """A selection benchmark of 40 pairs, a gate of 20, and candidates."""
    return config(
        world,
        [
            {"name": "guard", "uri": write_pairs(tmp_path / "data", "g", 20), "role": "Gate"},
            {**SELECTION, "uri": write_pairs(tmp_path / "data", "c", 40)},
        ],
        candidates=candidates(world, *names),
        **settings,
    )


def test_the_best_candidate_alone_is_measured_on_the_rest(tmp_path: Path) -> None:
    world = world_with(tmp_path, e1=right_with(0.5), e2=PERFECT, e3=right_with(0.6))
    settings = several(world, tmp_path, "e1", "e2", "e3")
    result = run(settings, world.context())
    assert result.checkpoint == settings.candidates[1]
    assert [score.benchmark for score in result.scores] == ["choice", "guard"], "selection first, whatever the spec"
    assert whole(result)["choice"].accuracy == 1
    rows = rows_of(settings, world)
    assert sum(row.benchmark == "choice" for row in rows) == 3 * 80
    assert {row.checkpoint for row in rows if row.benchmark == "guard"} == {f"{2:064x}"}
    assert result.rows == len(rows) == 3 * 80 + 40
    assert world.loaded == ["e1", "e2", "e3", "e2"]
    assert [one.checkpoint.epoch for one in table_of(world).candidates] == [1, 2, 3]
    assert "epoch 2 chosen" in result.message
    assert world.progress.updates[-1] == (280, 280, "judgments")


def test_a_tie_goes_to_the_earlier_epoch(tmp_path: Path) -> None:
    world = world_with(tmp_path, e1=right_with(0.0), e2=PERFECT, e3=PERFECT)
    result = run(several(world, tmp_path, "e1", "e3", "e2"), world.context())
    assert result.checkpoint is not None
    assert result.checkpoint.epoch == 2


def test_without_a_selection_benchmark_the_last_epoch_counts(tmp_path: Path) -> None:
    world = world_with(tmp_path, e1=PERFECT, e2=right_with(0.2))
    benchmark = {"name": "guard", "uri": write_pairs(tmp_path, "g", 5), "role": "Gate"}
    result = run(config(world, [benchmark], candidates=candidates(world, "e1", "e2")), world.context())
    assert result.checkpoint is not None
    assert result.checkpoint.epoch == 2
    assert world.loaded == ["e2"]


@pytest.mark.parametrize("number", [1, 30, 81, 160, 190])
def test_a_kill_while_choosing_changes_nothing(tmp_path: Path, number: int) -> None:
    judges = {"e1": right_with(0.5), "e2": right_with(0.8)}
    unbroken = world_with(tmp_path / "unbroken", **judges)
    expected = run(several(unbroken, tmp_path, "e1", "e2"), unbroken.context())
    calls = killed_at(number, lambda request: ("", "stop", 1))

    def counted(judge: Judge) -> Judge:
        return lambda request: (calls(request), judge(request))[1]

    broken = world_with(tmp_path / "broken", **{name: counted(judge) for name, judge in judges.items()})
    with pytest.raises(Killed):
        run(several(broken, tmp_path, "e1", "e2"), broken.context())
    again = world_with(tmp_path / "broken", **judges)
    result = run(several(again, tmp_path, "e1", "e2"), again.context())
    assert result.scores == expected.scores
    assert sorted(raw_lines(again)) == sorted(raw_lines(unbroken))
    assert result.usage.output_tokens == expected.usage.output_tokens


def test_shards_one_after_the_other_choose_alike(tmp_path: Path) -> None:
    """The first finds nobody to wait for and judges the whole selection itself."""
    judges = {"e1": right_with(0.5), "e2": right_with(0.8)}
    single = world_with(tmp_path / "single", **judges)
    expected = run(several(single, tmp_path, "e1", "e2"), single.context())
    world = world_with(tmp_path / "sharded", **judges)
    settings = several(world, tmp_path, "e1", "e2", shards=3)
    results = [run(settings, world.context(index, 3)) for index in range(3)]
    assert results[-1].scores == expected.scores
    assert [result.checkpoint for result in results] == [settings.candidates[1]] * 3
    assert sorted(raw_lines(world)) == sorted(raw_lines(single))
    assert results[-1].usage.output_tokens == expected.usage.output_tokens


def test_shards_at_once_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "POLL_SECONDS", 0.01)
    both_started = threading.Barrier(2)
    met: set[int] = set()

    def meeting(judge: Judge) -> Judge:
        def reply(request: Request) -> Reply:
            if threading.get_ident() not in met:
                met.add(threading.get_ident())
                both_started.wait(timeout=30)
            return judge(request)

        return reply

    judges = {"e1": right_with(0.5), "e2": right_with(0.8)}
    single = world_with(tmp_path / "single", **judges)
    expected = run(several(single, tmp_path, "e1", "e2"), single.context())
    worlds = [
        world_with(tmp_path / "sharded", **{name: meeting(one) for name, one in judges.items()}) for _ in range(2)
    ]
    settings = several(worlds[0], tmp_path, "e1", "e2", shards=2)
    results: dict[int, StageResult] = {}

    def work(index: int) -> None:
        results[index] = run(settings, worlds[index].context(index, 2))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(raw_lines(worlds[0])) == sorted(raw_lines(single)), "no pair is judged twice"
    whole_results = [result for result in results.values() if result.complete]
    assert whole_results
    assert all(result.scores == expected.scores for result in whole_results)


def test_a_silent_shard_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(evaluate, "SILENT_SECONDS", 0.05)
    judges = {"e1": right_with(0.5), "e2": right_with(0.8)}
    world = world_with(tmp_path, **judges)
    settings = several(world, tmp_path, "e1", "e2", shards=2)
    with shards.Clock(world.store.folder(settings.output), settings.key, world.context(1, 2)):
        pass
    first = run(settings, world.context(0, 2))
    assert not first.complete
    assert first.rows == 100
    last = run(settings, world.context(1, 2))
    assert last.complete
    assert len(raw_lines(world)) == last.rows == 200


def test_stops_while_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "POLL_SECONDS", 0.01)
    world = world_with(tmp_path, e1=PERFECT, e2=PERFECT)
    settings = several(world, tmp_path, "e1", "e2", shards=2)
    with shards.Clock(world.store.folder(settings.output), settings.key, world.context(1, 2)):
        pass
    world.stopping = lambda: len(raw_lines(world)) == 80
    with pytest.raises(Interrupted):
        run(settings, world.context(0, 2))


def test_a_budget_ends_the_stage_and_keeps_its_rows(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=says("[[A]]"))
    benchmark = {"name": "bench", "uri": write_pairs(tmp_path, "b", 20)}
    evaluation = {"sampling": {"temperature": 0, "maxTokens": 5}}
    settings = config(world, [benchmark], evaluation=evaluation, token_allowance=60)
    with pytest.raises(BudgetError):
        run(settings, world.context())
    kept = rows_of(settings, world)
    assert 0 < sum(row.output_tokens for row in kept) <= 60
    more = settings.model_copy(update={"token_allowance": 200})
    assert run(more, world.context()).rows == 40
    assert len(world.submitted) == 40


def test_what_a_killed_process_spent_counts(tmp_path: Path) -> None:
    judges = {"e1": right_with(0.9), "e2": right_with(0.5)}
    killed = world_with(tmp_path, e1=killed_at(80 + 30, judges["e1"]), e2=judges["e2"])
    sampling = {"temperature": 0, "maxTokens": 9}
    settings = several(killed, tmp_path, "e1", "e2", evaluation={"sampling": sampling})
    with pytest.raises(Killed):
        run(settings, killed.context())
    kept = rows_of(settings, killed)
    spent = sum(row.output_tokens for row in kept)
    assert {row.checkpoint for row in kept if row.benchmark == "guard"} == {f"{1:064x}"}
    again = world_with(tmp_path, **judges)
    with pytest.raises(BudgetError):
        run(settings.model_copy(update={"token_allowance": spent + 12}), again.context())
    assert again.progress.updates[0] == (len(kept) + 1, 200, "judgments")
    assert spent < sum(row.output_tokens for row in rows_of(settings, again)) <= spent + 12


def test_without_benchmarks_nothing_is_measured(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    result = run(config(world, [], candidates=candidates(world, "e1")), world.context())
    assert result.scores == ()
    assert result.checkpoint is not None
    assert "no benchmark" in result.message
    assert world.loaded == []


def test_the_result_fits_a_termination_message(tmp_path: Path) -> None:
    world = world_with(tmp_path, e1=right_with(0.6))
    data = tmp_path / "data"
    data.mkdir()
    names = [f"benchmark-with-quite-a-long-name-{index:02}" for index in range(32)]
    for name in names:
        rows = [
            {
                "id": f"{name}-{i}",
                "instruction": "i",
                "chosen": f"good {i}",
                "rejected": "bad",
                "subset": f"subset-{i % 9}",
            }
            for i in range(18)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles = ["Report"] * 30 + ["Gate", "Selection"]
    benchmarks = [
        {"name": name, "uri": f"file://{data}/{name}.jsonl", "role": role}
        for name, role in zip(names, roles, strict=True)
    ]
    result = run(config(world, benchmarks, candidates=candidates(world, "e1")), world.context())
    assert len(result.model_dump_json().encode()) <= MAX_RESULT_BYTES
    assert [score.benchmark for score in result.scores[:3]] == [names[31], names[30], names[0]]
    assert len(result.scores) > 8
    assert f"{32 * 10 - len(result.scores)} of 320 scores (of subsets) are too many to tell here" in result.message
    table = table_of(world)
    assert [one.benchmark for one in table.benchmarks] == names
    assert all(len(one.subsets) == 9 for one in table.benchmarks)


def test_sections_come_after_whole_benchmarks(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=PERFECT)
    rows = [
        {"id": i, "prompt": f"i{i}", "chosen": "good", "rejected": "bad", "subset": subset}
        for i, subset in enumerate(["alpacaeval-easy", "mt-bench-hard", "donotanswer", "math-prm", "hep-go"] * 2)
    ]
    (tmp_path / "rb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmarks = [
        {"name": "rb", "uri": f"file://{tmp_path}/rb.jsonl", "format": "RewardBench"},
        {"name": "bench", "uri": write_pairs(tmp_path, "b", 4)},
    ]
    result = run(config(world, benchmarks), world.context())
    assert [(score.benchmark, score.subset) for score in result.scores] == [
        ("rb", None),
        ("bench", None),
        ("rb", "Chat"),
        ("rb", "Chat Hard"),
        ("rb", "Safety"),
        ("rb", "Reasoning"),
    ]
    assert {one.subset for one in table_of(world).benchmarks[0].subsets} >= {"math-prm", "hep-go"}


JOINED = "\x1e"


def longer_of_joined(request: Request) -> Reply:
    _, first, second = request.message.split(JOINED)
    verdict = "equal" if len(first) == len(second) else "[[A]]" if len(first) > len(second) else "[[B]]"
    return verdict, "stop", 1


def test_a_judge_that_picks_the_longer_scores_the_baseline_on_real_llmbar(tmp_path: Path) -> None:
    world = world_with(tmp_path, seed=longer_of_joined)
    world.max_model_len = 10**6
    template = JOINED + "{{response_a}}" + JOINED + "{{response_b}}"
    benchmark = {"name": "llmbar", "uri": real_data("llmbar"), "format": "LLMBar"}
    settings = config(world, [benchmark], prompts=PROMPTS.model_copy(update={"judge": template}))
    result = run(settings, world.context())
    found = table_of(world).benchmarks[0]
    scores = {score.subset: score for score in (found.whole, *found.subsets)}
    assert scores[None].pairs == 883
    for score in scores.values():
        assert score.accuracy == pytest.approx(score.longer_baseline, abs=0.02), "equal lengths: no verdict, so wrong"
        assert score.prefers_longer == 1
    assert scores["LLMBar_Adversarial_Neighbor"].accuracy < 0.2
    assert scores["Processed_MT-Bench"].accuracy > 0.65
    assert result.dropped == {"empty": 1, "identical": 1}
