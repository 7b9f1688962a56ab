"""instruction sources → selected instructions.

The order of the pool is fixed by rows and seed. The generator is asked about instructions in that order until
enough are found, so the selection is the first `maxInstructions` that pass, however many shards there are.
"""

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from selftaught.api.instructions import Selection, SelectionStrategy
from selftaught.api.references import Sampling
from selftaught.api.results import StageResult, Usage
from selftaught.api.stage_config import SelectConfig
from selftaught.artifacts import Folder, RowWriter
from selftaught.errors import DataError
from selftaught.judging import categories, prompts
from selftaught.judging.seeds import request_seed
from selftaught.records import Categorisation, Instruction
from selftaught.stages import shards
from selftaught.stages.context import StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.feed import Allowance, Tally, feed
from selftaught.stages.selection_pool import Candidate, LeftOut, Pool, Rejections, read_pool

CATEGORIES = "categories"
"""Prefix of the files with what the generator said."""
LEFT_OUT = "left_out.jsonl"
SELECTED = "rows-00000-of-00001.jsonl"
REFRESH_SECONDS = 15.0
"""How often a shard looks at what the others have found."""

_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=categories.MAX_TOKENS)

_NEXT_STEP = {
    LeftOut.NOT_TEXT: "correct the sources' field",
    LeftOut.EMPTY: "correct the sources' field",
    LeftOut.TOO_LONG: "raise selection.maxCharacters",
    LeftOut.CONTAMINATED: "use sources that are not made of the benchmarks",
    LeftOut.PROMPT_TOO_LONG: "raise stages.select.engine.maxModelLen, or lower selection.maxCharacters",
    LeftOut.UNPARSABLE: "use another generator or prompt, or strategy: All",
    LeftOut.CATEGORY: "widen selection.categories, or use strategy: All",
    LeftOut.COMPLEXITY: "widen selection.minComplexity and maxComplexity",
    LeftOut.EXPECTED_LENGTH: "widen selection.expectedLengths",
}


def run(config: SelectConfig, context: StageContext) -> StageResult:
    """Select the instructions of a run.

    The rows of the artifact are `Instruction`, in the order of selection; `left_out.jsonl` lists the first rows that
    were left out for each reason. With strategy `All` no engine is started. Raises DataError for an unreadable source
    (with the line) and when nothing is left, ModelError, BudgetError, Interrupted.
    """
    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    selection = config.instructions.selection
    with shards.Clock(folder, config.key, context) as clock:
        pool = read_pool(config.instructions, config.evaluation.benchmarks, context.store)
        if not pool.candidates:
            raise _nothing_left(pool, pool.rejections)
        known = {row.id: row for row in folder.rows(Categorisation, CATEGORIES)}
        if selection.strategy is SelectionStrategy.CATEGORISE:
            with folder.writer(context.shard.index, context.shard.count, CATEGORIES) as writer:
                _Categoriser(config, context, folder, pool, known, writer, clock).run()
    own = [known[one.id] for one in _owned(pool, context) if one.id in known]
    partial = StageResult(
        stage=config.stage,
        iteration=config.iteration,
        key=config.key,
        usage=Usage(
            input_tokens=sum(row.input_tokens for row in own), output_tokens=sum(row.output_tokens for row in own)
        ),
    )
    return shards.finish(folder, context, partial, lambda merged: _conclude(folder, selection, pool, merged))


def rejection(row: Categorisation, selection: Selection) -> tuple[LeftOut, str] | None:
    """Why an instruction with these properties is left out, and its unwanted property; None if it is used."""
    if row.finish_reason == LeftOut.PROMPT_TOO_LONG:
        return LeftOut.PROMPT_TOO_LONG, ""
    if row.category is None or row.complexity is None or row.expected_length is None:
        return LeftOut.UNPARSABLE, row.finish_reason
    if row.category not in selection.categories:
        return LeftOut.CATEGORY, row.category
    if not selection.min_complexity <= row.complexity <= selection.max_complexity:
        return LeftOut.COMPLEXITY, str(row.complexity)
    if row.expected_length not in selection.expected_lengths:
        return LeftOut.EXPECTED_LENGTH, row.expected_length
    return None


@dataclass
class _Categoriser:
    """Asks the generator about this shard's instructions until all shards together have found enough."""

    config: SelectConfig
    context: StageContext
    folder: Folder
    pool: Pool
    known: dict[str, Categorisation]
    """By instruction id, of all shards; grows."""
    writer: RowWriter
    clock: shards.Clock
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._position = {candidate.id: position for position, candidate in enumerate(self.pool.candidates)}
        self._used: list[int] = []
        """Positions that pass the filters, sorted."""
        self._refreshed: datetime = self.context.now()
        for row in self.known.values():
            self._count(row)
        own = list(_owned(self.pool, self.context))
        self._total = len(own)
        self._done = sum(candidate.id in self.known for candidate in own)

    def run(self) -> None:
        """Have everything that is needed in `known`."""
        first = next(self._needed(), None)
        if first is None:
            return
        config, context = self.config, self.context
        engine = context.engine(context.models(config.model), config.engine)
        self.clock.gpus = engine.gpus
        spent = sum(self.known[one.id].output_tokens for one in _owned(self.pool, context) if one.id in self.known)
        feed(
            engine,
            map(self._request, self._needed()),
            self._receive,
            self._refuse,
            allowance=Allowance.of_shard(config.token_allowance, context.shard.count, spent),
            stopping=context.stopping,
            tally=self.tally,
        )

    def _needed(self) -> Iterator[Candidate]:
        """Unknown instructions of this shard in order, for as long as too few are used before them."""
        enough = self.config.instructions.selection.max_instructions
        for position, candidate in enumerate(self.pool.candidates):
            if not self.context.shard.owns(position) or candidate.id in self.known:
                continue
            self._refresh()
            if bisect.bisect_left(self._used, position) >= enough:
                return
            yield candidate

    def _refresh(self) -> None:
        """Look at what other shards have found. Without it the shard would only do more than is needed."""
        now = self.context.now()
        if self.context.shard.count > 1 and (now - self._refreshed).total_seconds() >= REFRESH_SECONDS:
            self._refreshed = now
            for row in self.folder.rows(Categorisation, CATEGORIES):
                if row.id not in self.known:
                    self.known[row.id] = row
                    self._count(row)

    def _count(self, row: Categorisation) -> None:
        if row.id in self._position and rejection(row, self.config.instructions.selection) is None:
            bisect.insort(self._used, self._position[row.id])

    def _request(self, candidate: Candidate) -> Request:
        seed = self.config.instructions.selection.seed
        return Request(
            id=candidate.id,
            message=prompts.render(self.config.prompts.categorise, {"instruction": candidate.text}),
            sampling=_SAMPLING,
            seed=request_seed(seed, self.config.iteration, candidate.id, "categorise", 0),
            pattern=categories.CATEGORIES_PATTERN,
        )

    def _receive(self, completion: Completion) -> tuple[Request, ...]:
        found = categories.parse(completion.text, completion.finish_reason)
        row = Categorisation(
            id=completion.id,
            category=found.category if found else None,
            complexity=found.complexity if found else None,
            expected_length=found.expected_length if found else None,
            finish_reason=completion.finish_reason,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
        )
        return self._keep(row)

    def _refuse(self, request: Request) -> tuple[Request, ...]:
        return self._keep(
            Categorisation(id=request.id, finish_reason=LeftOut.PROMPT_TOO_LONG, input_tokens=0, output_tokens=0)
        )

    def _keep(self, row: Categorisation) -> tuple[Request, ...]:
        self.writer.append(row)
        self.known[row.id] = row
        self._count(row)
        self._done += 1
        self.clock.tick()
        self.context.progress.update(
            done=min(self._done, self._total),
            total=self._total,
            unit="instructions",
            input_tokens=self.tally.input_tokens,
            output_tokens=self.tally.output_tokens,
        )
        return ()


def _owned(pool: Pool, context: StageContext) -> Iterator[Candidate]:
    return (one for position, one in enumerate(pool.candidates) if context.shard.owns(position))


def _conclude(folder: Folder, selection: Selection, pool: Pool, merged: StageResult) -> StageResult:
    """Write the selected instructions and what was left out, from what all shards have found."""
    known: Mapping[str, Categorisation] = {row.id: row for row in folder.rows(Categorisation, CATEGORIES)}
    rejections = pool.rejections.copy()
    selected: list[Instruction] = []
    for position, candidate in enumerate(pool.candidates):
        if len(selected) == selection.max_instructions:
            rejections.counts[LeftOut.NOT_NEEDED] = len(pool.candidates) - position
            break
        row = None
        if selection.strategy is SelectionStrategy.CATEGORISE:
            row = known.get(candidate.id)
            if row is None:
                raise DataError(f"{folder.uri} lacks rows of shards that had ended; delete it to select again")
            if reason := rejection(row, selection):
                rejections.add(candidate, *reason)
                continue
        selected.append(_instruction(candidate, row))
    if not selected:
        raise _nothing_left(pool, rejections)
    folder.write(LEFT_OUT, "".join(row.model_dump_json() + "\n" for row in rejections.listed).encode())
    folder.write(SELECTED, "".join(row.model_dump_json(exclude_none=True) + "\n" for row in selected).encode())
    mixture = Counter(row.source for row in selected)
    sources = ", ".join(f"{count} from {name}" for name, count in mixture.most_common(8))
    return merged.model_copy(
        update={
            "rows": len(selected),
            "dropped": {str(reason): rejections.counts[reason] for reason in LeftOut if rejections.counts[reason]},
            "message": f"{len(selected)} of {pool.rows} rows selected: {sources}",
        }
    )


def _instruction(candidate: Candidate, row: Categorisation | None) -> Instruction:
    return Instruction(
        id=candidate.id,
        source=candidate.source,
        source_row=candidate.source_row,
        instruction=candidate.text,
        category=row.category if row else None,
        complexity=row.complexity if row else None,
        expected_length=row.expected_length if row else None,
    )


def _nothing_left(pool: Pool, rejections: Rejections) -> DataError:
    if not rejections.counts:
        return DataError("the sources have no rows; correct instructions.sources")
    counts = ", ".join(f"{count} {reason}" for reason, count in rejections.counts.most_common())
    most = next((reason for reason, _ in rejections.counts.most_common() if reason in _NEXT_STEP), None)
    step = _NEXT_STEP[most] if most else "add sources"
    return DataError(f"no instruction is left of {pool.rows} rows ({counts}); {step}")
