"""Where the real benchmarks lie that some tests read; the project does not contain them."""

import os
from pathlib import Path

import pytest

DEFAULT = Path(__file__).parents[2] / "shared" / "data"


def real_data(name: str) -> str:
    """URI of a folder of real data. Without it the test fails under CI=true, and is left out elsewhere."""
    folder = Path(os.environ.get("SELFTAUGHT_DATA", DEFAULT)) / name
    if not folder.is_dir():
        message = f"{folder} is missing; set SELFTAUGHT_DATA to the folder of real data sets"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return f"file://{folder.resolve()}"
