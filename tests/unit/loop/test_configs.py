"""What each stage is told."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from builders import PROMPTS, a_checkpoint, a_result, a_run, an_entry, observed
from selftaught.api.results import Stage, Usage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import (
    CurateConfig,
    EvaluateConfig,
    GenerateConfig,
    JudgeConfig,
    StageConfig,
    TrainConfig,
)
from selftaught.artifacts import Manifest
from selftaught.loop.configs import stage_config
from selftaught.loop.keys import Lineage, NotReadyError, artifact_folder
from selftaught.loop.observed import Observed


def after_training(run: SelfTaughtRun, **result: Any) -> Observed:
    """A ledger in which the training of iteration 1 is done."""
    key = Lineage(run, observed()).key(Stage.TRAIN, 1)
    return observed(ledger={key: an_entry(a_result(Stage.TRAIN, 1, key, **result))})


def after_iteration(run: SelfTaughtRun) -> Observed:
    """A ledger in which the training and the evaluation of iteration 1 are done; the first epoch was chosen."""
    known = after_training(run, checkpoints=(a_checkpoint(1, 1), a_checkpoint(1, 2)))
    key = Lineage(run, known).key(Stage.EVALUATE, 1)
    entry: Manifest = an_entry(a_result(Stage.EVALUATE, 1, key, checkpoint=a_checkpoint(1, 1)))
    return observed(ledger={**known.ledger, key: entry})


@pytest.mark.parametrize(
    ("stage", "iteration"),
    [(Stage.EVALUATE, 0), (Stage.SELECT, 0), (Stage.GENERATE, 0)]
    + [(stage, 1) for stage in (Stage.JUDGE, Stage.CURATE, Stage.TRAIN, Stage.EVALUATE)],
)
def test_every_config_names_itself_and_survives_json(stage: Stage, iteration: int) -> None:
    run = a_run()
    config = stage_config(run, stage, iteration, 3, after_training(run))
    assert (config.run, config.stage, config.iteration, config.attempt) == ("lab/demo", stage, iteration, 3)
    assert config.output == artifact_folder(run, stage, iteration, config.key)
    adapter = TypeAdapter[StageConfig](StageConfig)
    assert adapter.validate_json(config.model_dump_json(exclude_none=True)) == config


def test_the_generator_selects_and_answers_and_the_seed_judges() -> None:
    run = a_run(generator={"model": {"uri": "pvc://models/big"}})
    models = [
        stage_config(run, stage, iteration, 1, observed()).model.uri  # type: ignore[union-attr]
        for stage, iteration in [(Stage.SELECT, 0), (Stage.GENERATE, 0), (Stage.JUDGE, 1), (Stage.EVALUATE, 0)]
    ]
    assert models == ["pvc://models/big", "pvc://models/big", "pvc://models/seed", "pvc://models/seed"]


def test_the_chosen_checkpoint_judges_next_and_training_starts_from_the_seed() -> None:
    run = a_run()
    known = after_iteration(run)
    judge = stage_config(run, Stage.JUDGE, 2, 1, known)
    curate = stage_config(run, Stage.CURATE, 2, 1, known)
    train = stage_config(run, Stage.TRAIN, 2, 1, known)
    assert isinstance(judge, JudgeConfig)
    assert isinstance(curate, CurateConfig)
    assert isinstance(train, TrainConfig)
    assert judge.model.uri == curate.judge_model.uri == a_checkpoint(1, 1).uri
    assert train.model.uri == "pvc://models/seed"


def test_training_from_the_previous_judge() -> None:
    run = a_run(training={"startFrom": "Previous"})
    train = stage_config(run, Stage.TRAIN, 2, 1, after_iteration(run))
    assert isinstance(train, TrainConfig)
    assert train.model.uri == a_checkpoint(1, 1).uri


def test_stages_read_what_the_stages_before_wrote() -> None:
    run = a_run()
    places = [(Stage.SELECT, 0), (Stage.GENERATE, 0), (Stage.JUDGE, 1), (Stage.CURATE, 1), (Stage.TRAIN, 1)]
    config = {stage: stage_config(run, stage, iteration, 1, observed()) for stage, iteration in places}
    generate, judge, curate, train = (config[s] for s in (Stage.GENERATE, Stage.JUDGE, Stage.CURATE, Stage.TRAIN))
    assert isinstance(generate, GenerateConfig)
    assert isinstance(judge, JudgeConfig)
    assert isinstance(curate, CurateConfig)
    assert isinstance(train, TrainConfig)
    assert generate.instructions == config[Stage.SELECT].output
    assert judge.pairs == curate.pairs == generate.output
    assert curate.judgments == judge.output
    assert train.examples == curate.output


def test_pairs_made_in_each_iteration_are_judged_in_it() -> None:
    run = a_run(pairs={"refresh": "EachIteration"})
    judge = stage_config(run, Stage.JUDGE, 1, 1, observed())
    assert isinstance(judge, JudgeConfig)
    assert judge.pairs == stage_config(run, Stage.GENERATE, 1, 1, observed()).output


@pytest.mark.parametrize(
    ("training", "roles", "kept"),
    [
        pytest.param({}, ["Selection"], True, id="best of two, as the paper does"),
        pytest.param({"epochs": 1}, ["Selection"], False, id="one epoch"),
        pytest.param({"keepEpoch": "Last"}, ["Selection"], False, id="the last is wanted"),
        pytest.param({}, ["Gate", "Report"], False, id="nothing selects"),
        pytest.param({}, [], False, id="nothing measured"),
    ],
)
def test_every_epoch_is_kept_only_for_a_choice(training: dict[str, Any], roles: list[str], kept: bool) -> None:
    benchmarks = [{"name": f"b{n}", "uri": "pvc://data/b", "role": role} for n, role in enumerate(roles)]
    run = a_run(training=training, evaluation={"benchmarks": benchmarks})
    config = stage_config(run, Stage.TRAIN, 1, 1, observed())
    assert isinstance(config, TrainConfig)
    assert config.keep_all_epochs is kept


def test_the_evaluation_chooses_among_the_epochs_of_its_training() -> None:
    run = a_run()
    candidates = (a_checkpoint(1, 1), a_checkpoint(1, 2))
    config = stage_config(run, Stage.EVALUATE, 1, 1, after_training(run, checkpoints=candidates))
    assert isinstance(config, EvaluateConfig)
    assert config.candidates == candidates
    assert config.model.uri == candidates[0].uri


def test_the_seed_is_evaluated_as_it_is() -> None:
    config = stage_config(a_run(judging={"guidedVerdict": True}), Stage.EVALUATE, 0, 1, observed())
    assert isinstance(config, EvaluateConfig)
    assert config.candidates == ()
    assert config.guided_verdict


def test_a_stage_takes_what_it_leaves_out_from_all() -> None:
    stages = {"all": {"shards": 2, "engine": {"dtype": "float32"}}, "judge": {"shards": 4}}
    run = a_run(stages=stages)
    judge = stage_config(run, Stage.JUDGE, 1, 1, observed())
    assert isinstance(judge, JudgeConfig)
    assert (judge.shards, judge.engine.dtype) == (4, "float32")
    assert stage_config(run, Stage.SELECT, 0, 1, observed()).shards == 2
    assert stage_config(run, Stage.CURATE, 1, 1, observed()).shards == 1
    assert stage_config(run, Stage.TRAIN, 1, 1, observed()).shards == 1


@pytest.mark.parametrize(
    ("budget", "allowance"),
    [
        pytest.param({}, None, id="no budget"),
        pytest.param({"generatedTokens": 5000}, 4000, id="some left"),
        pytest.param({"generatedTokens": 500}, 0, id="none left"),
    ],
)
def test_the_allowance_is_what_finished_stages_left(budget: dict[str, int], allowance: int | None) -> None:
    run = a_run(budget=budget)
    generated = an_entry(a_result(Stage.SELECT, key="a" * 64, usage=Usage(output_tokens=1000)))
    trained = an_entry(a_result(Stage.TRAIN, 1, key="b" * 64, usage=Usage(output_tokens=7000)))
    known = observed(ledger={"a" * 64: generated, "b" * 64: trained})
    config = stage_config(run, Stage.JUDGE, 1, 1, known)
    assert isinstance(config, JudgeConfig)
    assert config.token_allowance == allowance


def test_a_stage_whose_input_is_missing_has_no_config() -> None:
    with pytest.raises(NotReadyError, match="train of iteration 1"):
        stage_config(a_run(), Stage.EVALUATE, 1, 1, observed())


def test_prompts_are_those_of_the_run() -> None:
    config = stage_config(a_run(), Stage.JUDGE, 1, 1, observed())
    assert isinstance(config, JudgeConfig)
    assert config.prompts == PROMPTS
