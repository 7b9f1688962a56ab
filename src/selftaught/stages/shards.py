"""How a stage begins and ends when several processes share its rows.

Every stage that writes rows has the same frame; `key` guards against a folder of another configuration:

    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    with shards.Clock(folder, config.key, context) as clock:
        rows = shards.input_rows(context.store.folder(config.…), Kind)  # shard.owns(position) says which are mine
        ...                      # read the rows that are there, do the rest, call clock.tick() now and then
        clock.gpus = engine.gpus # only if an engine was needed
    partial = StageResult(stage=config.stage, iteration=config.iteration, key=config.key, rows=…, dropped=…,
                          usage=Usage(input_tokens=…, output_tokens=…))   # of the positions this shard owns
    return shards.finish(folder, context, partial, conclude)

A partial result is counted from the rows of the owned positions, whichever process wrote them, so tokens are
right across kills and when the number of shards changes. Seconds come from the clocks. `conclude` runs in the
process that merges, with the merged result, before the manifest is written: there `evaluate` computes scores
from all rows and `select` its mixture. Two processes may merge at once, so it must be deterministic.

Markers are named `shard-00000-of-00002.json`, clocks `.clock-00000-of-00002.json` (hidden files are no part of
an artifact, so a clock that still ticks elsewhere cannot break a manifest).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from selftaught.api.results import StageResult, Usage
from selftaught.artifacts import Folder
from selftaught.errors import DataError
from selftaught.records import Record
from selftaught.stages.context import Shard, StageContext

R = TypeVar("R", bound=Record)

SAVE_SECONDS = 10.0
"""A kill loses at most this much of the running time."""

_CLOCK = ".clock"
_MARKER = "shard"


class ClockReading(BaseModel):
    """Running time of one shard over all of its processes so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    start_time: datetime
    seconds: float = 0.0
    gpu_seconds: float = 0.0


class Clock:
    """Measures a shard's running time, and keeps it in the folder so that it adds up over restarts.

    Raises DataError on entry when the folder holds work of another configuration.
    """

    def __init__(self, folder: Folder, key: str, context: StageContext) -> None:
        self.gpus = 0
        """GPUs that this process holds; they count for all of its running time."""
        self._folder = folder
        self._key = key
        self._now = context.now
        self._name = _name(_CLOCK, context.shard)

    def __enter__(self) -> Self:
        readings = _readings(self._folder)
        if any(reading.key != self._key for reading in readings.values()):
            raise _foreign(self._folder)
        self._entered = self._saved = self._now()
        self._before = readings.get(self._name, ClockReading(key=self._key, start_time=self._entered))
        self._save()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._save()

    def tick(self) -> None:
        """Save the time now and then; cheap to call often."""
        if (self._now() - self._saved).total_seconds() >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._saved = self._now()
        seconds = (self._saved - self._entered).total_seconds()
        reading = self._before.model_copy(
            update={
                "seconds": self._before.seconds + seconds,
                "gpu_seconds": self._before.gpu_seconds + seconds * self.gpus,
            }
        )
        self._folder.write(self._name, reading.model_dump_json().encode())


def started(folder: Folder, shard: Shard) -> bool:
    """Whether a process of that shard has ever begun."""
    return folder.exists(_name(_CLOCK, shard))


def finished(folder: Folder, key: str) -> StageResult | None:
    """The result of an artifact that is complete already.

    Raises DataError when the folder holds the result of another configuration.
    """
    manifest = folder.manifest()
    if manifest is None:
        return None
    if manifest.result.key != key:
        raise _foreign(folder)
    return manifest.result


def input_rows(folder: Folder, kind: type[R]) -> list[R]:
    """All rows of a stage's input, sorted by id, so that every shard numbers them alike.

    Raises DataError when the input is not complete or holds no row.
    """
    manifest = folder.manifest()
    if manifest is None:
        raise DataError(f"{folder.uri} is not complete; run the stage that writes it first")
    if manifest.pruned:
        raise DataError(f"the rows of {folder.uri} were deleted by retention; redo the stage that writes them")
    rows = sorted(folder.rows(kind), key=attrgetter("id"))
    if not rows:
        raise DataError(f"{folder.uri} has no rows; look at what the stage that wrote it has dropped")
    return rows


def finish(
    folder: Folder,
    context: StageContext,
    partial: StageResult,
    conclude: Callable[[StageResult], StageResult] | None = None,
) -> StageResult:
    """Mark this shard as done; the last one merges all and completes the artifact.

    Returns the merged result, or this shard's own with `complete` False while others are at work.
    """
    partial = partial.model_copy(update={"complete": False})
    folder.write(_name(_MARKER, context.shard), partial.model_dump_json(exclude_defaults=True).encode())
    parts = [_part(folder, Shard(index, context.shard.count)) for index in range(context.shard.count)]
    whole = [part for part in parts if part is not None and part.key == partial.key]
    if len(whole) < len(parts):
        return partial
    if (done := finished(folder, partial.key)) is not None:
        return done
    readings = list(_readings(folder).values())
    merged = _merge(whole, readings)
    result = conclude(merged) if conclude else merged
    now = context.now()
    folder.complete(result, min((reading.start_time for reading in readings), default=now), now)
    return result


def _merge(parts: Sequence[StageResult], readings: Sequence[ClockReading]) -> StageResult:
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.dropped)
    return parts[0].model_copy(
        update={
            "complete": True,
            "rows": sum(part.rows for part in parts),
            "dropped": dict(sorted(dropped.items())),
            "usage": Usage(
                input_tokens=sum(part.usage.input_tokens for part in parts),
                output_tokens=sum(part.usage.output_tokens for part in parts),
                seconds=round(sum(reading.seconds for reading in readings), 3),
                gpu_seconds=round(sum(reading.gpu_seconds for reading in readings), 3),
            ),
            "message": "; ".join(dict.fromkeys(part.message for part in parts if part.message)),
        }
    )


def _name(kind: str, shard: Shard) -> str:
    return f"{kind}-{shard.index:05d}-of-{shard.count:05d}.json"


def _part(folder: Folder, shard: Shard) -> StageResult | None:
    name = _name(_MARKER, shard)
    try:
        return StageResult.model_validate_json(folder.read(name))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataError(f"{folder.uri}/{name} is damaged; delete it to redo that shard's end") from error


def _readings(folder: Folder) -> dict[str, ClockReading]:
    found = {}
    for name in folder.names():
        if name.startswith(f"{_CLOCK}-") and name.endswith(".json"):
            try:
                found[name] = ClockReading.model_validate_json(folder.read(name))
            except ValidationError as error:
                raise DataError(f"{folder.uri}/{name} is damaged; delete it (only running time is lost)") from error
    return found


def _foreign(folder: Folder) -> DataError:
    return DataError(f"{folder.uri} holds the work of another configuration; delete it, or write elsewhere")
