"""The status of a run whose spec cannot be read: a field that the schema let pass, or another version's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selftaught.api.reasons import Reason
from selftaught.api.status import Condition, ConditionStatus, ConditionType, Phase, RunStatus


def status_of_unreadable(body: Mapping[str, Any], error: ValidationError, now: datetime) -> RunStatus | None:
    """What to tell; none if it has been told, or if the status itself cannot be read and must not be lost."""
    try:
        before = RunStatus.model_validate(body.get("status", {}))
    except ValidationError:
        return None
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = f"{where}: {first['msg']}; correct the run"
    generation = int(body["metadata"].get("generation", 0))
    failed = Condition(
        type=ConditionType.FAILED,
        status=ConditionStatus.TRUE,
        observed_generation=generation,
        last_transition_time=now,
        reason=Reason.INVALID_SPEC,
        message=message,
    )
    told = [each for each in before.conditions if each.type == ConditionType.FAILED and each.message == message]
    if told:
        return None
    others = tuple(each for each in before.conditions if each.type != ConditionType.FAILED)
    return before.model_copy(
        update={
            "observed_generation": generation,
            "phase": Phase.FAILED,
            "conditions": (*others, failed),
            "summary": before.summary.model_copy(update={"reason": f"{Reason.INVALID_SPEC}: {message}"}),
        }
    )
