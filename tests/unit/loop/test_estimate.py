import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_run
from selftaught.api.judging import Judging
from selftaught.api.results import Stage
from selftaught.loop.assumptions import Assumptions, ModelSize, size_from_name, throughput
from selftaught.loop.costs import Estimate, StageEstimate
from selftaught.loop.estimate import Pool, draws, estimate, render
from selftaught.manifests import load

EXAMPLE = Path(__file__).parents[3] / "manifests" / "examples" / "llama-3.1-70b.yaml"
GPUS = {"all": {"resources": {"limits": {"nvidia.com/gpu": 8}}, "engine": {"tensorParallelSize": 8}}}
CERTAIN = Assumptions(pass_rate_alpha=1e6, pass_rate_beta=1e-6)
"""Every judgment is right."""


def row(found: Estimate, stage: Stage) -> StageEstimate:
    return next(one for one in found.stages if one.stage is stage)


def sources(limit: int | None = None) -> dict[str, Any]:
    return {"name": "chat", "uri": "pvc://data/chat", **({"limit": limit} if limit else {})}


def test_the_paper_configuration_is_estimated() -> None:
    run = load([EXAMPLE]).run
    found = estimate(run)
    assert [one.stage for one in found.stages] == list(Stage)
    assert (found.instructions, row(found, Stage.JUDGE).times, row(found, Stage.EVALUATE).times) == (20582, 5, 6)
    assert row(found, Stage.JUDGE).engine_starts == 20, "four pods in each of five iterations"
    assert [size.total for _, size in found.sizes] == [70e9, pytest.approx(141e9, rel=0.01)]
    assert row(found, Stage.CURATE).gpu_hours == 0
    # Known magnitudes: adaptive judging is a matter of some hundred GPU hours, full fine-tuning of 70 B five times too.
    assert 100 < found.gpu_hours < 1000
    assert found.storage.checkpoints == pytest.approx(3 * 140e9)
    assert found.doubts == ()
    fixed = run.model_copy(
        update={"spec": run.spec.model_copy(update={"judging": Judging.model_validate({"strategy": "Fixed"})})}
    )
    saved = row(estimate(fixed), Stage.JUDGE).output_tokens / row(found, Stage.JUDGE).output_tokens
    assert saved > 2.5


def test_adds_up_by_hand() -> None:
    run = a_run(
        iterations=3,
        seed={"model": {"uri": "pvc://models/judge-8B"}},
        instructions={"sources": [sources(1000)], "selection": {"strategy": "All"}},
        judging={"strategy": "Fixed", "samplesPerPair": 4},
        training={"epochs": 1},
        evaluation={"benchmarks": [{"name": "b", "uri": "pvc://b", "limit": 50}], "votes": 1},
        stages={**GPUS, "judge": {"shards": 2}},
    )
    assumed = Assumptions(
        instruction_tokens=100,
        response_tokens=200,
        judgment_tokens=300,
        template_tokens=50,
        usable_pairs=0.5,
        pass_rate_alpha=1e6,
        pass_rate_beta=1e-6,
        engine_start_seconds=92.0,
        load_bytes_per_second=2e9,
    )
    found = estimate(run, assumptions=assumed)
    prompt = 50 + 100 + 2 * 200
    samples = 500 * 2 * 4 * 3
    judge = row(found, Stage.JUDGE)
    assert (found.instructions, found.pairs, found.draw.samples, found.draw.kept) == (1000, 500, 4.0, 1.0)
    assert (judge.input_tokens, judge.output_tokens, judge.engine_starts) == (samples * prompt, samples * 300, 6)
    # Both orders' prompts are computed once each; 8 B: 6,500 tokens/s generated and 27,000 read, on 16 GPUs.
    seconds = (samples * 300 / 6500 + 500 * 2 * 3 * prompt / 27000) / 16 + 3 * (92 + 8)
    assert judge.hours == pytest.approx(seconds / 3600)
    assert judge.gpu_hours == pytest.approx(judge.hours * 16)
    assert row(found, Stage.GENERATE).output_tokens == 1000 * (200 + 100 + 200)
    assert row(found, Stage.SELECT).output_tokens == 0
    assert row(found, Stage.SELECT).engine_starts == 0
    train = row(found, Stage.TRAIN)
    assert train.output_tokens == 500 * 2 * (prompt + 300) * 3
    assert train.hours == pytest.approx((train.output_tokens / (5400 * 8) + 3 * 300) / 3600)
    assert row(found, Stage.EVALUATE).output_tokens == 50 * 2 * 4 * 300
    assert found.generated_tokens == sum(
        row(found, stage).output_tokens for stage in (Stage.GENERATE, Stage.JUDGE, Stage.EVALUATE)
    )


def test_choosing_the_best_epoch_costs_evaluations_of_each() -> None:
    def tokens(keep: str) -> int:
        benchmarks = [
            {"name": "choice", "uri": "pvc://b", "limit": 50, "role": "Selection"},
            {"name": "gate", "uri": "pvc://b", "limit": 70, "role": "Gate"},
        ]
        run = a_run(iterations=2, training={"epochs": 3, "keepEpoch": keep}, evaluation={"benchmarks": benchmarks})
        return row(estimate(run), Stage.EVALUATE).output_tokens

    assert tokens("Best") / tokens("Last") == pytest.approx((120 * 3 + 2 * 2 * 50) / (120 * 3))


@pytest.mark.parametrize(
    ("judging", "samples", "kept"),
    [
        pytest.param({"strategy": "Fixed"}, 15.0, 1.0, id="fixed"),
        pytest.param({"strategy": "Adaptive"}, 1.0, 1.0, id="adaptive-stops-at-the-first"),
        pytest.param({"strategy": "Adaptive", "minAgreement": 1.0}, 15.0, 1.0, id="agreement-needs-all"),
    ],
)
def test_draws_of_a_judge_that_is_always_right(judging: dict[str, Any], samples: float, kept: float) -> None:
    found = draws(Judging.model_validate(judging), CERTAIN)
    assert (found.samples, found.kept) == (samples, kept)


def test_draws_of_a_fair_coin() -> None:
    coin = Assumptions(pass_rate_alpha=1e6, pass_rate_beta=1e6)
    found = draws(Judging.model_validate({"samplesPerPair": 2}), coin)
    assert found.samples == pytest.approx(1.5, abs=0.05)
    assert found.kept == pytest.approx(0.75, abs=0.05)
    # Adaptive keeps exactly the examples that Fixed would.
    assumed = Assumptions()
    adaptive = draws(Judging.model_validate({"strategy": "Adaptive"}), assumed)
    fixed = draws(Judging.model_validate({"strategy": "Fixed"}), assumed)
    assert adaptive.kept == pytest.approx(fixed.kept, abs=0.02)


def test_a_categorised_pool_is_read_further_than_it_is_used() -> None:
    def examined(**fields: Any) -> tuple[int, int]:
        selection = {"maxInstructions": 1000, "categories": ["Coding"], **fields.pop("selection", {})}
        found = estimate(a_run(instructions={"sources": [sources(**fields)], "selection": selection}))
        return row(found, Stage.SELECT).output_tokens // Assumptions().category_tokens, found.instructions

    assert examined() == (15000, 1000)
    assert examined(limit=3000) == (3000, 200)
    assert examined(selection={"categories": ["Coding", "OpenQA", "Other"]}) == (5000, 1000)


def test_what_is_known_of_the_data_replaces_guesses() -> None:
    run = a_run(instructions={"sources": [sources()], "selection": {"strategy": "All"}})
    known = Pool(
        instructions=300,
        benchmarks={"choice": 10, "guard": 20},
        models={"pvc://models/seed": ModelSize(total=3e9, active=3e9)},
    )
    found = estimate(run, known)
    assert found.instructions == 300
    assert found.sizes == (("pvc://models/seed", ModelSize(total=3e9, active=3e9)),)
    assert row(found, Stage.EVALUATE).output_tokens < row(estimate(run), Stage.EVALUATE).output_tokens / 20


@pytest.mark.parametrize(
    ("spec", "doubt"),
    [
        pytest.param({"stages": GPUS, "budget": {"gpuHours": "0.5"}}, "GPU hours exceed the budget of 0.5", id="hours"),
        pytest.param({"budget": {"generatedTokens": 1000}}, "exceed the budget of 1 k", id="tokens"),
        pytest.param(
            {"instructions": {"sources": [sources(100)], "selection": {"strategy": "All"}}},
            "the sources give about 100 of the 20,582 instructions",
            id="small-pool",
        ),
        pytest.param({}, "does not tell its size; 135 M parameters are assumed", id="unknown-on-a-cpu"),
        pytest.param({"stages": GPUS}, "does not tell its size; 8 G parameters are assumed", id="unknown-on-gpus"),
        pytest.param(
            {
                "stages": {"all": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
                "seed": {"model": {"uri": "pvc://m/x-70B"}},
            },
            "do not fit into 1 GPUs; raise tensorParallelSize",
            id="engine-memory",
        ),
        pytest.param(
            {"stages": GPUS, "seed": {"model": {"uri": "pvc://m/x-70B"}}},
            "training needs 1.12 TB of GPU memory",
            id="training-memory",
        ),
        pytest.param(
            {"stages": GPUS, "training": {"parallelism": {"nodes": 1, "processesPerNode": 4}}},
            "training holds 8 GPUs for 4 processes",
            id="processes",
        ),
    ],
)
def test_says_what_will_not_work(spec: dict[str, Any], doubt: str) -> None:
    found = estimate(a_run(**spec))
    assert any(doubt in said for said in found.doubts), found.doubts
    assert doubt in render(found)


def test_lora_needs_less() -> None:
    spec: dict[str, Any] = {"stages": GPUS, "seed": {"model": {"uri": "pvc://m/x-8B"}}}
    full, lora = estimate(a_run(**spec)), estimate(a_run(**spec, training={"lora": {}}))
    assert row(lora, Stage.TRAIN).gpu_hours < row(full, Stage.TRAIN).gpu_hours
    assert lora.storage.working < full.storage.working


@pytest.mark.parametrize(
    ("keep", "last", "kept"),
    [
        pytest.param("All", 2, 5, id="all"),
        pytest.param("Best", 2, 3, id="best-and-last-two"),
        pytest.param("Best", 9, 5, id="no-more-than-there-are"),
    ],
)
def test_storage_of_checkpoints_follows_retention(keep: str, last: int, kept: int) -> None:
    run = a_run(
        iterations=5,
        seed={"model": {"uri": "pvc://m/x-1B"}},
        storage={"uri": "pvc://a/b", "checkpoints": {"keep": keep, "last": last}},
    )
    assert estimate(run).storage.checkpoints == pytest.approx(kept * 2e9)


@pytest.mark.parametrize(
    ("uri", "total", "active"),
    [
        pytest.param("hf://meta-llama/Llama-3.1-70B-Instruct", 70e9, 70e9, id="70b"),
        pytest.param("pvc://m/SmolLM2-135M-Instruct/", 135e6, 135e6, id="135m"),
        pytest.param("file:///m/qwen2.5-0.5b", 0.5e9, 0.5e9, id="half-b"),
        pytest.param("hf://mistralai/Mixtral-8x22B-Instruct-v0.1", 140.8e9, 39.6e9, id="mixture"),
    ],
)
def test_reads_the_size_from_a_name(uri: str, total: float, active: float) -> None:
    found = size_from_name(uri)
    assert found is not None
    assert found.total == pytest.approx(total)
    assert found.active == pytest.approx(active)


@pytest.mark.parametrize(
    "uri", ["pvc://models/seed", "pvc://70b/seed", "file:///m/v2beta", "file:///m/gpt-4", "s3://b/1mm"]
)
def test_a_name_without_a_size_tells_none(uri: str) -> None:
    assert size_from_name(uri) is None


def test_larger_models_are_never_faster() -> None:
    for gpu in (True, False):
        rows = [throughput(ModelSize(size, size), gpu=gpu) for size in (1e6, 1e8, 1e9, 3e9, 8e9, 3e10, 7e10, 1e12)]
        for faster, slower in itertools.pairwise(rows):
            assert (faster.decode, faster.prefill, faster.train) >= (slower.decode, slower.prefill, slower.train)


@settings(deadline=None, max_examples=25)
@given(
    iterations=st.integers(1, 6),
    samples=st.integers(1, 20),
    limit=st.integers(50, 5000),
    shards=st.integers(1, 8),
)
def test_more_work_never_costs_less(iterations: int, samples: int, limit: int, shards: int) -> None:
    def cost(**more: int) -> Estimate:
        numbers = {"iterations": iterations, "samples": samples, "limit": limit, **more}
        return estimate(
            a_run(
                iterations=numbers["iterations"],
                instructions={"sources": [sources(numbers["limit"])], "selection": {"strategy": "All"}},
                judging={"strategy": "Fixed", "samplesPerPair": numbers["samples"]},
                stages={**GPUS, "judge": {"shards": shards}},
            )
        )

    base = cost()
    for more in ({"iterations": iterations + 1}, {"samples": samples + 1}, {"limit": limit + 100}):
        larger = cost(**more)
        assert larger.generated_tokens > base.generated_tokens
        assert larger.gpu_hours > base.gpu_hours


def test_the_text_names_every_stage_and_assumption() -> None:
    text = render(estimate(load([EXAMPLE]).run))
    for word in (*Stage, "total", "GPU hours", "Assumed, not measured:", "Storage:", "Beta(0.8, 0.4)"):
        assert word in text
    assert "Mind:" not in text
    assert "[" not in text, "a console would take it for markup"
