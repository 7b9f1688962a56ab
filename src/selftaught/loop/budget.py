"""What a run has used, and whether its budget or its running time is spent."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from selftaught.api.results import Stage
from selftaught.api.spec import RunSpec
from selftaught.api.status import UsageStatus
from selftaught.artifacts import Manifest
from selftaught.loop.history import History, Place, StageHistory
from selftaught.loop.observed import Observed
from selftaught.loop.placement import gpus

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Usage:
    """What a run, or an iteration, has used so far; the attempt at work included."""

    active_seconds: float = 0.0
    gpu_seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    """Generated; what a training reads is not."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.active_seconds + other.active_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def at_least(self, told: UsageStatus) -> "Usage":
        """No less than what was told before: what was used stays used, whatever is deleted."""
        return Usage(
            max(self.active_seconds, told.active_seconds),
            max(self.gpu_seconds, told.gpu_seconds),
            max(self.input_tokens, told.input_tokens),
            max(self.output_tokens, told.output_tokens),
        )

    def status(self) -> UsageStatus:
        """As it is told."""
        return UsageStatus(
            active_seconds=math.ceil(self.active_seconds),
            gpu_seconds=math.ceil(self.gpu_seconds),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
        )


def usage_by_iteration(
    spec: RunSpec, observed: Observed, history: History, done: Mapping[Place, Manifest], grain: int = 0
) -> dict[int, Usage]:
    """What each iteration has used. `done` are the finished stages of the run as it is now.

    A stage has used the larger of what its attempts show and what its ledger entries say: failed attempts
    left no entry, adopted work left no attempts. The running time of the attempt at work is cut to whole
    `grain`s of seconds, so that a status is not rewritten for every second.
    """
    used: dict[int, Usage] = {}
    for place in sorted(history.stages.keys() | done.keys()):
        iteration, stage = place
        past = history.at(iteration, stage)
        written = ledger_usage([done[place]] if place in done else ())
        running = past.running_seconds // grain * grain if grain else past.running_seconds
        shown = Usage(
            active_seconds=max(past.active_seconds + running, written.active_seconds),
            gpu_seconds=max(past.gpu_seconds + running * gpus(spec, stage), written.gpu_seconds),
            input_tokens=written.input_tokens,
            output_tokens=written.output_tokens,
        )
        used[iteration] = used.get(iteration, Usage()) + shown + tokens_under_way(past, observed)
    return used


def tokens_under_way(past: StageHistory, observed: Observed) -> Usage:
    """Tokens that the attempt at work has told of and that are in no ledger entry yet."""
    alive = past.alive
    if alive is None or alive.progress is None or alive.stage is Stage.TRAIN or observed.entry(alive.key) is not None:
        return Usage()
    return Usage(input_tokens=alive.progress.input_tokens, output_tokens=alive.progress.output_tokens)


def ledger_usage(entries: Iterable[Manifest]) -> Usage:
    """What finished stages have used, by their own account."""
    total = Usage()
    for entry in entries:
        said = entry.result.usage
        generates = entry.result.stage is not Stage.TRAIN
        total += Usage(
            active_seconds=max(0.0, (entry.completion_time - entry.start_time).total_seconds()),
            gpu_seconds=said.gpu_seconds,
            input_tokens=said.input_tokens if generates else 0,
            output_tokens=said.output_tokens if generates else 0,
        )
    return total


def total_usage(used: dict[int, Usage], told: UsageStatus) -> Usage:
    """What the whole run has used."""
    return sum(used.values(), Usage()).at_least(told)


def token_allowance(spec: RunSpec, observed: Observed) -> int | None:
    """Generated tokens that the budget leaves to a stage that starts now, its earlier attempts included."""
    if spec.budget.generated_tokens is None:
        return None
    return max(0, spec.budget.generated_tokens - ledger_usage(observed.finished().values()).output_tokens)


def gpu_seconds_left(spec: RunSpec, used: Usage) -> float | None:
    """GPU seconds that the budget leaves; none without such a budget."""
    if spec.budget.gpu_hours is None:
        return None
    return float(Decimal(spec.budget.gpu_hours) * SECONDS_PER_HOUR) - used.gpu_seconds


def gpu_hours_spent(spec: RunSpec, used: Usage) -> str | None:
    """In words; none if there are some left."""
    left = gpu_seconds_left(spec, used)
    if left is None or left > 0:
        return None
    return f"{used.gpu_seconds / SECONDS_PER_HOUR:.1f} of {spec.budget.gpu_hours} GPU hours are used"


def tokens_spent(spec: RunSpec, used: Usage) -> str | None:
    """In words; none if there are some left. A stage at work watches its allowance itself."""
    tokens = spec.budget.generated_tokens
    if tokens is None or used.output_tokens < tokens:
        return None
    return f"{used.output_tokens:,} of {tokens:,} generated tokens are used"


def overdue(spec: RunSpec, used: Usage) -> bool:
    """Whether the run has run longer than it may."""
    limit = spec.deadlines.active_seconds
    return limit is not None and used.active_seconds >= limit


def end_of_budget(spec: RunSpec, used: Usage, held_gpus: int, now: datetime) -> datetime | None:
    """When GPU hours or running time will be spent if the attempt at work goes on."""
    seconds = []
    left = gpu_seconds_left(spec, used)
    if left is not None and held_gpus:
        seconds.append(left / held_gpus)
    if spec.deadlines.active_seconds is not None:
        seconds.append(spec.deadlines.active_seconds - used.active_seconds)
    return now + timedelta(seconds=max(0.0, min(seconds))) if seconds else None
