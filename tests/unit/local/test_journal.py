"""The journal: what a runner that was killed finds again."""

from pathlib import Path

import pytest

from builders import a_failure, a_result, at
from selftaught.api.results import Stage
from selftaught.errors import ManifestError
from selftaught.local.journal import Journal
from selftaught.loop.observed import AttemptState, FailureKind


def started(path: Path) -> Journal:
    journal = Journal(path, at(0))
    journal.started("demo-select-a1", stage=Stage.SELECT, iteration=0, number=1, key="k", now=at(1))
    return journal


def test_what_ended_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    journal = started(path)
    journal.ended("demo-select-a1", at(5), result=a_result(Stage.SELECT, key="k"))
    journal.started("demo-generate-a1", stage=Stage.GENERATE, iteration=0, number=1, key="g", now=at(6))
    journal.ended("demo-generate-a1", at(9), failure=a_failure())

    again = Journal(path, at(100)).attempts

    assert again == journal.attempts
    assert [attempt.state for attempt in again] == [AttemptState.SUCCEEDED, AttemptState.FAILED]


def test_an_attempt_without_an_end_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    started(path)

    (attempt,) = Journal(path, at(100)).attempts

    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is not None
    assert attempt.failure.kind is FailureKind.INTERRUPTED
    assert attempt.end_time == at(100)
    assert Journal(path, at(200)).attempts == (attempt,), "the end is written, not made anew at each start"


def test_a_half_line_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    journal = started(path)
    journal.ended("demo-select-a1", at(5), result=a_result(Stage.SELECT, key="k"))
    path.write_bytes(path.read_bytes() + b'{"type":"started","na')

    assert Journal(path, at(9)).attempts == journal.attempts


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    started(path)
    path.write_bytes(b"nonsense\n" + path.read_bytes())

    with pytest.raises(ManifestError, match="line 1 is damaged; delete the file"):
        Journal(path, at(9))
