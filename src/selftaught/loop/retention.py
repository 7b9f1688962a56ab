"""Which checkpoints are not needed any more."""

from selftaught.api.results import Stage
from selftaught.api.spec import KeepCheckpoints, RunSpec
from selftaught.api.status import ConditionType, RunStatus
from selftaught.loop.course import Course
from selftaught.loop.observed import Observed
from selftaught.loop.retries import condition_reason


def prunable(spec: RunSpec, course: Course, observed: Observed) -> tuple[str, ...]:
    """Folders of checkpoints that may be deleted, oldest first.

    Kept are the best one, the last ones of finished iterations (the next iteration judges with the very
    last), all that awaits a decision, and every epoch of a training whose evaluation has not chosen yet.
    """
    retention = spec.storage.checkpoints
    if retention.keep is KeepCheckpoints.ALL:
        return ()
    kept = {ruling.checkpoint.uri for ruling in course.rulings[-retention.last :]} | told_best(observed.previous)
    if course.best is not None:
        kept.add(course.best.checkpoint.uri)
    ruled = {ruling.iteration for ruling in course.rulings}
    folders = []
    for iteration in sorted(ruled):
        entry = course.done.get((iteration, Stage.TRAIN))
        if entry is not None and not entry.pruned:
            folders += [checkpoint.uri for checkpoint in entry.result.checkpoints]
    return tuple(uri for uri in folders if uri not in kept and uri not in observed.pruned)


def told_best(status: RunStatus) -> set[str]:
    """The folder that people were told is the best when the run ended, whatever has been decided since."""
    ended = any(condition_reason(status, end) is not None for end in (ConditionType.COMPLETE, ConditionType.FAILED))
    checkpoint = status.best.checkpoint if status.best is not None else None
    return {checkpoint.uri} if ended and checkpoint is not None else set()
