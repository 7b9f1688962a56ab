"""What the programs of stages share."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("parent", "code"),
    [
        pytest.param(os.getpid(), 0, id="its parent is there"),
        pytest.param(1, 143, id="its parent died before it could ask"),
    ],
)
def test_a_process_ends_with_its_parent(parent: int, code: int) -> None:
    script = f"from selftaught.stages.program import die_with_parent; die_with_parent({parent})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code
