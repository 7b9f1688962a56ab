"""Checkpoints survive a kill at any line of the code that writes them, and damage on disk."""

import os
import random
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught import artifacts
from selftaught.stages.training import checkpoints

KEY = "k" * 64
WATCHED = (checkpoints.__file__, artifacts.__file__)


def write(work: Path, step: int) -> checkpoints.Checkpoint:
    path = checkpoints.begin(work, step)
    (path / "rank-00000.safetensors").write_bytes(random.Random(step).randbytes(1000))
    (path / "state.json").write_text(f'{{"step": {step}}}')
    return checkpoints.finish(path, KEY, step)


def newest(work: Path, key: str = KEY) -> checkpoints.Checkpoint | None:
    """What a training would go on from."""
    return next((found for found in checkpoints.found(work, key) if found.intact(found.names)), None)


def sound(checkpoint: checkpoints.Checkpoint | None) -> int:
    """The step of a checkpoint whose content is really that of its step; 0 for none."""
    if checkpoint is None:
        return 0
    tensors = (checkpoint.path / "rank-00000.safetensors").read_bytes()
    assert tensors == random.Random(checkpoint.step).randbytes(1000)
    assert (checkpoint.path / "state.json").read_text() == f'{{"step": {checkpoint.step}}}'
    return checkpoint.step


def killed_at_line(number: int, work: Path, step: int) -> bool:
    """Write a checkpoint in a child that vanishes at the n-th line it executes. False if it got through."""
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os._exit(9)
            return trace

        sys.settrace(trace)
        write(work, step)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_at_any_line_leaves_the_checkpoint_before_or_the_new_one(tmp_path: Path) -> None:
    number, seen = 1, set()
    while True:
        work = tmp_path / str(number)
        for step in (2, 4):
            write(work, step)
        if not killed_at_line(number, work, 6):
            break
        step = sound(newest(work))
        assert step in (4, 6)
        seen.add(step)
        checkpoints.clear(work, newest(work))
        assert [path.name for path in work.iterdir()] == [f"step-{step:08d}"]
        write(work, 8)
        assert sound(newest(work)) == 8
        number += 1
    assert number > 60
    assert seen == {4, 6}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    work = tmp_path_factory.mktemp("work")
    write(work, 2)
    last = write(work, 4)
    path = data.draw(st.sampled_from(sorted(last.path.iterdir())))
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "grow", "delete", "empty"])):
        case "flip":
            position = data.draw(st.integers(0, len(content) - 1))
            content[position] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
        case "cut":
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "grow":
            path.write_bytes(content + b"x")
        case "delete":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
    found = sound(newest(work))
    # Damage to the marker that leaves it meaning the same (white space, say) is none.
    assert found == 2 or (found == 4 and path.name == checkpoints.MARKER)


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def test_a_checkpoint_of_another_training_is_not_found(tmp_path: Path) -> None:
    write(tmp_path, 2)
    assert newest(tmp_path, "other") is None
    assert newest(tmp_path / "absent") is None


def test_files_of_other_machines_are_in_the_marker(tmp_path: Path) -> None:
    path = checkpoints.begin(tmp_path, 2)
    (path / "state.json").write_text("{}")
    other = artifacts.FileEntry(name="rank-00001.safetensors", bytes=3, sha256="0" * 64)
    found = checkpoints.finish(path, KEY, 2, [other])
    assert found.names == {"state.json", "rank-00001.safetensors"}
    assert found.intact(["state.json"])
    assert not found.intact(["rank-00001.safetensors"])
    assert not found.intact(["rank-00002.safetensors"])


def test_what_is_left_of_an_unfinished_one_is_written_over(tmp_path: Path) -> None:
    (checkpoints.begin(tmp_path, 2) / "left.safetensors").write_bytes(b"old")
    assert {entry.name for entry in write(tmp_path, 2).marker.files} == {"rank-00000.safetensors", "state.json"}


def test_the_hash_of_a_folder_is_that_of_its_names_and_contents() -> None:
    one = artifacts.FileEntry(name="a", bytes=1, sha256="0" * 64)
    other = artifacts.FileEntry(name="b", bytes=1, sha256="1" * 64)
    swapped = (one.model_copy(update={"name": "b"}), other.model_copy(update={"name": "a"}))
    assert checkpoints.folder_hash((one, other)) == checkpoints.folder_hash((other, one))
    assert checkpoints.folder_hash((one, other)) != checkpoints.folder_hash(swapped)
    assert len(checkpoints.folder_hash(())) == 64
