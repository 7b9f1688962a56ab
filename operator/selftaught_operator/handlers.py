"""What Kopf calls. Each handler notes that something may have changed; what follows is decided elsewhere.

Only the plainest handlers are used, so that Kopf writes nothing to any object: no finalizers, no annotations.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import kopf

from selftaught.api.base import GROUP, PLURAL, VERSION
from selftaught.api.labels import RUN_LABEL
from selftaught_operator.facts import JobFacts, PodFacts, job_facts, pod_facts
from selftaught_operator.metrics import Runs
from selftaught_operator.passes import Passes, RunKey
from selftaught_operator.views import Views

RUNS = (GROUP, VERSION, PLURAL)
JOBS = ("batch", "v1", "jobs")
PODS = ("", "v1", "pods")
LISTING_CHUNK = 500


class NothingRemembered(kopf.DiffBaseStorage, kopf.ProgressStorage):
    """For Kopf, which copies each object twice to tell what has changed: nobody here asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """What is compared: nothing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """What was remembered."""

    def store(self, **_: Any) -> None:
        """Remember nothing."""

    def purge(self, **_: Any) -> None:
        """Forget nothing."""

    def touch(self, **_: Any) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """What is left of nothing."""
        return essence


def register(passes: Passes, views: Views, series: Runs) -> kopf.OperatorRegistry:
    """Handlers that feed the passes and the views."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.index(*JOBS, id="jobs", labels={RUN_LABEL: kopf.PRESENT}, registry=registry)
    async def jobs(body: kopf.Body, **_: Any) -> dict[RunKey, JobFacts]:
        return {owner_of(body): job_facts(body)}

    @kopf.index(*PODS, id="pods", labels={RUN_LABEL: kopf.PRESENT}, registry=registry)
    async def pods(body: kopf.Body, **_: Any) -> dict[RunKey, PodFacts]:
        return {owner_of(body): pod_facts(body)}

    @kopf.index(*PODS, id="pod_names", labels={RUN_LABEL: kopf.PRESENT}, registry=registry)
    async def pod_names(body: kopf.Body, **_: Any) -> dict[RunKey, tuple[RunKey, PodFacts]] | None:
        facts = pod_facts(body)
        name = (str(body.metadata.namespace), str(body.metadata.name))
        return {name: (owner_of(body), facts)} if facts.alive else None  # those that have ended tell nothing more

    @kopf.on.event(*RUNS, registry=registry)
    async def run_changed(type: str | None, body: kopf.Body, **kwargs: Any) -> None:  # noqa: A002
        views.jobs, views.pods, views.names = kwargs["jobs"], kwargs["pods"], kwargs["pod_names"]
        plain = as_dict(body)
        if type == "DELETED":
            passes.forget(plain)
            series.forget(plain)
            views.forget_progress(plain["metadata"]["namespace"])
        else:
            passes.see(plain)
            series.see(plain)

    @kopf.on.event(*JOBS, labels={RUN_LABEL: kopf.PRESENT}, registry=registry)
    async def job_changed(body: kopf.Body, **_: Any) -> None:
        passes.wake(owner_of(body))

    @kopf.on.event(*PODS, labels={RUN_LABEL: kopf.PRESENT}, registry=registry)
    async def pod_changed(body: kopf.Body, **_: Any) -> None:
        passes.wake(owner_of(body))

    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """How Kopf watches."""
    settings = kopf.OperatorSettings()
    settings.watching.label_selectors[JOBS] = RUN_LABEL
    settings.watching.label_selectors[PODS] = RUN_LABEL
    settings.watching.chunk_size = LISTING_CHUNK
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 1.0
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.diffbase_storage = NothingRemembered()
    settings.persistence.progress_storage = NothingRemembered()
    return settings


async def watch(
    registry: kopf.OperatorRegistry, namespaces: tuple[str, ...], *, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Watch runs and what they own until told to stop."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        ready_flag=ready,
    )


def owner_of(body: Mapping[str, Any]) -> RunKey:
    """The run that an object belongs to, by its label."""
    return body["metadata"]["namespace"], body["metadata"]["labels"][RUN_LABEL]


def as_dict(body: kopf.Body) -> dict[str, Any]:
    """What is needed of a run: it is kept for as long as the run is at work, and managed fields are most of it."""
    shown = {key: body[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in body}
    return shown | {"metadata": {key: value for key, value in body["metadata"].items() if key != "managedFields"}}
