"""The folder of a local run."""

import fcntl
import os
from pathlib import Path

import pytest

from builders import a_run, an_approval, at
from selftaught import manifests
from selftaught.api.status import Phase, RunStatus
from selftaught.errors import ManifestError
from selftaught.local import workdir as workdir_module
from selftaught.local.workdir import Workdir, WorkdirBusyError


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    folder = Workdir(tmp_path / "run")
    folder.create()
    return folder


def test_the_status_is_read_as_it_was_written(workdir: Workdir) -> None:
    run = a_run().model_copy(update={"status": RunStatus(phase=Phase.RUNNING, restarts=2)})
    workdir.write_status(run)
    assert workdir.read_status() == run


def test_the_status_file_is_a_manifest(workdir: Workdir) -> None:
    workdir.write_status(a_run())
    assert workdir.status_file.read_text().startswith("apiVersion: selftaught.dev/v1alpha1\nkind: SelfTaughtRun\n")


def test_the_status_file_can_be_run_again(workdir: Workdir) -> None:
    run = a_run(training={"learningRate": "5e-4"})
    workdir.write_status(run)
    assert manifests.load([workdir.status_file]).run.spec == run.spec


def test_no_status_yet(workdir: Workdir) -> None:
    assert workdir.read_status() is None


@pytest.mark.parametrize("text", ["]", "spec: 3\n"])
def test_a_damaged_status_is_told(workdir: Workdir, text: str) -> None:
    workdir.status_file.write_text(text)
    with pytest.raises(ManifestError, match="damaged; delete it"):
        workdir.read_status()


def test_approvals_come_back_in_order(workdir: Workdir) -> None:
    first, second = an_approval(1), an_approval(2)
    workdir.add_approval(first)
    workdir.add_approval(second)
    assert workdir.read_approvals() == (first, second)


def test_two_runners_never_share_a_folder(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workdir_module, "LOCK_WAIT_SECONDS", 0.3)
    told: list[str] = []
    first = workdir.lock(lambda: None)
    try:
        with pytest.raises(WorkdirBusyError, match="--workdir"):
            workdir.lock(lambda: told.append("waiting"))
        assert told == ["waiting"]
    finally:
        os.close(first)
    os.close(workdir.lock(lambda: None))


def test_the_lock_lives_as_long_as_a_child_that_has_it(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workdir_module, "LOCK_WAIT_SECONDS", 0.3)
    first = workdir.lock(lambda: None)
    inherited = os.dup(first)
    os.close(first)
    try:
        with pytest.raises(WorkdirBusyError):
            workdir.lock(lambda: None)
    finally:
        fcntl.flock(inherited, fcntl.LOCK_UN)
        os.close(inherited)


def test_a_new_journal_begins_beside_the_old_one(workdir: Workdir) -> None:
    workdir.journal.write_text("old\n")
    workdir.set_journal_aside(at(0))
    workdir.set_journal_aside(at(1))
    assert not workdir.journal.exists()
    assert [path.read_text() for path in workdir.path.glob("attempts-until-*.jsonl")] == ["old\n"]
