"""Results as they are told in a status: fractions as strings."""

from selftaught.api.results import Checkpoint, StageResult
from selftaught.api.status import CheckpointStatus, CurationStatus, ScoreStatus
from selftaught.loop.observed import Observed


def decimal(number: float | None, digits: int = 4) -> str:
    """A fraction as a string; empty if there is none."""
    return f"{number:.{digits}f}" if number is not None else ""


def score_statuses(result: StageResult | None) -> tuple[ScoreStatus, ...]:
    """Accuracy per whole benchmark."""
    if result is None:
        return ()
    return tuple(
        ScoreStatus(
            benchmark=score.benchmark,
            accuracy=decimal(score.accuracy),
            consistent_accuracy=decimal(score.consistent_accuracy),
            confidence_interval=(decimal(score.low), decimal(score.high)),
            unparsable=decimal(score.unparsable),
            pairs=score.pairs,
        )
        for score in result.scores
        if score.subset is None
    )


def curation_status(result: StageResult) -> CurationStatus | None:
    """What rejection sampling kept."""
    curation = result.curation
    if curation is None:
        return None
    return CurationStatus(
        pairs=curation.pairs,
        judged=curation.samples,
        kept=curation.kept,
        parse_failures=curation.unparsable,
        yield_=decimal(curation.solved / curation.examples if curation.examples else 0.0),
        label_balance=decimal(curation.kept_a / curation.kept if curation.kept else None),
    )


def checkpoint_status(checkpoint: Checkpoint | CheckpointStatus, observed: Observed) -> CheckpointStatus:
    """A checkpoint, and whether its weights are still there."""
    told = isinstance(checkpoint, CheckpointStatus) and checkpoint.pruned
    return CheckpointStatus(
        uri=checkpoint.uri, sha256=checkpoint.sha256, pruned=told or checkpoint.uri in observed.pruned
    )
