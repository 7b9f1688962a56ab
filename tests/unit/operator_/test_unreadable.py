"""A run whose spec cannot be read says so, once."""

from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from builders import T0, a_manifest, at
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import ConditionStatus, ConditionType, Phase, RunStatus
from selftaught_operator.unreadable import status_of_unreadable


def told(status: Any = None, generation: int = 3, now: datetime = T0, **spec: Any) -> RunStatus | None:
    body = a_manifest(**(spec or {"iterations": "many"}))
    body["metadata"]["generation"] = generation
    if status is not None:
        body["status"] = status
    with pytest.raises(ValidationError) as caught:
        SelfTaughtRun.model_validate(body)
    return status_of_unreadable(body, caught.value, now)


def as_json(status: RunStatus | None) -> Any:
    assert status is not None
    return status.model_dump(mode="json", exclude_none=True)


def failed(status: RunStatus) -> Any:
    return next(each for each in status.conditions if each.type == ConditionType.FAILED)


def test_it_names_the_field_and_what_to_do() -> None:
    status = told()
    assert status is not None
    condition = failed(status)
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, "InvalidSpec")
    assert condition.message.startswith("spec.iterations: Input should be a valid integer")
    assert condition.message.endswith("; correct the run")
    assert (status.phase, status.observed_generation) == (Phase.FAILED, 3)
    assert status.summary.reason == f"InvalidSpec: {condition.message}"


def test_it_is_told_once() -> None:
    assert told(as_json(told()), now=at(60)) is None


def test_a_change_that_mends_nothing_is_seen_all_the_same() -> None:
    status = told(as_json(told()), generation=4, now=at(60))
    assert status is not None
    assert status.observed_generation == 4
    assert failed(status).last_transition_time == at(0), "it has been failed since then"


def test_another_mistake_is_told_anew() -> None:
    status = told(as_json(told()), now=at(60), seed=None)
    assert status is not None
    assert failed(status).message.startswith("spec.seed")
    assert failed(status).last_transition_time == at(0)


def test_what_was_known_is_kept() -> None:
    before = {
        "iteration": 2,
        "restarts": 1,
        "summary": {"best": "0.853 (i1)"},
        "conditions": [
            {
                "type": kind,
                "status": "False",
                "lastTransitionTime": "2025-12-31T00:00:00Z",
                "reason": "AsExpected",
                "message": "",
            }
            for kind in ("Complete", "Failed", "Suspended")
        ],
    }
    status = told(before)
    assert status is not None
    assert (status.iteration, status.restarts, status.summary.best) == (2, 1, "0.853 (i1)")
    assert [each.type for each in status.conditions] == ["Complete", "Suspended", "Failed"]
    assert failed(status).last_transition_time == at(0)


def test_a_status_that_cannot_be_read_is_not_lost() -> None:
    assert told({"phase": "Dancing"}) is None


def test_a_run_that_is_complete_stays_so() -> None:
    """As after an update of the operator that reads specs more strictly."""
    done = {
        "type": "Complete",
        "status": "True",
        "lastTransitionTime": "2025-12-31T00:00:00Z",
        "reason": "IterationsDone",
        "message": "2 iterations done",
    }
    assert told({"phase": "Complete", "conditions": [done]}) is None
