"""Artifacts: whole rows, whole files, manifests last."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.results import Stage, StageResult
from selftaught.artifacts import Folder, Store, cut_half_line, fingerprint, storage_errors, write_atomically
from selftaught.errors import DataError, ManifestError, StorageError
from selftaught.records import BenchmarkPair

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pair(number: int, text: str = "better") -> BenchmarkPair:
    return BenchmarkPair(id=f"p{number}", instruction=f"do {number}", chosen=text, rejected="worse")


@pytest.fixture(params=["file", "object-store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "file":
        yield Store(tmp_path).folder("pvc://claim/artifact")
    else:
        fs = fsspec.filesystem("memory")
        yield Folder(fs, "/bucket/artifact", "s3://bucket/artifact")
        fs.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("uri", "relative"),
    [
        pytest.param("pvc://claim/a/b", "claim/a/b", id="inside"),
        pytest.param("pvc://claim", "claim", id="the claim itself"),
    ],
)
def test_a_volume_is_a_folder_named_by_its_claim(tmp_path: Path, uri: str, relative: str) -> None:
    assert Store(tmp_path).folder(uri).local_path == tmp_path / relative


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("pvc://../other", id="above the volumes"),
        pytest.param("pvc://claim/../../other", id="above, later"),
        pytest.param("pvc://.", id="no claim"),
        pytest.param("hf://owner/name", id="not a file tree"),
        pytest.param("http://host/x", id="unknown scheme"),
    ],
)
def test_a_uri_that_leads_outside_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ManifestError):
        Store(tmp_path / "volumes").folder(uri)


def test_rows_come_back_once_from_all_shards_and_attempts(folder: Folder) -> None:
    with folder.writer(0, 2) as writer:
        writer.append(pair(0))
        writer.append(pair(1, "uni\u2028code"))
    with folder.writer(1, 2) as writer:
        writer.append(pair(2))
    with folder.writer(0, 2) as writer:
        writer.append(pair(3))
    with folder.writer(0, 1) as writer:
        writer.append(pair(1, "again"))

    rows = {row.id: row.chosen for row in folder.rows(BenchmarkPair)}

    assert set(rows) == {"p0", "p1", "p2", "p3"}
    assert sum(1 for _ in folder.rows(BenchmarkPair)) == 4


def test_a_half_row_is_neither_read_nor_continued(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder("pvc://claim/artifact")
    with folder.writer(0, 1) as writer:
        writer.append(pair(0))
    file = tmp_path / "claim/artifact/rows-00000-of-00001.jsonl"
    file.write_bytes(file.read_bytes() + b'{"id":"p1","instr')

    assert [row.id for row in folder.rows(BenchmarkPair)] == ["p0"]
    with folder.writer(0, 1) as writer:
        writer.append(pair(2))
    assert [row.id for row in folder.rows(BenchmarkPair)] == ["p0", "p2"]


def test_a_damaged_row_names_file_and_line(folder: Folder) -> None:
    folder.write("rows-00000-of-00001.jsonl", pair(0).model_dump_json().encode() + b"\n{}\n")

    with pytest.raises(DataError, match=r"rows-00000-of-00001.jsonl line 2"):
        list(folder.rows(BenchmarkPair))


def test_the_manifest_comes_last_and_names_every_file(folder: Folder) -> None:
    with folder.writer(0, 1) as writer:
        writer.append(pair(0))
    assert folder.manifest() is None

    result = StageResult(stage=Stage.SELECT, iteration=0, key="k", rows=1)
    written = folder.complete(result, NOW, NOW)

    assert folder.manifest() == written
    assert len(written.files) == 1
    assert written.files[0].name.startswith("rows-00000-of-00001")


def test_a_damaged_manifest_is_told(folder: Folder) -> None:
    folder.write("manifest.json", b'{"result":')
    with pytest.raises(DataError, match="damaged; delete it"):
        folder.manifest()


@given(content=st.binary(max_size=200), tail=st.binary(max_size=50).filter(lambda tail: b"\n" not in tail))
def test_only_what_follows_the_last_newline_is_cut(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, tail: bytes
) -> None:
    whole = content + b"\n" if content else b""
    path = tmp_path_factory.mktemp("cut") / "rows"
    path.write_bytes(whole + tail)
    cut_half_line(path)
    assert path.read_bytes() == whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"), storage_errors("x"):
        write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_rows_written_before_a_kill_are_kept(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom selftaught.artifacts import Store\n"
        "from selftaught.records import BenchmarkPair\n"
        "writer = Store(Path(sys.argv[1])).folder('pvc://claim/a').writer(0, 1)\n"
        "writer.append(BenchmarkPair(id='p0', instruction='i', chosen='c', rejected='r'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)

    assert ended.returncode == -signal.SIGKILL
    assert [row.id for row in Store(tmp_path).folder("pvc://claim/a").rows(BenchmarkPair)] == ["p0"]


def test_a_fingerprint_depends_on_content_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
