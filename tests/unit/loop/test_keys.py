"""A key holds everything that determines a stage's result, and nothing else."""

from typing import Any

import pytest

from builders import PROMPTS, a_checkpoint, a_result, a_run, an_entry, observed
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.artifacts import Manifest
from selftaught.loop.keys import Lineage, NotReadyError, artifact_folder
from selftaught.loop.observed import Observed

ORDER = [Stage.SELECT, Stage.GENERATE, Stage.JUDGE, Stage.CURATE, Stage.TRAIN, Stage.EVALUATE]
ALL = frozenset(stage.value for stage in ORDER)


def first_keys(run: SelfTaughtRun, **fields: Any) -> dict[str, str]:
    """Keys of the stages of iteration 1, the evaluation being that of the seed."""
    lineage = Lineage(run, observed(**fields))
    iterations = {Stage.SELECT: 0, Stage.GENERATE: 0, Stage.EVALUATE: 0}
    return {stage.value: lineage.key(stage, iterations.get(stage, 1)) for stage in ORDER}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {stage for stage in before if before[stage] != after[stage]}


SOURCES = {"sources": [{"name": "chat", "uri": "pvc://data/chat.jsonl"}]}


@pytest.mark.parametrize(
    ("spec", "stages"),
    [
        pytest.param({"iterations": 5}, set(), id="iterations"),
        pytest.param({"suspend": True}, set(), id="suspend"),
        pytest.param({"stages": {"all": {"shards": 8, "image": "x:1"}}}, set(), id="shards and image"),
        pytest.param({"stages": {"all": {"resources": {"limits": {"nvidia.com/gpu": 8}}}}}, set(), id="resources"),
        pytest.param({"stages": {"all": {"engine": {"tensorParallelSize": 8}}}}, set(), id="tensor parallel"),
        pytest.param(
            {"stages": {"all": {"engine": {"dtype": "float32"}}}},
            ALL,
            id="dtype",
        ),
        pytest.param(
            {"stages": {"judge": {"engine": {"maxModelLen": 4096}}}}, {"judge", "curate", "train"}, id="judge's engine"
        ),
        pytest.param({"stages": {"all": {"engine": {}}}}, set(), id="engine defaults written out"),
        pytest.param({"failurePolicy": {"maxRestarts": 9}}, set(), id="restarts"),
        pytest.param({"budget": {"generatedTokens": 9}}, set(), id="budget"),
        pytest.param({"approval": {"required": "EveryIteration"}}, set(), id="approval"),
        pytest.param({"stopping": {"patience": 1}}, set(), id="stopping"),
        pytest.param({"storage": {"uri": "pvc://elsewhere"}}, set(), id="storage"),
        pytest.param(
            {"seed": {"model": {"uri": "pvc://models/other"}}},
            ALL,
            id="seed",
        ),
        pytest.param(
            {"generator": {"model": {"uri": "pvc://models/big"}}},
            {"select", "generate", "judge", "curate", "train"},
            id="generator",
        ),
        pytest.param(
            {"seed": {"model": {"uri": "pvc://models/seed"}, "tokenSecretRef": {"name": "hub"}}}, set(), id="token"
        ),
        pytest.param({"judging": {"seed": 1}}, {"judge", "curate", "train"}, id="judging seed"),
        pytest.param({"judging": {"minAgreement": 0.5}}, {"judge", "curate", "train"}, id="agreement, adaptive"),
        pytest.param({"judging": {"guidedVerdict": True}}, {"judge", "curate", "train", "evaluate"}, id="guided"),
        pytest.param({"pairs": {"seed": 1}}, {"generate", "judge", "curate", "train"}, id="pairs seed"),
        pytest.param({"training": {"seed": 1}}, {"train"}, id="training seed"),
        pytest.param({"training": {"parallelism": {"nodes": 4}}}, set(), id="nodes"),
        pytest.param({"training": {"saveSteps": 7, "microBatchSize": 1}}, set(), id="how training is done"),
        pytest.param({"training": {"keepEpoch": "Last"}}, {"train"}, id="one epoch kept instead of two"),
        pytest.param({"training": {"lora": {"rank": 8}}}, {"train"}, id="lora"),
        pytest.param({"evaluation": {"benchmarks": [], "votes": 1}}, ALL, id="benchmarks: decontamination too"),
        pytest.param(
            {"instructions": {**SOURCES, "deduplicate": {"threshold": 0.5}}},
            {"select", "generate", "judge", "curate", "train"},
            id="instructions",
        ),
    ],
)
def test_a_field_changes_the_keys_of_the_stages_it_determines(spec: dict[str, Any], stages: frozenset[str]) -> None:
    assert changed(first_keys(a_run()), first_keys(a_run(**spec))) == stages


@pytest.mark.parametrize(
    ("prompt", "stages"),
    [
        pytest.param("categorise", {"select", "generate", "judge", "curate", "train"}, id="categorise"),
        pytest.param("respond", {"generate", "judge", "curate", "train"}, id="respond"),
        pytest.param("modify", {"generate", "judge", "curate", "train"}, id="modify"),
        pytest.param("judge", {"judge", "curate", "train", "evaluate"}, id="judge"),
    ],
)
def test_a_prompt_changes_the_keys_of_the_stages_that_ask_it(prompt: str, stages: set[str]) -> None:
    other = PROMPTS.model_copy(update={prompt: "other"})
    assert changed(first_keys(a_run()), first_keys(a_run(), prompts=other)) == stages


def test_selecting_all_instructions_depends_on_no_model() -> None:
    instructions = {**SOURCES, "selection": {"strategy": "All"}, "decontaminate": False}
    before = first_keys(a_run(instructions=instructions))
    after = first_keys(a_run(instructions=instructions, seed={"model": {"uri": "pvc://models/other"}}))
    assert before["select"] == after["select"]


def test_drawing_all_samples_does_not_depend_on_the_agreement_asked_for() -> None:
    before = first_keys(a_run(judging={"strategy": "Fixed"}))
    after = first_keys(a_run(judging={"strategy": "Fixed", "minAgreement": 0.5}))
    assert changed(before, after) == {"curate", "train"}


def test_name_namespace_and_uid_are_in_no_key_but_in_the_folder() -> None:
    run, other = a_run(), a_run(name="other")
    assert first_keys(run) == first_keys(other)
    key = "ab" * 32
    assert artifact_folder(run, Stage.SELECT, 0, key) == "pvc://artifacts/runs/lab/demo/select-abababababab"
    assert artifact_folder(other, Stage.JUDGE, 3, key) == "pvc://artifacts/runs/lab/other/i3-judge-abababababab"


def finished(run: SelfTaughtRun, iterations: int, sha: str = "a" * 64) -> Observed:
    """A ledger with the trainings and evaluations of some iterations."""
    ledger: dict[str, Manifest] = {}
    lineage = Lineage(run, observed(ledger=ledger))
    for iteration in range(1, iterations + 1):
        candidates = (a_checkpoint(iteration, 1), a_checkpoint(iteration, 2, sha256=sha))
        key = lineage.key(Stage.TRAIN, iteration)
        ledger[key] = an_entry(a_result(Stage.TRAIN, iteration, key, checkpoints=candidates))
        if run.spec.evaluation.benchmarks:
            key = lineage.key(Stage.EVALUATE, iteration)
            ledger[key] = an_entry(a_result(Stage.EVALUATE, iteration, key, checkpoint=candidates[0]))
    return observed(ledger=ledger)


def test_a_later_judge_is_unknown_until_it_has_been_chosen() -> None:
    run = a_run()
    with pytest.raises(NotReadyError):
        Lineage(run, observed()).key(Stage.JUDGE, 2)
    lineage = Lineage(run, finished(run, 1))
    assert lineage.judge(2) == a_checkpoint(1, 1)
    assert lineage.key(Stage.JUDGE, 2) != lineage.key(Stage.JUDGE, 1)


def test_without_benchmarks_the_last_epoch_judges() -> None:
    run = a_run(evaluation={"benchmarks": []})
    assert Lineage(run, finished(run, 1)).judge(2) == a_checkpoint(1, 2, sha256="a" * 64)


def test_a_judge_is_known_by_its_weights_alone() -> None:
    run, report = a_run(), a_run()
    benchmarks = [*report.spec.evaluation.benchmarks]
    benchmarks[1] = benchmarks[1].model_copy(update={"max_drop": "0.5"})
    evaluation = report.spec.evaluation.model_copy(update={"benchmarks": tuple(benchmarks)})
    report = report.model_copy(update={"spec": report.spec.model_copy(update={"evaluation": evaluation})})
    known = finished(run, 1)
    assert Lineage(run, known).key(Stage.JUDGE, 2) == Lineage(report, known).key(Stage.JUDGE, 2)


def test_iterations_are_sampled_apart_even_from_the_same_judge() -> None:
    run = a_run(evaluation={"benchmarks": []}, iterations=3)
    lineage = Lineage(run, finished(run, 2))
    judges = [lineage.judge(iteration) for iteration in (2, 3)]
    assert {judge.sha256 for judge in judges if judge is not None} == {"a" * 64}
    assert len({lineage.key(Stage.JUDGE, iteration) for iteration in (1, 2, 3)}) == 3


def test_pairs_made_again_have_a_key_per_iteration() -> None:
    lineage = Lineage(a_run(pairs={"refresh": "EachIteration"}), observed())
    assert lineage.key(Stage.GENERATE, 1) != lineage.key(Stage.GENERATE, 2)


@pytest.mark.parametrize("start_from", ["Seed", "Previous"])
def test_a_training_from_the_previous_judge_depends_on_it(start_from: str) -> None:
    run = a_run(training={"startFrom": start_from})
    base = Lineage(run, finished(run, 1)).base(2)
    assert (base is None) == (start_from == "Seed")


def test_a_hundred_iterations_need_no_deep_recursion() -> None:
    run = a_run(iterations=100)
    known = finished(run, 99)
    assert Lineage(run, known).key(Stage.EVALUATE, 99)
    assert Lineage(run, known).key(Stage.JUDGE, 100)
