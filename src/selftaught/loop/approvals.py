"""Whether a person has decided on an iteration, and what silence means."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from selftaught.api.spec import Approval, ApprovalPolicy, ApprovalRequired, Decision, OnTimeout


@dataclass(frozen=True)
class Consent:
    """Where a decision on an iteration stands."""

    decision: Decision | None = None
    """None: not decided; see `needed`."""
    needed: bool = False
    """Whether the run must wait for a decision."""
    approval: Approval | None = None
    """The person's decision, if there is one."""
    deadline: datetime | None = None
    """When silence becomes a decision, or a reminder."""
    overdue: bool = False


def last_decision(approvals: Iterable[Approval], iteration: int) -> Approval | None:
    """The decision that counts: the latest by time; one without a time is as old as its place in the list."""
    chosen: Approval | None = None
    for approval in approvals:
        if approval.iteration != iteration:
            continue
        earlier = (
            chosen is not None
            and chosen.time is not None
            and approval.time is not None
            and approval.time.timestamp() < chosen.time.timestamp()
        )
        if not earlier:
            chosen = approval
    return chosen


def consent(
    policy: ApprovalPolicy,
    approvals: Iterable[Approval],
    iteration: int,
    *,
    promotable: bool,
    since: datetime,
    now: datetime,
) -> Consent:
    """Where the decision on an iteration stands that could be decided `since` then.

    A person's rejection always counts; whether one must be waited for is the policy's.
    """
    approval = last_decision(approvals, iteration)
    if approval is not None:
        return Consent(decision=approval.decision, approval=approval)
    needed = policy.required is ApprovalRequired.EVERY_ITERATION or (
        policy.required is ApprovalRequired.BEFORE_PROMOTION and promotable
    )
    if not needed:
        return Consent()
    if policy.timeout_seconds is None:
        return Consent(needed=True)
    deadline = since + timedelta(seconds=policy.timeout_seconds)
    if now < deadline:
        return Consent(needed=True, deadline=deadline)
    match policy.on_timeout:
        case OnTimeout.APPROVE:
            return Consent(decision=Decision.APPROVED, overdue=True)
        case OnTimeout.REJECT:
            return Consent(decision=Decision.REJECTED, overdue=True)
        case OnTimeout.SUSPEND:
            return Consent(needed=True, overdue=True)
