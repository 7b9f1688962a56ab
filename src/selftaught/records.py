"""Rows of the artifacts, one JSON object per line.

Ids lead back: a training example names its judgment, that its pair, that its instruction, that its source.
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from selftaught.api.instructions import Category, ExpectedLength


class Record(BaseModel):
    """A frozen row; keys are the field names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(StrEnum):
    """What a judgment says."""

    A = "A"
    B = "B"
    UNPARSABLE = "Unparsable"


class Order(StrEnum):
    """Which response is shown as A."""

    CHOSEN_FIRST = "ChosenFirst"
    REJECTED_FIRST = "RejectedFirst"

    @property
    def correct(self) -> Verdict:
        """The verdict that agrees with how the pair was built."""
        return Verdict.A if self is Order.CHOSEN_FIRST else Verdict.B


class Instruction(Record):
    """A selected instruction."""

    id: str
    source: str
    """Name of its source."""
    source_row: int
    """Row in the source, from 0."""
    instruction: str
    category: Category | None = None
    complexity: int | None = None
    expected_length: ExpectedLength | None = None


class Categorisation(Record):
    """What the generator said about an instruction; no properties if it cannot be read."""

    id: str
    """The id of its instruction."""
    category: Category | None = None
    complexity: int | None = None
    expected_length: ExpectedLength | None = None
    finish_reason: str
    """`stop`, `length`, or `promptTooLong` when it could not be asked."""
    input_tokens: int
    output_tokens: int


class ResponsePair(Record):
    """Two responses to an instruction, the better one known by construction."""

    id: str
    """The id of its instruction, with `#r<iteration>` added when pairs are made in each iteration."""
    instruction_id: str
    instruction: str
    chosen: str
    rejected: str
    modified_instruction: str
    """What the rejected response really answers."""
    input_tokens: int = 0
    """Prompt tokens of both calls."""
    output_tokens: int = 0
    """Generated tokens of both calls."""


class ChosenResponse(Record):
    """A chosen response whose pair is not finished yet; kept so that a kill does not lose it."""

    id: str
    """The id of its pair."""
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class Dropped(Record):
    """Work that came to nothing; kept so that it is counted and not done again."""

    id: str
    """The id of what it would have become."""
    reason: str
    """CamelCase word."""
    input_tokens: int = 0
    output_tokens: int = 0


class Judgment(Record):
    """One sampled judgment of a pair in one order."""

    id: str
    """`<pair>/<order>/<index>`."""
    pair_id: str
    order: Order
    index: int
    """Sample index, from 0."""
    text: str
    """All of the generated text."""
    verdict: Verdict
    finish_reason: str
    """`stop` or `length`."""
    input_tokens: int
    output_tokens: int

    @property
    def correct(self) -> bool:
        """Whether the verdict agrees with how the pair was built."""
        return self.verdict == self.order.correct


class Example(Record):
    """A training row in TRL's conversational prompt–completion form."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]
    id: str
    """The id of its judgment."""
    verdict: Verdict


class BenchmarkPair(Record):
    """A pair with a known better response."""

    id: str
    instruction: str
    chosen: str
    rejected: str
    subset: str | None = None


class EvaluationJudgment(Record):
    """One judgment of a benchmark pair."""

    benchmark: str
    pair_id: str
    order: Order
    index: int
    """Vote, from 0."""
    checkpoint: str | None = None
    """sha256 of the judged checkpoint; none for the seed."""
    text: str
    verdict: Verdict
    finish_reason: str
    """`stop`, `length`, or `promptTooLong` (nothing could be asked)."""
    input_tokens: int
    output_tokens: int

    @property
    def id(self) -> str:
        """`<benchmark>/<checkpoint or seed>/<pair>/<order>/<vote>`."""
        return evaluation_id(self.benchmark, self.checkpoint, self.pair_id, self.order, self.index)


def evaluation_id(benchmark: str, checkpoint: str | None, pair_id: str, order: Order, index: int) -> str:
    """Id of a judgment of a benchmark pair, known before it is asked for."""
    return f"{benchmark}/{checkpoint or 'seed'}/{pair_id}/{order}/{index}"


JsonObject = dict[str, Any]
"""A raw row before it is validated."""
