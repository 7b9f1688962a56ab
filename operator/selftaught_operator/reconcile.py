"""One pass for one run: observe → plan → status → apply. Safe to be killed between any two requests.

The status is written before anything is started (ADR 7), so an attempt is known before its Job exists; Jobs have
deterministic names, so a pass that sees too little can only try to create what exists.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from selftaught.api.labels import RUN_UID_LABEL
from selftaught.api.reasons import Reason
from selftaught.api.run import Metadata, SelfTaughtRun
from selftaught.api.stage_config import PromptTexts
from selftaught.api.status import ConditionType, RunStatus
from selftaught.errors import ManifestError
from selftaught.judging.prompts import BUILT_IN
from selftaught.loop.approvals import approvals_of
from selftaught.loop.observed import AttemptState, Observed
from selftaught.loop.planner import Plan, Waiting, plan, told_outcome
from selftaught.loop.retries import carried, condition_reason, reopened
from selftaught.loop.status import summarise
from selftaught_operator.actions import Actions
from selftaught_operator.cluster import Cluster
from selftaught_operator.memory import Memory, Watched
from selftaught_operator.news import is_minor
from selftaught_operator.notes import notes_of
from selftaught_operator.observe import attempts_of, tellers
from selftaught_operator.prompts import load_prompts
from selftaught_operator.settings import Settings
from selftaught_operator.transport import ApiError
from selftaught_operator.unreadable import status_of_unreadable

logger = logging.getLogger(__name__)

STUCK_SECONDS = 5.0
"""A Job that has been without pods for so long is asked about."""

SHOWN = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(frozen=True)
class Next:
    """When to look again; `rest`: not before something changes."""

    at: datetime | None = None
    rest: bool = False


@dataclass(frozen=True)
class Told:
    """A status that was written, for whoever counts."""

    run: SelfTaughtRun
    before: RunStatus
    after: RunStatus
    time: datetime


@dataclass(frozen=True)
class Reconciler:
    """Makes passes."""

    cluster: Cluster
    watched: Watched
    settings: Settings
    told: Callable[[Told], None] = lambda _: None
    prepare: Callable[[str], Awaitable[None]] | None = None
    """Makes a namespace ready for pods that tell progress."""

    async def reconcile(self, body: Mapping[str, Any], memory: Memory, now: datetime) -> Next:
        """One pass. Raises StaleError if the run has changed meanwhile, GoneError if it is gone, ApiError."""
        version = str(body["metadata"]["resourceVersion"])
        inputs = self._inputs(body, version, memory)
        if inputs == memory.looked_at and memory.look_again is not None and now < memory.look_again:
            return Next(at=memory.look_again)
        memory.looked_at = None
        try:
            run = SelfTaughtRun.model_validate({key: body[key] for key in SHOWN if key in body})
        except ValidationError as error:
            return await self._tell_unreadable(body, version, error, now)
        if condition_reason(run.status, ConditionType.FAILED) == Reason.INVALID_SPEC:
            run = run.model_copy(update={"status": reopened(run.status)})
        status, version = memory.newest(run.status, version)
        step = await Pass(self, run.model_copy(update={"status": status}), version, memory, now).go()
        memory.looked_at, memory.look_again = inputs, None if step.rest else step.at
        return step

    def _inputs(self, body: Mapping[str, Any], version: str, memory: Memory) -> object:
        """All that a pass goes by, but for the time."""
        meta = body["metadata"]
        children = self.watched.children(meta["namespace"], meta["name"])
        progress = tuple(
            self.watched.progress(meta["namespace"], job.name, tellers(job)) for job in children.jobs if job.end is None
        )
        return identity_of(body), "" if memory.is_ours(version) else version, children, progress

    async def _tell_unreadable(
        self, body: Mapping[str, Any], version: str, error: ValidationError, now: datetime
    ) -> Next:
        status = status_of_unreadable(body, error, now)
        if status is not None:
            await self.cluster.write_status(Metadata.model_validate(body["metadata"]), version, status)
        return Next(rest=True)


def identity_of(body: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes a run the same but for its status."""
    meta = body["metadata"]
    return tuple(meta.get(key) for key in ("uid", "generation", "annotations", "labels", "deletionTimestamp"))


class Pass:
    """One pass over one run."""

    def __init__(self, reconciler: Reconciler, run: SelfTaughtRun, version: str, memory: Memory, now: datetime) -> None:
        self._cluster = reconciler.cluster
        self._watched = reconciler.watched
        self._settings = reconciler.settings
        self._told = reconciler.told
        self._prepare = reconciler.prepare
        self._run = run
        self._version = version
        self._memory = memory
        self._now = now
        self._namespace = run.metadata.namespace
        found = reconciler.watched.children(self._namespace, run.metadata.name).without(memory.gone)
        self._children = found.of(run.metadata.uid)
        self._foreign = found.foreign(run.metadata.uid)

    async def go(self) -> Next:
        """Observe, plan, tell, act."""
        if self._is_over():
            return Next(rest=True)
        try:
            prompts = await self._prompts()
        except ManifestError as error:
            return await self._hold(Reason.PROMPTS_UNUSABLE, str(error))
        if self._foreign.jobs or any(pod.alive for pod in self._foreign.pods):
            for job in self._foreign.jobs:
                if not job.deleting:
                    await self._cluster.delete_job(self._namespace, job.name, job.uid)
            return await self._hold(Reason.PENDING, "what an earlier run of this name left is being deleted")
        await self._check_what_was_seen()
        observed = await self._observe(prompts)
        actions = Actions(self._cluster, self._settings, self._run, self._children, self._memory)
        decided, bodies = actions.bodies(plan(self._run, observed, self._now), observed)
        decided = actions.with_refusals(decided)
        status = summarise(self._run, observed, decided, self._now)
        later = await self._tell(status, urgent=bool(decided.start or decided.stop or decided.prune))
        await actions.stop(decided)
        await actions.replace_outdated(observed)
        await actions.prune(decided)
        if bodies or observed.alive:
            await self._prepare_for_progress()
        refused = await actions.create(bodies)
        if refused:
            status = summarise(self._run, observed, actions.with_refusals(decided), self._now)
            await self._tell(status, urgent=True)
        return await self._next(decided, observed, later, refused=refused)

    def _is_over(self) -> bool:
        """Whether the run has ended, has told so of its newest spec, and has left nothing to clean up."""
        status = self._run.status
        told = told_outcome(carried(self._run, status)) is not None
        left = self._children.jobs or self._children.pods or self._foreign.jobs
        return told and not left and status.observed_generation == self._run.metadata.generation

    async def _prompts(self) -> PromptTexts:
        """Templates, frozen when the run was first seen. Raises ManifestError."""
        if self._memory.prompts is None:
            self._memory.prompts = await load_prompts(self._cluster, self._run)
        return self._memory.prompts

    async def _hold(self, reason: Reason, message: str) -> Next:
        """Tell why nothing can be started, and look again soon."""
        observed = Observed(prompts=self._memory.prompts or BUILT_IN, previous=self._run.status)
        decided = plan(self._run, observed, self._now)
        if decided.outcome is None:
            decided = replace(decided, start=(), waiting=Waiting(reason, message))
        await self._tell(summarise(self._run, observed, decided, self._now), urgent=True)
        return Next(at=self._now + timedelta(seconds=self._settings.retry_seconds), rest=decided.outcome is not None)

    async def _check_what_was_seen(self) -> None:
        """Now and then, ask whether what seems to be at work exists: a watch that was cut tells of no deletion."""
        checked = self._memory.checked_at or self._now
        self._memory.checked_at = checked
        if (self._now - checked).total_seconds() < self._settings.resync_seconds:
            return
        self._memory.checked_at = self._now
        for job in self._children.jobs:
            if job.end is None and not await self._cluster.job_exists(self._namespace, job.name, job.uid):
                self._memory.gone.add(job.uid)
        for pod in self._children.pods:
            if pod.alive and not await self._cluster.pod_exists(self._namespace, pod.name, pod.uid):
                self._memory.gone.add(pod.uid)
        self._children = self._children.without(self._memory.gone)

    async def _observe(self, prompts: PromptTexts) -> Observed:
        words = await self._words_of_stuck_jobs()
        attempts = attempts_of(
            self._children, lambda job, pods: self._watched.progress(self._namespace, job, pods), words
        )
        approvals, _ = approvals_of(self._run.metadata.annotations)
        observed = Observed(
            prompts=prompts,
            attempts=attempts,
            ledger=dict(self._memory.ledger),
            approvals=approvals,
            previous=self._run.status,
            pruned=frozenset(self._pruned()),
        )
        self._memory.ledger.update(observed.finished())
        return observed

    def _pruned(self) -> set[str]:
        """Folders that are known to be deleted."""
        for job in self._children.cleaners:
            if job.end is not None and job.end.complete:
                self._memory.pruned.update(job.folders)
        told = [iteration.checkpoint for iteration in self._run.status.iterations]
        self._memory.pruned.update(each.uri for each in told if each is not None and each.pruned)
        return self._memory.pruned

    async def _words_of_stuck_jobs(self) -> dict[str, str]:
        """One read for each Job that has no pods and should: what holds it is said by Kueue, or in its Events."""
        with_pods = {pod.job for pod in self._children.pods}
        at_work = {pod.job for pod in self._children.pods if pod.alive}
        words: dict[str, str] = {}
        for job in self._children.jobs:
            age = (self._now - job.created).total_seconds()
            busy = job.name in (at_work if job.suspended else with_pods)
            if job.end is not None or job.deleting or busy or age < STUCK_SECONDS:
                continue
            ask = self._cluster.queue_words if job.suspended else self._cluster.warning
            words[job.name] = await ask(self._namespace, job.uid)
        return words

    async def _tell(self, status: RunStatus, *, urgent: bool) -> datetime | None:
        """Write the status if it differs; when it may be written if it only tells progress and it is too early."""
        before = self._run.status
        if status == before:
            return None
        last = self._memory.written_at
        if last is not None and not urgent and is_minor(before, status):
            earliest = last + timedelta(seconds=self._settings.status_seconds)
            if self._now < earliest:
                return earliest
        version = await self._cluster.write_status(self._run.metadata, self._version, status)
        self._memory.wrote(status, on=self._version, version=version, now=self._now)
        self._version = version
        self._run = self._run.model_copy(update={"status": status})
        self._told(Told(self._run, before, status, self._now))
        for note in notes_of(before, status):
            await self._cluster.emit(self._run.metadata, note, self._now)
        return None

    async def _prepare_for_progress(self) -> None:
        """Without it, pods do their work all the same. Those at work may know another replica's authority only."""
        if self._prepare is None:
            return
        try:
            await self._prepare(self._namespace)
        except ApiError as error:
            logger.warning("progress of pods in %s will not be seen: %s", self._namespace, error)

    async def _next(self, decided: Plan, observed: Observed, later: datetime | None, *, refused: bool) -> Next:
        resync = self._now + timedelta(seconds=self._settings.resync_seconds)
        soon = self._now + timedelta(seconds=self._settings.retry_seconds)
        ended = decided.outcome is not None and not observed.alive and not decided.start
        if ended and later is None:
            return await self._after_the_end(resync)
        waits = any(attempt.state is not AttemptState.RUNNING for attempt in observed.alive)
        again = soon if refused or self._memory.refused or waits else None
        return Next(at=min(time for time in (decided.look_again, later, resync, again) if time is not None))

    async def _after_the_end(self, resync: datetime) -> Next:
        """What is left to do for a run that has ended: see deletions through, delete Jobs when their time is over."""
        if any(job.end is None for job in self._children.cleaners):
            return Next(at=resync)
        ttl, end = self._run.spec.ttl_seconds_after_finished, self._run.status.completion_time
        if ttl is None or end is None or not self._children.jobs:
            return Next(rest=True)
        due = end + timedelta(seconds=ttl)
        if self._now < due:
            return Next(at=due)
        await self._cluster.delete_jobs(self._namespace, f"{RUN_UID_LABEL}={self._run.metadata.uid}")
        return Next(rest=True)
