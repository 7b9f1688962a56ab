"""The launcher: where processes belong, and which failure is told."""

import pytest

from selftaught.api.judging import Parallelism
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import Stage, StageFailure, StageResult
from selftaught.errors import ManifestError
from selftaught.stages.launch import Placement, explanation, needed, placement


@pytest.mark.parametrize(
    ("parallelism", "environ", "expected"),
    [
        pytest.param(Parallelism(), {}, False, id="one-process"),
        pytest.param(Parallelism(processes_per_node=2), {}, True, id="two-processes"),
        pytest.param(Parallelism(nodes=2), {}, True, id="two-nodes"),
        pytest.param(Parallelism(processes_per_node=2), {"LOCAL_RANK": "0"}, False, id="is-one-of-them"),
    ],
)
def test_needed(parallelism: Parallelism, environ: dict[str, str], expected: bool) -> None:
    assert needed(parallelism, environ) is expected


CLUSTER = {"JOB_COMPLETION_INDEX": "2", "MASTER_ADDR": "train-0.train"}


@pytest.mark.parametrize(
    ("parallelism", "environ", "expected"),
    [
        pytest.param(Parallelism(processes_per_node=8), CLUSTER, Placement(1, 0, 8, None), id="one-node"),
        pytest.param(
            Parallelism(nodes=4, processes_per_node=8),
            CLUSTER,
            Placement(4, 2, 8, "train-0.train:29500"),
            id="four-nodes",
        ),
        pytest.param(
            Parallelism(nodes=4),
            {**CLUSTER, "MASTER_PORT": "1234"},
            Placement(4, 2, 1, "train-0.train:1234"),
            id="port",
        ),
        pytest.param(
            Parallelism(nodes=2, processes_per_node=2), {}, Placement(1, 0, 4, None), id="one-machine-stands-for-all"
        ),
    ],
)
def test_placement(parallelism: Parallelism, environ: dict[str, str], expected: Placement) -> None:
    assert placement(parallelism, environ) == expected


@pytest.mark.parametrize("name", sorted(CLUSTER))
def test_half_an_environment_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="MASTER_ADDR"):
        placement(Parallelism(nodes=2), {name: CLUSTER[name]})


def failure(reason: str, code: int = 75, *, permanent: bool = False) -> FailureRecord:
    return FailureRecord(failure=StageFailure(reason=reason, message="m", permanent=permanent), exit_code=code)


RESULT = ResultRecord(result=StageResult(stage=Stage.TRAIN, iteration=1, key="k" * 64))


@pytest.mark.parametrize(
    ("codes", "endings", "reason"),
    [
        pytest.param(
            {1: 64, 0: 75}, {0: failure("Error"), 1: failure("Data", 64, permanent=True)}, "Data", id="permanent"
        ),
        pytest.param({1: 75, 0: 75}, {0: failure("Error"), 1: failure("Storage")}, "Storage", id="specific"),
        pytest.param({}, {0: failure("Interrupted", 143), 1: failure("Interrupted", 143)}, "Interrupted", id="stopped"),
        pytest.param(
            {1: 75, 0: 143}, {0: failure("Interrupted", 143), 1: failure("Storage")}, "Storage", id="stopped-by-another"
        ),
        pytest.param({1: -9, 0: 75}, {0: failure("Error")}, "ProcessFailed", id="killed-and-missed"),
        pytest.param({1: -9, 0: -15}, {}, "ProcessFailed", id="killed-without-a-word"),
        pytest.param({0: 1}, {}, "ProcessFailed", id="ended-without-a-word"),
        pytest.param({1: 75}, {0: failure("Error")}, "Error", id="unexpected"),
    ],
)
def test_the_failure_that_explains_best_is_told(
    codes: dict[int, int], endings: dict[int, FailureRecord | ResultRecord], reason: str
) -> None:
    assert explanation(codes, endings).failure.reason == reason


def test_the_signal_is_that_of_the_first_to_die() -> None:
    told = explanation({0: -15, 1: -9}, {})
    assert "SIGKILL" in told.failure.message
    assert "microBatchSize" in told.failure.message
    assert (told.exit_code, told.failure.permanent) == (75, False)


def test_a_result_of_some_process_is_no_failure() -> None:
    assert explanation({1: -6}, {0: RESULT}).failure.reason == "ProcessFailed"
