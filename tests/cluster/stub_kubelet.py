"""A kubelet without containers, on a node of its own: pods that are scheduled to it end as tests say.

The API server, the Job controller, the scheduler and the garbage collector around it are real. It knows what stages
of runs would leave in the store, so work that is finished is not done again, and it notes what must never happen.
A pod costs three requests (runs, has ended, is gone), so hundreds at once are cheap.
"""

import asyncio
import contextlib
import json
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from builders import a_checkpoint, a_result
from selftaught.api.labels import CONFIG_ANNOTATION, JOB_INDEX_ANNOTATION, JOB_NAME_LABEL
from selftaught.api.outcomes import ResultRecord
from selftaught.api.results import Stage, StageResult
from selftaught.errors import INTERRUPTED_EXIT_CODE
from selftaught_operator.transport import JSON, ApiError, ApiTransport

Object = dict[str, Any]

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
STRATEGIC = "application/strategic-merge-patch+json"
NODE_KEY = "stub.selftaught.dev/node"
BEAT_SECONDS = 8.0
"""Nodes that have not been heard of for 40 s are given up."""
WATCH_SECONDS = 240
HOLD_SECONDS = 0.05


@dataclass(frozen=True)
class Course:
    """What happens to a pod. By default its work takes its time and succeeds."""

    seconds: float | None = None
    """Running time; the kubelet's own if left out."""
    exit_code: int = 0
    reason: str = ""
    """Why the container ended, such as OOMKilled."""
    message: str = ""
    """Termination message of a pod that fails."""
    disrupted: bool = False
    """The cluster evicts it: condition DisruptionTarget."""
    waiting: str = ""
    """It never starts, for this reason (ImagePullBackOff)."""


@dataclass(frozen=True)
class Work:
    """A pod did, or found done, the work of a shard of a stage."""

    run: str
    job: str
    stage: Stage
    iteration: int
    key: str
    index: int


def path_of(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def container(pod: Object, **state: Object) -> Object:
    """Status of the only container of a pod, and the conditions that go with it."""
    running = "running" in state
    spec = pod["spec"]["containers"][0]
    told = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": running,
        "started": running,
        "restartCount": 0,
        "state": state,
    }
    ready = {"type": "Ready", "status": "True" if running else "False", "lastTransitionTime": stamp()}
    return {"containerStatuses": [told], "conditions": [ready]}


def config_of(pod: Object) -> Object | None:
    """The config of a pod's stage; none if it does something else."""
    text = pod["metadata"].get("annotations", {}).get(CONFIG_ANNOTATION)
    return json.loads(text) if text else None


def work_of(pod: Object) -> Work | None:
    """What a pod is for; none if it is no stage's."""
    settings = config_of(pod)
    if settings is None:
        return None
    meta = pod["metadata"]
    return Work(
        run=settings["run"],
        job=meta["labels"][JOB_NAME_LABEL],
        stage=Stage(settings["stage"]),
        iteration=settings["iteration"],
        key=settings["key"],
        index=int(meta["annotations"].get(JOB_INDEX_ANNOTATION) or 0),
    )


def result_of(config: Mapping[str, Any]) -> StageResult:
    """A believable result: judges get better by the iteration."""
    stage, iteration = Stage(config["stage"]), config["iteration"]
    checkpoint = a_checkpoint(max(iteration, 1), uri=f"{config['output']}/epoch-1")
    extra: Object = {}
    if stage is Stage.TRAIN:
        extra["checkpoints"] = (checkpoint,)
    elif stage is Stage.EVALUATE and config.get("candidates"):
        extra["checkpoint"] = checkpoint.model_copy(update={"uri": config["candidates"][0]["uri"]})
    return a_result(stage, iteration, config["key"], **extra)


async def until(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, or the time is over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def precise_stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class StubKubelet:
    """Runs in a thread between `start` and `stop`; all public methods may be called from any other."""

    kubeconfig: Path
    seconds: float = 0.3
    """How long the work of a stage takes."""
    result: Callable[[Object], StageResult] = result_of
    """What a stage says that has done its work, from its config."""
    name: str = field(default_factory=lambda: f"stub-{uuid.uuid4().hex[:8]}")
    worked: list[Work] = field(default_factory=list)
    """All work that was really done, in order."""
    wrongs: list[str] = field(default_factory=list)
    """What must never happen: a stage at work twice at once, two stages of one run at once."""
    jobs: list[tuple[str, str, str]] = field(default_factory=list)
    """Namespace, name and UID of each Job whose pods were seen, in order."""

    def __post_init__(self) -> None:
        self._courses: dict[tuple[str, str], deque[Course]] = defaultdict(deque)
        self._held: set[tuple[str, str]] = set()
        self._finished: dict[tuple[str, str, int], StageResult] = {}
        self._at_work: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deletions: dict[str, asyncio.Event] = {}
        self._thread = threading.Thread(target=self._main, name=self.name)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    # What tests ask for.

    @property
    def placement(self) -> Object:
        """A pod template (`spec.stages.all.template`) that leads to this node."""
        return {
            "nodeSelector": {NODE_KEY: self.name},
            "tolerations": [{"key": NODE_KEY, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
        }

    def send(self, namespace: str, job: str, *courses: Course) -> None:
        """What happens to the next pods of a Job, one after the other; those after them do as usual."""
        self._courses[namespace, job].extend(courses)

    @contextmanager
    def hold(self, namespace: str, job: str) -> Iterator[None]:
        """Pods of a Job do not end by themselves meanwhile."""
        self._held.add((namespace, job))
        try:
            yield
        finally:
            self._held.discard((namespace, job))

    def request(self, method: str, path: str, **query: str) -> Object:
        """What the API server answers: much cheaper than kubectl for tests that look often. Raises ApiError."""
        assert self._loop is not None
        asking = self._api.request(method, path, query=query)
        return asyncio.run_coroutine_threadsafe(asking, self._loop).result()

    def work_of(self, run: str) -> list[Work]:
        """Work that was done for a run (`namespace/name`)."""
        return [work for work in self.worked if work.run == run]

    def __enter__(self) -> "StubKubelet":
        self._thread.start()
        if not self._ready.wait(60) or self._failure is not None:
            raise RuntimeError(f"{self.name} does not come up") from self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        if self._failure is not None:
            raise RuntimeError(f"{self.name} failed") from self._failure

    # The node.

    def _main(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        settings = Configuration()
        await config.load_kube_config(str(self.kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        client = ApiClient(settings)
        client.user_agent = "stub-kubelet"
        self._client, self._api = client, ApiTransport(client, lambda *_: None)
        await self._register()
        background = [asyncio.create_task(self._beat()), asyncio.create_task(self._watch())]
        ending: asyncio.Task[Any] = asyncio.create_task(self._end.wait())
        try:
            self._ready.set()
            await asyncio.wait([*background, ending], return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                if task.done():
                    task.result()
        finally:
            everything: list[asyncio.Task[Any]] = [*background, ending, *self._tasks.values()]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await self._leave()
            await client.close()  # type: ignore[no-untyped-call]

    async def _register(self) -> None:
        labels = {NODE_KEY: self.name, "kubernetes.io/hostname": self.name}
        taint = {"key": NODE_KEY, "value": self.name, "effect": "NoSchedule"}
        node = {"metadata": {"name": self.name, "labels": labels}, "spec": {"taints": [taint]}}
        await self._api.request("POST", "/api/v1/nodes", body={"apiVersion": "v1", "kind": "Node", **node})
        much = {"cpu": "10k", "memory": "100Ti", "pods": "10k", "ephemeral-storage": "100Ti", "nvidia.com/gpu": "10k"}
        now = stamp()
        ready = {"type": "Ready", "status": "True", "reason": "StubReady", "message": "it always is"}
        status = {
            "capacity": much,
            "allocatable": much,
            "conditions": [ready | {"lastHeartbeatTime": now, "lastTransitionTime": now}],
        }
        path = f"/api/v1/nodes/{self.name}/status"
        await self._api.request("PATCH", path, body={"status": status}, content_type=STRATEGIC)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": precise_stamp()},
        }
        await self._api.request("POST", LEASES, body=lease)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            body = {"spec": {"renewTime": precise_stamp()}}
            with contextlib.suppress(ApiError):  # the API server may be away
                await self._api.request("PATCH", f"{LEASES}/{self.name}", body=body, content_type=STRATEGIC)

    async def _leave(self) -> None:
        """Pods that are still here are gone at once, as with a node that is deleted."""
        with contextlib.suppress(ApiError):
            listing = await self._api.request("GET", "/api/v1/pods", query={"fieldSelector": self._selector})
            for pod in listing["items"]:
                await self._vanish(pod)
        for path in (f"/api/v1/nodes/{self.name}", f"{LEASES}/{self.name}"):
            with contextlib.suppress(ApiError):
                await self._api.request("DELETE", path)

    @property
    def _selector(self) -> str:
        return f"spec.nodeName={self.name}"

    async def _watch(self) -> None:
        """List, then watch; from the beginning whenever that ends, as it does when the API server goes away."""
        while True:
            try:
                listing = await self._api.request("GET", "/api/v1/pods", query={"fieldSelector": self._selector})
                for pod in listing["items"]:
                    self._see(pod)
                for uid in self._deletions.keys() - {pod["metadata"]["uid"] for pod in listing["items"]}:
                    self._deletions[uid].set()
                async for event in self._events(listing["metadata"]["resourceVersion"]):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._see(event["object"])
                    elif event["type"] == "DELETED" and (uid := event["object"]["metadata"]["uid"]) in self._deletions:
                        self._deletions[uid].set()
                    elif event["type"] == "ERROR":
                        break
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.2)

    async def _events(self, version: str) -> AsyncIterator[Object]:
        query = {"fieldSelector": self._selector, "watch": "true", "resourceVersion": version}
        _, url, headers, _, _ = await self._client.param_serialize(
            "GET",
            "/api/v1/pods",
            query_params=[*query.items(), ("timeoutSeconds", str(WATCH_SECONDS))],
            header_params={"Accept": JSON},
            auth_settings=["BearerToken"],
        )
        session = self._client.rest_client.pool_manager
        assert session is not None, "the listing has opened it"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with session.get(url, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            async for line in response.content:
                yield json.loads(line)

    # Pods.

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._tasks:
            if pod["status"]["phase"] in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp"):
                return
            self._deletions[uid] = asyncio.Event()
            self._tasks[uid] = asyncio.create_task(self._carry(pod), name=pod["metadata"]["name"])
            self._tasks[uid].add_done_callback(lambda task: self._forget(uid, task))
        if pod["metadata"].get("deletionTimestamp"):
            self._deletions[uid].set()

    def _forget(self, uid: str, task: asyncio.Task[None]) -> None:
        del self._tasks[uid], self._deletions[uid]
        self._at_work.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ApiError):
            self.wrongs.append(f"the stub itself failed: {error!r}")

    async def _carry(self, pod: Object) -> None:
        meta, deletion = pod["metadata"], self._deletions[pod["metadata"]["uid"]]
        if pod["status"]["phase"] in ("Pending", "Running") and not deletion.is_set():
            await self._run(pod, deletion)
        if meta.get("deletionTimestamp") or deletion.is_set():
            await self._vanish(pod)

    async def _run(self, pod: Object, deletion: asyncio.Event) -> None:
        namespace, job = pod["metadata"]["namespace"], pod["metadata"].get("labels", {}).get(JOB_NAME_LABEL, "")
        self._note_job(pod)
        courses = self._courses.get((namespace, job))
        course = courses.popleft() if courses else Course()
        if course.waiting:
            await self._patch(pod, {"phase": "Pending", **container(pod, waiting={"reason": course.waiting})})
            await deletion.wait()
            await self._end_pod(pod, Course(exit_code=INTERRUPTED_EXIT_CODE), "", started="")
            return
        started = stamp()
        work = work_of(pod)
        if work is not None:
            self._begin(pod, work)
        await self._patch(
            pod, {"phase": "Running", "startTime": started, **container(pod, running={"startedAt": started})}
        )
        known = work is not None and (work.run, work.key, work.index) in self._finished
        seconds = course.seconds if course.seconds is not None else 0.0 if known else self.seconds
        await until(deletion, seconds)
        while (namespace, job) in self._held and not deletion.is_set():
            await asyncio.sleep(HOLD_SECONDS)
        message = course.message
        if deletion.is_set():
            course = Course(exit_code=INTERRUPTED_EXIT_CODE)
        elif course.exit_code == 0 and not course.disrupted and work is not None:
            message = self._finish(pod, work)
        self._at_work.pop(pod["metadata"]["uid"], None)
        await self._end_pod(pod, course, message, started)
        if not deletion.is_set():
            await deletion.wait()

    def _note_job(self, pod: Object) -> None:
        for owner in pod["metadata"].get("ownerReferences", []):
            seen = (pod["metadata"]["namespace"], owner["name"], owner["uid"])
            if owner["kind"] == "Job" and seen not in self.jobs:
                self.jobs.append(seen)

    def _begin(self, pod: Object, work: Work) -> None:
        for other in self._at_work.values():
            if other.run != work.run:
                continue
            if (other.key, other.index) == (work.key, work.index):
                self.wrongs.append(f"{work.stage} of {work.run} is at work twice: {other.job} and {work.job}")
            elif other.key != work.key:
                self.wrongs.append(f"{work.run} is at work on two stages: {other.job} and {work.job}")
        self._at_work[pod["metadata"]["uid"]] = work

    def _finish(self, pod: Object, work: Work) -> str:
        """The stage's work is done, unless it was before; its termination message."""
        place = (work.run, work.key, work.index)
        settings = config_of(pod) or {}
        if place not in self._finished:
            self.worked.append(work)
            self._finished[place] = self.result(settings)
        shards = range(int(settings.get("shards", 1)))
        whole = all((work.run, work.key, shard) in self._finished for shard in shards)
        result = self._finished[place].model_copy(update={"complete": whole})
        return ResultRecord(result=result).model_dump_json(exclude_none=True)

    async def _end_pod(self, pod: Object, course: Course, message: str, started: str) -> None:
        failed = course.exit_code != 0 or course.disrupted
        code = course.exit_code or (137 if course.disrupted else 0)
        ended: Object = {
            "exitCode": code,
            "reason": course.reason or ("Error" if failed else "Completed"),
            "message": message,
            "finishedAt": stamp(),
        }
        if started:
            ended["startedAt"] = started
        status: Object = {"phase": "Failed" if failed else "Succeeded", **container(pod, terminated=ended)}
        if course.disrupted:
            disruption = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": "the node was low on resource: memory",
                "lastTransitionTime": stamp(),
            }
            status["conditions"].append(disruption)
        await self._patch(pod, status)

    async def _patch(self, pod: Object, status: Object) -> None:
        path, body = f"{path_of(pod)}/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        await self._persistently(lambda: self._api.request("PATCH", path, body=body, content_type=STRATEGIC))

    async def _vanish(self, pod: Object) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod["metadata"]["uid"]},
        }
        await self._persistently(lambda: self._api.request("DELETE", path_of(pod), body=body))

    async def _persistently(self, request: Callable[[], Awaitable[Object]]) -> None:
        """As a kubelet: again until the API server is there; what is gone needs nothing more."""
        while True:
            try:
                await request()
            except ApiError as error:
                if error.status in (404, 409):
                    return
                if error.status and error.status < 500 and error.status != 429:
                    raise
                await asyncio.sleep(0.2)
            else:
                return
