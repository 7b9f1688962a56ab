"""Replicas agree on one that works, over an API server with Leases, in virtual time."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from kubernetes.aio.leaderelection import leaderelection

from selftaught_operator.leadership import LEASE, LeadershipLostError, lead
from selftaught_operator.settings import Settings
from selftaught_operator.transport import JSON, ApiError, Object
from simulated_api_server import SimulatedApiServer
from virtual_time import LoopClock, play

SECONDS = 15
PATH = f"/apis/coordination.k8s.io/v1/namespaces/selftaught-system/leases/{LEASE}"


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderelection, "time", LoopClock())


class Replica:
    """An operator that notes when it works. Its way to the API server can be cut, or lead nowhere."""

    def __init__(self, server: SimulatedApiServer, name: str) -> None:
        self._server = server
        self._settings = Settings(image="x", pod_name=name, lease_seconds=SECONDS)
        self.stop = asyncio.Event()
        self.cut = self.silent = False
        self.began: float | None = None
        self.ended: float | None = None
        self.task = asyncio.create_task(lead(self, self._settings, self._work))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        if self.silent:
            await asyncio.sleep(30)
        if self.cut or self.silent:
            raise ApiError(0, "ClientConnectorError", "the API server did not answer")
        return await self._server.request(method, path, query=query, body=body, content_type=content_type)

    async def _work(self) -> None:
        self.began = now()
        try:
            await self.stop.wait()
        finally:
            self.ended = now()

    @property
    def works(self) -> bool:
        return self.began is not None and self.ended is None


def now() -> float:
    return asyncio.get_running_loop().time()


def holder(server: SimulatedApiServer) -> Any:
    return server.objects[PATH]["spec"]["holderIdentity"]


async def end(*replicas: Replica) -> None:
    for replica in replicas:
        replica.task.cancel()
    await asyncio.gather(*(replica.task for replica in replicas), return_exceptions=True)


def test_one_of_two_works_and_holds_the_lease() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        first = Replica(server, "first")
        await asyncio.sleep(0.1)
        second = Replica(server, "second")
        await asyncio.sleep(10 * SECONDS)
        assert (first.works, second.works) == (True, False)
        assert holder(server) == "first"
        spec = server.objects[PATH]["spec"]
        assert spec["leaseDurationSeconds"] == SECONDS
        assert spec["acquireTime"].endswith("Z")
        assert spec["renewTime"] > spec["acquireTime"]
        await end(first, second)

    play(scene())


def test_two_that_begin_at_once_are_told_apart_by_the_api_server() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replicas = [Replica(server, name) for name in ("first", "second", "third")]
        for _ in range(5 * SECONDS):
            await asyncio.sleep(1)
            assert sum(replica.works for replica in replicas) == 1
        await end(*replicas)

    play(scene())


def test_a_leader_whose_work_ends_hands_over_at_once() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        first = Replica(server, "first")
        await asyncio.sleep(0.1)
        second = Replica(server, "second")
        await asyncio.sleep(SECONDS)
        stopped = now()
        first.stop.set()
        await first.task
        assert holder(server) == ""
        await asyncio.sleep(SECONDS / 5)
        assert second.works
        assert second.began is not None
        assert second.began - stopped < SECONDS / 5
        assert holder(server) == "second"
        await end(second)

    play(scene())


def test_a_leader_that_dies_is_followed_when_its_lease_has_run_out() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        first = Replica(server, "first")
        await asyncio.sleep(0.1)
        second = Replica(server, "second")
        await asyncio.sleep(SECONDS)
        died = now()
        first.cut = True
        await end(first)
        await asyncio.sleep(2 * SECONDS)
        assert second.began is not None
        assert SECONDS * 4 / 5 < second.began - died < SECONDS * 3 / 2
        await end(second)

    play(scene())


@pytest.mark.parametrize("trouble", ["cut", "silent"])
def test_a_leader_that_cannot_renew_ends_its_work_before_another_begins(trouble: str) -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        first = Replica(server, "first")
        await asyncio.sleep(0.1)
        second = Replica(server, "second")
        await asyncio.sleep(SECONDS)
        setattr(first, trouble, True)
        with pytest.raises(LeadershipLostError, match="could not be renewed"):
            await first.task
        assert first.ended is not None
        await asyncio.sleep(2 * SECONDS)
        assert second.began is not None
        assert first.ended < second.began
        await end(second)

    play(scene())


def test_who_lost_the_lease_leaves_it_to_the_other() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replica = Replica(server, "first")
        await asyncio.sleep(SECONDS)
        lease = server.objects[PATH]
        server.put(PATH, lease | {"spec": lease["spec"] | {"holderIdentity": "other", "renewTime": "later"}})
        with pytest.raises(LeadershipLostError):
            await replica.task
        assert replica.ended is not None
        assert holder(server) == "other"
        assert server.requests[-1][0] != "PATCH"

    play(scene())


def test_a_short_trouble_is_borne() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replica = Replica(server, "first")
        await asyncio.sleep(SECONDS)
        replica.cut = True
        await asyncio.sleep(SECONDS / 2)
        replica.cut = False
        await asyncio.sleep(3 * SECONDS)
        assert replica.works
        await end(replica)

    play(scene())


def test_a_write_in_between_is_a_conflict_and_is_tried_again() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replica = Replica(server, "first")
        await asyncio.sleep(SECONDS)
        server.refuse["PUT leases"] = ApiError(409, "Conflict", "the object has been modified")
        await asyncio.sleep(SECONDS / 3)
        server.refuse.clear()
        await asyncio.sleep(SECONDS)
        assert replica.works
        await end(replica)

    play(scene())


def test_without_the_right_to_read_leases_nobody_works() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replica = Replica(server, "first")
        replica.cut = True
        await asyncio.sleep(3 * SECONDS)
        assert replica.began is None
        assert not replica.task.done()
        await end(replica)

    play(scene())


def test_what_the_work_raises_is_raised_and_the_lease_given_up() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()

        async def work() -> None:
            raise ApiError(404, "NotFound", "the resource is not installed")

        with pytest.raises(ApiError, match="not installed"):
            await lead(server, Settings(image="x", lease_seconds=SECONDS), work)
        assert holder(server) == ""

    play(scene())


def test_who_is_cancelled_ends_the_work_too() -> None:
    async def scene() -> None:
        server = SimulatedApiServer()
        replica = Replica(server, "first")
        await asyncio.sleep(SECONDS)
        await end(replica)
        assert replica.ended is not None

    play(scene())
