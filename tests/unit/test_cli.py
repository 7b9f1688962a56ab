"""The command line: one-line errors, exit codes, and nothing heavy before it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from builders import a_manifest, a_run, observed
from selftaught.api.results import Stage
from selftaught.api.status import IterationDecision, IterationStatus, RunStatus
from selftaught.local.workdir import Workdir
from selftaught.loop.configs import stage_config


def selftaught(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selftaught", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["run", "absent.yaml"], 64, "absent.yaml: no such file; check the path", id="no manifest"),
        pytest.param(["validate", "absent.yaml"], 64, "no such file", id="nothing to validate"),
        pytest.param(["estimate", "absent.yaml"], 64, "no such file", id="nothing to estimate"),
        pytest.param(["status", "absent"], 64, "no run 'absent'", id="no such run"),
        pytest.param(["status", sys.executable], 64, "no run", id="a file for a run"),
        pytest.param(["approve", "absent", "--iteration", "1"], 64, "no run 'absent'", id="nothing to approve"),
        pytest.param(["stage", "bake", "--config", "x"], 64, "there is no stage 'bake'", id="no such stage"),
        pytest.param(["stage", "judge", "--config", "x"], 64, "cannot read x", id="no config"),
    ],
)
def test_an_error_is_one_line_that_names_the_cause(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    ended = selftaught(*arguments, folder=tmp_path)
    assert ended.returncode == code
    said = ended.stdout + ended.stderr
    assert message in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2


def test_only_what_awaits_approval_can_be_approved(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "demo")
    workdir.create()
    waiting = IterationStatus(index=1, decision=IterationDecision.AWAITING_APPROVAL)
    workdir.write_status(a_run().model_copy(update={"status": RunStatus(iterations=(waiting,))}))

    refused = selftaught("approve", "demo", "--iteration", "2", folder=tmp_path)
    agreed = selftaught("approve", "demo", "--iteration", "1", "--by", "jane", folder=tmp_path)

    assert refused.returncode == 64
    assert "iteration 1 awaits approval" in refused.stderr
    assert agreed.returncode == 0
    assert [(approval.iteration, approval.by) for approval in workdir.read_approvals()] == [(1, "jane")]
    shown = selftaught("status", "demo", folder=tmp_path)
    assert "selftaught approve demo --iteration 1" in shown.stdout


def test_a_path_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ended = selftaught("microworld", "file/world", folder=tmp_path)
    assert ended.returncode == 75
    assert ended.stderr.startswith("error: cannot use")
    assert "Traceback" not in ended.stderr


def test_validate_explains_a_wrong_field(tmp_path: Path) -> None:
    manifest = a_manifest(judging={"samplesPerPiar": 3})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(manifest))
    ended = selftaught("validate", "run.yaml", folder=tmp_path)
    assert ended.returncode == 64
    assert "spec.judging.samplesPerPiar" in ended.stdout
    assert "samplesPerPair" in ended.stdout


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(b"", "the sources have no rows", id="an empty pool"),
        pytest.param(b'{"instruction": "a"}\n{"instr\n', "line 2", id="an unreadable row"),
    ],
)
def test_a_stage_that_can_never_work_says_so_and_exits_with_the_reserved_code(
    tmp_path: Path, rows: bytes, message: str
) -> None:
    volumes = tmp_path / "volumes"
    (volumes / "data").mkdir(parents=True)
    (volumes / "data/chat.jsonl").write_bytes(rows)
    run = a_run(
        instructions={
            "sources": [{"name": "chat", "uri": "pvc://data/chat.jsonl"}],
            "selection": {"strategy": "All"},
            "decontaminate": False,
        }
    )
    config = stage_config(run, Stage.SELECT, 0, 1, observed())
    (tmp_path / "select.json").write_text(config.model_dump_json())

    ended = selftaught(
        "stage",
        "select",
        "--config",
        "select.json",
        folder=tmp_path,
        SELFTAUGHT_VOLUMES=str(volumes),
        SELFTAUGHT_TERMINATION_LOG=str(tmp_path / "termination"),
    )

    assert ended.returncode == 64
    record = json.loads(ended.stdout.splitlines()[-1])
    assert record["type"] == "failure"
    assert record["failure"]["permanent"] is True
    assert message in record["failure"]["message"]
    assert json.loads((tmp_path / "termination").read_text()) == record


@pytest.mark.parametrize("module", ["selftaught.cli", "selftaught.api.run", "selftaught.local.runner"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    program = (
        f"import sys, {module}; "
        "heavy = {'torch', 'vllm', 'trl', 'transformers', 'datasets', 'pyarrow', 'kubernetes', 'kopf'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


def test_the_operator_folder_never_hides_the_standard_library() -> None:
    assert not (Path(__file__).parents[2] / "operator/__init__.py").exists()
