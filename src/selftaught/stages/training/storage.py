"""Where a training works: beside its output on a file system, in a local scratch folder for an object store."""

from collections.abc import Collection
from pathlib import Path

from selftaught.api.results import Checkpoint
from selftaught.artifacts import Folder
from selftaught.stages.training import checkpoints

WORK = ".work"


class WorkFolder:
    """The working folder of an output, and its copy in the store when the store is not a file system."""

    def __init__(self, output: Folder, scratch: Path) -> None:
        self.output = output
        path = output.local_path
        self._remote = path is None
        self._root = scratch if path is None else path
        self.local = self._root / WORK

    def found(self, key: str) -> list[checkpoints.Checkpoint]:
        """Finished checkpoints of a training, the last first; from an object store their markers are fetched."""
        if self._remote:
            there = self.output.child(WORK)
            for name in there.names():
                if name.startswith(checkpoints.FINISHED) and checkpoints.MARKER in there.child(name).names():
                    there.download(f"{name}/{checkpoints.MARKER}", self.local / name / checkpoints.MARKER)
        return checkpoints.found(self.local, key)

    def ready(self, checkpoint: checkpoints.Checkpoint, names: Collection[str]) -> bool:
        """Whether these files of a checkpoint are here, as they were written; fetches them if need be."""
        if not checkpoint.names.issuperset(names):
            return False
        if self._remote:
            there = self.output.child(f"{WORK}/{checkpoint.path.name}")
            for name in names:
                if not (checkpoint.path / name).exists() and there.exists(name):
                    there.download(name, checkpoint.path / name)
        return checkpoint.intact(names)

    def keep_file(self, path: Path, step: int) -> None:
        """Copy a file of a checkpoint that is being written to the store."""
        if self._remote:
            self.output.upload(path, f"{WORK}/{checkpoints.FINISHED}{step:08d}/{path.name}")

    def keep(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Copy what makes a checkpoint complete to the store, its marker last; drop the others there."""
        if not self._remote:
            return
        there = self.output.child(WORK)
        self.keep_file(checkpoint.path / checkpoints.MARKER, checkpoint.step)
        for name in there.names():
            if name.startswith(checkpoints.FINISHED) and name != checkpoint.path.name:
                there.delete(name)

    def has(self, candidate: Checkpoint) -> bool:
        """Whether a folder of weights is there as it was written (in an object store: whether it is there)."""
        name = candidate.uri.rsplit("/", 1)[-1]
        if self._remote:
            return bool(self.output.child(name).names())
        folder = self.candidate(name)
        entries = [checkpoints.file_entry(path) for path in folder.iterdir()] if folder.is_dir() else []
        return checkpoints.folder_hash(tuple(entry for entry in entries if entry)) == candidate.sha256

    def candidate(self, name: str) -> Path:
        """Where a folder of weights is written."""
        return self._root / name

    def keep_candidate(self, name: str) -> None:
        """Copy a folder of weights to the store."""
        if self._remote:
            for path in sorted((self._root / name).iterdir()):
                self.output.upload(path, f"{name}/{path.name}")

    def clear(self) -> None:
        """Remove all working state."""
        checkpoints.clear(self.local, None)
        if self.local.is_dir():
            self.local.rmdir()
        if self._remote:
            self.output.delete(WORK)
