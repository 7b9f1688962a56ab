"""Conditions: all types are present from the first pass on; a transition time changes only with its status."""

import re
from collections.abc import Sequence
from datetime import datetime

from selftaught.api.reasons import Reason
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import Condition, ConditionStatus, ConditionType, Phase
from selftaught.loop.observed import Observed
from selftaught.loop.outcome import Complete, Failed
from selftaught.loop.planner import Plan, Waiting, place, stall_time

REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
MAX_REASON = 1024
MAX_MESSAGE = 4096

Claim = tuple[bool, str, str]
"""Whether a condition is true, its reason and its message."""

APPROVAL_REASONS = (Reason.AWAITING_APPROVAL, Reason.APPROVAL_OVERDUE)


def conditions_of(run: SelfTaughtRun, observed: Observed, plan: Plan, now: datetime) -> tuple[Condition, ...]:
    """All conditions."""
    claims = {
        ConditionType.COMPLETE: ended(plan, Complete),
        ConditionType.FAILED: ended(plan, Failed),
        ConditionType.SUSPENDED: suspended(observed, plan),
        ConditionType.AWAITING_APPROVAL: waits(plan, APPROVAL_REASONS),
        ConditionType.QUEUED: waits(plan, (Reason.QUEUED,)),
        ConditionType.PROGRESS_DEADLINE_EXCEEDED: stalled(run, observed, plan, now),
    }
    before = {condition.type: condition for condition in observed.previous.conditions}
    conditions = []
    for kind, (true, reason, message) in claims.items():
        status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
        last = before.get(kind)
        same = last is not None and last.status is status
        conditions.append(
            Condition(
                type=kind,
                status=status,
                observed_generation=run.metadata.generation,
                last_transition_time=last.last_transition_time if last is not None and same else now,
                reason=reason if REASON.fullmatch(reason) and len(reason) <= MAX_REASON else Reason.STAGE_FAILED,
                message=message[:MAX_MESSAGE],
            )
        )
    return tuple(conditions)


def phase_of(conditions: Sequence[Condition], *, started: bool) -> Phase:
    """The word for people that the conditions come to."""
    true = {condition.type for condition in conditions if condition.status is ConditionStatus.TRUE}
    for condition, phase in (
        (ConditionType.COMPLETE, Phase.COMPLETE),
        (ConditionType.FAILED, Phase.FAILED),
        (ConditionType.SUSPENDED, Phase.SUSPENDED),
        (ConditionType.AWAITING_APPROVAL, Phase.AWAITING_APPROVAL),
        (ConditionType.QUEUED, Phase.QUEUED),
    ):
        if condition in true:
            return phase
    return Phase.RUNNING if started else Phase.PENDING


def ended(plan: Plan, kind: type[Complete] | type[Failed]) -> Claim:
    """Whether the run ended so."""
    if isinstance(plan.outcome, kind):
        return True, plan.outcome.reason, plan.outcome.message
    if plan.outcome is not None:
        return False, plan.outcome.reason, ""
    waiting = under_way(plan)
    return False, waiting.reason, waiting.message


def suspended(observed: Observed, plan: Plan) -> Claim:
    """Whether nothing runs because a person wants it so. While attempts are being stopped, the reason says so."""
    waiting = plan.waiting
    if waiting is not None and waiting.reason in (Reason.SUSPENDED, Reason.SUSPENDING):
        return waiting.reason is Reason.SUSPENDED, waiting.reason, waiting.message
    if any(attempt.stopping for attempt in observed.alive):
        return False, Reason.STOPPING, "an attempt was told to stop and has not ended yet"
    return False, Reason.AS_EXPECTED, ""


def waits(plan: Plan, reasons: Sequence[Reason]) -> Claim:
    """Whether the run waits for one of the reasons."""
    if plan.waiting is not None and plan.waiting.reason in reasons:
        return True, plan.waiting.reason, plan.waiting.message
    return False, Reason.AS_EXPECTED, ""


def stalled(run: SelfTaughtRun, observed: Observed, plan: Plan, now: datetime) -> Claim:
    """Whether something runs without telling progress. It is not failed for that."""
    if plan.outcome is None:
        for attempt in observed.alive:
            limit = stall_time(run, attempt)
            if limit is not None and now >= limit:
                seconds = run.spec.deadlines.stalled_after_seconds
                message = f"{place(attempt)} has told no progress for {seconds} s (deadlines.stalledAfterSeconds)"
                return True, Reason.NO_PROGRESS, message
    return False, Reason.AS_EXPECTED, ""


def under_way(plan: Plan) -> Waiting:
    """What a run that goes on is doing."""
    if plan.waiting is not None:
        return plan.waiting
    started = ", ".join(start.name for start in plan.start)
    return Waiting(Reason.STARTING, f"{started} is being started" if started else "")
