"""The quick start at a smaller size, as a user runs it: the real engine, the real trainer, one manifest.

One run is killed twice on its way and must end like any other; then it is looked at from all sides.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import ConditionStatus, ConditionType, IterationDecision, Phase, StageState
from selftaught.artifacts import MANIFEST, Folder, Store
from selftaught.loop.keys import run_folder
from selftaught.records import Example, Judgment

QUICKSTART = Path(__file__).parents[2] / "manifests/examples/quickstart.yaml"
ITERATIONS = 2
TIMEOUT = 900.0


def selftaught(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "selftaught", *arguments]


def a_smaller_quickstart(folder: Path) -> Path:
    """The manifest with fewer iterations, instructions and pairs; all else is the user's."""
    config_map, run = yaml.safe_load_all(QUICKSTART.read_text())
    run["spec"]["iterations"] = ITERATIONS
    path = folder / "quickstart.yaml"
    path.write_text("\n---\n".join(json.dumps(document) for document in (config_map, run)))
    return path


def run_until(command: list[str], folder: Path, moment: str) -> None:
    """Run, and SIGKILL the runner shortly after an attempt whose name holds `moment` has started."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + TIMEOUT
    journal = folder / "attempts.jsonl"
    while child.poll() is None and time.monotonic() < deadline:
        if journal.exists() and any(moment in line for line in journal.read_text().splitlines()):
            time.sleep(1.5)
            break
        time.sleep(0.1)
    assert child.poll() is None, f"the run ended before {moment}"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    world = folder / "volumes/selftaught/microworld"
    subprocess.run(selftaught("microworld", str(world), "--size", "small"), check=True, timeout=TIMEOUT)
    command = selftaught("run", str(a_smaller_quickstart(folder)), "--workdir", str(folder))
    run_until(command, folder, "i1-judge-a1")
    run_until(command, folder, "i1-train-a1")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    (folder / "said.txt").write_text(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> SelfTaughtRun:
    return SelfTaughtRun.model_validate(yaml.safe_load((folder / "status.yaml").read_text()))


@pytest.fixture(scope="module")
def artifacts(folder: Path, run: SelfTaughtRun) -> Folder:
    return Store(folder / "volumes").folder(run_folder(run))


def accuracy(run: SelfTaughtRun, index: int) -> float:
    scores = run.status.baseline if index == 0 else run.status.iterations[index].scores
    return next(float(score.accuracy) for score in scores if score.benchmark == "test")


def test_the_judge_has_taught_itself(run: SelfTaughtRun) -> None:
    assert accuracy(run, ITERATIONS) > accuracy(run, 0) + 0.05


def test_the_status_says_complete_as_a_cluster_would(run: SelfTaughtRun) -> None:
    conditions = {condition.type: condition.status for condition in run.status.conditions}
    assert conditions[ConditionType.COMPLETE] is ConditionStatus.TRUE
    assert conditions[ConditionType.FAILED] is ConditionStatus.FALSE
    assert run.status.phase is Phase.COMPLETE
    assert run.status.summary.iteration == f"{ITERATIONS}/{ITERATIONS}"
    assert run.status.best is not None
    assert run.status.best.iteration >= 1
    assert {iteration.decision for iteration in run.status.iterations[1:]} <= {
        IterationDecision.PROMOTED,
        IterationDecision.KEPT,
    }


def test_kills_cost_no_restart_budget_and_no_finished_stage(run: SelfTaughtRun, folder: Path) -> None:
    assert run.status.restarts_counted == 0
    assert run.status.restarts >= 1, "a training that was killed while it started; judging may have ended just in time"
    entries = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    attempts = [entry["name"] for entry in entries if entry["type"] == "started"]
    repeated = {name.rsplit("-a", 1)[0] for name in attempts if not name.endswith("-a1")}
    assert repeated <= {"quickstart-i1-judge", "quickstart-i1-train"}
    for iteration in run.status.iterations:
        assert all(stage.state is StageState.SUCCEEDED for stage in iteration.stages)


def test_no_row_is_half_or_double(artifacts: Folder) -> None:
    judged = [name for name in artifacts.names() if "-judge-" in name]
    assert len(judged) == ITERATIONS
    for name in judged:
        folder = artifacts.child(name)
        assert folder.local_path is not None
        lines = [
            line for path in folder.local_path.glob("rows-*.jsonl") for line in path.read_text().split("\n") if line
        ]
        ids = [Judgment.model_validate_json(line).id for line in lines]
        assert len(ids) == len(set(ids))


def test_only_correct_judgments_are_trained_on(artifacts: Folder) -> None:
    (name,) = (name for name in artifacts.names() if name.startswith("i1-curate-"))
    (judged,) = (name for name in artifacts.names() if name.startswith("i1-judge-"))
    judgments = {row.id: row for row in artifacts.child(judged).rows(Judgment)}
    examples = list(artifacts.child(name).rows(Example))
    assert examples
    assert all(judgments[example.id].correct for example in examples)
    assert all(example.completion[0]["content"] == judgments[example.id].text for example in examples)
    verdicts = [example.verdict for example in examples]
    assert verdicts.count(verdicts[0]) * 2 == len(verdicts), "as many A as B"


def test_the_best_checkpoint_is_whole(run: SelfTaughtRun, folder: Path, artifacts: Folder) -> None:
    assert run.status.best is not None
    assert run.status.best.checkpoint is not None
    uri = run.status.best.checkpoint.uri
    local = Store(folder / "volumes").folder(uri).local_path
    assert local is not None
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= {
        path.name for path in local.iterdir()
    }
    assert not [path for path in local.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]
    manifest = artifacts.child(local.parent.name).manifest()
    assert manifest is not None
    assert manifest.result.stage is Stage.TRAIN
    assert uri in {checkpoint.uri for checkpoint in manifest.result.checkpoints}


def test_the_table_tells_accuracy_with_intervals(folder: Path, run: SelfTaughtRun) -> None:
    said = (folder / "said.txt").read_text()
    for index in range(1, ITERATIONS + 1):
        assert any(
            line.startswith(f"iteration {index} ") and f"{accuracy(run, index):.3f} (" in line
            for line in said.splitlines()
        )
    assert "Traceback" not in said


def test_calling_again_does_nothing_more(folder: Path) -> None:
    before = contents(folder)
    command = selftaught("run", str(folder / "quickstart.yaml"), "--workdir", str(folder))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert contents(folder) == before


def test_status_shows_the_same_table(folder: Path, run: SelfTaughtRun) -> None:
    ended = subprocess.run(
        selftaught("status", str(folder)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert f"{accuracy(run, 0):.3f}" in ended.stdout
    assert "Complete" in ended.stdout


def contents(folder: Path) -> dict[str, Any]:
    """Every artifact, journal and status: what must not change any more."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name in {MANIFEST, "attempts.jsonl", "status.yaml"}
    }
