"""How the operator begins: it waits for an API server that is away, and says at once what waiting cannot mend."""

import asyncio
from collections.abc import Sequence

import pytest

from selftaught_operator.__main__ import PATIENCE_SECONDS, once_it_answers
from selftaught_operator.transport import ApiError
from virtual_time import play

NOT_INSTALLED = ApiError(404, "NotFound", "the server could not find the requested resource")
AWAY = ApiError(0, "ClientConnectorError", "the API server did not answer")
BUSY = ApiError(503, "ServiceUnavailable", "etcd has no leader")


def asked(answers: Sequence[ApiError | None], stop_after: float = 1e9) -> list[float]:
    """When the API server was asked, until it answered or the process was told to stop."""
    times: list[float] = []

    async def check() -> None:
        times.append(asyncio.get_running_loop().time())
        answer = answers[min(len(times), len(answers)) - 1]
        if answer is not None:
            raise answer

    async def scene() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(stop_after, stop.set)
        await once_it_answers(check, stop)

    play(scene())
    return times


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        pytest.param([None], 1, id="it answers"),
        pytest.param([AWAY, AWAY, None], 3, id="it is away"),
        pytest.param([BUSY, None], 2, id="it is starting"),
    ],
)
def test_an_api_server_that_is_away_is_waited_for(answers: Sequence[ApiError | None], count: int) -> None:
    assert asked(answers) == [number * PATIENCE_SECONDS for number in range(count)]


def test_what_waiting_cannot_mend_is_said_at_once() -> None:
    with pytest.raises(ApiError, match="could not find"):
        asked([AWAY, NOT_INSTALLED])


def test_who_waits_can_be_stopped() -> None:
    assert len(asked([AWAY], stop_after=2.5 * PATIENCE_SECONDS)) == 3
