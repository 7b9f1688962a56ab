"""The status of a run whose spec cannot be read: a field that the schema let pass, or another version's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selftaught.api.reasons import Reason
from selftaught.api.status import Condition, ConditionStatus, ConditionType, Phase, RunStatus
from selftaught.loop.retries import condition_reason


def status_of_unreadable(body: Mapping[str, Any], error: ValidationError, now: datetime) -> RunStatus | None:
    """What to tell; none if it has been told, if the run is complete, or if the status itself cannot be read and must
    not be lost.
    """
    try:
        before = RunStatus.model_validate(body.get("status", {}))
    except ValidationError:
        return None
    if condition_reason(before, ConditionType.COMPLETE) is not None:
        return None
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = f"{where}: {first['msg']}; correct the run"
    generation = int(body["metadata"].get("generation", 0))
    since = next((each.last_transition_time for each in before.conditions if is_failed(each)), now)
    failed = Condition(
        type=ConditionType.FAILED,
        status=ConditionStatus.TRUE,
        observed_generation=generation,
        last_transition_time=since,
        reason=Reason.INVALID_SPEC,
        message=message,
    )
    others = tuple(each for each in before.conditions if each.type != ConditionType.FAILED)
    after = before.model_copy(
        update={
            "observed_generation": generation,
            "phase": Phase.FAILED,
            "conditions": (*others, failed),
            "summary": before.summary.model_copy(update={"reason": f"{Reason.INVALID_SPEC}: {message}"}),
        }
    )
    return None if after == before else after


def is_failed(condition: Condition) -> bool:
    """Whether it says that the run has failed."""
    return condition.type == ConditionType.FAILED and condition.status is ConditionStatus.TRUE
