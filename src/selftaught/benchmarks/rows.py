"""Raw rows of a data set, wherever it lies and whatever form it has.

`read_rows` yields them one by one; `field_value` and `field_text` look into a row by a path such as
`conversation[0].content`. Forms, by the ending of the file's name:

- `.jsonl`: one JSON object per line, split on line feeds only (texts may contain U+2028 and its like);
- `.json`: a list of objects, or an object that holds exactly one such list; JSON Lines under this name too;
- `.parquet`;
- a folder: its `.jsonl`, `.json` and `.parquet` files in the order of their names, other files ignored;
- `hf://owner/name`: a data set on the hub, through `datasets`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selftaught.artifacts import Folder, Store, storage_errors
from selftaught.errors import DataError, StorageError
from selftaught.records import JsonObject

ENDINGS = (".jsonl", ".json", ".parquet")
PARQUET_BATCH = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawRow:
    """A row before it is validated."""

    file: str
    """Name of its file without folders (the split, for a data set on the hub)."""
    number: int
    """Line in a JSONL file, else position in its file; from 1."""
    position: int
    """Position in the whole source, from 0."""
    value: JsonObject
    """The row."""

    @property
    def key(self) -> str:
        """A short name that stays the same as long as its file does: `train-17`."""
        return f"{self.file.rsplit('.', 1)[0]}-{self.number}"

    def __str__(self) -> str:
        return f"{self.file} row {self.number}"


def read_rows(
    uri: str, store: Store, *, revision: str | None = None, config: str | None = None, split: str = "train"
) -> Iterator[RawRow]:
    """All rows of a source in a fixed order, streamed.

    `uri` names a file, a folder of files, or `hf://owner/name`; `revision`, `config` and `split` are the hub's.
    Raises DataError if there is no such source or a row is unreadable (the message names file and line), and
    StorageError if the store or the hub cannot be reached.
    """
    numbered: Iterator[tuple[str, int, JsonObject]]
    if uri.startswith("hf://"):
        numbered = ((split, number, row) for number, row in _hub_rows(uri, revision, config, split))
    else:
        numbered = _stored_rows(store.folder(uri))
    for position, (file, number, value) in enumerate(numbered):
        yield RawRow(file=file, number=number, position=position, value=value)


def field_value(row: JsonObject, path: str) -> Any:
    """The value at a path such as `conversation[0].content`; None where the row has nothing there."""
    value: Any = row
    for step in re.findall(r"[^.\[\]]+|\[[0-9]+\]", path):
        if step.startswith("["):
            index = int(step[1:-1])
            if not isinstance(value, list) or index >= len(value):
                return None
            value = value[index]
        else:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
    return value


def field_text(row: JsonObject, path: str) -> str | None:
    """The text at a path; None if there is none, or one that cannot be stored (a lone surrogate)."""
    value = field_value(row, path)
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _stored_rows(folder: Folder) -> Iterator[tuple[str, int, JsonObject]]:
    if folder.is_file:
        name = folder.uri.rsplit("/", 1)[-1]
        yield from ((name, number, row) for number, row in _file_rows(folder, "", name))
        return
    names = [name for name in folder.names() if name.endswith(ENDINGS) and not name.startswith(".")]
    if not names:
        what = "holds no" if folder.exists() else "does not exist: expected a file, or a folder with a"
        local = f" (here {folder.local_path})" if folder.local_path else ""
        raise DataError(f"{folder.uri}{local} {what} .jsonl, .json or .parquet file; correct the uri")
    for name in names:
        yield from ((name, number, row) for number, row in _file_rows(folder, name, name))


def _file_rows(folder: Folder, below: str, name: str) -> Iterator[tuple[int, JsonObject]]:
    where = f"{folder.uri}/{name}" if below else folder.uri
    try:
        if name.endswith(".parquet"):
            yield from _parquet_rows(folder, below, where)
        elif name.endswith(".json"):
            yield from _json_rows(folder, below, where)
        elif name.endswith(".jsonl"):
            yield from _jsonl_rows(folder, below, where)
        else:
            raise DataError(f"{where} is not a .jsonl, .json or .parquet file; correct the uri or rename it")
    except FileNotFoundError as error:
        raise DataError(f"{where} does not exist; correct the uri") from error


def _jsonl_rows(folder: Folder, below: str, where: str) -> Iterator[tuple[int, JsonObject]]:
    with folder.open(below) as file:
        for number, line in enumerate(file, start=1):  # a binary file splits on "\n" alone
            content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if content.strip():
                yield number, _object(_parsed(content, f"{where} line {number}"), f"{where} line {number}")


def _json_rows(folder: Folder, below: str, where: str) -> Iterator[tuple[int, JsonObject]]:
    with folder.open(below) as file:
        content = file.read().removeprefix(BYTE_ORDER_MARK)
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _jsonl_rows(folder, below, where)
            return
        raise DataError(f"{where} line {error.lineno} is not JSON: {error.msg}; correct or remove the file") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}; correct or remove the file") from error
    if isinstance(rows, dict):
        lists = [value for value in rows.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(f"{where} holds one object with {len(lists)} lists; expected a list of rows")
        rows = lists[0]
    if not isinstance(rows, list):
        raise DataError(f"{where} holds no list of rows")
    for number, row in enumerate(rows, start=1):
        yield number, _object(row, f"{where} row {number}")


def _parquet_rows(folder: Folder, below: str, where: str) -> Iterator[tuple[int, JsonObject]]:
    import pyarrow
    import pyarrow.parquet

    with folder.open(below) as file:
        try:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pyarrow.ArrowException as error:
            raise DataError(f"{where} is not a readable Parquet file: {_line(error)}; fetch it again") from error


def _hub_rows(uri: str, revision: str | None, config: str | None, split: str) -> Iterator[tuple[int, JsonObject]]:
    import datasets

    name = uri.removeprefix("hf://").rstrip("/")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise DataError(f"{uri} is not hf://owner/name")
    try:
        rows = datasets.load_dataset(name, config, revision=revision, split=split)
    except (FileNotFoundError, ValueError) as error:  # no such data set, revision, configuration or split
        raise DataError(f"cannot load {uri}: {_line(error)}; check its name, revision, config and split") from error
    except OSError as error:
        raise StorageError(f"cannot fetch {uri}: {_line(error)}; check the network, or use a local copy") from error
    with storage_errors(uri):
        for number, row in enumerate(rows, start=1):
            yield number, _object(row, f"{uri} row {number}")


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {_line(error)}; correct or remove it") from error


def _object(value: Any, where: str) -> JsonObject:
    if not isinstance(value, dict):
        raise DataError(f"{where} is not an object; correct or remove it")
    return value


def _line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
