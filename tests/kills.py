"""Kills a stage in the middle of its work, as SIGKILL would: nothing after the fatal moment is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from selftaught.artifacts import FileRowWriter
from selftaught.records import Record


class Killed(BaseException):
    """The process is gone. No `except Exception` may catch it."""


@contextmanager
def killed_at(moment: int, *, half_line: bool) -> Iterator[Callable[[], int]]:
    """Die at the n-th row (from 1), before it is written, or when half of it is. Yields a count of rows so far."""
    appended = 0
    append = FileRowWriter.append

    def counted(writer: FileRowWriter, row: Record) -> None:
        nonlocal appended
        appended += 1
        if appended == moment:
            if half_line:
                line = row.model_dump_json().encode()
                writer._file.write(line[: len(line) // 2])
            raise Killed
        append(writer, row)

    with patch.object(FileRowWriter, "append", counted):
        yield lambda: appended
