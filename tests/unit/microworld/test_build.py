"""What `build` does with a folder; the training itself is in tests/engine."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from selftaught.microworld import world
from selftaught.microworld.seed import SeedSettings
from selftaught.microworld.tasks import Family


class StubTraining:
    """Stands in for `train_seed`: writes one private file and counts its calls; fails if told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(
        self,
        directory: Path,
        settings: SeedSettings,
        seed: int,
        report: Callable[[str], None],
        families: Sequence[Family],
    ) -> None:
        self.calls += 1
        directory.mkdir(exist_ok=True)
        weights = directory / "model.safetensors"
        weights.write_text(str(seed))
        weights.chmod(0o600)
        if self.fails:
            raise KeyboardInterrupt


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> StubTraining:
    stub = StubTraining()
    monkeypatch.setattr(world, "train_seed", stub)
    return stub


def build(directory: Path, seed: int = 0, size: str = "small") -> None:
    world.build(directory, size=size, seed=seed, report=lambda _: None)


def test_the_second_call_does_nothing(tmp_path: Path, training: StubTraining) -> None:
    build(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build(tmp_path)
    assert training.calls == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("seed", "size"), [pytest.param(1, "small", id="another seed"), pytest.param(0, "full", id="another size")]
)
def test_other_arguments_build_again(tmp_path: Path, training: StubTraining, seed: int, size: str) -> None:
    build(tmp_path)
    build(tmp_path, seed, size)
    assert training.calls == 2


def test_a_half_built_folder_is_built_again(tmp_path: Path, training: StubTraining) -> None:
    training.fails = True
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    training.fails = False
    build(tmp_path)
    assert training.calls == 2
    assert (tmp_path / "world.json").exists()


def test_a_broken_rebuild_leaves_no_marker(tmp_path: Path, training: StubTraining) -> None:
    build(tmp_path)
    training.fails = True
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, seed=1)
    assert not (tmp_path / "world.json").exists()


def test_files_are_readable_by_other_users(tmp_path: Path, training: StubTraining) -> None:
    build(tmp_path)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in tmp_path.rglob("*") if path.is_file())
    assert {path.name for path in (tmp_path / "prompts").iterdir()} == {"respond.txt", "modify.txt", "judge.txt"}
