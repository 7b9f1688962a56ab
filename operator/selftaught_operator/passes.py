"""Who is looked at when: one task for each run that needs attention, woken by events and by time.

A task ends when its run is at rest. Nothing is written to a run for this, no finalizer and no annotation, so a run
can be deleted at any time, whether an operator is there or not (ADR 8).
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from selftaught_operator.cluster import GoneError, StaleError
from selftaught_operator.memory import Memory
from selftaught_operator.reconcile import Next
from selftaught_operator.transport import ApiError

logger = logging.getLogger(__name__)

Body = Mapping[str, Any]
RunKey = tuple[str, str]
"""Namespace and name."""

SETTLE_SECONDS = 0.05
"""Events come in bursts: of a Job, of its pods, of our own status."""
STALE_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
AT_ONCE = 16
"""Passes at the same time."""
LONGEST_PASS_SECONDS = 180.0


@dataclass
class Task:
    """The task of one run."""

    text: bytes = b""
    """The run as JSON: a tenth of the object's size, and there may be a thousand."""
    uid: str = ""
    version: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    began: datetime | None = None
    """When the pass at work began."""


@dataclass(frozen=True)
class Finished:
    """A pass that has ended, for whoever counts."""

    seconds: float
    error: str


class Passes:
    """Runs passes."""

    def __init__(
        self,
        reconcile: Callable[[Body, Memory, datetime], Awaitable[Next]],
        now: Callable[[], datetime],
        finished: Callable[[Finished], None] = lambda _: None,
    ) -> None:
        self._reconcile = reconcile
        self._now = now
        self._finished = finished
        self._tasks: dict[RunKey, Task] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def see(self, body: Body) -> None:
        """A run was added or changed."""
        key = key_of(body)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = Task()
            self._keep(task, body)
            task.runner = asyncio.create_task(self._work(key, task), name=f"run {key[0]}/{key[1]}")
        elif older(body, task):
            return
        self._keep(task, body)
        task.wake.set()

    def _keep(self, task: Task, body: Body) -> None:
        task.text = json.dumps(body).encode()
        task.uid, task.version = body["metadata"]["uid"], body["metadata"]["resourceVersion"]

    def forget(self, body: Body) -> None:
        """A run was deleted; what it owns is deleted by the cluster."""
        task = self._tasks.get(key_of(body))
        if task is not None and task.uid == body["metadata"]["uid"]:
            del self._tasks[key_of(body)]
            if task.runner is not None:
                task.runner.cancel()

    def wake(self, key: RunKey) -> None:
        """Something that a run owns has changed."""
        if (task := self._tasks.get(key)) is not None:
            task.wake.set()

    def keys(self) -> tuple[RunKey, ...]:
        """Runs that are being looked after."""
        return tuple(self._tasks)

    def stuck(self) -> bool:
        """Whether a pass has been at work for much longer than its requests may take."""
        limit = self._now() - timedelta(seconds=LONGEST_PASS_SECONDS)
        return any(task.began is not None and task.began < limit for task in self._tasks.values())

    async def close(self) -> None:
        """End all tasks, passes at work included: they are safe to be cut off."""
        runners = [task.runner for task in self._tasks.values() if task.runner is not None]
        self._tasks.clear()
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)

    async def _work(self, key: RunKey, task: Task) -> None:
        memory, uid = Memory(), ""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            task.wake.clear()
            if task.uid != uid:  # another run of the same name
                memory, uid = Memory(), task.uid
            try:
                step = await self._pass(task, memory)
                backoff = FIRST_BACKOFF_SECONDS
            except StaleError:
                step = Next(at=self._now() + timedelta(seconds=STALE_SECONDS))
            except GoneError:
                step = Next(rest=True)
            except Exception as error:
                step = Next(at=self._now() + timedelta(seconds=backoff))
                log_failure(key, error, backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            if step.rest and not task.wake.is_set():
                if self._tasks.get(key) is task:
                    del self._tasks[key]
                return
            await self._pause(task, step)

    async def _pass(self, task: Task, memory: Memory) -> Next:
        async with self._gate:
            began = task.began = self._now()
            problem = ""
            try:
                return await self._reconcile(json.loads(task.text), memory, began.replace(microsecond=0))
            except (StaleError, GoneError):
                raise
            except Exception as error:
                problem = error.reason if isinstance(error, ApiError) else type(error).__name__
                raise
            finally:
                task.began = None
                self._finished(Finished((self._now() - began).total_seconds(), problem))

    async def _pause(self, task: Task, step: Next) -> None:
        seconds = None if step.at is None else max(0.0, (step.at - self._now()).total_seconds())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task.wake.wait(), seconds)


def key_of(body: Body) -> RunKey:
    """Namespace and name of a run."""
    return body["metadata"]["namespace"], body["metadata"]["name"]


def older(body: Body, than: Task) -> bool:
    """Whether a body is an older state of the same object."""
    if body["metadata"]["uid"] != than.uid:
        return False
    try:
        return int(body["metadata"]["resourceVersion"]) < int(than.version)
    except ValueError:
        return False


def log_failure(key: RunKey, error: Exception, backoff: float) -> None:
    """An error of the API server is one line; one of ours comes with its traceback."""
    where = f"{key[0]}/{key[1]}"
    if isinstance(error, ApiError):
        logger.warning("%s: %s (%s); again in %.0f s", where, error, error.status or error.reason, backoff)
    else:
        logger.exception("%s: the pass failed; again in %.0f s", where, backoff)
