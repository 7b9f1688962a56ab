"""What is remembered of a run between passes. All of it can be found again, so a restart loses nothing."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from selftaught.api.stage_config import PromptTexts
from selftaught.api.status import RunStatus
from selftaught.artifacts import Manifest
from selftaught.loop.observed import AttemptProgress
from selftaught_operator.observe import Children


class Watched(Protocol):
    """What the watches have seen, and what pods have told."""

    def children(self, namespace: str, run: str) -> Children:
        """Jobs and pods with the label of a run."""
        ...

    def progress(self, namespace: str, job: str, pods: int) -> AttemptProgress | None:
        """What the pods of a Job told."""
        ...


@dataclass
class Memory:
    """Of one run."""

    prompts: PromptTexts | None = None
    ledger: dict[str, Manifest] = field(default_factory=dict)
    """Finished stages that were seen, so that a deleted Job is not asked for again."""
    pruned: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """UIDs of Jobs and pods that the watches still show and that do not exist."""
    checked_at: datetime | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """Starts that the cluster refused, by name, and its words."""
    written_at: datetime | None = None
    looked_at: object = None
    """All that the last pass went by; if it is still the same, there is nothing to do before its time."""
    look_again: datetime | None = None
    _written: str = ""
    """The status that was last written, as JSON: a tenth of the object's size."""
    _version: str = ""
    _superseded: set[str] = field(default_factory=set)

    def wrote(self, status: RunStatus, *, on: str, version: str, now: datetime) -> None:
        """A status was written on one resource version and gave another."""
        self._superseded.add(on)
        self._written, self._version, self.written_at = status.model_dump_json(exclude_none=True), version, now

    def newest(self, status: RunStatus, version: str) -> tuple[RunStatus, str]:
        """The newest status and its resource version, given the one that the watch shows, which may lag behind."""
        if version == self._version:  # the watch has caught up, and does not go back
            self._superseded.clear()
        if self._written and self.is_ours(version):
            return RunStatus.model_validate_json(self._written), self._version
        self._written = ""
        self._superseded.clear()
        return status, version

    def is_ours(self, version: str) -> bool:
        """Whether nothing but our own writes has happened to the run since a resource version, or up to it."""
        return version == self._version or version in self._superseded
