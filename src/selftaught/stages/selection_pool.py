"""The pool of instructions that a run may use: read, mixed, and without what must not be in it.

Every shard does this part alike, from rows and seed alone, so that a position means the same everywhere.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from selftaught.api.instructions import Instructions, InstructionSource
from selftaught.api.judging import Benchmark
from selftaught.artifacts import Store
from selftaught.benchmarks import reading
from selftaught.benchmarks.rows import field_text, read_rows
from selftaught.errors import DataError
from selftaught.records import Record
from selftaught.stages.selection_overlap import BenchmarkIndex, NearDuplicates, normalised

LISTED = 1000
"""Most left-out rows that are listed for each reason; all are counted."""


class LeftOut(StrEnum):
    """Why a row is not used."""

    NOT_TEXT = "notText"
    """There is no text at the source's field."""
    EMPTY = "empty"
    """The text is blank."""
    TOO_LONG = "tooLong"
    """More characters than `selection.maxCharacters`."""
    DUPLICATE = "duplicate"
    """Equal to an earlier one but for case and spacing."""
    NEAR_DUPLICATE = "nearDuplicate"
    """Nearly equal to an earlier one."""
    CONTAMINATED = "contaminated"
    """Equal to an instruction of a benchmark, or shares a passage with one."""
    PROMPT_TOO_LONG = "promptTooLong"
    """The question about it does not fit into the generator's context."""
    UNPARSABLE = "unparsable"
    """The generator's answer about it cannot be read."""
    CATEGORY = "category"
    """Of a category that is not wanted."""
    COMPLEXITY = "complexity"
    """Too simple or too complex."""
    EXPECTED_LENGTH = "expectedLength"
    """Calls for an answer of a length that is not wanted."""
    NOT_NEEDED = "notNeeded"
    """Comes after enough instructions were found."""


class LeftOutRow(Record):
    """A row of `left_out.jsonl`."""

    id: str
    source: str
    source_row: int
    reason: LeftOut
    detail: str = ""
    """The equal instruction's id, the benchmark and passage, the unwanted category …"""


@dataclass(frozen=True)
class Candidate:
    """An instruction that may be used."""

    source: str
    source_row: int
    """Row in the source, from 0."""
    text: str

    @property
    def id(self) -> str:
        """Stays the same as long as the source does."""
        return f"{self.source}-{self.source_row}"


@dataclass
class Rejections:
    """What was left out: counted wholly, listed up to a limit."""

    counts: Counter[LeftOut] = field(default_factory=Counter)
    listed: list[LeftOutRow] = field(default_factory=list)

    def add(self, candidate: Candidate, reason: LeftOut, detail: str = "") -> None:
        """Count and perhaps list one."""
        self.counts[reason] += 1
        if self.counts[reason] <= LISTED:
            self.listed.append(
                LeftOutRow(
                    id=candidate.id,
                    source=candidate.source,
                    source_row=candidate.source_row,
                    reason=reason,
                    detail=detail,
                )
            )

    def copy(self) -> "Rejections":
        """One that can be added to on its own."""
        return Rejections(Counter(self.counts), list(self.listed))


@dataclass(frozen=True)
class Pool:
    """Candidates in the order in which they are considered."""

    candidates: tuple[Candidate, ...]
    rejections: Rejections
    rows: int
    """Rows that were read."""


def read_pool(instructions: Instructions, benchmarks: Sequence[Benchmark], store: Store) -> Pool:
    """Read all sources, mix them by weight and leave out what needs no model to be seen.

    Raises DataError for an unreadable source or row, and for a source without a single text at its field.
    """
    rejections = Rejections()
    seed, longest = instructions.selection.seed, instructions.selection.max_characters
    rows = 0
    by_source: list[list[Candidate]] = []
    for source in instructions.sources:
        usable, read = _read_source(source, store, longest, rejections)
        random.Random(f"{seed} {source.name}").shuffle(usable)
        by_source.append(usable)
        rows += read
    weights = [source.weight for source in instructions.sources]
    index = BenchmarkIndex(_benchmark_instructions(benchmarks, store) if instructions.decontaminate else ())
    mixed = mix(by_source, weights, random.Random(f"{seed}"))
    clean = _clean(mixed, index, instructions.deduplicate.threshold, rejections)
    return Pool(candidates=tuple(clean), rejections=rejections, rows=rows)


def mix(sources: Sequence[Sequence[Candidate]], weights: Sequence[float], rng: random.Random) -> Iterator[Candidate]:
    """All candidates, each drawn from a source that has some left, in proportion to the weights."""
    iterators = [iter(source) for source in sources]
    left = [len(source) for source in sources]
    while any(left):
        open_weights = [weight if count else 0.0 for weight, count in zip(weights, left, strict=True)]
        (chosen,) = rng.choices(range(len(iterators)), open_weights)
        left[chosen] -= 1
        yield next(iterators[chosen])


def _read_source(
    source: InstructionSource, store: Store, longest: int, rejections: Rejections
) -> tuple[list[Candidate], int]:
    """Usable candidates in the order of the rows, and how many rows were read."""
    usable: list[Candidate] = []
    fields: list[str] = []
    without_text = count = 0
    for row in read_rows(source.uri, store, revision=source.revision, config=source.config, split=source.split):
        if source.limit is not None and row.position >= source.limit:
            break
        count += 1
        fields = fields or sorted(row.value)
        text = field_text(row.value, source.field)
        candidate = Candidate(source=source.name, source_row=row.position, text=text or "")
        if text is None:
            without_text += 1
            rejections.add(candidate, LeftOut.NOT_TEXT)
        elif not text.strip():
            rejections.add(candidate, LeftOut.EMPTY)
        elif len(text) > longest:
            rejections.add(candidate, LeftOut.TOO_LONG, f"{len(text)} characters")
        else:
            usable.append(candidate)
    if count and without_text == count:
        raise DataError(
            f"source {source.name}: none of the {count} rows of {source.uri} has a text at {source.field}; "
            f"correct its field (the first row has {', '.join(fields[:12]) or 'no fields'})"
        )
    return usable, count


def _benchmark_instructions(benchmarks: Sequence[Benchmark], store: Store) -> Iterator[tuple[str, str]]:
    """Instructions of whole benchmarks, also where only a part of the pairs is judged."""
    for benchmark in benchmarks:
        data = reading.read(benchmark.model_copy(update={"limit": None}), store)
        yield from ((benchmark.name, pair.instruction) for pair in data.pairs)


def _clean(
    candidates: Iterable[Candidate], index: BenchmarkIndex, threshold: float, rejections: Rejections
) -> Iterator[Candidate]:
    """Without duplicates of earlier ones and without what benchmarks have."""
    first: dict[str, str] = {}
    near = NearDuplicates(threshold) if threshold < 1 else None
    for candidate in candidates:
        key = normalised(candidate.text)
        if key in first:
            rejections.add(candidate, LeftOut.DUPLICATE, f"of {first[key]}")
            continue
        first[key] = candidate.id
        if benchmark := index.equal(candidate.text):
            rejections.add(candidate, LeftOut.CONTAMINATED, f"equals an instruction of {benchmark}")
            continue
        if shared := index.sharing(candidate.text):
            rejections.add(candidate, LeftOut.CONTAMINATED, f"shares with {shared[0]}: {shared[1]}")
            continue
        if near and (similar := near.similar_to(candidate.id, candidate.text)):
            rejections.add(candidate, LeftOut.NEAR_DUPLICATE, f"of {similar}")
            continue
        yield candidate
