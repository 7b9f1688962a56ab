"""A real training tells its progress to a real server: by transformers' own callback, and by the stage itself."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

import tiny_llama
import training_world
from progress_world import ProgressWorld, eventually, progress_world
from selftaught.api.judging import Parallelism, Precision, Training
from selftaught.api.references import ModelSource
from selftaught.api.stage_config import TrainConfig
from selftaught.artifacts import Store
from selftaught.stages import train
from selftaught_operator.reports import AttemptPod, ProgressBoard, Report

STEPS = 6
SETTINGS = Training(
    learning_rate="3e-3",
    warmup_steps=2,
    epochs=2,
    batch_size=8,
    micro_batch_size=4,
    max_length=120,
    precision=Precision.FP32,
    gradient_checkpointing=False,
)


@dataclass
class RecordingBoard(ProgressBoard):
    """Keeps every report."""

    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def take(self, pod: AttemptPod, pod_uid: str, report: Report, now: datetime) -> bool:
        self.reports.append(report)
        return super().take(pod, pod_uid, report, now)

    def of_stage(self) -> list[Report]:
        return [report for report in self.reports if report.own]

    def of_callback(self) -> list[Report]:
        return [report for report in self.reports if not report.own]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    tiny_llama.build(folder / "claim" / "seed", seed=0)
    rng = random.Random(1)
    examples = [training_world.example(number, rng) for number in range(24)]
    training_world.write_examples(Store(folder), "pvc://claim/examples", examples)
    return folder


@pytest.fixture
def board() -> RecordingBoard:
    return RecordingBoard()


@pytest.fixture
def here(tmp_path: Path, board: RecordingBoard) -> Iterator[ProgressWorld]:
    with progress_world(tmp_path) as world:
        world.stop()
        world.board = board
        world.start()
        yield world


def config(output: str, processes: int = 1) -> TrainConfig:
    return TrainConfig(
        run="team/judge",
        iteration=1,
        key="a" * 64,
        output=f"pvc://claim/{output}",
        model=ModelSource(uri="pvc://claim/seed"),
        examples="pvc://claim/examples",
        training=SETTINGS.model_copy(update={"parallelism": Parallelism(processes_per_node=processes)}),
    )


def set_variables(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def test_the_callback_reports_by_itself(
    here: ProgressWorld, board: RecordingBoard, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, here.environment)
    train.run(config("by-callback"), training_world.context(volumes, training_world.RecordedProgress()))
    assert eventually(lambda: len(board.reports) == 2)
    assert [report.fraction for report in board.reports] == [0.0, 1.0]
    assert not board.of_stage()
    told = here.progress()
    assert told is not None
    assert told.fraction == 1.0


def test_stage_and_callback_tell_of_the_same_pod(
    here: ProgressWorld, board: RecordingBoard, volumes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(config("together", processes=2).model_dump_json(exclude_none=True), "utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "selftaught", "stage", "train", "--config", str(path)],
        env={**os.environ, **here.environment, "SELFTAUGHT_VOLUMES": str(volumes), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    tokens = records[-1]["result"]["usage"]["outputTokens"]
    assert [report.fraction for report in board.of_callback()] == [0.0, 1.0]
    assert [report.done for report in board.of_stage()] == [1, STEPS]  # by one process alone
    told = here.progress()
    assert told is not None
    assert (told.fraction, told.output_tokens) == (1.0, tokens)
    assert told.time >= datetime.fromisoformat(records[0]["time"])
    assert "progress" not in ended.stderr


def test_a_silent_server_holds_no_step_up(here: ProgressWorld, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # accepts connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        url = f"https://localhost:{silent.getsockname()[1]}/progress"
        set_variables(monkeypatch, {**here.environment, "KUBEFLOW_TRAINER_SERVER_URL": url})
        progress = training_world.RecordedProgress()
        began = time.monotonic()
        train.run(config("silent"), training_world.context(volumes, progress))
        assert time.monotonic() - began < 5.0 * STEPS / 2  # the callback waits five seconds for each answer
    assert len(progress.updates) == STEPS


def test_a_training_that_trusts_nobody_trains(
    here: ProgressWorld, board: RecordingBoard, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, here.environment)
    here.ca_file.unlink()
    progress = training_world.RecordedProgress()
    train.run(config("distrustful"), training_world.context(volumes, progress))
    assert len(progress.updates) == STEPS
    assert not board.reports
