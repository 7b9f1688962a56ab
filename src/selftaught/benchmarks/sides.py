"""What a row of a benchmark says, before anybody has checked whether it can be used."""

from dataclasses import dataclass

from selftaught.benchmarks.rows import RawRow, field_text


class Unlabelled(Exception):
    """A row does not say which response is better (a tie, or no label)."""


@dataclass(frozen=True)
class Sides:
    """The parts of a row; None where there is no text."""

    id: str | None
    """The row's own id; None if it has none."""
    subset: str | None
    instruction: str | None
    chosen: str | None
    rejected: str | None


def ordered(first: str | None, second: str | None, *, first_is_better: bool) -> tuple[str | None, str | None]:
    """(chosen, rejected) of two responses."""
    return (first, second) if first_is_better else (second, first)


def own_id(row: RawRow) -> str | None:
    """The row's `id`, if it is a text or a whole number."""
    value = row.value.get("id")
    return str(value) if isinstance(value, int) else field_text(row.value, "id")
