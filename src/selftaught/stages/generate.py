"""instructions → response pairs (paper, section 3.2).

Two calls per instruction: an ordinary answer, the chosen response; then, given both, a modified instruction and a
good answer to that, the rejected response. A row is one finished pair. Pairs that come to nothing are kept in
`dropped-*.jsonl`, so that they are counted and not tried again; chosen responses whose second call is still to come
in `responses-*.jsonl`, so that a kill does not lose them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from selftaught.api.instructions import Refresh
from selftaught.api.results import StageResult, Usage
from selftaught.api.stage_config import GenerateConfig
from selftaught.errors import DataError
from selftaught.judging.modifications import guided_form, parse_modification
from selftaught.judging.prompts import render
from selftaught.judging.seeds import request_seed
from selftaught.records import ChosenResponse, Dropped, Instruction, ResponsePair
from selftaught.stages import shards
from selftaught.stages.context import StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.feed import Allowance, Tally, feed

RESPOND, MODIFY = "respond", "modify"


def run(config: GenerateConfig, context: StageContext) -> StageResult:
    """Make the pairs of this shard. Idempotent; goes on where a killed process was.

    Raises DataError if there are no instructions or no pair comes out, BudgetError, Interrupted.
    """
    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    with shards.Clock(folder, config.key, context) as clock:
        rows = shards.input_rows(context.store.folder(config.instructions), Instruction)
        work = _Work(config, [row for position, row in enumerate(rows) if context.shard.owns(position)])
        work.restore(
            folder.rows(ResponsePair), folder.rows(Dropped, "dropped"), folder.rows(ChosenResponse, "responses")
        )
        if work.open:
            engine = context.engine(context.models(config.model), config.engine)
            clock.gpus = engine.gpus
            tally = Tally()
            index, count = context.shard.index, context.shard.count
            with (
                folder.writer(index, count) as pairs,
                folder.writer(index, count, "dropped") as dropped,
                folder.writer(index, count, "responses") as responses,
            ):

                def keep(outcome: ResponsePair | Dropped | ChosenResponse, identity: str) -> list[Request]:
                    match outcome:
                        case ResponsePair():
                            pairs.append(outcome)
                        case Dropped():
                            dropped.append(outcome)
                        case ChosenResponse():
                            responses.append(outcome)
                    following = work.settle(identity, outcome)
                    clock.tick()
                    context.progress.update(
                        done=work.done,
                        total=work.total,
                        unit="pairs",
                        input_tokens=tally.input_tokens,
                        output_tokens=tally.output_tokens,
                    )
                    return following

                context.progress.update(done=work.done, total=work.total, unit="pairs")
                feed(
                    engine,
                    work.requests(),
                    receive=lambda completion: keep(work.outcome(completion), work.owner(completion.id)),
                    refuse=lambda request: keep(work.too_long(request), work.owner(request.id)),
                    allowance=Allowance.of_shard(config.token_allowance, count, work.usage.output_tokens),
                    stopping=context.stopping,
                    tally=tally,
                )
    return shards.finish(folder, context, work.result(), _at_least_one)


class _Work:
    """What is done and what is to do, for the instructions of one shard."""

    def __init__(self, config: GenerateConfig, instructions: list[Instruction]) -> None:
        self._config = config
        suffix = f"#r{config.iteration}" if config.pairs.refresh is Refresh.EACH_ITERATION else ""
        self._instructions = {f"{row.id}{suffix}": row for row in instructions}
        self._chosen: dict[str, ChosenResponse] = {}
        self._settled: dict[str, ResponsePair | Dropped] = {}

    @property
    def total(self) -> int:
        return len(self._instructions)

    @property
    def done(self) -> int:
        return len(self._settled)

    @property
    def open(self) -> bool:
        return self.done < self.total

    @property
    def usage(self) -> Usage:
        """Tokens of all calls that are kept, each once."""
        pending = [row for identity, row in self._chosen.items() if identity not in self._settled]
        rows = [*self._settled.values(), *pending]
        return Usage(
            input_tokens=sum(row.input_tokens for row in rows), output_tokens=sum(row.output_tokens for row in rows)
        )

    def restore(
        self, pairs: Iterable[ResponsePair], dropped: Iterable[Dropped], responses: Iterable[ChosenResponse]
    ) -> None:
        """Take in what earlier processes have kept, whichever shard they were."""
        self._chosen.update((row.id, row) for row in responses if row.id in self._instructions)
        self._settled.update((row.id, row) for row in dropped if row.id in self._instructions)
        self._settled.update((row.id, row) for row in pairs if row.id in self._instructions)

    def requests(self) -> Iterator[Request]:
        """One call for each open pair: second calls that were not reached first."""
        waiting = [identity for identity in self._instructions if identity not in self._settled]
        for identity in waiting:
            if identity in self._chosen:
                yield self._modify(identity)
        for identity in waiting:
            if identity not in self._chosen:
                yield self._request(identity, RESPOND, self._config.prompts.respond, {})

    def owner(self, request_id: str) -> str:
        """The pair that a request belongs to."""
        return request_id.rpartition("/")[0]

    def outcome(self, completion: Completion) -> ResponsePair | Dropped | ChosenResponse:
        """What a finished text is worth."""
        identity, _, call = completion.id.rpartition("/")
        if call == RESPOND:
            return self._first(identity, completion)
        return self._second(identity, completion)

    def too_long(self, request: Request) -> Dropped:
        """The end of a pair whose prompt leaves no room for an answer."""
        return self._dropped(self.owner(request.id), "TooLong", None)

    def settle(self, identity: str, outcome: ResponsePair | Dropped | ChosenResponse) -> list[Request]:
        """Remember an outcome that has been written; the call that follows from it."""
        if isinstance(outcome, ChosenResponse):
            self._chosen[identity] = outcome
            return [self._modify(identity)]
        self._settled[identity] = outcome
        return []

    def result(self) -> StageResult:
        """The part of this shard."""
        dropped = Counter(row.reason for row in self._settled.values() if isinstance(row, Dropped))
        return StageResult(
            stage=self._config.stage,
            iteration=self._config.iteration,
            key=self._config.key,
            rows=self.done - dropped.total(),
            dropped=dict(sorted(dropped.items())),
            usage=self.usage,
        )

    def _first(self, identity: str, completion: Completion) -> ChosenResponse | Dropped:
        if completion.finish_reason != "stop":
            return self._dropped(identity, "CutOff", completion)
        if not completion.text.strip():
            return self._dropped(identity, "Empty", completion)
        return ChosenResponse(
            id=identity,
            text=completion.text.strip(),
            finish_reason=completion.finish_reason,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
        )

    def _second(self, identity: str, completion: Completion) -> ResponsePair | Dropped:
        if completion.finish_reason != "stop":
            return self._dropped(identity, "CutOff", completion)
        modification = parse_modification(completion.text)
        if modification is None:
            return self._dropped(identity, "Unparsable", completion)
        if not modification.instruction or not modification.response:
            return self._dropped(identity, "Empty", completion)
        instruction, chosen = self._instructions[identity], self._chosen[identity]
        if _same(modification.instruction, instruction.instruction) or _same(modification.response, chosen.text):
            return self._dropped(identity, "Identical", completion)
        return ResponsePair(
            id=identity,
            instruction_id=instruction.id,
            instruction=instruction.instruction,
            chosen=chosen.text,
            rejected=modification.response,
            modified_instruction=modification.instruction,
            input_tokens=chosen.input_tokens + completion.input_tokens,
            output_tokens=chosen.output_tokens + completion.output_tokens,
        )

    def _dropped(self, identity: str, reason: str, completion: Completion | None) -> Dropped:
        calls = [row for row in (self._chosen.get(identity), completion) if row is not None]
        return Dropped(
            id=identity,
            reason=reason,
            input_tokens=sum(call.input_tokens for call in calls),
            output_tokens=sum(call.output_tokens for call in calls),
        )

    def _modify(self, identity: str) -> Request:
        pairs = self._config.pairs
        pattern = guided_form(pairs.sampling.max_tokens) if pairs.guided_modification else None
        response = self._chosen[identity].text
        return self._request(identity, MODIFY, self._config.prompts.modify, {"response": response}, pattern)

    def _request(
        self, identity: str, call: str, template: str, values: dict[str, str], pattern: str | None = None
    ) -> Request:
        instruction = self._instructions[identity].instruction
        return Request(
            id=f"{identity}/{call}",
            message=render(template, {"instruction": instruction, **values}),
            sampling=self._config.pairs.sampling,
            seed=request_seed(self._config.pairs.seed, self._config.iteration, identity, call, 0),
            pattern=pattern,
        )


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()


def _at_least_one(merged: StageResult) -> StageResult:
    if merged.rows == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in merged.dropped.items())
        raise DataError(
            f"no response pair came out ({reasons}); use a seed that follows the modify prompt, "
            "or give it another one in spec.prompts"
        )
    return merged
