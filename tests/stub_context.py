"""A stage's surroundings for tests: a store in a folder, models by the name of their folder, stub engines."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource
from selftaught.api.results import Stage, StageResult
from selftaught.artifacts import Folder, Store
from selftaught.records import Record
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.engine import Engine, Request
from stub_engine import Reply, StubEngine


@dataclass
class StubProgress:
    """Keeps every update."""

    updates: list[tuple[int, int, str]] = field(default_factory=list)

    def update(self, *, done: int, total: int, unit: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        self.updates.append((done, total, unit))


@dataclass
class StubWorld:
    """Models by folder name; each has one engine, made when it is first asked for."""

    folder: Path
    replies: Mapping[str, Callable[[Request], Reply]] = field(default_factory=dict)
    max_model_len: int = 2048
    engines: dict[str, StubEngine] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    """Names of models in the order they were loaded."""
    progress: StubProgress = field(default_factory=StubProgress)
    stopping: Callable[[], bool] = lambda: False

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def submitted(self) -> list[Request]:
        return [request for engine in self.engines.values() for request in engine.submitted]

    def context(self, index: int = 0, count: int = 1) -> StageContext:
        return StageContext(
            store=self.store,
            shard=Shard(index, count),
            progress=self.progress,
            now=lambda: datetime.now(UTC),
            models=self._model,
            engine=self._engine,
            stopping=self.stopping,
        )

    def _model(self, source: ModelSource) -> Path:
        path = self.store.folder(source.uri).local_path
        assert path is not None
        return path

    def _engine(self, path: Path, settings: EngineSettings) -> Engine:
        self.loaded.append(path.name)
        if path.name not in self.engines:
            self.engines[path.name] = StubEngine(self.replies[path.name], max_model_len=self.max_model_len)
        return self.engines[path.name]


def write_artifact(folder: Folder, stage: Stage, rows: Iterable[Record]) -> None:
    """A complete artifact with these rows."""
    with folder.writer(0, 1) as writer:
        for row in rows:
            writer.append(row)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    folder.complete(StageResult(stage=stage, iteration=1, key="0" * 64), now, now)
