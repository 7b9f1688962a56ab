"""One task for each run: who wakes it, when it rests, and that no two passes of a run are at work at once."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from builders import PROMPTS, T0
from selftaught_operator import passes as module
from selftaught_operator.cluster import GoneError, StaleError
from selftaught_operator.memory import Memory
from selftaught_operator.passes import LONGEST_PASS_SECONDS, Body, Finished, Passes, Task, older
from selftaught_operator.reconcile import Next
from selftaught_operator.transport import ApiError

KEY = ("lab", "demo")
REST = Next(rest=True)
LATER = Next(at=T0 + timedelta(hours=1))


def a_body(uid: str = "one", version: str = "1", name: str = "demo") -> Body:
    return {"metadata": {"namespace": "lab", "name": name, "uid": uid, "resourceVersion": version}}


@dataclass
class StubReconciler:
    """Answers passes as a test says: a step, an error, or a function that makes one; the last for ever."""

    answers: list[Any] = field(default_factory=lambda: [LATER])
    seen: list[Body] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0

    async def reconcile(self, body: Body, memory: Memory, now: datetime) -> Next:
        self.seen.append(body)
        self.memories.append(memory)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                answer = await answer()
            if isinstance(answer, BaseException):
                raise answer
            assert isinstance(answer, Next)
            return answer
        finally:
            self.at_work -= 1

    @property
    def passes(self) -> int:
        return len(self.seen)


@dataclass
class Bench:
    """Passes over a stub, with a clock that tests set."""

    stub: StubReconciler
    now: datetime = T0
    finished: list[Finished] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.passes = Passes(self.stub.reconcile, lambda: self.now, self.finished.append)

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not happened():
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Longer than anything takes that is due."""
        await asyncio.sleep(0.03)


@pytest.fixture(autouse=True)
def short_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.002)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.005)
    monkeypatch.setattr(module, "FIRST_BACKOFF_SECONDS", 0.005)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_SECONDS", 0.02)


def go(scene: Callable[[Bench], Awaitable[None]], *answers: Any) -> Bench:
    """Play a scene; the bench as it is in the end."""

    async def play() -> Bench:
        bench = Bench(StubReconciler(list(answers) or [LATER]))
        try:
            await scene(bench)
        finally:
            await bench.passes.close()
        return bench

    return asyncio.run(play())


def gate() -> tuple[asyncio.Event, Callable[[], Coroutine[Any, Any, Next]]]:
    """A pass that stays at work until it is let go."""
    let_go = asyncio.Event()

    async def held() -> Next:
        await let_go.wait()
        return LATER

    return let_go, held


def test_a_burst_of_events_is_one_pass() -> None:
    async def scene(bench: Bench) -> None:
        for version in range(1, 20):
            bench.passes.see(a_body(version=str(version)))
            bench.passes.wake(KEY)
        await bench.settle()

    bench = go(scene)
    assert [body["metadata"]["resourceVersion"] for body in bench.stub.seen] == ["19"]


def test_events_during_a_pass_bring_one_more() -> None:
    async def scene(bench: Bench) -> None:
        let_go, held = gate()
        bench.stub.answers[:] = [held, LATER]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.passes == 1)
        for _ in range(10):
            bench.passes.wake(KEY)
        await bench.settle()
        assert bench.stub.passes == 1
        let_go.set()
        await bench.settle()

    assert go(scene).stub.passes == 2


def test_never_two_passes_of_one_run_but_of_several_runs() -> None:
    async def scene(bench: Bench) -> None:
        let_go, held = gate()
        bench.stub.answers[:] = [held]
        for name in ("demo", "other"):
            bench.passes.see(a_body(name=name))
        await bench.until(lambda: bench.stub.at_work == 2)
        for _ in range(5):
            bench.passes.see(a_body())
            bench.passes.wake(KEY)
            await asyncio.sleep(0.004)
        let_go.set()
        await bench.settle()

    assert go(scene).stub.most_at_work == 2


def test_no_more_passes_at_once_than_the_api_server_should_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(bench: Bench) -> None:
        let_go, held = gate()
        bench.stub.answers[:] = [held]
        for number in range(module.AT_ONCE + 5):
            bench.passes.see(a_body(name=f"run-{number}"))
        await bench.settle()
        let_go.set()
        await bench.until(lambda: bench.stub.passes == module.AT_ONCE + 5)

    assert go(scene).stub.most_at_work == module.AT_ONCE


def test_an_older_state_of_a_run_changes_nothing() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body(version="10"))
        await bench.settle()
        bench.passes.see(a_body(version="9"))
        await bench.settle()
        bench.passes.wake(KEY)
        await bench.settle()

    assert [body["metadata"]["resourceVersion"] for body in go(scene).stub.seen] == ["10", "10"]


@pytest.mark.parametrize(
    ("body", "than", "answer"),
    [
        pytest.param(a_body(version="9"), a_body(version="10"), True, id="numbers, not words"),
        pytest.param(a_body(version="10"), a_body(version="10"), False, id="the same"),
        pytest.param(a_body("two", "9"), a_body(version="10"), False, id="of another run of the name"),
        pytest.param(a_body(version="x9"), a_body(version="10"), False, id="versions that are no numbers"),
    ],
)
def test_older(body: Body, than: Body, answer: bool) -> None:
    meta = than["metadata"]
    assert older(body, Task(uid=meta["uid"], version=meta["resourceVersion"])) is answer


def test_time_alone_brings_a_pass() -> None:
    async def scene(bench: Bench) -> None:
        bench.stub.answers[:] = [Next(at=bench.now + timedelta(seconds=0.01)), LATER]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.passes == 2)
        await bench.settle()

    assert go(scene).stub.passes == 2


def test_a_run_at_rest_costs_nothing_and_is_woken_by_a_change() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body())
        await bench.until(lambda: bench.passes.keys() == ())
        bench.passes.wake(KEY)  # one of its Jobs changed
        await bench.settle()
        assert bench.stub.passes == 1
        bench.passes.see(a_body(version="2"))
        await bench.until(lambda: bench.stub.passes == 2)
        assert bench.stub.memories[1] is not bench.stub.memories[0]

    go(scene, REST)


def test_a_change_during_the_last_pass_is_not_lost() -> None:
    async def scene(bench: Bench) -> None:
        async def changes() -> Next:
            bench.passes.see(a_body(version="2"))
            return REST

        bench.stub.answers[:] = [changes, REST]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.passes.keys() == ())

    assert [body["metadata"]["resourceVersion"] for body in go(scene).stub.seen] == ["1", "2"]


def test_errors_are_tried_again_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []

    async def scene(bench: Bench) -> None:
        pause = bench.passes._pause

        async def measured(task: Any, step: Next) -> None:
            assert step.at is not None
            waits.append((step.at - bench.now).total_seconds())
            await pause(task, step)

        bench.passes._pause = measured  # type: ignore[method-assign]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.passes == 6)

    bench = go(scene, *[ApiError(500, "InternalError", "etcd is away")] * 4, KeyError("ours"), LATER)
    assert waits[:5] == [0.005, 0.01, 0.02, 0.02, 0.02]
    assert [each.error for each in bench.finished][:6] == ["InternalError"] * 4 + ["KeyError", ""]
    assert [record.levelname for record in caplog.records][:5] == ["WARNING"] * 4 + ["ERROR"]
    assert "lab/demo: etcd is away (500)" in caplog.text


def test_a_stale_view_is_no_error() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.passes == 2)
        await bench.settle()

    assert [each.error for each in go(scene, StaleError(), LATER).finished] == ["", ""]


def test_a_run_that_is_gone_is_left_alone() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body())
        await bench.until(lambda: bench.passes.keys() == ())
        await bench.settle()

    assert go(scene, GoneError()).stub.passes == 1


def test_a_run_that_is_deleted_ends_the_pass_at_work() -> None:
    async def scene(bench: Bench) -> None:
        _, held = gate()
        bench.stub.answers[:] = [held]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.at_work == 1)
        bench.passes.forget(a_body(version="2"))
        await bench.until(lambda: bench.stub.at_work == 0)
        assert bench.passes.keys() == ()
        assert not bench.passes.stuck()

    assert go(scene).stub.passes == 1


def test_news_of_an_earlier_runs_end_do_not_end_the_run_of_its_name() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body("two"))
        bench.passes.forget(a_body("one"))
        await bench.settle()

    assert go(scene).stub.passes == 1


def test_another_run_of_the_name_starts_with_an_empty_memory() -> None:
    """Also if nobody told that the first was deleted: a watch that was cut does not."""

    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body("one"))
        await bench.settle()
        bench.stub.memories[0].prompts = PROMPTS
        bench.passes.see(a_body("two", version="1"))
        await bench.settle()

    bench = go(scene)
    assert [body["metadata"]["uid"] for body in bench.stub.seen] == ["one", "two"]
    assert bench.stub.memories[1].prompts is None


def test_another_run_of_the_name_that_comes_during_a_pass_starts_with_an_empty_memory() -> None:
    async def scene(bench: Bench) -> None:
        async def replaced() -> Next:
            bench.passes.see(a_body("two"))
            return REST

        bench.stub.answers[:] = [replaced, LATER]
        bench.passes.see(a_body("one"))
        await bench.until(lambda: bench.stub.passes == 2)

    bench = go(scene)
    assert bench.stub.memories[1] is not bench.stub.memories[0]


def test_passes_of_one_run_share_its_memory() -> None:
    async def scene(bench: Bench) -> None:
        bench.passes.see(a_body())
        await bench.settle()
        bench.passes.see(a_body(version="2"))
        await bench.settle()

    first, second = go(scene).stub.memories
    assert first is second


def test_a_pass_that_does_not_end_is_stuck() -> None:
    async def scene(bench: Bench) -> None:
        let_go, held = gate()
        bench.stub.answers[:] = [held, LATER]
        bench.passes.see(a_body())
        await bench.until(lambda: bench.stub.at_work == 1)
        bench.now += timedelta(seconds=LONGEST_PASS_SECONDS)
        assert not bench.passes.stuck()
        bench.now += timedelta(seconds=1)
        assert bench.passes.stuck()
        let_go.set()
        await bench.until(lambda: bench.stub.at_work == 0)
        await bench.settle()
        assert not bench.passes.stuck()

    assert go(scene).finished[0].seconds == LONGEST_PASS_SECONDS + 1


def test_passes_are_made_at_whole_seconds() -> None:
    times: list[datetime] = []

    async def note(_: Body, __: Memory, now: datetime) -> Next:
        times.append(now)
        return LATER

    async def play() -> None:
        passes = Passes(note, lambda: T0 + timedelta(microseconds=123456))
        passes.see(a_body())
        await asyncio.sleep(0.03)
        await passes.close()

    asyncio.run(play())
    assert times == [T0]


def test_closing_ends_every_task() -> None:
    async def scene(bench: Bench) -> None:
        _, held = gate()
        bench.stub.answers[:] = [held]
        for name in ("a", "b"):
            bench.passes.see(a_body(name=name))
        await bench.until(lambda: bench.stub.at_work == 2)
        await bench.passes.close()
        assert bench.stub.at_work == 0
        assert bench.passes.keys() == ()

    go(scene)
