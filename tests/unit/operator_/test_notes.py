"""Events for people."""

from typing import Any

import pytest

from builders import at
from selftaught.api.results import Stage
from selftaught.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    IterationDecision,
    IterationStatus,
    RunStatus,
    ScoreStatus,
    StageState,
    StageStatus,
)
from selftaught_operator.notes import Note, notes_of

FRESH = RunStatus()


def a_status(*true: ConditionType, iterations: tuple[IterationStatus, ...] = (), reason: str = "Because") -> RunStatus:
    conditions = tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE if kind in true else ConditionStatus.FALSE,
            last_transition_time=at(0),
            reason=reason,
            message="the cause",
        )
        for kind in ConditionType
    )
    return RunStatus(conditions=conditions, iterations=iterations)


def an_iteration(index: int = 1, failures: int = 0, **fields: Any) -> IterationStatus:
    stage = StageStatus(
        name=Stage.JUDGE,
        state=StageState.FAILED,
        ended=failures,
        failures=failures,
        message="Storage: the disk is full",
    )
    return IterationStatus(index=index, stages=(stage,), **fields)


def test_the_first_status_is_the_acceptance() -> None:
    assert notes_of(FRESH, a_status()) == (Note(False, "Accepted", "the run was accepted"),)


def test_nothing_new_is_nothing_to_tell() -> None:
    status = a_status(ConditionType.FAILED, iterations=(an_iteration(failures=2),))
    assert notes_of(status, status) == ()


@pytest.mark.parametrize(
    ("kind", "warning"),
    [
        (ConditionType.COMPLETE, False),
        (ConditionType.FAILED, True),
        (ConditionType.SUSPENDED, False),
        (ConditionType.AWAITING_APPROVAL, False),
        (ConditionType.PROGRESS_DEADLINE_EXCEEDED, True),
    ],
)
def test_a_condition_that_turns_true_is_told_once(kind: ConditionType, warning: bool) -> None:
    before, after = a_status(), a_status(kind)
    assert notes_of(before, after) == (Note(warning, kind, "Because: the cause"),)
    assert notes_of(after, after) == ()


def test_queues_come_and_go_too_often_to_be_told() -> None:
    assert notes_of(a_status(), a_status(ConditionType.QUEUED)) == ()


def test_resuming_is_told() -> None:
    (note,) = notes_of(a_status(ConditionType.SUSPENDED), a_status())
    assert (note.warning, note.reason) == (False, "Resumed")


@pytest.mark.parametrize(
    ("index", "where"), [pytest.param(0, "judge, attempt 2", id="once"), (3, "judge of iteration 3, attempt 2")]
)
def test_every_failure_is_told(index: int, where: str) -> None:
    before = a_status(iterations=(an_iteration(index, failures=1),))
    after = a_status(iterations=(an_iteration(index, failures=2),))
    assert notes_of(before, after) == (Note(True, "StageFailed", f"{where}: Storage: the disk is full"),)


SCORE = ScoreStatus(
    benchmark="choice",
    accuracy="0.853",
    consistent_accuracy="0.7",
    confidence_interval=("0.8", "0.9"),
    unparsable="0",
    pairs=100,
)


@pytest.mark.parametrize(
    ("before", "decision", "reason"),
    [
        (None, IterationDecision.PROMOTED, "IterationPromoted"),
        (IterationDecision.AWAITING_APPROVAL, IterationDecision.REJECTED, "IterationRejected"),
        (IterationDecision.PROMOTED, IterationDecision.PROMOTED, None),
        (None, IterationDecision.AWAITING_APPROVAL, None),
        (None, None, None),
    ],
)
def test_decisions_are_told_with_their_scores(
    before: IterationDecision | None, decision: IterationDecision | None, reason: str | None
) -> None:
    earlier = a_status(iterations=(an_iteration(decision=before),))
    later = a_status(iterations=(an_iteration(decision=decision, decision_message="by jane", scores=(SCORE,)),))
    words = f"iteration 1: {decision} (choice 0.853); by jane"
    assert notes_of(earlier, later) == (() if reason is None else (Note(False, reason, words),))


def test_what_happened_is_told_in_order() -> None:
    after = a_status(
        ConditionType.FAILED, iterations=(an_iteration(failures=1, decision=IterationDecision.GATE_FAILED),)
    )
    reasons = [note.reason for note in notes_of(FRESH, after)]
    assert reasons == ["Accepted", "StageFailed", "IterationGateFailed", "Failed"]
