"""pairs → judgments (paper, section 3.3).

An example is a pair in one order; a row is one sampled judgment. Which samples are drawn is decided by
`judging.draws`, wave by wave, from the verdicts alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from selftaught.api.judging import Orders
from selftaught.api.results import StageResult, Usage
from selftaught.api.stage_config import JudgeConfig
from selftaught.judging.draws import Draws
from selftaught.judging.prompts import judge_message
from selftaught.judging.seeds import request_seed
from selftaught.judging.verdicts import guided_pattern, verdict_of
from selftaught.records import Dropped, Judgment, Order, ResponsePair
from selftaught.stages import shards
from selftaught.stages.context import StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.feed import Allowance, Tally, feed


def run(config: JudgeConfig, context: StageContext) -> StageResult:
    """Sample the judgments of this shard. Idempotent; goes on where a killed process was.

    Raises DataError if there are no pairs, BudgetError, Interrupted.
    """
    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    with shards.Clock(folder, config.key, context) as clock:
        pairs = shards.input_rows(context.store.folder(config.pairs), ResponsePair)
        work = _Work(config, [pair for position, pair in enumerate(pairs) if context.shard.owns(position)])
        work.restore(folder.rows(Judgment), folder.rows(Dropped, "dropped"))
        if work.done < work.total:
            engine = context.engine(context.models(config.model), config.engine)
            clock.gpus = engine.gpus
            tally = Tally()
            index, count = context.shard.index, context.shard.count
            with folder.writer(index, count) as rows, folder.writer(index, count, "dropped") as dropped:

                def report() -> None:
                    clock.tick()
                    context.progress.update(
                        done=work.done,
                        total=work.total,
                        unit="examples",
                        input_tokens=tally.input_tokens,
                        output_tokens=tally.output_tokens,
                    )

                def receive(completion: Completion) -> list[Request]:
                    judgment = work.judgment(completion)
                    rows.append(judgment)
                    following = work.settle(judgment)
                    report()
                    return following

                def refuse(request: Request) -> list[Request]:
                    dropped.append(work.refuse(request))
                    report()
                    return []

                report()
                feed(
                    engine,
                    work.requests(),
                    receive,
                    refuse,
                    allowance=Allowance.of_shard(config.token_allowance, count, work.usage.output_tokens),
                    stopping=context.stopping,
                    tally=tally,
                )
    return shards.finish(folder, context, work.result())


@dataclass
class _Example:
    """A pair in one order, and what has been drawn for it."""

    pair: ResponsePair
    order: Order
    correct: dict[int, bool] = field(default_factory=dict)
    """By sample index."""
    waiting: int = 0
    """Requests of the wave in hand that are not back yet."""
    done: bool = False

    @property
    def id(self) -> str:
        return f"{self.pair.id}/{self.order}"


class _Work:
    """What is done and what is to do, for the pairs of one shard."""

    def __init__(self, config: JudgeConfig, pairs: list[ResponsePair]) -> None:
        self._config = config
        self._draws = Draws.of(config.judging)
        orders = tuple(Order) if config.judging.orders is Orders.BOTH else (Order.CHOSEN_FIRST,)
        self._examples = {
            example.id: example for pair in pairs for order in orders for example in [_Example(pair, order)]
        }
        self._dropped: Counter[str] = Counter()
        self._rows = 0
        self.usage = Usage()
        """Tokens of all kept judgments."""
        self.done = 0
        """Examples that are decided."""

    @property
    def total(self) -> int:
        return len(self._examples)

    def restore(self, judgments: Iterable[Judgment], dropped: Iterable[Dropped]) -> None:
        """Take in what earlier processes have kept, whichever shard they were."""
        for judgment in judgments:
            example = self._examples.get(f"{judgment.pair_id}/{judgment.order}")
            if example is not None:
                self._count(example, judgment)
        for row in dropped:
            example = self._examples.get(row.id)
            if example is not None and not example.done:
                self._dropped[row.reason] += 1
                self._close(example)
        for example in self._examples.values():
            if not example.done and not self._draws.next(example.correct):
                self._close(example)

    def requests(self) -> Iterator[Request]:
        """The next wave of each example; both orders of a pair and all samples of an example stand together."""
        for example in self._examples.values():
            if not example.done:
                for request in self._wave(example):
                    if example.done:
                        break
                    yield request

    def judgment(self, completion: Completion) -> Judgment:
        """The row of a finished text."""
        name, _, index = completion.id.rpartition("/")
        example = self._examples[name]
        return Judgment(
            id=completion.id,
            pair_id=example.pair.id,
            order=example.order,
            index=int(index),
            text=completion.text,
            verdict=verdict_of(completion.text, completion.finish_reason),
            finish_reason=completion.finish_reason,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
        )

    def settle(self, judgment: Judgment) -> list[Request]:
        """Remember a judgment that has been written; the next wave if this one is complete and undecided."""
        example = self._examples[f"{judgment.pair_id}/{judgment.order}"]
        self._count(example, judgment)
        example.waiting -= 1
        if example.waiting > 0:
            return []
        following = self._wave(example)
        if not following:
            self._close(example)
        return following

    def refuse(self, request: Request) -> Dropped:
        """The end of an example whose prompt leaves no room for an answer; `requests` asks no more of it."""
        example = self._examples[request.id.rpartition("/")[0]]
        self._dropped["TooLong"] += 1
        self._close(example)
        return Dropped(id=example.id, reason="TooLong")

    def result(self) -> StageResult:
        """The part of this shard."""
        return StageResult(
            stage=self._config.stage,
            iteration=self._config.iteration,
            key=self._config.key,
            rows=self._rows,
            dropped=dict(sorted(self._dropped.items())),
            usage=self.usage,
        )

    def _count(self, example: _Example, judgment: Judgment) -> None:
        example.correct[judgment.index] = judgment.correct
        self._rows += 1
        self.usage = Usage(
            input_tokens=self.usage.input_tokens + judgment.input_tokens,
            output_tokens=self.usage.output_tokens + judgment.output_tokens,
        )

    def _close(self, example: _Example) -> None:
        example.done = True
        self.done += 1

    def _wave(self, example: _Example) -> list[Request]:
        judging = self._config.judging
        indexes = self._draws.next(example.correct)
        example.waiting = len(indexes)
        if not indexes:
            return []
        pair, order = example.pair, example.order
        message = judge_message(self._config.prompts, pair.instruction, pair.chosen, pair.rejected, order)
        return [
            Request(
                id=f"{example.id}/{index}",
                message=message,
                sampling=judging.sampling,
                seed=request_seed(judging.seed, self._config.iteration, pair.id, order, index),
                pattern=guided_pattern(judging.sampling.max_tokens) if judging.guided_verdict else None,
            )
            for index in indexes
        ]
