"""The attempts of a local run, one line when one starts and one when it ends.

What a cluster's Jobs are for the operator. An attempt without an end was under way when the runner died: its
processes died with it, and its rows are kept.
"""

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from selftaught.api.base import ApiModel
from selftaught.api.results import Stage, StageResult
from selftaught.artifacts import cut_half_line, storage_errors
from selftaught.errors import ManifestError
from selftaught.loop.observed import Attempt, AttemptProgress, AttemptState, Failure, FailureKind


class Started(ApiModel):
    """An attempt started."""

    type: Literal["started"] = "started"
    name: str
    stage: Stage
    iteration: int
    number: int
    key: str
    time: datetime


class Ended(ApiModel):
    """An attempt ended, well (result) or not (failure)."""

    type: Literal["ended"] = "ended"
    name: str
    time: datetime
    result: StageResult | None = None
    failure: Failure | None = None


Entry = Annotated[Started | Ended, Field(discriminator="type")]


class Journal:
    """Attempts of this run, oldest first, kept in a file."""

    def __init__(self, path: Path, now: datetime) -> None:
        self._path = path
        self._attempts: dict[str, Attempt] = {}
        adapter = TypeAdapter[Entry](Entry)
        if path.exists():
            cut_half_line(path)
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
                if not line:
                    continue
                try:
                    self._apply(adapter.validate_json(line))
                except ValidationError as error:
                    raise ManifestError(
                        f"{path} line {number} is damaged; delete the file and start again: finished stages are kept"
                    ) from error
        for attempt in list(self._attempts.values()):
            if attempt.state is AttemptState.RUNNING:
                gone = "the runner ended before the stage did"
                self.ended(
                    attempt.name,
                    now,
                    failure=Failure(reason="RunnerGone", message=gone, kind=FailureKind.INTERRUPTED),
                )

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts."""
        return tuple(self._attempts.values())

    def started(self, name: str, *, stage: Stage, iteration: int, number: int, key: str, now: datetime) -> None:
        """An attempt starts; on disk before it does."""
        self._write(Started(name=name, stage=stage, iteration=iteration, number=number, key=key, time=now))

    def ended(
        self, name: str, now: datetime, *, result: StageResult | None = None, failure: Failure | None = None
    ) -> None:
        """An attempt ended."""
        self._write(Ended(name=name, time=now, result=result, failure=failure))

    def progressed(self, name: str, progress: AttemptProgress) -> None:
        """An attempt moved on; not worth a line on disk."""
        self._attempts[name] = replace(self._attempts[name], progress=progress)

    def stopping(self, name: str) -> None:
        """An attempt was told to stop."""
        self._attempts[name] = replace(self._attempts[name], stopping=True)

    def _write(self, entry: Started | Ended) -> None:
        with storage_errors(str(self._path)), self._path.open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json(exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(entry)

    def _apply(self, entry: Started | Ended) -> None:
        match entry:
            case Started():
                self._attempts[entry.name] = Attempt(
                    name=entry.name,
                    stage=entry.stage,
                    iteration=entry.iteration,
                    number=entry.number,
                    key=entry.key,
                    state=AttemptState.RUNNING,
                    start_time=entry.time,
                )
            case Ended():
                attempt = self._attempts.get(entry.name)
                if attempt is not None:
                    state = AttemptState.FAILED if entry.result is None else AttemptState.SUCCEEDED
                    self._attempts[entry.name] = replace(
                        attempt, state=state, end_time=entry.time, result=entry.result, failure=entry.failure
                    )
