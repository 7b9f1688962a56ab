"""What a person decided, and what silence means."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import T0, an_approval, at
from selftaught.api.labels import APPROVAL_ANNOTATION
from selftaught.api.spec import Approval, ApprovalPolicy, Decision
from selftaught.loop.approvals import approvals_of, consent, last_decision


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


def test_annotations_hold_decisions_and_are_read_oldest_first() -> None:
    late, early = an_approval(1, time=at(9), note="fine"), an_approval(4, Decision.REJECTED, time=at(3))
    annotations = {
        "selftaught.dev/retry": "x",
        f"{APPROVAL_ANNOTATION}1": late.model_dump_json(),
        f"{APPROVAL_ANNOTATION}2": " Rejected\n",
        f"{APPROVAL_ANNOTATION}3": '{"decision": "Approved", "by": "jo", "time": "2026-01-01T00:00:05"}',
        f"{APPROVAL_ANNOTATION}4": early.model_dump_json(),
    }
    approvals, problems = approvals_of(annotations)
    assert problems == ()
    assert [(each.iteration, each.decision.value, each.by) for each in approvals] == [
        (2, "Rejected", ""),
        (4, "Rejected", "jane"),
        (3, "Approved", "jo"),
        (1, "Approved", "jane"),
    ]
    assert approvals[-1] == late
    assert approvals[2].time == at(5)


@pytest.mark.parametrize(
    ("suffix", "value", "problem"),
    [
        pytest.param("x", "Approved", "must end in the number of an iteration", id="no iteration"),
        pytest.param("0", "Approved", "must end in the number of an iteration", id="the seed"),
        pytest.param("²", "Approved", "must end in the number of an iteration", id="no ASCII digit"),
        pytest.param("9" * 5000, "Approved", "must end in the number of an iteration", id="an endless number"),
        pytest.param("1", "approved", "must be Approved, Rejected, or", id="another word"),
        pytest.param("1", "{", "must be Approved, Rejected, or", id="broken JSON"),
        pytest.param("1", "[" * 100_000, "must be Approved, Rejected, or", id="nested without end"),
        pytest.param("1", '{"decision": "Maybe"}', "decision: input should be", id="another decision"),
        pytest.param("1", '{"decision": "Approved", "who": "jo"}', "who: extra", id="an unknown field"),
        pytest.param("1", '{"iteration": 2, "decision": "Approved"}', "is about iteration 2", id="another iteration"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_told_in_a_line(suffix: str, value: str, problem: str) -> None:
    approvals, problems = approvals_of({f"{APPROVAL_ANNOTATION}{suffix}": value, f"{APPROVAL_ANNOTATION}7": "Approved"})
    assert [approval.iteration for approval in approvals] == [7]
    assert len(problems) == 1
    assert problem in problems[0]
    assert "\n" not in problems[0]


@given(st.dictionaries(st.text().map(lambda text: APPROVAL_ANNOTATION + text), st.text() | st.just("Approved")))
def test_whatever_annotations_say_is_a_decision_or_a_problem(annotations: dict[str, str]) -> None:
    approvals, problems = approvals_of(annotations)
    assert len(approvals) + len(problems) == len(annotations)
