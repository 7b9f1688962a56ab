"""Receives progress that pods push: `POST /progress` over HTTPS, with the token that is projected into the pod.

Who sent a report is asked of the API server (TokenReview), whose pod it is of the operator's own index. A report that
is refused or lost harms nothing: pods go on working and tell again.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import math
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from selftaught_operator.reports import AttemptPod, ProgressBoard, ReportError, parse_report

MAX_BODY_BYTES = 16 * 1024
BODY_SECONDS = 10.0
"""How long a pod may take to send a body."""

REPORTS_PER_SECOND = 1.0
REPORTS_AT_ONCE = 4
"""A pod's stage and its trainer each tell every five seconds at most, but what they say first and last at once."""

REVIEWS_PER_SECOND = 20.0
REVIEWS_AT_ONCE = 100
"""New tokens, over all pods: what made-up tokens can cost the API server."""

REVIEW_LIFE = timedelta(minutes=10)
REFUSAL_LIFE = timedelta(seconds=10)
MAX_ANSWERS = 8192

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PodIdentity:
    """The pod that a token was made for."""

    namespace: str
    pod_name: str
    pod_uid: str


class UnavailableError(Exception):
    """Whether a token is good cannot be told now."""


class Throttle:
    """Lets `rate` per second through for each key, and `burst` at once. Keys that are quiet cost nothing."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._full_at: OrderedDict[str, datetime] = OrderedDict()
        """When a key will have its whole burst again, the longest untouched first."""

    def __len__(self) -> int:
        return len(self._full_at)

    def allows(self, key: str, now: datetime) -> bool:
        """Whether one more may pass now; if so, it is counted."""
        while self._full_at and next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
        full_at = max(self._full_at.get(key, now), now) + timedelta(seconds=1 / self._rate)
        if full_at > now + timedelta(seconds=self._burst / self._rate):
            return False
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        return True


def token_expiry(token: str) -> datetime | None:
    """When a JWT expires by its own account; none if it does not say. Nothing is verified here."""
    try:
        payload = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return datetime.fromtimestamp(expiry, UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError, binascii.Error):
        return None


@dataclass(frozen=True)
class _Answer:
    identity: PodIdentity | None
    until: datetime
    available: bool = True


class Reviews:
    """Answers about tokens, kept by the tokens' hashes."""

    def __init__(self, review: Callable[[str], Awaitable[PodIdentity | None]], now: Callable[[], datetime]) -> None:
        self._review = review
        self._now = now
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Answer]] = {}
        self._throttle = Throttle(REVIEWS_PER_SECOND, REVIEWS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._answers)

    async def identity(self, token: str) -> PodIdentity | None:
        """The pod of a token, none if the token is not good. Raises UnavailableError."""
        digest = hashlib.sha256(token.encode()).digest()
        answer = self._answers.get(digest)
        if answer is None or answer.until <= self._now():
            if digest not in self._asking:
                if not self._throttle.allows("", self._now()):
                    raise UnavailableError
                task = asyncio.create_task(self._ask(digest, token))
                self._asking[digest] = task
                task.add_done_callback(lambda _: self._asking.pop(digest))
            answer = await asyncio.shield(self._asking[digest])
        if not answer.available:
            raise UnavailableError
        return answer.identity

    async def _ask(self, digest: bytes, token: str) -> _Answer:
        try:
            identity = await self._review(token)
        except Exception as error:  # whatever a client raises, the answer is not known
            LOGGER.warning("cannot review a token: %s", type(error).__name__)
            answer = _Answer(None, self._now() + REFUSAL_LIFE, available=False)
        else:
            now = self._now()
            expiry = token_expiry(token) if identity is not None else None
            until = now + REFUSAL_LIFE if expiry is None else min(now + REVIEW_LIFE, expiry)
            answer = _Answer(identity, until)
        self._answers[digest] = answer
        self._answers.move_to_end(digest)
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        return answer


class ProgressServer:
    """The receiving end.

    `review` tells the pod of a token and raises if that cannot be told now; `owner_of` finds the run's pod with that
    very UID, none if it is no run's; `told` wakes the run when there is news on the board.
    """

    def __init__(
        self,
        *,
        board: ProgressBoard,
        review: Callable[[str], Awaitable[PodIdentity | None]],
        owner_of: Callable[[PodIdentity], AttemptPod | None],
        told: Callable[[AttemptPod], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._board = board
        self._reviews = Reviews(review, now)
        self._owner_of = owner_of
        self._told = told
        self._now = now
        self._throttle = Throttle(REPORTS_PER_SECOND, REPORTS_AT_ONCE)
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """`POST /progress`, and nothing else."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_post("/progress", self._receive)
        return application

    async def start(self, host: str | None, port: int, context: ssl.SSLContext) -> int:
        """Listen; the port, which is chosen by the system if 0 was asked for. `host` None: on all addresses."""
        # Compressed bodies are no reports, however small they make themselves.
        self._runner = web.AppRunner(
            self.application(), access_log=None, keepalive_timeout=15.0, shutdown_timeout=1.0, auto_decompress=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _receive(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or not token.isascii():
            return _refusal(401, "a bearer token is needed")
        try:
            identity = await self._reviews.identity(token.strip())
        except UnavailableError:
            return _refusal(503, "tokens cannot be reviewed now")
        if identity is None:
            return _refusal(401, "the token is not good for telling progress")
        pod = self._owner_of(identity)
        if pod is None:
            return _refusal(403, "the pod belongs to no run")
        if not self._throttle.allows(identity.pod_uid, self._now()):
            return _refusal(429, "told too often")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                report = parse_report(await request.read())  # raises 413
        except TimeoutError:
            return _refusal(408, "the body took too long")
        except (web.RequestPayloadError, ConnectionError):
            return _refusal(400, "the body cannot be read")
        except ReportError as error:
            return _refusal(400, str(error))
        if self._board.take(pod, identity.pod_uid, report, self._now()):
            self._told(pod)
        return web.json_response({})


def _refusal(status: int, message: str) -> web.Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": str(math.ceil(1 / REPORTS_PER_SECOND))}}
    return web.json_response({"message": message}, status=status, headers=headers.get(status))
