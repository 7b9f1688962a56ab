"""What of a status is news, and what can wait a while."""

from typing import Any

from selftaught.api.status import RunStatus

MINOR_FIELDS: Any = {"usage": True, "stages": {"__all__": {"running_seconds", "state", "start_time", "message"}}}
"""Of an iteration. A stage's state changes from Pending to Running without anybody having to act."""


def is_minor(before: RunStatus, after: RunStatus) -> bool:
    """Whether two statuses tell the same but for the words about the running stage, and how far it is."""
    return told_of(before) == told_of(after)


def told_of(status: RunStatus) -> dict[str, Any]:
    """A status without words about the running stage, and how far it is."""
    words = {"reason", "message", "observed_generation"}
    minor: Any = {
        "progress": True,
        "usage": True,
        "summary": {"progress", "reason"},
        "conditions": {"__all__": words},
        "iterations": {"__all__": MINOR_FIELDS},
    }
    return status.model_dump(exclude=minor)
