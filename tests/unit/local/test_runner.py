"""What the local runner decides by itself: prompts, adoption of earlier calls, kinds of failures."""

from pathlib import Path
from typing import Any

import pytest

from builders import a_run, at
from selftaught.api.outcomes import FailureRecord
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.results import Stage, StageFailure
from selftaught.api.run import SelfTaughtRun
from selftaught.api.status import Condition, ConditionStatus, ConditionType, RunStatus
from selftaught.errors import DataError, Interrupted, ManifestError, SelfTaughtError, StorageError
from selftaught.judging.prompts import BUILT_IN
from selftaught.local.runner import adopt, failure_of, progress_of, resolve_prompts, same_run, same_work, with_prompts
from selftaught.local.workdir import Workdir
from selftaught.loop.observed import FailureKind
from selftaught.manifests import RunManifest
from selftaught.stages.program import describe_failure
from selftaught.stages.reporting import ProgressRecord

FAILED = RunStatus(
    restarts=3,
    conditions=(
        Condition(type=ConditionType.FAILED, status=ConditionStatus.TRUE, last_transition_time=at(0), reason="Data"),
    ),
)
JUDGE = "{{instruction}} {{response_a}} {{response_b}}"


def stored(status: RunStatus, **spec: Any) -> SelfTaughtRun:
    run = adopt(a_run(**spec), None, at(0))
    return run.model_copy(update={"status": status})


def test_the_status_of_an_earlier_call_is_carried_on() -> None:
    adopted = adopt(a_run(), stored(RunStatus(restarts=2)), at(9))
    assert adopted.status.restarts == 2
    assert RETRY_ANNOTATION not in adopted.metadata.annotations


def test_calling_again_retries_a_failed_run() -> None:
    assert adopt(a_run(), stored(FAILED), at(9)).metadata.annotations[RETRY_ANNOTATION] == at(9).isoformat()


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        pytest.param({"iterations": 4}, True, id="more iterations"),
        pytest.param({"budget": {"generatedTokens": 10}}, True, id="a budget"),
        pytest.param({"judging": {"samplesPerPair": 3}}, False, id="what determines results"),
    ],
)
def test_a_changed_manifest_keeps_the_status_only_while_its_results_hold(spec: dict[str, Any], kept: bool) -> None:
    before = stored(RunStatus(restarts=2))
    adopted = adopt(a_run(**spec), before, at(9))
    assert adopted.status.restarts == (2 if kept else 0)
    assert adopted.metadata.generation == before.metadata.generation + 1


def test_a_changed_prompt_changes_the_work_though_the_spec_stays() -> None:
    before = with_prompts(a_run(), BUILT_IN)
    assert same_work(before, with_prompts(a_run(), BUILT_IN))
    assert not same_work(before, with_prompts(a_run(), BUILT_IN.model_copy(update={"judge": JUDGE})))


def test_a_folder_belongs_to_one_run() -> None:
    assert same_run(a_run(name="one"), a_run(name="one", iterations=9))
    assert not same_run(a_run(name="one"), a_run(name="other"))


def test_prompts_come_from_the_config_map_beside_the_run(tmp_path: Path) -> None:
    run = a_run(prompts={"configMapRef": {"name": "mine"}})
    texts = resolve_prompts(RunManifest(run, {"mine": {"judge.txt": JUDGE}}), Workdir(tmp_path))
    assert texts.judge == JUDGE
    assert "{{instruction}}" in texts.respond


def test_prompts_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "volumes/prompts").mkdir(parents=True)
    (tmp_path / "volumes/prompts/judge.txt").write_text(JUDGE)
    run = a_run(prompts={"uri": "pvc://prompts"})
    assert resolve_prompts(RunManifest(run), Workdir(tmp_path)).judge == JUDGE


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        pytest.param({"configMapRef": {"name": "absent"}}, "no ConfigMap 'absent'", id="no such ConfigMap"),
        pytest.param({"uri": "pvc://empty"}, "has no .txt files", id="an empty folder"),
    ],
)
def test_missing_prompts_are_told(tmp_path: Path, prompts: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        resolve_prompts(RunManifest(a_run(prompts=prompts)), Workdir(tmp_path))


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        pytest.param(DataError("x"), FailureKind.PERMANENT, 64, id="can never work"),
        pytest.param(StorageError("x"), FailureKind.PROGRAM, 75, id="may work next time"),
        pytest.param(Interrupted("x"), FailureKind.INTERRUPTED, 143, id="stopped"),
        pytest.param(RuntimeError("x"), FailureKind.PROGRAM, 75, id="a bug"),
    ],
)
def test_how_a_stage_ended_decides_what_follows(
    error: SelfTaughtError | RuntimeError, kind: FailureKind, code: int
) -> None:
    record = describe_failure(error)
    assert record.exit_code == code
    assert failure_of(record).kind is kind


def test_a_failure_is_told_in_one_line() -> None:
    record = describe_failure(RuntimeError("first\n  second"))
    assert record.failure.message == "RuntimeError: first second; run with --debug for the traceback"


def test_permanent_exit_codes_are_permanent_whatever_the_reason() -> None:
    failure = StageFailure(reason="Other", message="x", permanent=False)
    assert failure_of(FailureRecord(failure=failure, exit_code=64)).kind is FailureKind.PERMANENT


@pytest.mark.parametrize(
    ("done", "total", "fraction"),
    [pytest.param(1, 4, 0.25, id="a quarter"), pytest.param(0, 0, 0.0, id="nothing to do")],
)
def test_progress_becomes_a_fraction(done: int, total: int, fraction: float) -> None:
    record = ProgressRecord(stage=Stage.JUDGE, iteration=1, done=done, total=total, unit="pairs", time=at(0))
    assert progress_of(record, at(1)).fraction == fraction
