"""One of several replicas works: the holder of a Lease. Another takes over when it is given up, or runs out."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from kubernetes.aio.client import ApiClient
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from selftaught_operator.settings import Settings
from selftaught_operator.transport import MERGE_PATCH, ApiError, Transport

logger = logging.getLogger(__name__)

LEASE = "selftaught-operator"


class LeadershipLostError(Exception):
    """Another replica may work now: this one must end at once."""


async def lead(
    client: ApiClient, transport: Transport, settings: Settings, work: Callable[[], Awaitable[None]]
) -> None:
    """Wait for the Lease, work while it is held, give it up when the work ends. Raises LeadershipLostError."""
    done = asyncio.Event()
    failure: list[BaseException] = []

    async def working() -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    async def lost() -> None:
        if not done.is_set():
            failure.append(LeadershipLostError("the Lease could not be renewed in time"))

    seconds = settings.lease_seconds
    lock = LeaseLock(LEASE, settings.pod_namespace, settings.pod_name, client)
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
    finished = asyncio.create_task(done.wait())
    try:
        await asyncio.wait({running, finished}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, finished):
            task.cancel()
        await asyncio.gather(running, finished, return_exceptions=True)
        if done.is_set():
            await give_up(transport, settings)
    if failure:
        raise failure[0]


async def give_up(transport: Transport, settings: Settings) -> None:
    """Let another replica take over at once."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{settings.pod_namespace}/leases/{LEASE}"
    with contextlib.suppress(ApiError):
        body = {"spec": {"holderIdentity": ""}}
        await transport.request("PATCH", path, body=body, content_type=MERGE_PATCH)
