"""One of several replicas works: the holder of a Lease. Another takes over when it is given up, or runs out."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from selftaught_operator.settings import Settings
from selftaught_operator.transport import MERGE_PATCH, ApiError, Object, Transport

logger = logging.getLogger(__name__)

LEASE = "selftaught-operator"
TRUST = 4 / 5
"""Of the Lease's duration: how long a leader that cannot renew it believes in it. Others wait for the whole."""


class LeadershipLostError(Exception):
    """Another replica may work now: this one must end at once."""


class Lease(BaseLock):
    """The Lease. (The library's own lock asks its client for something that the client refuses.)"""

    def __init__(self, name: str, namespace: str, identity: str, transport: Transport) -> None:
        super().__init__(name, namespace, identity)
        self._transport = transport
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._version = ""
        self._written_at = math.inf

    async def get(self, name: str, namespace: str) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception]:
        """Whether it is there, and who holds it or what went wrong."""
        del namespace
        try:
            lease = await self._transport.request("GET", f"{self._path}/{name}")
        except ApiError as error:
            body = json.dumps({"code": error.status})
            return False, ApiException(status=error.status, reason=str(error), body=body)
        self._version = str(lease["metadata"]["resourceVersion"])
        spec = lease.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds")
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            str(seconds) if seconds else None,
            spec.get("acquireTime"),
            spec.get("renewTime"),
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Take it by making it; whether that worked."""
        body: Object = {"metadata": {"name": name, "namespace": namespace}, "spec": lease_spec(election_record)}
        return await self._write("POST", self._path, body)

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Take it, or hold it for longer, unless somebody else just did; whether that worked."""
        meta = {"name": name, "namespace": namespace, "resourceVersion": self._version}
        return await self._write("PUT", f"{self._path}/{name}", {"metadata": meta, "spec": lease_spec(updated_record)})

    async def run_out(self, seconds: float) -> None:
        """Return when it has been held and was not renewed for so long, be it that a request gets no answer."""
        loop = asyncio.get_running_loop()
        while (left := self._written_at + seconds - loop.time()) > 0:
            await asyncio.sleep(min(left, seconds / 10))

    async def _write(self, method: str, path: str, body: Object) -> bool:
        began = asyncio.get_running_loop().time()
        try:
            body |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            answer = await self._transport.request(method, path, body=body)
        except ApiError as error:
            logger.warning("the Lease %s could not be written: %s", self.name, error)
            return False
        self._version = str(answer["metadata"]["resourceVersion"])
        self._written_at = began
        return True


def lease_spec(record: LeaderElectionRecord) -> Object:
    """Spec of a Lease; times in the form that the API server wants."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    acquired = str(record.acquire_time or "")
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": int(float(record.lease_duration or 0)),
        "acquireTime": acquired if acquired.endswith("Z") else now,
        "renewTime": now,
    }


async def lead(transport: Transport, settings: Settings, work: Callable[[], Awaitable[None]]) -> None:
    """Wait for the Lease, work while it is held, give it up when the work ends. Raises LeadershipLostError.

    Whatever ends this, cancellation included, the work has ended too. A Lease that was lost is not touched: it is
    another replica's.
    """
    done = asyncio.Event()
    failure: list[BaseException] = []
    workers: list[asyncio.Task[None] | None] = []

    async def working() -> None:
        workers.append(asyncio.current_task())
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failure.append(error)
        done.set()

    async def lost() -> None:
        """What follows is told by `done` alone."""

    seconds = settings.lease_seconds
    lock = Lease(LEASE, settings.pod_namespace, settings.pod_name, transport)
    election = LeaderElection(
        Config(
            lock,
            lease_duration=seconds,
            renew_deadline=seconds * 2 / 3,
            retry_period=max(1.0, seconds / 7),
            onstarted_leading=working,
            onstopped_leading=lost,
        )
    )
    running = asyncio.create_task(election.run(), name="leader election")
    ends = (running, asyncio.create_task(done.wait()), asyncio.create_task(lock.run_out(seconds * TRUST)))
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running  # raises what it raised
    finally:
        tasks = [task for task in (*ends, *workers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if done.is_set():
            await give_up(transport, settings)
    if failure:
        raise failure[0]
    if not done.is_set():
        raise LeadershipLostError("the Lease could not be renewed in time")


async def give_up(transport: Transport, settings: Settings) -> None:
    """Let another replica take over at once."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{settings.pod_namespace}/leases/{LEASE}"
    with contextlib.suppress(ApiError):
        body = {"spec": {"holderIdentity": ""}}
        await transport.request("PATCH", path, body=body, content_type=MERGE_PATCH)
