"""Benchmarks as pairs: `read` checks every row, counts what cannot be used, and never drops a row in silence."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from selftaught.api.judging import Benchmark, BenchmarkFormat
from selftaught.artifacts import Store
from selftaught.benchmarks import judge_bench, llmbar, pairs, reward_bench
from selftaught.benchmarks.rows import RawRow, read_rows
from selftaught.benchmarks.sides import Sides, Unlabelled
from selftaught.errors import DataError
from selftaught.records import BenchmarkPair

READERS: dict[BenchmarkFormat, tuple[str, Callable[[RawRow, Benchmark], Sides]]] = {
    BenchmarkFormat.PAIRS: (pairs.SPLIT, pairs.sides),
    BenchmarkFormat.REWARD_BENCH: (reward_bench.SPLIT, reward_bench.sides),
    BenchmarkFormat.LLMBAR: (llmbar.SPLIT, llmbar.sides),
    BenchmarkFormat.JUDGE_BENCH: (judge_bench.SPLIT, judge_bench.sides),
}
"""The usual split on the hub, and what reads a row."""


class LeftOut(StrEnum):
    """Why a row is not used."""

    NOT_TEXT = "notText"
    """An instruction or response is missing or no text."""
    EMPTY = "empty"
    """An instruction or response is blank."""
    IDENTICAL = "identical"
    """Both responses are the same, so that no verdict can be right in both orders."""
    UNLABELLED = "unlabelled"
    """The row does not say which response is better."""


@dataclass(frozen=True)
class BenchmarkData:
    """A benchmark that was read."""

    pairs: tuple[BenchmarkPair, ...]
    """In the order of the rows, with unique ids."""
    left_out: dict[str, int]
    """Rows that cannot be used, by reason (`LeftOut`)."""


def read(benchmark: Benchmark, store: Store) -> BenchmarkData:
    """Read a benchmark. Ids depend on the rows alone, so they are the same in every process and iteration.

    With `limit`, the pairs are those whose ids have the least hashes: the same ones each time, a smaller limit's
    among a larger one's. Raises DataError when a row is unreadable or no pair can be used.
    """
    usual_split, sides = READERS[benchmark.format]
    rows = read_rows(
        benchmark.uri,
        store,
        revision=benchmark.revision,
        config=benchmark.config,
        split=benchmark.split or usual_split,
    )
    found: list[BenchmarkPair] = []
    left_out: Counter[str] = Counter()
    ids: set[str] = set()
    for row in rows:
        try:
            parts = sides(row, benchmark)
        except Unlabelled:
            left_out[LeftOut.UNLABELLED] += 1
            continue
        identity = parts.id or row.key
        if identity in ids:
            identity = f"{identity}#{row.position}"
        ids.add(identity)
        pair = _pair(identity, parts)
        if isinstance(pair, LeftOut):
            left_out[pair] += 1
        else:
            found.append(pair)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "no rows"
        raise DataError(
            f"benchmark {benchmark.name}: no usable pair in {benchmark.uri} as {benchmark.format} ({reasons}); "
            "correct its format or fields"
        )
    if benchmark.limit is not None:
        found = _drawn(found, benchmark.limit)
    return BenchmarkData(pairs=tuple(found), left_out={str(reason): left_out[reason] for reason in sorted(left_out)})


def _pair(identity: str, parts: Sides) -> BenchmarkPair | LeftOut:
    if parts.instruction is None or parts.chosen is None or parts.rejected is None:
        return LeftOut.NOT_TEXT
    instruction, chosen, rejected = parts.instruction.strip(), parts.chosen.strip(), parts.rejected.strip()
    if not (instruction and chosen and rejected):
        return LeftOut.EMPTY
    if chosen == rejected:
        return LeftOut.IDENTICAL
    return BenchmarkPair(
        id=identity,
        instruction=parts.instruction,
        chosen=parts.chosen,
        rejected=parts.rejected,
        subset=parts.subset or None,
    )


def _drawn(found: list[BenchmarkPair], limit: int) -> list[BenchmarkPair]:
    least = sorted(found, key=lambda pair: hashlib.sha256(pair.id.encode()).digest())[:limit]
    ids = {pair.id for pair in least}
    return [pair for pair in found if pair.id in ids]
