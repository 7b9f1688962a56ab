import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from real_data import real_data
from selftaught.api.judging import Benchmark, BenchmarkFormat, PairFields
from selftaught.artifacts import Store
from selftaught.benchmarks.reading import BenchmarkData, read
from selftaught.benchmarks.reward_bench import SECTIONS
from selftaught.errors import DataError


def benchmark(uri: str, **settings: Any) -> Benchmark:
    return Benchmark.model_validate({"name": "bench", "uri": uri, **settings})


def read_values(tmp_path: Path, values: list[dict[str, Any]], **settings: Any) -> BenchmarkData:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    return read(benchmark(f"file://{tmp_path}/rows.jsonl", **settings), Store(tmp_path))


GOOD = {"instruction": "i", "chosen": "better", "rejected": "worse"}


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        pytest.param("Pairs", {**GOOD, "id": 7, "subset": "s"}, ("7", "s", "i", "better", "worse"), id="pairs"),
        pytest.param("Pairs", GOOD, ("rows-1", None, "i", "better", "worse"), id="pairs without an id"),
        pytest.param(
            "RewardBench",
            {"prompt": "i", "chosen": "better", "rejected": "worse", "subset": "hep-go", "id": 3},
            ("3", "hep-go", "i", "better", "worse"),
            id="reward bench",
        ),
        pytest.param(
            "LLMBar",
            {"input": "i", "output_1": "better", "output_2": "worse", "label": 1},
            ("rows-1", "rows", "i", "better", "worse"),
            id="llmbar first",
        ),
        pytest.param(
            "LLMBar",
            {"input": "i", "output_1": "worse", "output_2": "better", "label": 2},
            ("rows-1", "rows", "i", "better", "worse"),
            id="llmbar second",
        ),
        pytest.param(
            "JudgeBench",
            {
                "pair_id": "p",
                "source": "s",
                "question": "i",
                "response_A": "better",
                "response_B": "worse",
                "label": "A>B",
            },
            ("p", "s", "i", "better", "worse"),
            id="judge bench A",
        ),
        pytest.param(
            "JudgeBench",
            {
                "pair_id": "p",
                "source": "s",
                "question": "i",
                "response_A": "worse",
                "response_B": "better",
                "label": "B>A",
            },
            ("p", "s", "i", "better", "worse"),
            id="judge bench B",
        ),
    ],
)
def test_reads_each_format(tmp_path: Path, form: str, value: dict[str, Any], expected: tuple[Any, ...]) -> None:
    data = read_values(tmp_path, [value], format=form)
    pair = data.pairs[0]
    assert (pair.id, pair.subset, pair.instruction, pair.chosen, pair.rejected) == expected
    assert data.left_out == {}


@pytest.mark.parametrize(
    ("form", "value", "reason"),
    [
        pytest.param("Pairs", {**GOOD, "chosen": "worse"}, "identical", id="identical"),
        pytest.param("Pairs", {**GOOD, "chosen": "worse\n"}, "identical", id="identical but for a newline"),
        pytest.param("Pairs", {**GOOD, "rejected": " \n"}, "empty", id="blank response"),
        pytest.param("Pairs", {**GOOD, "instruction": ""}, "empty", id="empty instruction"),
        pytest.param("Pairs", {**GOOD, "chosen": 3}, "notText", id="number"),
        pytest.param("Pairs", {"instruction": "i", "chosen": "c"}, "notText", id="missing"),
        pytest.param("Pairs", {**GOOD, "chosen": "\ud800"}, "notText", id="lone surrogate"),
        pytest.param(
            "LLMBar", {"input": "i", "output_1": "a", "output_2": "b", "label": 0}, "unlabelled", id="llmbar label"
        ),
        pytest.param(
            "LLMBar", {"input": "i", "output_1": "a", "output_2": "b", "label": True}, "unlabelled", id="llmbar bool"
        ),
        pytest.param(
            "JudgeBench",
            {"pair_id": "p", "question": "i", "response_A": "a", "response_B": "b", "label": "A=B"},
            "unlabelled",
            id="judge bench tie",
        ),
    ],
)
def test_leaves_out_and_counts(tmp_path: Path, form: str, value: dict[str, Any], reason: str) -> None:
    usable: dict[str, dict[str, Any]] = {
        "Pairs": GOOD,
        "LLMBar": {"input": "i", "output_1": "a", "output_2": "b", "label": 1},
        "JudgeBench": {"pair_id": "q", "question": "i", "response_A": "a", "response_B": "b", "label": "A>B"},
    }
    data = read_values(tmp_path, [usable[form], value, value], format=form)
    assert len(data.pairs) == 1
    assert data.left_out == {reason: 2}


def test_maps_fields(tmp_path: Path) -> None:
    fields = PairFields(instruction="turns[0].content", chosen="answers.good", rejected="answers.bad", subset="kind")
    value = {"turns": [{"content": "i"}], "answers": {"good": "g", "bad": "b"}, "kind": "k"}
    pair = read_values(tmp_path, [value], fields=fields).pairs[0]
    assert (pair.instruction, pair.chosen, pair.rejected, pair.subset) == ("i", "g", "b", "k")


def test_ids_that_repeat_are_told_apart(tmp_path: Path) -> None:
    data = read_values(tmp_path, [{**GOOD, "id": "x"}, {**GOOD, "id": "x"}, {**GOOD, "id": "y"}])
    assert [pair.id for pair in data.pairs] == ["x", "x#1", "y"]


def test_says_what_is_wrong_when_nothing_is_usable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"benchmark bench: no usable pair .* \(2 notText\)"):
        read_values(tmp_path, [{"prompt": "i"}, {"prompt": "j"}])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(limits=st.lists(st.integers(1, 60), min_size=2, max_size=2))
def test_a_limit_draws_the_same_pairs_each_time_and_the_smaller_among_the_larger(
    tmp_path: Path, limits: list[int]
) -> None:
    values = [{**GOOD, "id": f"p{index}"} for index in range(40)]
    less, more = (read_values(tmp_path, values, limit=limit).pairs for limit in sorted(limits))
    assert len(less) == min(40, *limits)
    assert {pair.id for pair in less} <= {pair.id for pair in more}
    order = [int(pair.id[1:]) for pair in more]
    assert order == sorted(order)


def test_a_limit_does_not_take_the_beginning(tmp_path: Path) -> None:
    values = [{**GOOD, "id": f"p{index}"} for index in range(200)]
    positions = [int(pair.id[1:]) for pair in read_values(tmp_path, values, limit=50).pairs]
    assert 60 < sum(positions) / 50 < 140


def test_reward_bench_sections_have_the_published_subsets() -> None:
    sizes = {section: (len(subsets), sum(subsets.values())) for section, subsets in SECTIONS.items()}
    assert sizes == {"Chat": (5, 358), "Chat Hard": (6, 456), "Safety": (5, 740), "Reasoning": (7, 1968)}


LLMBAR = {
    "LLMBar_Adversarial_GPTInst": (92, 12 / 92),
    "LLMBar_Adversarial_GPTOut": (47, 21 / 47),
    "LLMBar_Adversarial_Manual": (46, 8.5 / 46),
    "LLMBar_Adversarial_Neighbor": (134, 16 / 134),
    "LLMBar_Natural": (100, 56.5 / 100),
    "Processed_FairEval": (66, 39 / 66),
    "Processed_LLMEval2": (198, 0.6125),
    "Processed_MT-Bench": (200, 138.5 / 200),
}


def longer(data: BenchmarkData, subset: str) -> float:
    pairs = [pair for pair in data.pairs if pair.subset == subset]
    return sum(
        0.5 if len(pair.chosen) == len(pair.rejected) else float(len(pair.chosen) > len(pair.rejected))
        for pair in pairs
    ) / len(pairs)


def test_real_llmbar(tmp_path: Path) -> None:
    data = read(benchmark(real_data("llmbar"), format=BenchmarkFormat.LLMBAR), Store(tmp_path))
    counts = {subset: sum(pair.subset == subset for pair in data.pairs) for subset in LLMBAR}
    assert counts == {subset: count for subset, (count, _) in LLMBAR.items()}
    assert data.left_out == {"empty": 1, "identical": 1}
    assert len({pair.id for pair in data.pairs}) == len(data.pairs) == 419 + 466 - 2
    for subset, (_, baseline) in LLMBAR.items():
        assert longer(data, subset) == pytest.approx(baseline, abs=0.005), subset


@pytest.mark.parametrize(
    ("name", "pairs", "left_out"),
    [
        pytest.param("judgebench_gpt4o", 350, {}, id="gpt-4o"),
        pytest.param("judgebench_claude35", 269, {"identical": 1}, id="claude-3.5"),
    ],
)
def test_real_judge_bench(tmp_path: Path, name: str, pairs: int, left_out: dict[str, int]) -> None:
    uri = f"{real_data('judgebench')}/{name}.jsonl"
    data = read(benchmark(uri, format=BenchmarkFormat.JUDGE_BENCH), Store(tmp_path))
    assert (len(data.pairs), data.left_out) == (pairs, left_out)
    assert len({pair.subset for pair in data.pairs}) == 17
