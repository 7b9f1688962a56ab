from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from selftaught.api.results import Stage, StageResult, Usage
from selftaught.artifacts import Folder, Store
from selftaught.errors import DataError
from selftaught.records import Dropped
from selftaught.stages import shards
from selftaught.stages.context import Shard, StageContext
from stub_context import StubProgress

KEY = "a" * 64


class StubTime:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def fail_after(time: StubTime, seconds: float) -> None:
    time.forward(seconds)
    raise StopIteration


@pytest.fixture
def time() -> StubTime:
    return StubTime()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Store(tmp_path).folder("pvc://claim/work")


def context(tmp_path: Path, time: StubTime, index: int = 0, count: int = 1) -> StageContext:
    def refuse(*_: object) -> object:
        raise AssertionError("not needed")

    return StageContext(
        store=Store(tmp_path),
        shard=Shard(index, count),
        progress=StubProgress(),
        now=time,
        models=refuse,  # type: ignore[arg-type]
        engine=refuse,  # type: ignore[arg-type]
        stopping=lambda: False,
    )


def part(rows: int = 1, key: str = KEY, dropped: dict[str, int] | None = None) -> StageResult:
    return StageResult(
        stage=Stage.JUDGE,
        iteration=1,
        key=key,
        rows=rows,
        dropped=dropped or {},
        usage=Usage(input_tokens=10 * rows, output_tokens=rows),
    )


@pytest.mark.parametrize("ends", [pytest.param([0, 1, 2], id="in order"), pytest.param([2, 0, 1], id="out of order")])
def test_the_last_shard_to_end_merges_all(tmp_path: Path, folder: Folder, time: StubTime, ends: list[int]) -> None:
    for position, index in enumerate(ends):
        world = context(tmp_path, time, index, 3)
        with shards.Clock(folder, KEY, world) as clock:
            clock.gpus = 2
            time.forward(5 * (index + 1))
        result = shards.finish(folder, world, part(index + 1, dropped={"TooLong": index}))
        assert result.complete == (position == 2)
    assert result.rows == 6
    assert result.dropped == {"TooLong": 3}
    assert result.usage == Usage(input_tokens=60, output_tokens=6, seconds=30, gpu_seconds=60)
    assert shards.finished(folder, KEY) == result
    manifest = folder.manifest()
    assert manifest is not None
    assert manifest.start_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert manifest.completion_time == time.now


def test_ending_twice_changes_nothing(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    world = context(tmp_path, time)
    first = shards.finish(folder, world, part(2))
    before = folder.read("manifest.json")
    time.forward(60)
    assert shards.finish(folder, world, part(2)) == first
    assert folder.read("manifest.json") == before


def test_a_shard_that_was_killed_before_the_manifest_still_completes(
    tmp_path: Path, folder: Folder, time: StubTime
) -> None:
    def killed(_: StageResult) -> StageResult:
        raise KeyboardInterrupt

    world = context(tmp_path, time)
    with pytest.raises(KeyboardInterrupt):
        shards.finish(folder, world, part(2), killed)
    assert folder.manifest() is None
    assert shards.finish(folder, world, part(2)).complete


def test_conclude_runs_where_all_come_together(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    def conclude(merged: StageResult) -> StageResult:
        seen.append(merged.rows)
        return merged.model_copy(update={"message": "done"})

    seen: list[int] = []
    shards.finish(folder, context(tmp_path, time, 0, 2), part(1), conclude)
    result = shards.finish(folder, context(tmp_path, time, 1, 2), part(2), conclude)
    assert (seen, result.message) == ([3], "done")


def test_markers_of_another_number_of_shards_do_not_count(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    shards.finish(folder, context(tmp_path, time, 1, 3), part(5))
    assert not shards.finish(folder, context(tmp_path, time, 0, 2), part(1)).complete
    assert shards.finish(folder, context(tmp_path, time, 1, 2), part(2)).rows == 3


def test_a_marker_of_another_configuration_does_not_count(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    shards.finish(folder, context(tmp_path, time, 1, 2), part(key="b" * 64))
    assert not shards.finish(folder, context(tmp_path, time, 0, 2), part()).complete


def test_seconds_add_up_over_restarts_and_kills(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    world = context(tmp_path, time)
    with pytest.raises(StopIteration), shards.Clock(folder, KEY, world):
        fail_after(time, 7)
    time.forward(1000)  # nothing runs
    killed = shards.Clock(folder, KEY, world).__enter__()
    for _ in range(25):
        time.forward(1)
        killed.tick()  # SIGKILL: what came after the last save is lost
    time.forward(1000)
    with shards.Clock(folder, KEY, world):
        time.forward(3)
    assert shards.finish(folder, world, part()).usage.seconds == 7 + 20 + 3


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    world = context(tmp_path, time)
    with shards.Clock(folder, KEY, world):
        pass
    with pytest.raises(DataError, match="another configuration"), shards.Clock(folder, "b" * 64, world):
        pass
    shards.finish(folder, world, part())
    with pytest.raises(DataError, match="another configuration"):
        shards.finished(folder, "b" * 64)


@pytest.mark.parametrize(
    ("name", "count"), [pytest.param("shard-00001-of-00002.json", 2), pytest.param(".clock-00001-of-00002.json", 1)]
)
def test_damaged_bookkeeping_is_named(tmp_path: Path, folder: Folder, time: StubTime, name: str, count: int) -> None:
    folder.write(name, b"{")
    with pytest.raises(DataError, match=name):
        shards.finish(folder, context(tmp_path, time, 0, count), part())


def test_rows_of_an_input_are_sorted_by_id(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    for index, names in enumerate((["c", "a"], ["b", "a"])):
        with folder.writer(index, 2) as writer:
            for name in names:
                writer.append(Dropped(id=name, reason="x"))
    with pytest.raises(DataError, match="not complete"):
        shards.input_rows(folder, Dropped)
    shards.finish(folder, context(tmp_path, time), part())
    assert [row.id for row in shards.input_rows(folder, Dropped)] == ["a", "b", "c"]


def test_an_empty_input_is_an_error(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    shards.finish(folder, context(tmp_path, time), part())
    with pytest.raises(DataError, match="no rows"):
        shards.input_rows(folder, Dropped)


def test_pruned_rows_are_told_from_none(tmp_path: Path, folder: Folder, time: StubTime) -> None:
    shards.finish(folder, context(tmp_path, time), part())
    manifest = folder.manifest()
    assert manifest is not None
    folder.write("manifest.json", manifest.model_copy(update={"pruned": True}).model_dump_json().encode())
    with pytest.raises(DataError, match="retention"):
        shards.input_rows(folder, Dropped)
