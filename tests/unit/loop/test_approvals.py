"""What a person decided, and what silence means."""

from typing import Any

import pytest

from builders import T0, an_approval, at
from selftaught.api.spec import Approval, ApprovalPolicy, Decision
from selftaught.loop.approvals import consent, last_decision


@pytest.mark.parametrize(
    ("approvals", "by"),
    [
        pytest.param([], None, id="none"),
        pytest.param([an_approval(2)], None, id="another iteration"),
        pytest.param([an_approval(1, by="a"), an_approval(1, by="b")], "b", id="the last in the list"),
        pytest.param([an_approval(1, by="a", time=at(9)), an_approval(1, by="b", time=at(3))], "a", id="the latest"),
        pytest.param([an_approval(1, by="a", time=at(9)), an_approval(1, by="b")], "b", id="undated: by its place"),
    ],
)
def test_which_decision_counts(approvals: list[Approval], by: str | None) -> None:
    chosen = last_decision(approvals, 1)
    assert (chosen.by if chosen is not None else None) == by


@pytest.mark.parametrize(
    ("required", "promotable", "needed"),
    [
        pytest.param("Never", True, False, id="never"),
        pytest.param("BeforePromotion", True, True, id="would be promoted"),
        pytest.param("BeforePromotion", False, False, id="would not be promoted"),
        pytest.param("EveryIteration", False, True, id="every iteration"),
    ],
)
def test_when_a_person_is_needed(required: str, promotable: bool, needed: bool) -> None:
    policy = ApprovalPolicy.model_validate({"required": required})
    assert consent(policy, [], 1, promotable=promotable, since=T0, now=at(1e9)).needed is needed


@pytest.mark.parametrize(
    ("on_timeout", "seconds", "expected"),
    [
        pytest.param("Approve", 299, {"needed": True, "deadline": at(300)}, id="in time"),
        pytest.param("Approve", 300, {"decision": Decision.APPROVED, "overdue": True}, id="silence approves"),
        pytest.param("Reject", 300, {"decision": Decision.REJECTED, "overdue": True}, id="silence rejects"),
        pytest.param("Suspend", 300, {"needed": True, "overdue": True}, id="silence waits on"),
    ],
)
def test_silence(on_timeout: str, seconds: float, expected: dict[str, Any]) -> None:
    policy = ApprovalPolicy.model_validate(
        {"required": "EveryIteration", "timeout_seconds": 300, "on_timeout": on_timeout}
    )
    found = consent(policy, [], 1, promotable=True, since=T0, now=at(seconds))
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_person_is_heard_after_the_time_is_over_and_when_not_asked() -> None:
    rejection = an_approval(1, Decision.REJECTED)
    late = ApprovalPolicy.model_validate({"required": "EveryIteration", "timeout_seconds": 1, "on_timeout": "Approve"})
    for policy in (late, ApprovalPolicy()):
        found = consent(policy, [rejection], 1, promotable=True, since=T0, now=at(100))
        assert (found.decision, found.approval) == (Decision.REJECTED, rejection)
