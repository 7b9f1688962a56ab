"""What was tried at each stage: the last status and the attempts still to be seen, merged without counting twice.

Every attempt has a number that never repeats. `ended` in the status is a watermark: attempts up to it are in
all counters already, whether their Jobs still exist or not. So a planner may be killed between any two
steps, and anything may be deleted at any time, without a failure being counted twice or a budget renewed.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.status import ConditionType, RunStatus, StageState, StageStatus
from selftaught.loop.observed import Attempt, AttemptState, Failure, FailureKind, Observed, succeeded
from selftaught.loop.retries import condition_reason, restart_delay

Place = tuple[int, Stage]
"""Iteration and stage."""


@dataclass(frozen=True)
class StageHistory:
    """What was tried at a stage of an iteration."""

    attempts: int = 0
    """Number of the last attempt."""
    ended: int = 0
    """Attempts up to this number have ended and are counted."""
    failures: int = 0
    active_seconds: int = 0
    """Running time of ended attempts, and of the one at work before it was last put back into its queue."""
    running_seconds: float = 0.0
    """Running time of the attempt at work since then."""
    gpu_seconds: int = 0
    """As `active_seconds`."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    retry_time: datetime | None = None
    message: str = ""
    alive: Attempt | None = None
    """The attempt at work."""
    failure: Failure | None = None
    """The last failure, if no earlier pass has dealt with it."""
    failed_key: str = ""
    """Key of the attempt that failed so."""

    @property
    def next_number(self) -> int:
        """Number for another attempt: the last one's again if it was planned but has never been seen."""
        return max(self.attempts, self.ended + 1)


@dataclass(frozen=True)
class History:
    """What was tried in a run."""

    stages: Mapping[Place, StageHistory] = field(default_factory=dict)
    counted: int = 0
    """Program errors that used up restarts, new ones included."""
    new_errors: int = 0
    """Program errors that no earlier pass has counted."""

    def at(self, iteration: int, stage: Stage) -> StageHistory:
        """What was tried at a stage."""
        return self.stages.get((iteration, stage), StageHistory())

    @property
    def restarts(self) -> int:
        """Attempts beyond the first of each stage."""
        return sum(max(0, stage.attempts - 1) for stage in self.stages.values())


def history_of(
    observed: Observed, previous: RunStatus, done: Container[Place], gpus: Mapping[Stage, int], now: datetime
) -> History:
    """Merge the last status with what is observed. `done` are the finished stages, `gpus` what each stage holds."""
    told = {(iteration.index, stage.name): stage for iteration in previous.iterations for stage in iteration.stages}
    seen: dict[Place, dict[int, Attempt]] = {}
    for attempt in observed.attempts:
        seen.setdefault((attempt.iteration, attempt.stage), {})[attempt.number] = attempt
    asked_to_stop = stop_was_asked(observed.previous)
    stages: dict[Place, StageHistory] = {}
    errors = 0
    for place in told.keys() | seen.keys():
        merger = Merger(observed, place in done, gpus.get(place[1], 0), asked_to_stop, now)
        stages[place] = merger.merge(told.get(place), seen.get(place, {}))
        errors += merger.errors
    ordered = dict(sorted(stages.items()))
    return History(stages=ordered, counted=previous.restarts_counted + errors, new_errors=errors)


def stop_was_asked(previous: RunStatus) -> bool:
    """Whether an attempt that is gone was stopped by the planner itself."""
    suspended = next((c for c in previous.conditions if c.type == ConditionType.SUSPENDED), None)
    if suspended is not None and suspended.reason in (Reason.SUSPENDED, Reason.SUSPENDING, Reason.STOPPING):
        return True
    return any(condition_reason(previous, end) is not None for end in (ConditionType.COMPLETE, ConditionType.FAILED))


class Merger:
    """Merges what is known of one stage."""

    def __init__(self, observed: Observed, done: bool, gpus: int, asked_to_stop: bool, now: datetime) -> None:
        self._observed = observed
        self._done = done
        self._gpus = gpus
        self._asked_to_stop = asked_to_stop
        self._now = now
        self.errors = 0
        """Program errors that are counted now."""

    def merge(self, told: StageStatus | None, seen: Mapping[int, Attempt]) -> StageHistory:
        """The stage's history after all that has newly ended."""
        history = from_status(told)
        last = max([history.attempts, *seen])
        history = replace(history, attempts=last, start_time=earliest(history.start_time, seen.values()))
        current = seen.get(history.ended + 1)
        if told is not None and current is not None and current.start_time is None:
            history = self._spent(history, told.running_seconds)  # it ran, and was put back into its queue
        for number in range(history.ended + 1, last + 1):
            attempt = seen.get(number)
            if attempt is None:
                planned = told is not None and told.state is StageState.PENDING
                if number == last and planned and not self._done:
                    break  # it may only be too new to be seen; its name makes starting it again harmless
                history = self._gone(history, number, told, last)
            elif attempt.alive:
                break
            else:
                history = self._ended(history, attempt, last)
        alive = next((attempt for _, attempt in sorted(seen.items()) if attempt.alive), None)
        if alive is not None:
            history = replace(history, alive=alive, running_seconds=alive.running_seconds(self._now), failure=None)
        return history

    def _ended(self, history: StageHistory, attempt: Attempt, last: int) -> StageHistory:
        end = attempt.end_time or self._now
        history = replace(
            self._spent(history, math.ceil(attempt.running_seconds(end))),
            ended=attempt.number,
            end_time=end,
            retry_time=None,
            failure=None,
            message="",
        )
        done = self._observed.entry(attempt.key) is not None
        if done and (succeeded(attempt) or attempt.number == last):
            return history  # what happens to a process after its artifact is complete is no failure
        return self._failed(history, failure_of(attempt), attempt.key, end)

    def _gone(self, history: StageHistory, number: int, told: StageStatus | None, last: int) -> StageHistory:
        seconds = told.running_seconds if told is not None and number == told.ended + 1 else 0
        history = replace(self._spent(history, seconds), ended=number, end_time=self._now)
        if self._done and number == last:
            return history
        kind = FailureKind.INTERRUPTED if self._asked_to_stop else FailureKind.DISRUPTION
        failure = Failure(reason=Reason.VANISHED, message="it was deleted while it was at work", kind=kind)
        return self._failed(history, failure, "", self._now)

    def _spent(self, history: StageHistory, seconds: int) -> StageHistory:
        return replace(
            history,
            active_seconds=history.active_seconds + seconds,
            gpu_seconds=history.gpu_seconds + seconds * self._gpus,
        )

    def _failed(self, history: StageHistory, failure: Failure, key: str, end: datetime) -> StageHistory:
        if failure.kind is FailureKind.PROGRAM:
            self.errors += 1
        failures = history.failures + (failure.kind is not FailureKind.INTERRUPTED)
        return replace(
            history,
            failures=failures,
            retry_time=end + restart_delay(failure.kind, failures),
            message=f"{failure.reason}: {failure.message}"[:1024],
            failure=failure,
            failed_key=key,
        )


def from_status(told: StageStatus | None) -> StageHistory:
    """What the last status says of a stage."""
    if told is None:
        return StageHistory()
    return StageHistory(
        attempts=told.attempts,
        ended=told.ended,
        failures=told.failures,
        active_seconds=told.active_seconds,
        gpu_seconds=told.gpu_seconds,
        start_time=told.start_time if told.attempts else None,
        end_time=told.completion_time if told.attempts else None,
        retry_time=told.retry_time,
        message=told.message,
    )


def failure_of(attempt: Attempt) -> Failure:
    """Why an attempt that ended did not finish its stage."""
    if attempt.state is AttemptState.FAILED:
        return attempt.failure or Failure(
            reason="Unknown", message="it failed and left no word", kind=FailureKind.PROGRAM
        )
    return Failure(reason=Reason.NO_RESULT, message="it ended well but left no usable result", kind=FailureKind.PROGRAM)


def earliest(known: datetime | None, attempts: Iterable[Attempt]) -> datetime | None:
    """The first start."""
    starts = [attempt.start_time for attempt in attempts if attempt.start_time is not None]
    return min([*([known] if known is not None else []), *starts], default=None)
