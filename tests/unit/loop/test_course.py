"""What gates and people make of finished iterations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders import T0, a_checkpoint, a_result, a_run, a_score, an_approval, an_entry, at, observed
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Decision
from selftaught.loop.course import Course, course_of
from selftaught.loop.observed import Observed
from selftaught.loop.outcome import Complete, Failed
from selftaught.loop.planner import plan
from selftaught.loop.retention import prunable
from selftaught.loop.status import summarise

Pair = tuple[float, float]
"""Accuracy on the deciding benchmark and on the gate."""


def walked(run: SelfTaughtRun, scores: Sequence[Pair], now: float = 0, **fields: Any) -> tuple[Course, Observed]:
    """The course when the seed and some iterations have these scores; at T0 all of them are done."""
    known = observed(ledger={}, **fields)
    while (step := course_of(run, known, T0).next) is not None and step.iteration < len(scores):
        result = a_result(step.stage, step.iteration, step.key)
        if step.stage is Stage.EVALUATE:
            choice, guard = scores[step.iteration]
            result = result.model_copy(update={"scores": (a_score("choice", choice), a_score("guard", guard))})
        known = replace(known, ledger={**known.ledger, step.key: an_entry(result, at(-60))})
    return course_of(run, known, at(now)), known


def decisions(course: Course) -> list[str]:
    return [ruling.decision.value for ruling in course.rulings]


@pytest.mark.parametrize(
    ("scores", "expected", "best"),
    [
        pytest.param([(0.6, 0.6), (0.7, 0.6), (0.8, 0.6)], ["Promoted", "Promoted"], 2, id="rising"),
        pytest.param([(0.6, 0.6), (0.7, 0.6), (0.65, 0.6)], ["Promoted", "Kept"], 1, id="rising and falling"),
        pytest.param([(0.6, 0.6), (0.6, 0.6), (0.5, 0.6)], ["Kept", "Kept"], None, id="never above the seed"),
        pytest.param([(0.6, 0.6), (0.9, 0.5), (0.7, 0.6)], ["GateFailed", "Promoted"], 2, id="gamed, then honest"),
        pytest.param([(0.6, 0.6), (0.7, 0.6), (0.7, 0.6)], ["Promoted", "Kept"], 1, id="a tie keeps the first"),
    ],
)
def test_promotion(scores: list[Pair], expected: list[str], best: int | None) -> None:
    course, _ = walked(a_run(), scores)
    assert decisions(course) == expected
    assert (course.best.iteration if course.best is not None else None) == best
    assert isinstance(course.end, Complete)
    assert course.end.reason == "IterationsDone"


def test_a_failed_gate_says_which_and_by_how_much() -> None:
    course, _ = walked(a_run(), [(0.6, 0.6), (0.9, 0.5)])
    assert course.rulings[0].message == "accuracy on guard fell from 0.600 to 0.500, by more than 0.02"


def test_an_unfit_seed_ends_the_course_before_anything_is_spent() -> None:
    course, known = walked(a_run(), [(0.3, 0.6)])
    assert isinstance(course.end, Failed)
    assert course.end.reason == "SeedUnfit"
    assert len(known.ledger) == 1


@pytest.mark.parametrize(
    ("required", "scores", "awaiting"),
    [
        pytest.param("EveryIteration", [(0.6, 0.6), (0.5, 0.6)], 1, id="every iteration, though no better"),
        pytest.param("BeforePromotion", [(0.6, 0.6), (0.5, 0.6)], None, id="not asked: no better"),
        pytest.param("BeforePromotion", [(0.6, 0.6), (0.7, 0.5)], None, id="not asked: the gate failed"),
        pytest.param("BeforePromotion", [(0.6, 0.6), (0.7, 0.6)], 1, id="asked: would be promoted"),
    ],
)
def test_who_is_asked(required: str, scores: list[Pair], awaiting: int | None) -> None:
    course, _ = walked(a_run(approval={"required": required}), scores)
    assert (course.awaiting.iteration if course.awaiting is not None else None) == awaiting
    assert (course.next is None) == (awaiting is not None)


def test_approval_does_not_lift_a_failed_gate() -> None:
    run = a_run(approval={"required": "EveryIteration"})
    course, _ = walked(run, [(0.6, 0.6), (0.9, 0.5)], approvals=(an_approval(1),))
    assert decisions(course) == ["GateFailed"]


def test_a_rejected_iteration_is_not_promoted_even_unasked() -> None:
    course, _ = walked(
        a_run(), [(0.6, 0.6), (0.7, 0.6)], approvals=(an_approval(1, Decision.REJECTED, note="verbose"),)
    )
    assert decisions(course) == ["Rejected"]
    assert course.rulings[0].message == "rejected by jane: verbose"
    assert course.end is None


def test_approvals_in_the_manifest_count_like_those_by_hand() -> None:
    approvals = [{"iteration": 1, "decision": "Approved", "by": "jane"}]
    course, _ = walked(a_run(approval={"required": "EveryIteration"}, approvals=approvals), [(0.6, 0.6), (0.7, 0.6)])
    assert decisions(course) == ["Promoted"]


@pytest.mark.parametrize(
    ("on_timeout", "decision"), [("Approve", "Promoted"), ("Reject", "Rejected"), ("Suspend", "AwaitingApproval")]
)
def test_silence(on_timeout: str, decision: str) -> None:
    run = a_run(approval={"required": "EveryIteration", "timeoutSeconds": 300, "onTimeout": on_timeout})
    before, _ = walked(run, [(0.6, 0.6), (0.7, 0.6)], now=299)
    after, _ = walked(run, [(0.6, 0.6), (0.7, 0.6)], now=300)
    assert decisions(before) == ["AwaitingApproval"]
    assert before.rulings[0].deadline == at(300)
    assert decisions(after) == [decision]


def test_a_run_that_was_created_again_asks_anew() -> None:
    run = a_run(approval={"required": "EveryIteration", "timeoutSeconds": 300, "onTimeout": "Approve"})
    metadata = run.metadata.model_copy(update={"creation_timestamp": at(200)})
    course, _ = walked(run.model_copy(update={"metadata": metadata}), [(0.6, 0.6), (0.7, 0.6)], now=400)
    assert course.rulings[0].deadline == at(500)


def test_stopping_early_by_target_and_patience() -> None:
    target, _ = walked(a_run(stopping={"targetAccuracy": "0.7"}), [(0.6, 0.6), (0.7, 0.6)])
    patience, _ = walked(a_run(stopping={"patience": 1}), [(0.6, 0.6), (0.9, 0.5)])
    assert isinstance(target.end, Complete)
    assert target.end.reason == "TargetReached"
    assert isinstance(patience.end, Complete)
    assert patience.end.reason == "NoImprovement"


def folder(iteration: int) -> str:
    return a_checkpoint(iteration).uri


SIX = [(0.6, 0.6), (0.8, 0.6), (0.7, 0.6), (0.7, 0.6), (0.7, 0.6), (0.7, 0.6)]


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        pytest.param({"keep": "All"}, [], id="all are kept"),
        pytest.param({"last": 1}, [2, 3, 4], id="the best and the last"),
        pytest.param({"last": 2}, [2, 3], id="the best and the last two"),
        pytest.param({"last": 9}, [], id="more than there are"),
    ],
)
def test_retention(checkpoints: dict[str, Any], expected: list[int]) -> None:
    run = a_run(iterations=6, storage={"uri": "pvc://artifacts/runs", "checkpoints": checkpoints})
    course, known = walked(run, SIX)
    assert prunable(run.spec, course, known) == tuple(map(folder, expected))
    assert prunable(run.spec, course, replace(known, pruned=frozenset(map(folder, expected)))) == ()


def test_epochs_that_were_not_chosen_go_once_one_was() -> None:
    run = a_run()
    course, known = walked(run, [(0.6, 0.6), (0.7, 0.6)])
    key = next(key for key, entry in known.ledger.items() if entry.result.stage is Stage.TRAIN)
    epochs = (a_checkpoint(1, 1), a_checkpoint(1, 2))
    trained = known.ledger[key].result.model_copy(update={"checkpoints": epochs})
    done = {**course.done, (1, Stage.TRAIN): an_entry(trained)}
    assert prunable(run.spec, replace(course, done=done), known) == (epochs[1].uri,)
    assert prunable(run.spec, replace(course, done=done, rulings=()), known) == ()


def test_the_best_of_a_run_that_has_ended_is_kept_whatever_is_decided_since() -> None:
    run = a_run(iterations=2, storage={"uri": "pvc://a/b", "checkpoints": {"last": 1}})
    course, known = walked(run, [(0.6, 0.6), (0.8, 0.6), (0.7, 0.6)])
    ended = summarise(run, known, plan(run, known, T0), T0)
    assert ended.best is not None
    assert ended.best.iteration == 1
    known = replace(known, previous=ended, approvals=(an_approval(1, Decision.REJECTED),))
    course = course_of(run, known, T0)
    assert course.best is not None
    assert course.best.iteration == 2
    assert prunable(run.spec, course, known) == ()


def test_what_awaits_a_decision_is_kept() -> None:
    run = a_run(approval={"required": "BeforePromotion"}, storage={"uri": "pvc://a/b", "checkpoints": {"last": 1}})
    course, known = walked(run, [(0.6, 0.6), (0.7, 0.6)])
    assert course.awaiting is not None
    assert prunable(run.spec, course, known) == ()
