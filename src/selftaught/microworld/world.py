"""Builds the micro world: instructions, benchmark pairs, prompts and the seed model, in one folder."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from selftaught.artifacts import fingerprint, write_atomically
from selftaught.errors import PermanentError
from selftaught.microworld.prompts import PROMPTS
from selftaught.microworld.seed import SeedSettings, train_seed
from selftaught.microworld.tasks import FAMILIES, Family, Split, Task, draw_task, near_miss

MARKER = "world.json"
"""Written last: says what the folder was built from."""

_READABLE = 0o644  # transformers writes 0600, which pods of another user cannot read


class Size(StrEnum):
    """How much is built: `SMALL` is for tests, `FULL` for the quick start."""

    SMALL = "small"
    FULL = "full"


@dataclass(frozen=True)
class WorldSettings:
    """What is built: rows per file, families of tasks, and how the seed model is trained."""

    instructions: int
    development: int
    test: int
    families: tuple[Family, ...]
    seed_model: SeedSettings


SIZES: Mapping[Size, WorldSettings] = MappingProxyType(
    {
        Size.SMALL: WorldSettings(300, 150, 150, FAMILIES[:8], SeedSettings(steps=400)),
        Size.FULL: WorldSettings(800, 300, 400, FAMILIES, SeedSettings(steps=700)),
    }
)


def build(directory: Path, *, size: str, seed: int, report: Callable[[str], None]) -> None:
    """Write the world into the directory; nothing is done if it is there, whole, from the same arguments.

    `seed/` (model), `instructions.jsonl`, `development.jsonl`, `test.jsonl`, `prompts/NAME.txt`, and the marker
    `world.json` last. `report` gets lines of progress. Raises PermanentError for an unknown size.
    """
    if size not in set(Size):
        raise PermanentError(f"unknown size {size!r}; there are {', '.join(Size)}")
    settings = SIZES[Size(size)]
    recipe = {"size": size, "seed": seed, "recipe": _recipe()}
    marker = directory / MARKER
    if marker.is_file() and json.loads(marker.read_bytes()) == recipe:
        report(f"micro world: already in {directory}")
        return
    marker.unlink(missing_ok=True)

    write_atomically(directory / "instructions.jsonl", _lines(instruction_rows(settings, seed)))
    for split, rows in ((Split.DEVELOPMENT, settings.development), (Split.TEST, settings.test)):
        write_atomically(directory / f"{split}.jsonl", _lines(benchmark_rows(settings, split, rows, seed)))
    for name, text in PROMPTS.items():
        write_atomically(directory / "prompts" / f"{name}.txt", text.encode())
    train_seed(directory / "seed", settings.seed_model, seed, report, settings.families)
    for file in (directory / "seed").iterdir():
        file.chmod(_READABLE)
    write_atomically(marker, json.dumps(recipe, indent=2).encode())
    report(f"micro world: built in {directory}")


def instruction_rows(settings: WorldSettings, seed: int) -> list[dict[str, str]]:
    """The pool of instructions, without labels; none twice."""
    tasks = _distinct(settings, Split.TRAINING, settings.instructions, random.Random(f"{seed} pool"))
    return [
        {"id": f"{task.family.name}-{number}", "instruction": task.instruction} for number, task in enumerate(tasks)
    ]


def benchmark_rows(settings: WorldSettings, split: Split, rows: int, seed: int) -> list[dict[str, str]]:
    """Benchmark pairs: the right answer against a near miss; the subset is the family."""
    rng = random.Random(f"{seed} {split}")
    return [
        {
            "id": f"{task.family.name}-{number}",
            "instruction": task.instruction,
            "chosen": task.answer,
            "rejected": near_miss(task, rng, settings.families),
            "subset": task.family.name,
        }
        for number, task in enumerate(_distinct(settings, split, rows, rng))
    ]


def _distinct(settings: WorldSettings, split: Split, rows: int, rng: random.Random) -> list[Task]:
    tasks: dict[str, Task] = {}
    while len(tasks) < rows:
        task = draw_task(rng, split, settings.families)
        tasks.setdefault(task.instruction, task)
    return list(tasks.values())


def _recipe() -> str:
    """Changes whenever this package does, so that a world built by older code is built again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return fingerprint({source.name: source.read_text() for source in sources})


def _lines(rows: Iterable[Mapping[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
