"""Events for people: one for each thing that happened between two statuses."""

from collections.abc import Iterator
from dataclasses import dataclass

from selftaught.api.status import Condition, ConditionStatus, ConditionType, IterationDecision, RunStatus

UNDECIDED = (None, IterationDecision.AWAITING_APPROVAL)


@dataclass(frozen=True)
class Note:
    """An Event about a run."""

    warning: bool
    reason: str
    message: str


def notes_of(before: RunStatus, after: RunStatus) -> tuple[Note, ...]:
    """What happened, in order."""
    return (
        *_started(before, after),
        *_failures(before, after),
        *_decisions(before, after),
        *_conditions(before, after),
    )


def _started(before: RunStatus, after: RunStatus) -> Iterator[Note]:
    if not before.conditions and after.conditions:
        yield Note(warning=False, reason="Accepted", message="the run was accepted")


def _failures(before: RunStatus, after: RunStatus) -> Iterator[Note]:
    known = {(each.index, stage.name): stage.failures for each in before.iterations for stage in each.stages}
    for iteration in after.iterations:
        for stage in iteration.stages:
            if stage.failures > known.get((iteration.index, stage.name), 0):
                where = f"{stage.name} of iteration {iteration.index}" if iteration.index else str(stage.name)
                yield Note(
                    warning=True, reason="StageFailed", message=f"{where}, attempt {stage.ended}: {stage.message}"
                )


def _decisions(before: RunStatus, after: RunStatus) -> Iterator[Note]:
    known = {each.index: each.decision for each in before.iterations}
    for iteration in after.iterations:
        if iteration.decision not in UNDECIDED and iteration.decision != known.get(iteration.index):
            scores = ", ".join(f"{score.benchmark} {score.accuracy}" for score in iteration.scores)
            text = f"iteration {iteration.index}: {iteration.decision}{f' ({scores})' if scores else ''}"
            words = f"; {iteration.decision_message}" if iteration.decision_message else ""
            yield Note(warning=False, reason=f"Iteration{iteration.decision}", message=text + words)


def _conditions(before: RunStatus, after: RunStatus) -> Iterator[Note]:
    was = {condition.type: condition.status for condition in before.conditions}
    for condition in after.conditions:
        turned = was.get(condition.type) is not ConditionStatus.TRUE and condition.status is ConditionStatus.TRUE
        if turned and condition.type != ConditionType.QUEUED:
            yield _note_of(condition)
        resumed = condition.type == ConditionType.SUSPENDED and was.get(condition.type) is ConditionStatus.TRUE
        if resumed and condition.status is ConditionStatus.FALSE:
            yield Note(warning=False, reason="Resumed", message="the run goes on")


def _note_of(condition: Condition) -> Note:
    bad = condition.type in (ConditionType.FAILED, ConditionType.PROGRESS_DEADLINE_EXCEEDED)
    return Note(warning=bad, reason=condition.type, message=f"{condition.reason}: {condition.message}")
