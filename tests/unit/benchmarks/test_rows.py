import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.artifacts import Store
from selftaught.benchmarks.rows import field_text, field_value, read_rows
from selftaught.errors import DataError, ManifestError, StorageError


def rows_of(path: Path) -> list[tuple[str, int, int, dict[str, Any]]]:
    store = Store(path.parent)
    return [(row.file, row.number, row.position, row.value) for row in read_rows(f"file://{path}", store)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.jsonl", b'{"x": 1}\n{"x": 2}\n', [(1, 1), (2, 2)], id="lines"),
        pytest.param("a.jsonl", b'{"x": 1}\n{"x": 2}', [(1, 1), (2, 2)], id="no newline at the end"),
        pytest.param("a.jsonl", b'{"x": 1}\r\n\r\n\n{"x": 2}\r\n', [(1, 1), (4, 2)], id="blank lines are counted"),
        pytest.param("a.jsonl", b'\xef\xbb\xbf{"x": 1}\n', [(1, 1)], id="byte order mark"),
        pytest.param(
            "a.jsonl", '{"x": "a\u2028b\x85c"}\n{"x": 2}\n'.encode(), [(1, "a\u2028b\x85c"), (2, 2)], id="U+2028"
        ),
        pytest.param("a.jsonl", b"", [], id="empty file"),
        pytest.param("a.json", b'[{"x": 1},\n {"x": 2}]', [(1, 1), (2, 2)], id="list"),
        pytest.param("a.json", b'{"canary": "c", "examples": [{"x": 1}]}', [(1, 1)], id="object around a list"),
        pytest.param("a.json", b'{"x": 1}\n{"x": 2}\n', [(1, 1), (2, 2)], id="lines under the name of json"),
    ],
)
def test_reads_rows(tmp_path: Path, name: str, content: bytes, expected: list[tuple[int, Any]]) -> None:
    (tmp_path / name).write_bytes(content)
    assert [(number, value["x"]) for _, number, _, value in rows_of(tmp_path / name)] == expected


def test_reads_parquet(tmp_path: Path) -> None:
    values = [{"x": index, "turns": [{"content": f"text {index}"}]} for index in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [("a.parquet", i + 1, i, value) for i, value in enumerate(values)]


def test_reads_the_data_files_of_a_folder_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"x": 2}\n')
    (tmp_path / "a.json").write_text('[{"x": 1}]')
    (tmp_path / "LICENSE").write_text("no data")
    (tmp_path / ".hidden.jsonl").write_text("no data")
    assert rows_of(tmp_path) == [("a.json", 1, 0, {"x": 1}), ("b.jsonl", 1, 1, {"x": 2})]


def test_streams(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\nbroken\n')
    rows = read_rows(f"file://{tmp_path}/a.jsonl", Store(tmp_path))
    assert next(rows).value == {"x": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("a.jsonl", b'{"x": 1}\n{"x": \n', "a.jsonl line 2 is not JSON", id="half a line"),
        pytest.param("a.jsonl", b'{"x": 1}\n\n[1]\n', "a.jsonl line 3 is not an object", id="no object"),
        pytest.param("a.jsonl", b'{"x": "\xff"}\n', "a.jsonl line 1 is not JSON", id="not UTF-8"),
        pytest.param("a.jsonl", b"[" * 100_000 + b"\n", "a.jsonl line 1 is not JSON", id="too deep"),
        pytest.param("a.json", b'[{"x": 1},\n {"x": }]', "a.json line 2 is not JSON", id="broken list"),
        pytest.param("a.json", b'[{"x": 1}, 2]', "a.json row 2 is not an object", id="number among rows"),
        pytest.param("a.json", b'{"a": [], "b": []}', "2 lists", id="two lists"),
        pytest.param("a.json", b"3", "no list of rows", id="a number"),
        pytest.param("a.json", b'"\xff"', "a.json is not JSON", id="json not UTF-8"),
        pytest.param("a.parquet", b"PAR1 not really", "a.parquet is not a readable Parquet file", id="parquet"),
        pytest.param("a.csv", b"x\n1\n", "a.csv is not a .jsonl, .json or .parquet file", id="other ending"),
    ],
)
def test_names_what_is_unreadable(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "missing.jsonl", "empty"])
def test_names_a_missing_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="correct the uri"):
        rows_of(tmp_path / name)


def test_a_volume_cannot_be_left(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        list(read_rows("pvc://claim/../../etc/x.jsonl", Store(tmp_path)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder that `datasets` takes for owner/name, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"x": 1, "turns": [{"content": "a"}]}\n{"x": 2, "turns": []}\n')
    return Store(tmp_path)


def test_reads_data_sets_of_the_hub(hub: Store) -> None:
    rows = list(read_rows("hf://owner/name", hub))
    assert [(row.key, row.value["x"]) for row in rows] == [("train-1", 1), ("train-2", 2)]
    assert field_value(rows[0].value, "turns[0].content") == "a"


@pytest.mark.parametrize(
    ("uri", "split", "error"),
    [
        pytest.param("hf://owner/name", "nope", DataError, id="no such split"),
        pytest.param("hf://../owner/name", "train", DataError, id="leaves the folder"),
        pytest.param("hf://../name", "train", DataError, id="begins with dots"),
        pytest.param("hf:///etc", "train", DataError, id="absolute path"),
        pytest.param("hf://owner/elsewhere", "train", StorageError, id="hub out of reach"),
    ],
)
def test_names_what_the_hub_lacks(hub: Store, uri: str, split: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        list(read_rows(uri, hub, split=split))
    assert uri in str(caught.value)
    assert "\n" not in str(caught.value)


ROW: dict[str, Any] = {"a": {"b-c": [{"d": "deep"}, 5]}, "n": None, "s": "text", "bad": "\ud800"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("s", "text", id="key"),
        pytest.param("a.b-c[0].d", "deep", id="deep"),
        pytest.param("a.b-c[1]", 5, id="number"),
        pytest.param("a.b-c[2]", None, id="beyond the end"),
        pytest.param("s[0]", None, id="no character of a text"),
        pytest.param("s.x", None, id="key of a text"),
        pytest.param("n.x", None, id="key of nothing"),
        pytest.param("missing", None, id="missing"),
    ],
)
def test_finds_a_field(path: str, value: Any) -> None:
    assert field_value(ROW, path) == value
    assert field_text(ROW, path) == (value if isinstance(value, str) else None)


def test_a_text_that_cannot_be_stored_is_none() -> None:
    assert field_text(ROW, "bad") is None


@given(
    value=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner),
    ),
    path=st.from_regex(r"[ab](\[[0-2]\]|\.[ab])*", fullmatch=True),
)
def test_looking_up_never_fails(value: Any, path: str) -> None:
    json.dumps(field_value({"a": value}, path))
