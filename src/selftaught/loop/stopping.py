"""When a run ends before its last iteration."""

from collections.abc import Sequence

from selftaught.api.reasons import Reason
from selftaught.api.spec import Stopping
from selftaught.loop.gates import ROUNDING
from selftaught.loop.outcome import Complete


def early_end(
    stopping: Stopping, baseline: float | None, accuracies: Sequence[float | None], best: float | None
) -> Complete | None:
    """Whether to stop after the iterations so far.

    `accuracies` are theirs on the deciding benchmark, oldest first; none stands for a checkpoint that may not
    be promoted, and counts as no improvement. `best` is the accuracy of the promoted checkpoint.
    """
    target = stopping.target_accuracy
    if target is not None and best is not None and best >= float(target) - ROUNDING:
        return Complete(Reason.TARGET_REACHED, f"the judge's accuracy is {best:.3f}; the target is {target}")
    idle = iterations_without_improvement(baseline, accuracies, float(stopping.min_improvement))
    if stopping.patience is not None and idle >= stopping.patience:
        message = f"no improvement of at least {stopping.min_improvement} in {idle} iterations"
        return Complete(Reason.NO_IMPROVEMENT, message)
    return None


def iterations_without_improvement(
    baseline: float | None, accuracies: Sequence[float | None], min_improvement: float
) -> int:
    """Iterations since the last one that was better than all before it by at least `min_improvement`."""
    best = baseline
    idle = 0
    for accuracy in accuracies:
        better = accuracy is not None and (
            best is None or (accuracy > best and accuracy - best >= min_improvement - ROUNDING)
        )
        if better:
            best, idle = accuracy, 0
        else:
            idle += 1
    return idle
