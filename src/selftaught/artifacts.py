"""Where data lies, and what makes an artifact complete.

An artifact is a folder: data first, `manifest.json` last. The manifest's presence means complete; it holds
the size and hash of every file and the stage's result, so the manifests of a run are its ledger. On a file
system rows are appended to one file per shard; an object store cannot append, so there a shard writes parts.
"""

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError

from selftaught.api.results import StageResult
from selftaught.errors import DataError, ManifestError, StorageError
from selftaught.records import Record

MANIFEST = "manifest.json"
ROWS = "rows"
SYNC_SECONDS = 1.0
PART_SECONDS = 30.0

R = TypeVar("R", bound=Record)


class FileEntry(BaseModel):
    """A file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Written last; the ledger entry of a finished stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: StageResult
    files: tuple[FileEntry, ...]
    start_time: datetime
    completion_time: datetime
    pruned: bool = False
    """Whether retention has deleted the data; the result stays known."""


class Store:
    """Opens folders by URI. Volumes are folders below `volumes`, named by their claims."""

    def __init__(self, volumes: Path) -> None:
        self._volumes = volumes

    def folder(self, uri: str) -> "Folder":
        """The folder (or file's parent-less path) that a URI names.

        Raises ManifestError for a scheme that is not a file tree.
        """
        scheme, _, rest = uri.partition("://")
        match scheme:
            case "file":
                return Folder(fsspec.filesystem("file"), os.path.abspath(rest), uri)
            case "pvc":
                return Folder(fsspec.filesystem("file"), str(self._inside(rest)), uri)
            case "s3" | "gs":
                try:
                    return Folder(fsspec.filesystem(scheme), rest.rstrip("/"), uri)
                except ImportError as error:
                    raise ManifestError(f"{uri} needs the extra selftaught[{scheme}]: {error}") from error
        raise ManifestError(f"{uri} is not a folder in a store; use pvc://, s3://, gs:// or file://")

    def _inside(self, rest: str) -> Path:
        path = Path(os.path.normpath(self._volumes / rest))
        if not path.is_relative_to(self._volumes) or path == self._volumes:
            raise ManifestError(f"pvc://{rest} must name a claim and stay inside it")
        return path


class Folder:
    """A folder on a file system or in an object store."""

    def __init__(self, fs: Any, path: str, uri: str) -> None:
        self._fs = fs
        self._path = path
        self.uri = uri.rstrip("/")

    @property
    def local_path(self) -> Path | None:
        """Its path when it lies on a file system."""
        return Path(self._path) if "file" in self._fs.protocol else None

    def child(self, name: str) -> "Folder":
        """A folder (or file) below."""
        return Folder(self._fs, f"{self._path}/{name}", f"{self.uri}/{name}")

    def names(self) -> list[str]:
        """Names directly below, sorted; none if the folder is absent."""
        try:
            return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in self._fs.ls(self._path, detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @property
    def is_file(self) -> bool:
        """Whether the URI names a file."""
        with storage_errors(self.uri):
            return bool(self._fs.isfile(self._path))

    @contextmanager
    def open(self, name: str = "") -> Iterator[IO[bytes]]:
        """A file below (or the file that the URI names), for reading. Raises FileNotFoundError."""
        with storage_errors(self.uri), self._fs.open(f"{self._path}/{name}" if name else self._path, "rb") as file:
            yield file

    def exists(self, name: str = "") -> bool:
        """Whether it (or a name below it) exists."""
        return bool(self._fs.exists(f"{self._path}/{name}" if name else self._path))

    def read(self, name: str) -> bytes:
        """Content of a file below. Raises FileNotFoundError."""
        with storage_errors(self.uri):
            data = self._fs.cat_file(f"{self._path}/{name}")
        return bytes(data)

    def write(self, name: str, data: bytes) -> None:
        """Write a file below, whole or not at all."""
        local = self.local_path
        with storage_errors(self.uri):
            if local is None:
                self._fs.pipe_file(f"{self._path}/{name}", data)
            else:
                write_atomically(local / name, data)

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to a file below."""
        with storage_errors(self.uri):
            self._fs.makedirs(f"{self._path}/{name}".rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(path), f"{self._path}/{name}")

    def download(self, name: str, path: Path) -> None:
        """Copy a file below to a local file. Raises FileNotFoundError."""
        with storage_errors(self.uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(f"{self._path}/{name}", str(path))

    def files(self) -> dict[str, int]:
        """Names (with slashes) and sizes of all files below."""
        with storage_errors(self.uri):
            found = self._fs.find(self._path, detail=True)
        return {path[len(self._path) + 1 :]: int(entry["size"]) for path, entry in sorted(found.items())}

    def delete(self, name: str) -> None:
        """Delete a file or folder below, if it is there."""
        with storage_errors(self.uri):
            if self.exists(name):
                self._fs.rm(f"{self._path}/{name}", recursive=True)

    def manifest(self) -> Manifest | None:
        """The manifest, if the artifact is complete. Raises DataError if it is unreadable."""
        try:
            return Manifest.model_validate_json(self.read(MANIFEST))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise DataError(
                f"{self.uri}/{MANIFEST} is damaged; delete it to redo the stage ({error.error_count()} errors)"
            ) from error

    def remove(self) -> None:
        """Delete the folder, if it is there."""
        with storage_errors(self.uri):
            if self.exists():
                self._fs.rm(self._path, recursive=True)

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Whole lines of a text file with their numbers from 1; a last line without newline is left out."""
        with storage_errors(self.uri), self._fs.open(f"{self._path}/{name}", "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield number, line.decode("utf-8")

    def rows(self, kind: type[R], prefix: str = ROWS) -> Iterator[R]:
        """Rows of all shards, each id once, in no particular order. Raises DataError naming file and line."""
        seen: set[str] = set()
        for name in self.names():
            if not (name.startswith(f"{prefix}-") and name.endswith(".jsonl")):
                continue
            for number, line in self.lines(name):
                try:
                    row = kind.model_validate_json(line)
                except ValidationError as error:
                    raise DataError(
                        f"{self.uri}/{name} line {number} is not a {kind.__name__}: {error.errors()[0]['msg']}"
                    ) from error
                identity = str(getattr(row, "id", None) or f"{name}:{number}")
                if identity not in seen:
                    seen.add(identity)
                    yield row

    def writer(self, shard: int, shards: int, prefix: str = ROWS) -> "RowWriter":
        """Appends rows of one shard."""
        name = f"{prefix}-{shard:05d}-of-{shards:05d}"
        local = self.local_path
        if local is not None:
            return FileRowWriter(local / f"{name}.jsonl")
        return PartRowWriter(self, name)

    def file_entries(self) -> tuple[FileEntry, ...]:
        """All files below with sizes and hashes, manifests left out."""
        found = []
        with storage_errors(self.uri):
            for path in sorted(self._fs.find(self._path)):
                name = path[len(self._path) + 1 :]
                if name == MANIFEST or name.startswith("."):
                    continue
                digest = hashlib.sha256()
                size = 0
                with self._fs.open(path, "rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
                        size += len(block)
                found.append(FileEntry(name=name, bytes=size, sha256=digest.hexdigest()))
        return tuple(found)

    def complete(self, result: StageResult, started: datetime, now: datetime) -> Manifest:
        """Write the manifest: the artifact is complete from here on."""
        manifest = Manifest(result=result, files=self.file_entries(), start_time=started, completion_time=now)
        self.write(MANIFEST, manifest.model_dump_json(indent=1, exclude_defaults=True).encode())
        return manifest


class RowWriter:
    """Appends rows so that a kill loses at most the last moment's."""

    def append(self, row: Record) -> None:
        """Add a row."""
        raise NotImplementedError

    def close(self) -> None:
        """Make everything durable."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileRowWriter(RowWriter):
    """One growing file; a half line left by a kill is cut off first."""

    def __init__(self, path: Path) -> None:
        with storage_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
            self._file = path.open("ab")
            cut_half_line(path)
        self._synced = time.monotonic()

    def append(self, row: Record) -> None:
        with storage_errors(str(self._path)):
            self._file.write(row.model_dump_json(exclude_none=True).encode() + b"\n")
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def close(self) -> None:
        if not self._file.closed:
            with storage_errors(str(self._path)):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()


class PartRowWriter(RowWriter):
    """Parts of a shard, for stores that cannot append."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._part = sum(1 for other in folder.names() if other.startswith(f"{name}."))
        self._lines: list[bytes] = []
        self._flushed = time.monotonic()

    def append(self, row: Record) -> None:
        self._lines.append(row.model_dump_json(exclude_none=True).encode() + b"\n")
        if time.monotonic() - self._flushed > PART_SECONDS:
            self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._lines:
            self._folder.write(f"{self._name}.{self._part:05d}.jsonl", b"".join(self._lines))
            self._part += 1
            self._lines = []
        self._flushed = time.monotonic()


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file, whole or not at all, durable when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: in two pods that share a volume it may be the same.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut_half_line(path: Path) -> None:
    """Cut off what follows the last newline."""
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb+") as file:
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < size:
            file.truncate(position)


def fingerprint(value: object) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn failures of the file system or the store into StorageError; FileNotFoundError passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left for {where}; free some, then start again: finished rows are kept"
            ) from error
        raise StorageError(f"cannot use {where}: {error.strerror or error}") from error
