import os
from pathlib import Path

import pytest

from selftaught.api.placement import Engine as EngineSettings
from selftaught.errors import ModelError
from selftaught.stages.engine_holder import EngineHolder
from stub_engine import StubEngine


class StubSwappable(StubEngine):
    """An engine that can take any model of the same family (first letter of the folder's name)."""

    def __init__(self, folder: Path, settings: EngineSettings) -> None:
        super().__init__()
        if folder.name == "bad":
            raise ModelError("bad")
        self.folder, self.settings = folder, settings
        self.broken = self.closed = self.refuses = False

    def fits(self, folder: Path, settings: EngineSettings) -> bool:
        return settings == self.settings and folder.name[0] == self.folder.name[0]

    def swap(self, folder: Path) -> None:
        self.broken = self.refuses
        if self.refuses:
            raise ModelError("half of it is loaded")
        self.folder = folder

    def close(self) -> None:
        self.closed = True


class StartedEngines:
    def __init__(self) -> None:
        self.all: list[StubSwappable] = []

    def __call__(self, folder: Path, settings: EngineSettings) -> StubSwappable:
        assert all(engine.closed for engine in self.all), "two engines at once"
        self.all.append(StubSwappable(folder, settings))
        return self.all[-1]


@pytest.fixture
def started() -> StartedEngines:
    return StartedEngines()


@pytest.fixture
def holder(started: StartedEngines) -> EngineHolder:
    return EngineHolder(started)


def model(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "model.safetensors").write_text("weights")
    return path


SETTINGS = EngineSettings()


def test_one_engine_serves_one_model_after_another(tmp_path: Path, holder: EngineHolder) -> None:
    first, second, third = (model(tmp_path, name) for name in ("m1", "m2", "m3"))
    engines = {id(holder.engine(folder, SETTINGS)) for folder in (first, first, second, third, first)}
    assert (len(engines), holder.starts, holder.swaps) == (1, 1, 3)


def test_the_same_folder_written_anew_is_loaded_anew(tmp_path: Path, holder: EngineHolder) -> None:
    folder = model(tmp_path, "m1")
    holder.engine(folder, SETTINGS)
    os.utime(folder / "model.safetensors", (1, 1))
    holder.engine(folder, SETTINGS)
    assert (holder.starts, holder.swaps) == (1, 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("x1", SETTINGS, id="other architecture"),
        pytest.param("m2", EngineSettings(max_num_seqs=3), id="other settings"),
    ],
)
def test_what_does_not_fit_gets_a_new_engine(
    tmp_path: Path, holder: EngineHolder, started: StartedEngines, name: str, settings: EngineSettings
) -> None:
    holder.engine(model(tmp_path, "m1"), SETTINGS)
    engine = holder.engine(model(tmp_path, name), settings)
    assert engine is started.all[1]
    assert (started.all[0].closed, started.all[1].folder.name, holder.swaps) == (True, name, 0)


@pytest.mark.parametrize("fault", ["broken", "refuses"])
def test_an_engine_that_failed_is_replaced(
    tmp_path: Path, holder: EngineHolder, started: StartedEngines, fault: str
) -> None:
    holder.engine(model(tmp_path, "m1"), SETTINGS)
    setattr(started.all[0], fault, True)
    holder.engine(model(tmp_path, "m2"), SETTINGS)
    assert (started.all[0].closed, started.all[1].folder.name, holder.starts, holder.swaps) == (True, "m2", 2, 0)


def test_a_broken_engine_is_replaced_for_the_same_model(
    tmp_path: Path, holder: EngineHolder, started: StartedEngines
) -> None:
    holder.engine(model(tmp_path, "m1"), SETTINGS)
    started.all[0].broken = True
    assert holder.engine(model(tmp_path, "m1"), SETTINGS) is started.all[1]


def test_a_model_that_cannot_be_served_leaves_nothing_behind(tmp_path: Path, holder: EngineHolder) -> None:
    with pytest.raises(ModelError):
        holder.engine(model(tmp_path, "bad"), SETTINGS)
    holder.close()
    assert holder.engine(model(tmp_path, "m1"), SETTINGS).active == 0


def test_closing_closes_once(tmp_path: Path, holder: EngineHolder, started: StartedEngines) -> None:
    holder.engine(model(tmp_path, "m1"), SETTINGS)
    holder.close()
    holder.close()
    assert started.all[0].closed
