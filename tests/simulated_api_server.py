"""An API server in memory with a Job controller and a kubelet that do as tests say. What the operator sends is real.

Objects are what the operator wrote; a process that is to die raises OperatorKilled before or after any write.
"""

import copy
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from builders import T0, a_result, some_curation
from selftaught.api.labels import (
    CONFIG_ANNOTATION,
    JOB_INDEX_ANNOTATION,
    JOB_NAME_LABEL,
    RUN_LABEL,
    RUN_UID_LABEL,
)
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import Stage, StageFailure, StageResult
from selftaught.loop.observed import AttemptProgress
from selftaught_operator.cluster import Cluster, GoneError, StaleError
from selftaught_operator.facts import job_facts, pod_facts
from selftaught_operator.memory import Memory
from selftaught_operator.observe import Children
from selftaught_operator.reconcile import Next, Reconciler
from selftaught_operator.settings import Settings
from selftaught_operator.transport import JSON, MERGE_PATCH, ApiError

Object = dict[str, Any]

RUN_KEY = "/apis/selftaught.dev/v1alpha1/namespaces/lab/selftaughtruns/demo"
JOBS = "/apis/batch/v1/namespaces/lab/jobs"
PODS = "/api/v1/namespaces/lab/pods"
MUTATING = ("POST", "PUT", "PATCH", "DELETE")


class OperatorKilled(BaseException):
    """The operator's process died. Not an Exception: nothing catches it."""


@dataclass
class SimulatedApiServer:
    """A Transport."""

    now: datetime = T0
    objects: dict[str, Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Every write, as verb and path."""
    reads: list[str] = field(default_factory=list)
    """Paths of all reads."""
    kill_at: int | None = None
    """Kill in this write: twice the number of the write, one more to let it through first."""
    refuse: dict[str, ApiError] = field(default_factory=dict)
    """Errors by verb and a piece of the path, such as `POST jobs`."""
    started: list[str] = field(default_factory=list)
    """Names of all Jobs that were ever made."""
    _version: int = 0
    _uid: int = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        """As an API server would answer. Raises ApiError, OperatorKilled."""
        if method not in MUTATING:
            self.reads.append(path)
            return self._read(path, query or {})
        step = 2 * len(self.requests)
        self.requests.append((method, path))
        if self.kill_at == step:
            raise OperatorKilled
        self._refuse(method, path)
        answer = self._write(method, path, query or {}, copy.deepcopy(body or {}), content_type)
        if self.kill_at == step + 1:
            raise OperatorKilled
        return copy.deepcopy(answer)

    def _refuse(self, method: str, path: str) -> None:
        for where, error in self.refuse.items():
            verb, _, piece = where.partition(" ")
            if verb == method and piece in path:
                raise error

    def _read(self, path: str, query: Mapping[str, str]) -> Object:
        kind = path.rsplit("/", 1)[-1]
        unknown = kind == "workloads" and not any(self.of(path))  # without Kueue, or in another version of its API
        if (query or kind == "events") and not unknown:
            return {"items": [copy.deepcopy(each) for key, each in self.objects.items() if key.startswith(f"{path}/")]}
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return copy.deepcopy(self.objects[path])

    def _write(self, method: str, path: str, query: Mapping[str, str], body: Object, content_type: str) -> Object:
        match method:
            case "POST":
                return self._create(f"{path}/{body['metadata']['name']}", body)
            case "PUT" if path.endswith("/status"):
                return self._put_status(path.removesuffix("/status"), body)
            case "PUT":
                return self._replace(path, body)
            case "PATCH" if content_type == MERGE_PATCH:
                stored = self.objects[path]
                return self._replace(path, stored | {"spec": stored["spec"] | body["spec"]})
            case "PATCH":
                body["metadata"].setdefault("namespace", "lab")
                return self.put(path, body)
            case _:
                return self._delete(path, query)

    def _create(self, key: str, body: Object) -> Object:
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f"{key} exists")
        if body["kind"] == "Job":
            self.started.append(body["metadata"]["name"])
        return self.put(key, body)

    def put(self, key: str, body: Object) -> Object:
        """Store an object, with what an API server adds."""
        self._version += 1
        meta = body["metadata"]
        if "uid" not in meta:
            self._uid += 1
            meta["uid"] = f"uid-{self._uid}"
        meta.setdefault("creationTimestamp", stamp(self.now))
        meta["resourceVersion"] = str(self._version)
        self.objects[key] = body
        return body

    def _replace(self, key: str, body: Object) -> Object:
        stored = self.objects[key]["metadata"]
        if body["metadata"]["resourceVersion"] != stored["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self.put(key, body | {"metadata": copy.deepcopy(stored)})

    def _put_status(self, key: str, body: Object) -> Object:
        if key not in self.objects or self.objects[key]["metadata"]["uid"] != body["metadata"]["uid"]:
            raise ApiError(404, "NotFound", f"{key} not found")
        stored = self.objects[key]
        if stored["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self.put(key, stored | {"status": json.loads(json.dumps(body["status"]))})

    def _delete(self, path: str, query: Mapping[str, str]) -> Object:
        if (selector := query.get("labelSelector")) is not None:
            name, _, value = selector.partition("=")
            for key in [key for key, _ in self.of(path) if self.objects[key]["metadata"]["labels"].get(name) == value]:
                self.remove(key)
            return {}
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        meta = self.objects[path]["metadata"]
        meta.setdefault("deletionTimestamp", stamp(self.now))
        if not any(alive(pod) for _, pod in self.pods_of(meta["name"])):
            self.remove(path)
        return {}

    def remove(self, key: str) -> None:
        """An object is gone, and with a Job its pods."""
        body = self.objects.pop(key)
        if body["kind"] == "Job":
            for name, _ in self.pods_of(body["metadata"]["name"]):
                del self.objects[name]

    def of(self, path: str) -> Iterator[tuple[str, Object]]:
        """Objects of a kind."""
        yield from [(key, body) for key, body in self.objects.items() if key.startswith(f"{path}/")]

    def pods_of(self, job: str) -> list[tuple[str, Object]]:
        """Pods of a Job."""
        return [(key, pod) for key, pod in self.of(PODS) if pod["metadata"]["labels"][JOB_NAME_LABEL] == job]


@dataclass
class SimulatedLab:
    """One run in a cluster, an operator that can die, and a store that outlives both."""

    server: SimulatedApiServer
    manifest: Object
    settings: Settings = field(default_factory=lambda: Settings(image="worker:test", status_seconds=0))
    memory: Memory = field(default_factory=Memory)
    finished: dict[str, StageResult] = field(default_factory=dict)
    """What the store holds, by key."""
    worked: list[str] = field(default_factory=list)
    """Keys of all stages that really did their work, in order."""

    def apply(self) -> None:
        """`kubectl apply`: the run is made, or its spec replaced."""
        stored = self.server.objects.get(RUN_KEY)
        body = copy.deepcopy(self.manifest)
        if stored is None:
            body["metadata"] |= {"generation": 1}
        else:
            body["metadata"] = stored["metadata"] | {"annotations": body["metadata"].get("annotations", {})}
            body["metadata"]["generation"] += stored["spec"] != body["spec"]
            body["status"] = stored.get("status", {})
        self.server.put(RUN_KEY, body)

    def delete(self) -> None:
        """`kubectl delete`: the cluster deletes what the run owns too."""
        uid = self.server.objects.pop(RUN_KEY)["metadata"]["uid"]
        for key, body in list(self.server.objects.items()):
            if body["metadata"].get("labels", {}).get(RUN_UID_LABEL) == uid and key in self.server.objects:
                self.server.remove(key)

    @property
    def status(self) -> Object:
        """The run's status."""
        status: Object = self.server.objects[RUN_KEY].get("status", {})
        return status

    def condition(self, kind: str) -> str:
        """The reason of a condition that is true; empty if it is not."""
        conditions = self.status.get("conditions", [])
        return next((each["reason"] for each in conditions if each["type"] == kind and each["status"] == "True"), "")

    async def another_operator(self, prepare: Callable[[str], Awaitable[None]]) -> Next | None:
        """The first pass of another operator."""
        self.memory = Memory()
        return await self.reconcile(prepare)

    async def reconcile(self, prepare: Callable[[str], Awaitable[None]] | None = None) -> Next | None:
        """One pass; none if the operator died in it, and another has taken its place."""
        reconciler = Reconciler(Cluster(self.server), self, self.settings, prepare=prepare)
        body = copy.deepcopy(self.server.objects[RUN_KEY])
        try:
            return await reconciler.reconcile(body, self.memory, self.server.now)
        except OperatorKilled:
            self.memory = Memory()
            return None
        except (StaleError, GoneError):
            return None

    def children(self, namespace: str, run: str) -> Children:
        """What a watch has seen."""
        del namespace
        jobs = [body for _, body in self.server.of(JOBS) if body["metadata"]["labels"].get(RUN_LABEL) == run]
        pods = [body for _, body in self.server.of(PODS) if body["metadata"]["labels"].get(RUN_LABEL) == run]
        return Children(tuple(map(job_facts, jobs)), tuple(map(pod_facts, pods)))

    def progress(self, namespace: str, job: str, pods: int) -> AttemptProgress | None:
        """Pods tell nothing here."""
        del namespace, job, pods
        return None

    # What the Job controller and the kubelet do.

    def alive(self) -> list[str]:
        """Names of Jobs that have not ended."""
        return [body["metadata"]["name"] for _, body in self.server.of(JOBS) if job_facts(body).end is None]

    def run_pods(self, job: str) -> None:
        """The pods of a Job begin to run."""
        body = self.server.objects[f"{JOBS}/{job}"]
        template = body["spec"]["template"]
        for index in range(body["spec"]["completions"]):
            meta = copy.deepcopy(template["metadata"]) | {"name": f"{job}-{index}", "namespace": "lab"}
            meta["labels"][JOB_NAME_LABEL] = job
            meta.setdefault("annotations", {})[JOB_INDEX_ANNOTATION] = str(index)
            state = {"running": {"startedAt": stamp(self.server.now)}}
            status = {"phase": "Running", "containerStatuses": [{"state": state}]}
            self.server.put(f"{PODS}/{job}-{index}", {"kind": "Pod", "metadata": meta, "status": status})

    def end_pods(self, job: str, exit_code: int, message: str, reason: str = "") -> None:
        """The pods of a Job end."""
        for key, pod in self.server.pods_of(job):
            started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
            ended = {
                "exitCode": exit_code,
                "reason": reason or ("Completed" if exit_code == 0 else "Error"),
                "message": message,
                "startedAt": started,
                "finishedAt": stamp(self.server.now),
            }
            phase = "Succeeded" if exit_code == 0 else "Failed"
            pod["status"] |= {"phase": phase, "containerStatuses": [{"state": {"terminated": ended}}]}
            self.server.put(key, pod)

    def end_job(self, job: str, *, complete: bool) -> None:
        """The Job controller says that a Job has ended."""
        key = f"{JOBS}/{job}"
        body = self.server.objects[key]
        kind = "Complete" if complete else "Failed"
        told = {"type": kind, "status": "True", "lastTransitionTime": stamp(self.server.now), "reason": kind}
        body["status"] = {"conditions": [told]}
        self.server.put(key, body)

    def finish(self, job: str, seconds: float = 60.0) -> None:
        """A Job does its work, if the store does not hold it already, and ends well."""
        self.run_pods(job)
        self.server.now += timedelta(seconds=seconds)
        body = self.server.objects[f"{JOBS}/{job}"]
        config = json.loads(body["spec"]["template"]["metadata"]["annotations"].get(CONFIG_ANNOTATION, "{}"))
        message = ""
        if config:
            key, stage = config["key"], Stage(config["stage"])
            if key not in self.finished:
                extra = {"curation": some_curation(80)} if stage is Stage.CURATE else {}
                self.finished[key] = a_result(stage, config["iteration"], key, **extra)
                self.worked.append(key)
            message = ResultRecord(result=self.finished[key]).model_dump_json(exclude_none=True)
        self.end_pods(job, 0, message)
        self.end_job(job, complete=True)

    def fail(self, job: str, exit_code: int = 75, message: str = "broken", reason: str = "") -> None:
        """A Job fails."""
        self.run_pods(job)
        self.server.now += timedelta(seconds=5)
        failure = StageFailure(reason="Storage", message=message, permanent=exit_code == 64)
        record = FailureRecord(failure=failure, exit_code=exit_code)
        self.end_pods(job, exit_code, "" if reason else record.model_dump_json(), reason)
        self.end_job(job, complete=False)

    def end_deletions(self) -> None:
        """Pods that were asked to stop have ended; their Jobs vanish."""
        for key, body in list(self.server.of(JOBS)):
            if "deletionTimestamp" in body["metadata"]:
                self.server.remove(key)

    async def settle(self, passes: int = 200) -> None:
        """Let everything go well until the run is at rest."""
        for _ in range(passes):
            step = await self.reconcile()
            self.end_deletions()
            alive = self.alive()
            stages = [job for job in alive if "-prune-" not in job]
            assert len(stages) <= 1, f"two Jobs at once: {alive}"
            for job in alive:
                self.finish(job)
            if step is None or alive:
                continue
            if step.rest:
                return
            if step.at is not None:
                self.server.now = max(self.server.now, step.at)
        raise AssertionError(f"the run has not come to rest: {self.status.get('summary')}")


def alive(pod: Object) -> bool:
    """Whether a pod is at work."""
    return pod["status"]["phase"] in ("Pending", "Running")


def stamp(time: datetime) -> str:
    """A time as the API server writes it."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
