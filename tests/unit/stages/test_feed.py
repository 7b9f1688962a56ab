from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.references import Sampling
from selftaught.errors import BudgetError, Interrupted
from selftaught.stages.engine import Completion, Request
from selftaught.stages.feed import Allowance, Tally, feed
from stub_engine import StubEngine, verdict_reply

SAMPLING = Sampling(max_tokens=64)


def request(name: str, message: str = "a b c") -> Request:
    return Request(name, message, SAMPLING, seed=len(name))


def never() -> bool:
    return False


def run(engine: StubEngine, count: int, limit: int | None = None, spent: int = 0) -> tuple[list[str], Tally]:
    received: list[str] = []
    tally = Tally()

    def receive(completion: Completion) -> list[Request]:
        received.append(completion.id)
        return []

    feed(
        engine,
        (request(f"r{number}") for number in range(count)),
        receive,
        lambda _: [],
        allowance=Allowance(limit, spent),
        stopping=never,
        tally=tally,
    )
    return received, tally


def test_everything_is_answered_once() -> None:
    engine = StubEngine()
    received, tally = run(engine, 100)
    assert sorted(received) == sorted(f"r{number}" for number in range(100))
    assert (tally.output_tokens, tally.input_tokens) == (engine.output_tokens, 300)


def test_the_engine_never_runs_dry_nor_is_flooded() -> None:
    class WatchedEngine(StubEngine):
        def step(self) -> list[Completion]:
            seen.append(self.active)
            return super().step()

    seen: list[int] = []
    run(WatchedEngine(capacity=16), 200)
    full = seen[: next(position for position, active in enumerate(seen) if active < 16)]
    assert len(full) > 0.8 * len(seen)
    assert max(seen) <= 2 * 16


def test_what_follows_goes_before_what_is_new() -> None:
    engine = StubEngine(capacity=2)

    def receive(completion: Completion) -> list[Request]:
        return [request(f"{completion.id}/second")] if "/" not in completion.id else []

    feed(
        engine,
        (request(f"r{number}") for number in range(40)),
        receive,
        lambda _: [],
        allowance=Allowance(None),
        stopping=never,
        tally=Tally(),
    )
    order = [one.id for one in engine.submitted]
    distances = [order.index(f"{name}/second") - order.index(name) for name in order if "/" not in name]
    assert len(order) == 80
    assert max(distances) < 20


@given(limit=st.integers(0, 3000), spent=st.integers(0, 200), count=st.integers(0, 30))
def test_the_allowance_is_never_exceeded(limit: int, spent: int, count: int) -> None:
    engine = StubEngine(verdict_reply())
    unlimited = StubEngine(verdict_reply())
    run(unlimited, count)
    most = spent + unlimited.output_tokens
    try:
        received, _ = run(engine, count, limit, spent)
        assert len(received) == count
    except BudgetError:
        assert most + SAMPLING.max_tokens > limit  # not given up too early
    assert engine.output_tokens == 0 or spent + engine.output_tokens <= limit
    assert engine.aborted == 0  # all that was begun is received


def test_a_budget_that_suffices_is_not_given_up_while_answers_are_in_flight() -> None:
    needed = run(StubEngine(capacity=8), 40)[1].output_tokens
    received, _ = run(StubEngine(capacity=8), 40, limit=needed + SAMPLING.max_tokens)
    assert len(received) == 40


def test_the_error_of_a_used_up_budget_names_figures() -> None:
    with pytest.raises(BudgetError, match="70 of this shard's 100 tokens"):
        run(StubEngine(), 3, limit=100, spent=70)


@pytest.mark.parametrize(
    ("whole", "count", "limit"),
    [pytest.param(None, 3, None, id="none"), pytest.param(100, 3, 33, id="an equal part, rounded down")],
)
def test_allowance_of_a_shard(whole: int | None, count: int, limit: int | None) -> None:
    assert Allowance.of_shard(whole, count, 5) == Allowance(limit, 5)


def test_a_request_to_stop_leaves_an_empty_engine() -> None:
    engine = StubEngine()
    answers = iter([False] * 10 + [True])
    received: list[str] = []

    def receive(completion: Completion) -> list[Request]:
        received.append(completion.id)
        return []

    with pytest.raises(Interrupted):
        feed(
            engine,
            (request(f"r{number}") for number in range(100)),
            receive,
            lambda _: [],
            allowance=Allowance(None),
            stopping=lambda: next(answers),
            tally=Tally(),
        )
    assert (engine.active, len(received) + engine.aborted) == (0, len(engine.submitted))


def test_an_error_while_receiving_leaves_an_empty_engine() -> None:
    engine = StubEngine()

    def receive(_: Completion) -> list[Request]:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        feed(
            engine,
            [request("r1"), request("r22")],
            receive,
            lambda _: [],
            allowance=Allowance(None),
            stopping=never,
            tally=Tally(),
        )
    assert engine.active == 0


def test_too_long_prompts_are_refused_and_others_go_on() -> None:
    def requests() -> Iterator[Request]:
        for number in range(20):
            yield request(f"r{number}", "word " * (30 if number % 2 else 10))

    engine = StubEngine(max_model_len=20)
    refused: list[str] = []
    received: list[str] = []

    def refuse(one: Request) -> list[Request]:
        refused.append(one.id)
        return [request(f"{one.id}/shorter", "word")]

    def receive(completion: Completion) -> list[Request]:
        received.append(completion.id)
        return []

    feed(engine, requests(), receive, refuse, allowance=Allowance(None), stopping=never, tally=Tally())
    assert refused == [f"r{number}" for number in range(1, 20, 2)]
    assert len(received) == 20
