"""What a run has used, and what is left."""

from typing import Any

import pytest

from builders import T0, a_result, a_run, an_attempt, an_entry, at, observed, some_progress
from selftaught.api.results import Stage, Usage
from selftaught.api.status import UsageStatus
from selftaught.loop import budget
from selftaught.loop.history import history_of
from selftaught.loop.observed import AttemptState, Observed
from selftaught.loop.placement import gpus

GPUS: dict[str, Any] = {
    "stages": {"all": {"resources": {"limits": {"nvidia.com/gpu": "2", "memory": "8Gi"}}, "shards": 3}}
}


def used(known: Observed, now: float, grain: int = 0, **spec: Any) -> budget.Usage:
    run = a_run(**spec)
    held = {stage: gpus(run.spec, stage) for stage in Stage}
    history = history_of(known, known.previous, (), held, at(now))
    done = {(each.result.iteration, each.result.stage): each for each in known.finished().values()}
    by_iteration = budget.usage_by_iteration(run.spec, known, history, done, grain)
    return budget.total_usage(by_iteration, known.previous.usage)


def entry(stage: Stage, iteration: int, key: str, **usage: Any) -> Any:
    return an_entry(a_result(stage, iteration, key * 64, usage=Usage(**usage)))


@pytest.mark.parametrize(
    ("stage", "spec", "count"),
    [
        pytest.param(Stage.JUDGE, {}, 0, id="none asked for"),
        pytest.param(Stage.JUDGE, GPUS, 6, id="per pod, times shards"),
        pytest.param(Stage.CURATE, GPUS, 2, id="curate is one pod"),
        pytest.param(Stage.TRAIN, {**GPUS, "training": {"parallelism": {"nodes": 4}}}, 8, id="training by its nodes"),
    ],
)
def test_gpus_that_a_stage_holds(stage: Stage, spec: dict[str, Any], count: int) -> None:
    assert gpus(a_run(**spec).spec, stage) == count


def test_failed_attempts_and_the_one_at_work_use_time_and_gpus() -> None:
    failed = an_attempt(Stage.JUDGE, 1, 1, AttemptState.FAILED)
    alive = an_attempt(Stage.JUDGE, 1, 2, start_time=at(100), progress=some_progress(output_tokens=70))
    usage = used(observed(failed, alive), 145, **GPUS)
    assert (usage.active_seconds, usage.gpu_seconds, usage.output_tokens) == (60 + 45, (60 + 45) * 6, 70)


def test_running_time_is_told_in_whole_grains() -> None:
    alive = an_attempt(Stage.JUDGE, 1)
    assert [used(observed(alive), now, grain=60).active_seconds for now in (59, 60, 119)] == [0, 60, 60]


def test_adopted_work_counts_by_its_own_account() -> None:
    ledger = {"a" * 64: entry(Stage.JUDGE, 1, "a", output_tokens=900, gpu_seconds=480.0)}
    usage = used(observed(ledger=ledger), 1000, **GPUS)
    assert (usage.active_seconds, usage.gpu_seconds, usage.output_tokens) == (60, 480, 900)


def test_an_attempt_and_its_own_entry_count_once() -> None:
    key = "a" * 64
    attempt = an_attempt(Stage.JUDGE, 1, 1, AttemptState.SUCCEEDED, key=key, result=a_result(Stage.JUDGE, 1, key))
    alone = used(observed(attempt), 1000)
    both = used(
        observed(attempt, ledger={key: entry(Stage.JUDGE, 1, "a", input_tokens=5000, output_tokens=1000)}), 1000
    )
    assert alone == both
    assert (both.active_seconds, both.output_tokens) == (60, 1000)


def test_what_a_training_reads_is_not_generated() -> None:
    ledger = {"a" * 64: entry(Stage.TRAIN, 1, "a", output_tokens=8000)}
    assert used(observed(ledger=ledger), 1000).output_tokens == 0


def test_what_was_told_stays_used() -> None:
    previous = observed().previous.model_copy(update={"usage": UsageStatus(output_tokens=77, gpu_seconds=5)})
    usage = used(observed(previous=previous), 1000)
    assert (usage.output_tokens, usage.gpu_seconds) == (77, 5)


@pytest.mark.parametrize(
    ("spec", "usage", "spent"),
    [
        pytest.param({}, budget.Usage(gpu_seconds=1e12), False, id="no budget"),
        pytest.param({"gpuHours": "1.5"}, budget.Usage(gpu_seconds=5399), False, id="a second left"),
        pytest.param({"gpuHours": "1.5"}, budget.Usage(gpu_seconds=5400), True, id="none left"),
    ],
)
def test_gpu_hours(spec: dict[str, Any], usage: budget.Usage, spent: bool) -> None:
    assert (budget.gpu_hours_spent(a_run(budget=spec).spec, usage) is not None) == spent


@pytest.mark.parametrize(("tokens", "spent"), [(99, False), (100, True), (101, True)])
def test_tokens(tokens: int, spent: bool) -> None:
    spec = a_run(budget={"generatedTokens": 100}).spec
    assert (budget.tokens_spent(spec, budget.Usage(output_tokens=tokens)) is not None) == spent


@pytest.mark.parametrize(
    ("spec", "held", "end"),
    [
        pytest.param({}, 8, None, id="no limit"),
        pytest.param({"budget": {"gpuHours": "1"}}, 8, T0.replace(minute=7, second=30), id="GPU hours"),
        pytest.param({"budget": {"gpuHours": "1"}}, 0, None, id="GPU hours without GPUs"),
        pytest.param({"deadlines": {"activeSeconds": 300}}, 8, T0.replace(minute=5), id="running time"),
        pytest.param(
            {"budget": {"gpuHours": "1"}, "deadlines": {"activeSeconds": 300}}, 8, T0.replace(minute=5), id="the first"
        ),
    ],
)
def test_when_it_will_be_spent(spec: dict[str, Any], held: int, end: object) -> None:
    assert budget.end_of_budget(a_run(**spec).spec, budget.Usage(), held, T0) == end
