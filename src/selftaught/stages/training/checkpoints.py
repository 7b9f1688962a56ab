"""Checkpoints that a killed training resumes from: all of one or nothing.

A checkpoint is written to a folder whose name says so, every file is synced, `complete.json` comes last with
the size and hash of each, and only then the folder gets its final name. It is believed when all of that holds,
so a kill at any moment leaves the one before. (transformers' own resume takes the highest number it finds.)
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from selftaught.artifacts import FileEntry, storage_errors, sync_folder, write_atomically

MARKER = "complete.json"
UNFINISHED = "unfinished-"
FINISHED = "step-"
KEPT = 2
"""Checkpoints kept: the last, and the one before in case the last is damaged on disk."""


class Marker(BaseModel):
    """Written last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """Of what the training's result depends on: a checkpoint of another training is never resumed from."""
    step: int
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A complete one."""

    path: Path
    marker: Marker

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.marker.step

    @property
    def names(self) -> frozenset[str]:
        """Its files."""
        return frozenset(entry.name for entry in self.marker.files)

    def intact(self, names: Collection[str]) -> bool:
        """Whether these files are there as they were written."""
        entries = {entry.name: entry for entry in self.marker.files}
        return all(name in entries and file_entry(self.path / name) == entries[name] for name in names)


def begin(work: Path, step: int) -> Path:
    """An empty folder to write a checkpoint's files to."""
    with storage_errors(str(work)):
        path = work / f"{UNFINISHED}{step:08d}"
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
    return path


def finish(unfinished: Path, key: str, step: int, others: Collection[FileEntry] = ()) -> Checkpoint:
    """Make what was written a checkpoint, and drop older ones. `others` are files that lie on other machines."""
    work = unfinished.parent
    with storage_errors(str(work)):
        entries = {entry.name: entry for entry in others}
        entries |= {path.name: synced_entry(path) for path in unfinished.iterdir() if path.name not in entries}
        marker = Marker(key=key, step=step, files=tuple(entries[name] for name in sorted(entries)))
        write_atomically(unfinished / MARKER, marker.model_dump_json(indent=1).encode())
        final = work / f"{FINISHED}{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        unfinished.rename(final)
        sync_folder(work)
        for older in _finished(work)[KEPT:]:
            remove_folder(older)
    return Checkpoint(final, marker)


def found(work: Path, key: str) -> list[Checkpoint]:
    """Finished checkpoints of a training, the last first; only their markers are looked at."""
    read = [_read(path) for path in _finished(work)]
    return [checkpoint for checkpoint in read if checkpoint is not None and checkpoint.marker.key == key]


def clear(work: Path, keep: Checkpoint | None) -> None:
    """Remove everything in the working folder but one checkpoint."""
    if work.is_dir():
        with storage_errors(str(work)):
            for path in work.iterdir():
                if keep is None or path != keep.path:
                    remove_folder(path) if path.is_dir() else path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill halfway leaves nothing that looks complete."""
    with contextlib.suppress(FileNotFoundError):
        (path / MARKER).unlink()
    shutil.rmtree(path)


def file_entry(path: Path) -> FileEntry | None:
    """Name, size and hash of a file; nothing if it is not there."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileEntry(name=path.name, bytes=file.tell(), sha256=digest)
    except OSError:
        return None


def synced_entry(path: Path) -> FileEntry:
    """The same after making the file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    entry = file_entry(path)
    if entry is None:
        raise FileNotFoundError(path)
    return entry


def folder_hash(entries: tuple[FileEntry, ...]) -> str:
    """One hash over the names and hashes of files: what `Checkpoint.sha256` in a result holds."""
    lines = sorted((entry.name, entry.sha256) for entry in entries)
    return hashlib.sha256(json.dumps(lines, separators=(",", ":")).encode()).hexdigest()


def _read(path: Path) -> Checkpoint | None:
    try:
        return Checkpoint(path, Marker.model_validate_json((path / MARKER).read_bytes()))
    except (OSError, ValidationError):
        return None


def _finished(work: Path) -> list[Path]:
    """Folders with a final name, the highest step first."""
    if not work.is_dir():
        return []
    return sorted((path for path in work.iterdir() if path.name.startswith(FINISHED)), reverse=True)
