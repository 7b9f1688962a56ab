"""What counts as finished."""

from typing import Any

import pytest

from builders import a_checkpoint, a_result, a_score, an_attempt, an_entry, at, observed
from selftaught.api.results import Stage
from selftaught.loop.observed import AttemptState, ledger_of, usable

KEY = "a" * 64


@pytest.mark.parametrize(
    ("stage", "fields", "enough"),
    [
        pytest.param(Stage.SELECT, {}, True, id="select"),
        pytest.param(Stage.SELECT, {"complete": False}, False, id="a shard among others"),
        pytest.param(Stage.CURATE, {}, True, id="curate"),
        pytest.param(Stage.CURATE, {"curation": None}, False, id="curate without figures"),
        pytest.param(Stage.TRAIN, {"checkpoints": (a_checkpoint(),)}, True, id="train"),
        pytest.param(Stage.TRAIN, {"checkpoints": ()}, False, id="train without a checkpoint"),
        pytest.param(Stage.EVALUATE, {"scores": (a_score(),)}, True, id="evaluate"),
        pytest.param(Stage.EVALUATE, {"scores": ()}, False, id="evaluate without scores"),
    ],
)
def test_a_result_must_say_what_later_stages_need(stage: Stage, fields: dict[str, Any], enough: bool) -> None:
    result = a_result(stage, 1, KEY, **fields)
    assert usable(result) == enough
    assert (observed(ledger={KEY: an_entry(result)}).entry(KEY) is not None) == enough
    attempt = an_attempt(stage, 1, 1, AttemptState.SUCCEEDED, key=KEY, result=result)
    assert (observed(attempt).entry(KEY) is not None) == enough


def test_an_attempt_that_ended_well_stands_in_for_its_ledger_entry() -> None:
    result = a_result(Stage.JUDGE, 1, KEY)
    entry = observed(an_attempt(Stage.JUDGE, 1, 1, AttemptState.SUCCEEDED, key=KEY, result=result)).entry(KEY)
    assert entry == an_entry(result, at(0), 60)


def test_the_ledger_holds_complete_artifacts_by_key() -> None:
    whole = an_entry(a_result(Stage.JUDGE, 1, KEY))
    part = an_entry(a_result(Stage.JUDGE, 1, "b" * 64, complete=False))
    assert ledger_of([whole, part]) == {KEY: whole}
