"""Keeps an engine busy: the loop that every sampling stage shares.

Requests are taken one by one as there is room; what a finished text leads to (a second call, the next wave of
samples) goes before new ones, so that work begun is ended soon and a kill loses little. New requests must come
sorted so that neighbours share prefixes: the engine's prefix cache then computes each prompt once.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selftaught.errors import BudgetError, DataError, Interrupted
from selftaught.stages.engine import Completion, Engine, Request


@dataclass
class Allowance:
    """Generated tokens that may still be spent; what is in flight counts with the most it can become."""

    limit: int | None
    """None: no limit."""
    spent: int = 0

    @classmethod
    def of_shard(cls, whole: int | None, shards: int, spent: int) -> "Allowance":
        """An equal part of what all shards may spend together; `spent` in rows that this shard owns."""
        return cls(None if whole is None else whole // shards, spent)

    def allows(self, tokens: int) -> bool:
        """Whether that many more tokens stay within the limit."""
        return self.limit is None or self.spent + tokens <= self.limit


@dataclass
class Tally:
    """Tokens of this process so far."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    output_tokens: int = 0


Receive = Callable[[Completion], Iterable[Request]]
"""Keeps a finished text; returns the requests that follow from it."""
Refuse = Callable[[Request], Iterable[Request]]
"""Keeps note of a request whose prompt is too long; returns the requests that follow."""


def feed(
    engine: Engine,
    requests: Iterable[Request],
    receive: Receive,
    refuse: Refuse,
    *,
    allowance: Allowance,
    stopping: Callable[[], bool],
    tally: Tally,
) -> None:
    """Sample all requests and what follows from them. `tally` is added to as texts come.

    Raises BudgetError when the next request could exceed the allowance (after all that are in flight are
    received), Interrupted when asked to stop. The engine is empty afterwards, however this ends.
    """
    following: deque[Request] = deque()
    fresh = iter(requests)
    reserved: dict[str, int] = {}
    in_flight = 0
    waiting = False  # a request is held back until those in flight have shown what they really cost
    try:
        while True:
            if stopping():
                raise Interrupted("asked to stop; finished rows are kept, the next start goes on from there")
            while engine.active < _queue(engine.capacity) and not waiting:
                request = following.popleft() if following else next(fresh, None)
                if request is None:
                    break
                most = min(request.sampling.max_tokens, engine.max_model_len)
                if not allowance.allows(in_flight + most):
                    following.appendleft(request)
                    waiting = True
                    break
                try:
                    engine.submit(request)
                except DataError:
                    following.extend(refuse(request))
                    continue
                reserved[request.id] = most
                in_flight += most
            if engine.active == 0:
                if waiting:
                    raise BudgetError(
                        f"the token budget is used up: {allowance.spent} of this shard's {allowance.limit} tokens "
                        "are spent and one more answer could exceed it; raise the run's budget, or lower maxTokens"
                    )
                return
            for completion in engine.step():
                in_flight -= reserved.pop(completion.id)
                allowance.spent += completion.output_tokens
                tally.input_tokens += completion.input_tokens
                tally.cached_tokens += completion.cached_tokens
                tally.output_tokens += completion.output_tokens
                waiting = False
                following.extend(receive(completion))
    finally:
        engine.abort_all()


def _queue(capacity: int) -> int:
    """A few more than are decoded at once, so that a step never waits for us."""
    return capacity + max(4, capacity // 8)
