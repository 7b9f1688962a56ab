"""`python -m selftaught_operator`: the operator."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from kubernetes.aio.client import ApiClient

from selftaught.errors import SelfTaughtError
from selftaught_operator.certificate import Certificate
from selftaught_operator.cluster import Cluster
from selftaught_operator.handlers import register, watch
from selftaught_operator.health import HealthServer
from selftaught_operator.leadership import LeadershipLostError, lead
from selftaught_operator.metrics import Metrics
from selftaught_operator.passes import Passes
from selftaught_operator.pods import CA_CONFIG_MAP, CA_KEY
from selftaught_operator.progress import ProgressServer
from selftaught_operator.reconcile import Reconciler
from selftaught_operator.reports import AttemptPod, ProgressBoard
from selftaught_operator.settings import Settings, read_settings
from selftaught_operator.transport import ApiError, ApiTransport, connect
from selftaught_operator.views import Views

logger = logging.getLogger("selftaught_operator")

PROGRESS_SERVICE = "selftaught-progress"
PATIENCE_SECONDS = 2.0


class Operator:
    """All parts, put together."""

    def __init__(self, client: ApiClient, settings: Settings) -> None:
        self._settings = settings
        self._namespaces = tuple(filter(None, settings.namespaces.split(",")))
        self._board = ProgressBoard()
        self._views = Views(self._board)
        self._metrics = Metrics()
        self._transport = ApiTransport(client, self._metrics.requested)
        self._cluster = Cluster(self._transport)
        reconciler = Reconciler(self._cluster, self._views, settings, self._metrics.told, self._authority)
        self._passes = Passes(reconciler.reconcile, now, self._metrics.passed)
        self._certificate: Certificate | None = None
        self._namespaces_with_authority: set[str] = set()
        self._stop = asyncio.Event()
        self._watching = asyncio.Event()
        self._leading = False
        self._watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until SIGTERM. Raises LeadershipLostError, ApiError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        health = HealthServer(self._alive, self._ready, self._metrics.render)
        await health.start(self._settings.metrics_port)
        try:
            await once_it_answers(lambda: self._cluster.check_installed(self._namespaces), self._stop)
            if self._stop.is_set():
                return
            if self._settings.leader_election:
                waiting = asyncio.create_task(lead(self._transport, self._settings, self._work))
                stopped = asyncio.create_task(self._stop.wait())
                await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not self._leading:
                    waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
                stopped.cancel()
            else:
                await self._work()
            if self._watch is not None:
                await self._watch  # takes some seconds to end, while another replica works already
        finally:
            await health.stop()

    async def _work(self) -> None:
        """What the leader does."""
        self._leading = True
        self._metrics.leading.set(1)
        logger.info("this replica works now")
        renewal: asyncio.Task[None] | None = None
        server: ProgressServer | None = None
        try:
            if self._settings.progress_host:
                self._certificate = Certificate([self._settings.progress_host], [self._settings.pod_ip])
                renewal = asyncio.create_task(self._certificate.keep_fresh())
                server = ProgressServer(
                    board=self._board, review=self._cluster.review, owner_of=self._views.owner_of, told=self._told
                )
                await server.start(None, self._settings.progress_port, self._certificate.context)
                await self._publish()
            registry = register(self._passes, self._views, self._metrics.runs)
            self._watch = asyncio.create_task(
                watch(registry, self._namespaces, stop=self._stop, ready=self._watching), name="watch"
            )
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait({self._watch, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if self._watch.done():
                await self._watch  # raises what it raised
        finally:
            self._leading = False
            self._metrics.leading.set(0)
            await self._passes.close()
            if renewal is not None:
                renewal.cancel()
            if server is not None:
                await server.stop()

    async def _publish(self) -> None:
        """Lead the Service for progress here. Without it, pods do their work all the same."""
        settings = self._settings
        try:
            await self._cluster.publish(
                settings.pod_namespace, PROGRESS_SERVICE, settings.pod_ip, settings.progress_port
            )
        except ApiError as error:
            logger.warning("progress of pods will not be seen: %s", error)

    async def _authority(self, namespace: str) -> None:
        """Have the certificate authority where pods of a namespace can mount it."""
        if self._certificate is not None and namespace not in self._namespaces_with_authority:
            await self._cluster.apply_config_map(namespace, CA_CONFIG_MAP, {CA_KEY: self._certificate.ca_pem})
            self._namespaces_with_authority.add(namespace)

    def _told(self, pod: AttemptPod) -> None:
        self._passes.wake((pod.namespace, pod.run))

    def _alive(self) -> str:
        return "a pass does not end" if self._passes.stuck() else ""

    def _ready(self) -> str:
        return "" if self._watching.is_set() or not self._leading else "the first listing is not done"


async def once_it_answers(check: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Check until the API server answers, or until told to stop. Raises ApiError for what waiting cannot mend.

    Whoever ends instead is started again ever later, and comes back long after the API server has.
    """
    while not stop.is_set():
        try:
            await check()
        except ApiError as error:
            if 400 <= error.status < 500:
                raise
            logger.warning("waiting for the API server: %s", error)
        else:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PATIENCE_SECONDS)


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


async def operate(settings: Settings) -> None:
    """Connect and work."""
    client = await connect()
    try:
        await Operator(client, settings).run()
    finally:
        await client.close()  # type: ignore[no-untyped-call]


def main() -> None:
    """Entry point: one line for what is wrong, exit code 1 where a restart may help."""
    try:
        settings = read_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(operate(settings))
    except SelfTaughtError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except LeadershipLostError as error:
        print(f"error: {error}; ending so that only one replica works", file=sys.stderr)
        sys.exit(1)
    except ApiError as error:
        hint = "; install the CustomResourceDefinition (manifests/crd)" if error.status == 404 else ""
        print(f"error: the API server says: {error}{hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
