"""Where a training works: beside its output on a file system, in a local scratch folder for an object store."""

from pathlib import Path

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

    def newest(self, key: str) -> checkpoints.Checkpoint | None:
        """The last usable checkpoint, fetched first if need be; everything else in the folder is cleared away."""
        if self._remote:
            self._fetch()
        found = checkpoints.newest(self.local, key)
        checkpoints.clear(self.local, found)
        return found

    def checkpoint(self, step: int, rank: int) -> Path:
        """Folder of a checkpoint as a process sees it."""
        path = self.local / f"{checkpoints.FINISHED}{step:08d}"
        if self._remote and rank > 0 and not path.exists():
            self._fetch()
        return path

    def keep(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Copy a finished checkpoint to the store, its marker last."""
        if not self._remote:
            return
        there = self.output.child(WORK)
        name = checkpoint.path.name
        for entry in checkpoint.marker.files:
            there.upload(checkpoint.path / entry.name, f"{name}/{entry.name}")
        there.upload(checkpoint.path / checkpoints.MARKER, f"{name}/{checkpoints.MARKER}")
        for other in there.names():
            if other.startswith(checkpoints.FINISHED) and other != name:
                there.delete(other)

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

    def _fetch(self) -> None:
        there = self.output.child(WORK)
        for name in there.names():
            target = self.local / name
            if not name.startswith(checkpoints.FINISHED) or target.exists():
                continue
            names = there.child(name).names()
            if checkpoints.MARKER in names:
                for file in [*(other for other in names if other != checkpoints.MARKER), checkpoints.MARKER]:
                    there.download(f"{name}/{file}", target / file)
