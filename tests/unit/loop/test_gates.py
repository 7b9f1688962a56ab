"""What scores must show."""

from typing import Any

import pytest

from builders import a_result, a_run, a_score
from selftaught.api.judging import Benchmark
from selftaught.api.results import Score, Stage, StageResult
from selftaught.loop.gates import accuracy_of, deciding_benchmark, gate_problem, score_on, seed_problem


def scored(*scores: Score) -> StageResult:
    return a_result(Stage.EVALUATE, scores=scores)


def with_roles(*roles: str) -> Any:
    benchmarks = [{"name": f"b{n}", "uri": "pvc://data/b", "role": role} for n, role in enumerate(roles)]
    return a_run(evaluation={"benchmarks": benchmarks}).spec.evaluation


@pytest.mark.parametrize(
    ("roles", "name"),
    [
        pytest.param(["Report", "Gate", "Selection", "Selection"], "b2", id="the first for selection"),
        pytest.param(["Report", "Gate", "Gate"], "b1", id="else the first gate"),
        pytest.param(["Report", "Report"], "b0", id="else the first"),
        pytest.param([], None, id="none"),
    ],
)
def test_which_benchmark_decides(roles: list[str], name: str | None) -> None:
    chosen = deciding_benchmark(with_roles(*roles))
    assert (chosen.name if chosen is not None else None) == name


def test_only_the_score_of_the_whole_benchmark_counts() -> None:
    result = scored(a_score("choice", 0.9, subset="easy"), a_score("choice", 0.6))
    evaluation = a_run().spec.evaluation
    assert accuracy_of(evaluation, result) == 0.6
    assert score_on(result, Benchmark(name="absent", uri="pvc://x/y")) is None
    assert accuracy_of(evaluation, None) is None


@pytest.mark.parametrize(
    ("spec", "score", "advice"),
    [
        pytest.param({}, a_score(unparsable=0.5), None, id="just parsable enough"),
        pytest.param({}, a_score(unparsable=0.51), "guidedVerdict: true", id="hardly a verdict"),
        pytest.param({"judging": {"guidedVerdict": True}}, a_score(unparsable=0.51), "maxTokens", id="already guided"),
        pytest.param({}, a_score(accuracy=0.46, high=0.50), None, id="chance is within the interval"),
        pytest.param({}, a_score(accuracy=0.40, high=0.49), "another seed", id="worse than chance"),
    ],
)
def test_an_unfit_seed_comes_with_advice(spec: dict[str, Any], score: Score, advice: str | None) -> None:
    problem = seed_problem(a_run(**spec).spec, scored(score))
    assert (problem is None) if advice is None else (problem is not None and advice in problem)


def test_the_seed_check_can_be_switched_off() -> None:
    run = a_run()
    check = run.spec.evaluation.seed_check.model_copy(update={"enabled": False})
    evaluation = run.spec.evaluation.model_copy(update={"seed_check": check})
    assert seed_problem(run.spec.model_copy(update={"evaluation": evaluation}), scored(a_score(unparsable=1.0))) is None


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        pytest.param(0.60, 0.70, True, id="better"),
        pytest.param(0.60, 0.58, True, id="down by just what is allowed"),
        pytest.param(0.60, 0.57, False, id="down by more"),
    ],
)
def test_a_gate_allows_its_drop_and_no_more(before: float, after: float, passes: bool) -> None:
    evaluation = a_run().spec.evaluation
    problem = gate_problem(evaluation, scored(a_score("guard", before)), scored(a_score("guard", after)))
    assert (problem is None) == passes


def test_only_gates_bar() -> None:
    evaluation = a_run().spec.evaluation
    before = scored(a_score("choice", 0.9), a_score("guard", 0.6))
    after = scored(a_score("choice", 0.1), a_score("guard", 0.6))
    assert gate_problem(evaluation, before, after) is None


def test_a_gate_without_a_score_bars() -> None:
    evaluation = a_run().spec.evaluation
    assert gate_problem(evaluation, scored(a_score("guard", 0.6)), scored(a_score("choice", 0.9))) is not None
