"""Writes all generated files; with --check it only says which of them are out of date.

python hack/generate.py
python hack/generate.py --check
"""

import sys
from collections.abc import Callable
from pathlib import Path

from selftaught.api import crd, reference
from selftaught_operator import rbac

ROOT = Path(__file__).resolve().parent.parent

GENERATED: dict[str, Callable[[], str]] = {
    "manifests/crd/selftaughtruns.yaml": crd.render,
    "manifests/deploy/rbac.yaml": rbac.render,
    "docs/reference.md": reference.render,
}
"""File below the root, and what it must hold."""


def outdated(root: Path) -> list[str]:
    """Generated files that are missing or differ from what they should hold."""
    return [
        name
        for name, render in GENERATED.items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != render()
    ]


def main(arguments: list[str]) -> int:
    """Write, or check. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 64
    names = outdated(ROOT)
    for name in names:
        if arguments:
            print(f"{name} is out of date: run `python hack/generate.py`", file=sys.stderr)
        else:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(GENERATED[name](), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if arguments and names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
