"""When a run ends early."""

import pytest

from selftaught.api.spec import Stopping
from selftaught.loop.stopping import early_end


@pytest.mark.parametrize(
    ("stopping", "accuracies", "best", "reason"),
    [
        pytest.param({}, [0.5, 0.4, 0.3], None, None, id="nothing asked for"),
        pytest.param({"target_accuracy": "0.9"}, [0.9], 0.9, "TargetReached", id="target met exactly"),
        pytest.param({"target_accuracy": "0.9"}, [0.89], 0.89, None, id="target missed"),
        pytest.param({"target_accuracy": "0.9"}, [None], None, None, id="target met by a barred checkpoint"),
        pytest.param({"patience": 2}, [0.5, 0.5], None, "NoImprovement", id="equal is no improvement"),
        pytest.param({"patience": 2}, [0.5, 0.65], 0.65, None, id="improved in time"),
        pytest.param({"patience": 2}, [0.6, 0.55, 0.59], 0.6, "NoImprovement", id="below the best, though rising"),
        pytest.param({"patience": 1}, [0.7], 0.7, None, id="improved at once"),
        pytest.param({"patience": 1}, [0.7, 0.65], 0.7, "NoImprovement", id="above the seed, below the best"),
        pytest.param({"patience": 1}, [None], None, "NoImprovement", id="barred counts as none"),
        pytest.param({"patience": 1, "min_improvement": "0.01"}, [0.605], 0.605, "NoImprovement", id="too little"),
        pytest.param({"patience": 1, "min_improvement": "0.1"}, [0.7], 0.7, None, id="exactly enough, floats aside"),
        pytest.param(
            {"patience": 2, "min_improvement": "0.1"},
            [0.65, 0.69],
            0.69,
            "NoImprovement",
            id="small steps do not add up",
        ),
    ],
)
def test_early_end(
    stopping: dict[str, str | int], accuracies: list[float | None], best: float | None, reason: str | None
) -> None:
    end = early_end(Stopping.model_validate(stopping), 0.6, accuracies, best)
    assert (end.reason if end is not None else None) == reason


def test_without_a_baseline_the_first_accuracy_is_an_improvement() -> None:
    assert early_end(Stopping(patience=1), None, [0.3], 0.3) is None
