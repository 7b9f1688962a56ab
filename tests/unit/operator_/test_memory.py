"""A watch lags behind what was written; what was written counts until it has caught up."""

from builders import at
from selftaught.api.status import Phase, RunStatus
from selftaught_operator.memory import Memory

PENDING, RUNNING, DONE = (RunStatus(phase=phase) for phase in (Phase.PENDING, Phase.RUNNING, Phase.COMPLETE))


def test_with_nothing_written_the_watch_is_right() -> None:
    assert Memory().newest(PENDING, "1") == (PENDING, "1")


def test_a_watch_that_lags_behind_is_not_believed() -> None:
    memory = Memory()
    memory.wrote(RUNNING, on="1", version="2", now=at(0))
    assert memory.newest(PENDING, "1") == (RUNNING, "2")
    memory.wrote(DONE, on="2", version="3", now=at(1))
    for stale in ("1", "2"):
        assert memory.newest(PENDING, stale) == (DONE, "3")
    assert memory.written_at == at(1)


def test_a_watch_that_has_caught_up_is_right_again() -> None:
    memory = Memory()
    memory.wrote(RUNNING, on="1", version="2", now=at(0))
    assert memory.newest(RUNNING, "2") == (RUNNING, "2")
    assert memory.is_ours("2")
    assert not memory.is_ours("3")


def test_however_long_a_run_lasts_little_is_remembered_of_its_writes() -> None:
    memory = Memory()
    for number in range(1000):
        memory.wrote(RUNNING, on=str(number), version=str(number + 1), now=at(number))
        memory.newest(RUNNING, str(number + 1))
    assert sum(memory.is_ours(str(number)) for number in range(2000)) == 1


def test_what_somebody_else_wrote_counts() -> None:
    memory = Memory()
    memory.wrote(RUNNING, on="1", version="2", now=at(0))
    assert memory.newest(DONE, "9") == (DONE, "9")
