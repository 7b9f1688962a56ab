"""What pods tell of their progress, and what it comes to for an attempt.

The wire format is Kubeflow Trainer's `trainerStatus`. A pod may be heard twice: from its stage (done, total, tokens)
and, in a training, from transformers' own callback (percentage, steps, losses). The two are merged field by field.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from selftaught.errors import PermanentError
from selftaught.loop.observed import AttemptProgress

MOST = 1e15
"""No honest number is larger, be it tokens, steps or seconds."""


class ReportError(PermanentError):
    """What a pod sent is not a report."""


class _Wire(BaseModel):
    # Fields that Kubeflow adds one day are none of our business.
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class _Metric(_Wire):
    name: str
    value: str | float


class _TrainerStatus(_Wire):
    progress_percentage: float | None = None
    estimated_remaining_seconds: float | None = None
    metrics: tuple[_Metric, ...] | None = Field(default=None, max_length=256)


class _Body(_Wire):
    trainer_status: _TrainerStatus


@dataclass(frozen=True)
class Report:
    """One report of a pod; what it did not say is None."""

    own: bool = False
    """Whether it comes from a stage of ours, not from a trainer's callback."""
    fraction: float | None = None
    """0 to 1, from the percentage."""
    done: float | None = None
    """Units done (pairs, examples, steps)."""
    total: float | None = None
    remaining_seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class AttemptPod:
    """A pod of a run."""

    namespace: str
    run: str
    attempt: str
    """Name of its Job."""
    index: int
    """Its completion index."""


def parse_report(body: bytes) -> Report:
    """Read the body of a POST. Numbers that make no sense are clamped or left out. Raises ReportError."""
    try:
        status = _Body.model_validate_json(body).trainer_status
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"not a trainerStatus: {where}: {first['msg']}"[:200]) from None
    metrics = {metric.name: metric.value for metric in status.metrics or ()}

    def number(*names: str) -> float | None:
        told = next((metrics[name] for name in names if name in metrics), None)
        if told is None:
            return None
        try:
            return _clamped(float(told))
        except ValueError:
            raise ReportError(f"the metric {names[0]} is not a number") from None

    # The second names are those of transformers' callback.
    done, total = number("done", "current_step"), number("total", "total_steps")
    counted = done is not None and total is not None and total > 0
    percentage = _clamped(status.progress_percentage)
    input_tokens, output_tokens = number("inputTokens"), number("outputTokens")
    return Report(
        own="done" in metrics,
        fraction=None if percentage is None else min(1.0, percentage / 100),
        done=done if counted else None,
        total=total if counted else None,
        remaining_seconds=_clamped(status.estimated_remaining_seconds),
        input_tokens=None if input_tokens is None else int(input_tokens),
        output_tokens=None if output_tokens is None else int(output_tokens),
        tokens_per_second=number("tokensPerSecond"),
    )


def _clamped(value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    return min(max(value, 0.0), MOST)


@dataclass(frozen=True)
class ShardProgress:
    """How far one shard is, over all pods that worked at it."""

    pod_uid: str
    rose: datetime
    """When more had been done than before."""
    own: bool = False
    """Whether the stage itself was heard, which knows better than a callback."""
    fraction: float = 0.0
    done: float | None = None
    """By this pod's account."""
    most_done: float = 0.0
    """By any pod's account."""
    remaining_seconds: float | None = None
    tokens_per_second: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    earlier_input_tokens: int = 0
    """Of pods of this shard that are gone."""
    earlier_output_tokens: int = 0


def merged(before: ShardProgress | None, report: Report, pod_uid: str, now: datetime) -> ShardProgress:
    """A shard after one more report.

    Only more work done counts as a sign of life. What a new pod finds done is no work, so a shard that crashes at the
    same place again and again looks as stalled as it is.
    """
    if before is None:
        before = ShardProgress(pod_uid=pod_uid, rose=now)
    elif before.pod_uid != pod_uid:
        before = ShardProgress(
            pod_uid=pod_uid,
            rose=before.rose,
            most_done=before.most_done,
            earlier_input_tokens=before.earlier_input_tokens + before.input_tokens,
            earlier_output_tokens=before.earlier_output_tokens + before.output_tokens,
        )
    after = _told(before, report)
    if after.done is not None:
        rose = after.done > (before.most_done if before.done is None else before.done)
    else:
        rose = after.fraction > before.fraction
    return replace(after, rose=max(now, before.rose) if rose else before.rose)


def _told(shard: ShardProgress, report: Report) -> ShardProgress:
    """A shard with what a report says, and otherwise as it was. What only grows does not shrink again."""
    done, fraction, remaining = shard.done, shard.fraction, shard.remaining_seconds
    if report.done is not None and report.total is not None:
        if done is None or report.done >= done:
            done, fraction = report.done, min(1.0, report.done / report.total)
    elif report.fraction is not None and done is None:
        fraction = max(fraction, report.fraction)
    # The callback takes steps of earlier pods for its own, and says 100 % and no time left when it is interrupted.
    if report.remaining_seconds is not None and (report.own or not shard.own):
        remaining = report.remaining_seconds
    return replace(
        shard,
        own=shard.own or report.own,
        done=done,
        most_done=max(shard.most_done, done or 0.0),
        fraction=fraction,
        remaining_seconds=remaining,
        tokens_per_second=shard.tokens_per_second if report.tokens_per_second is None else report.tokens_per_second,
        input_tokens=max(shard.input_tokens, report.input_tokens or 0),
        output_tokens=max(shard.output_tokens, report.output_tokens or 0),
    )


class ProgressBoard:
    """The latest word of every shard at work."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, str], dict[int, ShardProgress]] = {}

    def take(self, pod: AttemptPod, pod_uid: str, report: Report, now: datetime) -> bool:
        """Note a report; whether it told something new."""
        shards = self._attempts.setdefault((pod.namespace, pod.attempt), {})
        before = shards.get(pod.index)
        shards[pod.index] = after = merged(before, report, pod_uid, now)
        return after != before

    def progress(self, namespace: str, attempt: str, shards: int) -> AttemptProgress | None:
        """How far an attempt of so many shards is; none if nothing was heard from it.

        A shard that has not been heard counts as not begun.
        """
        heard = [shard for index, shard in self._attempts.get((namespace, attempt), {}).items() if index < shards]
        if not heard:
            return None
        at_work = [shard for shard in heard if shard.fraction < 1] or heard
        pace = sum(shard.tokens_per_second for shard in at_work)
        return AttemptProgress(
            fraction=min(1.0, sum(shard.fraction for shard in heard) / shards),
            time=max(shard.rose for shard in heard),
            remaining_seconds=max(
                (shard.remaining_seconds for shard in at_work if shard.remaining_seconds is not None), default=None
            ),
            throughput=f"{pace:,.0f} tokens/s" if pace else "",
            input_tokens=sum(shard.earlier_input_tokens + shard.input_tokens for shard in heard),
            output_tokens=sum(shard.earlier_output_tokens + shard.output_tokens for shard in heard),
        )

    def forget(self, namespace: str, attempts_still_known: Collection[str]) -> None:
        """Drop what is known of other attempts in a namespace."""
        gone = [key for key in self._attempts if key[0] == namespace and key[1] not in attempts_still_known]
        for key in gone:
            del self._attempts[key]
