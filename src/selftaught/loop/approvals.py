"""Whether a person has decided on an iteration, and what silence means."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from selftaught.api.labels import APPROVAL_ANNOTATION
from selftaught.api.spec import Approval, ApprovalPolicy, ApprovalRequired, Decision, OnTimeout
from selftaught.api.status import IterationDecision, RunStatus


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


def awaiting(status: RunStatus) -> tuple[int, ...]:
    """The iterations that await a person's decision."""
    return tuple(each.index for each in status.iterations if each.decision is IterationDecision.AWAITING_APPROVAL)


def approvals_of(annotations: Mapping[str, str]) -> tuple[tuple[Approval, ...], tuple[str, ...]]:
    """The decisions that annotations of a run hold, oldest first, and a line for each that cannot be read.

    The key ends in the iteration; the value is an Approval as JSON (its iteration may be left out), or the bare
    word `Approved` or `Rejected`. A decision without a time counts as older than any with one.
    """
    approvals: list[Approval] = []
    problems: list[str] = []
    for key, value in annotations.items():
        if key.startswith(APPROVAL_ANNOTATION):
            try:
                approvals.append(read_approval(key.removeprefix(APPROVAL_ANNOTATION), value))
            except ValueError as error:
                problems.append(f"annotation {key}: {error}")
    return tuple(sorted(approvals, key=by_age)), tuple(sorted(problems))


def by_age(approval: Approval) -> tuple[float, int]:
    """Sorts decisions, those without a time first."""
    return (approval.time.timestamp() if approval.time is not None else float("-inf"), approval.iteration)


def read_approval(suffix: str, value: str) -> Approval:
    """The decision of one annotation. Raises ValueError with one line."""
    if not (suffix.isascii() and suffix.isdigit() and len(suffix) <= 4 and int(suffix) >= 1):
        raise ValueError("its name must end in the number of an iteration, such as 2")
    iteration = int(suffix)
    word = value.strip()
    if word in list(Decision):
        return Approval(iteration=iteration, decision=Decision(word))
    try:
        told = json.loads(word)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ValueError("its value must be Approved, Rejected, or an approval as JSON")
    try:
        approval = Approval.model_validate({"iteration": iteration, **told})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    if approval.iteration != iteration:
        raise ValueError(f"its value is about iteration {approval.iteration}")
    if approval.time is not None and approval.time.tzinfo is None:
        return approval.model_copy(update={"time": approval.time.replace(tzinfo=UTC)})
    return approval
