"""The judgments of an evaluation: which there must be, which there are, and how the rest is sampled."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selftaught.api.references import ModelSource
from selftaught.api.results import Checkpoint
from selftaught.api.stage_config import EvaluateConfig
from selftaught.artifacts import Folder, RowWriter
from selftaught.benchmarks.reading import BenchmarkData
from selftaught.judging import prompts
from selftaught.judging.seeds import request_seed
from selftaught.judging.verdicts import guided_pattern, verdict_of
from selftaught.records import BenchmarkPair, EvaluationJudgment, Order, Verdict, evaluation_id
from selftaught.stages import shards
from selftaught.stages.context import StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.feed import Allowance, Tally, feed

TOO_LONG = "promptTooLong"
"""Finish reason of a judgment that could not be asked for."""


@dataclass(frozen=True)
class Question:
    """One judgment that an evaluation needs."""

    benchmark: str
    pair: BenchmarkPair
    order: Order
    index: int
    checkpoint: Checkpoint | None
    position: int
    """Of the pair in its benchmark: decides which shard owns it."""

    @property
    def judge(self) -> str | None:
        """sha256 of the judge; none for the seed."""
        return self.checkpoint.sha256 if self.checkpoint else None

    @property
    def id(self) -> str:
        """Id of its row."""
        return evaluation_id(self.benchmark, self.judge, self.pair.id, self.order, self.index)


@dataclass(frozen=True)
class Outcome:
    """What is remembered of a row; its text stays on disk."""

    verdict: Verdict
    finish_reason: str
    input_tokens: int
    output_tokens: int


def questions(
    benchmark: str,
    data: BenchmarkData,
    checkpoint: Checkpoint | None,
    votes: int,
    owns: Callable[[int], bool] = lambda _: True,
) -> Iterator[Question]:
    """All judgments of the owned pairs by one judge, neighbours sharing their prompts' beginning."""
    for position, pair in enumerate(data.pairs):
        if owns(position):
            for order in Order:
                for index in range(votes):
                    yield Question(benchmark, pair, order, index, checkpoint, position)


def votes_by_pair(asked: Iterable[Question], known: Mapping[str, Outcome]) -> dict[str, dict[Order, list[Verdict]]]:
    """Verdicts by pair and order. Raises KeyError for a question without an answer."""
    votes: dict[str, dict[Order, list[Verdict]]] = {}
    for question in asked:
        orders = votes.setdefault(question.pair.id, {order: [] for order in Order})
        orders[question.order].append(known[question.id].verdict)
    return votes


def read_outcomes(folder: Folder) -> dict[str, Outcome]:
    """All rows that are there, by id, whichever shard wrote them."""
    return {
        row.id: Outcome(row.verdict, row.finish_reason, row.input_tokens, row.output_tokens)
        for row in folder.rows(EvaluationJudgment)
    }


@dataclass
class Judging:
    """Samples what is missing and keeps it, row by row."""

    config: EvaluateConfig
    context: StageContext
    writer: RowWriter
    clock: shards.Clock
    known: dict[str, Outcome]
    """Grows with every row."""
    allowance: Allowance
    total: int
    """Judgments of this shard, for the progress."""
    done: int
    """Those of them that there are."""
    tally: Tally = field(default_factory=Tally)

    def answer(self, asked: Sequence[Question], checkpoint: Checkpoint | None) -> None:
        """Have one judge answer all questions that have no answer yet."""
        missing = {question.id: question for question in asked if question.id not in self.known}
        if not missing:
            return
        source = ModelSource(uri=checkpoint.uri) if checkpoint else self.config.model
        engine = self.context.engine(self.context.models(source), self.config.engine)
        self.clock.gpus = engine.gpus

        def receive(completion: Completion) -> tuple[Request, ...]:
            self._keep(
                missing[completion.id],
                completion.text,
                Outcome(
                    verdict_of(completion.text, completion.finish_reason),
                    completion.finish_reason,
                    completion.input_tokens,
                    completion.output_tokens,
                ),
            )
            return ()

        def refuse(request: Request) -> tuple[Request, ...]:
            self._keep(missing[request.id], "", Outcome(Verdict.UNPARSABLE, TOO_LONG, 0, 0))
            return ()

        feed(
            engine,
            (self._request(question) for question in missing.values()),
            receive,
            refuse,
            allowance=self.allowance,
            stopping=self.context.stopping,
            tally=self.tally,
        )

    def _request(self, question: Question) -> Request:
        pair = question.pair
        return Request(
            id=question.id,
            message=prompts.judge_message(
                self.config.prompts, pair.instruction, pair.chosen, pair.rejected, question.order
            ),
            sampling=self.config.evaluation.sampling,
            seed=request_seed(
                self.config.evaluation.seed, self.config.iteration, pair.id, question.order, question.index
            ),
            pattern=guided_pattern(self.config.evaluation.sampling.max_tokens) if self.config.guided_verdict else None,
        )

    def _keep(self, question: Question, text: str, outcome: Outcome) -> None:
        self.writer.append(
            EvaluationJudgment(
                benchmark=question.benchmark,
                pair_id=question.pair.id,
                order=question.order,
                index=question.index,
                checkpoint=question.judge,
                text=text,
                verdict=outcome.verdict,
                finish_reason=outcome.finish_reason,
                input_tokens=outcome.input_tokens,
                output_tokens=outcome.output_tokens,
            )
        )
        self.known[question.id] = outcome
        self.done += 1
        self.clock.tick()
        self.context.progress.update(
            done=min(self.done, self.total),
            total=self.total,
            unit="judgments",
            input_tokens=self.tally.input_tokens,
            output_tokens=self.tally.output_tokens,
        )
