"""A double of an API server: objects as JSON, and what was sent to it."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from selftaught.plugin.cluster import ForbiddenError, JsonObject, RefusedError

RUNS = "/apis/selftaught.dev/v1alpha1"


class StubCluster:
    """Answers from the objects it was given; nothing happens by itself."""

    def __init__(self, *objects: JsonObject, namespace: str = "lab", user: str | None = "jane@example.org") -> None:
        self.namespace = namespace
        self.objects = list(objects)
        self.user = user
        self.logs: dict[str, list[str]] = {}
        self.forbidden: set[str] = set()
        """Kinds in the plural that the user may not read."""
        self.unknown: set[str] = set()
        """Kinds in the plural that the cluster does not know."""
        self.patches: list[tuple[str, JsonObject]] = []
        self.streamed: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, query: Mapping[str, str]) -> JsonObject | None:
        parts = path.split("/")
        plural, name = self._split(parts)
        if plural in self.forbidden:
            raise ForbiddenError(f"not allowed: {plural} is forbidden")
        if plural in self.unknown:
            return None
        found = [each for each in self.objects if self._plural(each) == plural and self._near(each, parts)]
        if name:
            return next((deepcopy(each) for each in found if each["metadata"]["name"] == name), None)
        return {"items": [deepcopy(each) for each in found if selected(each, query)]}

    def patch(self, path: str, body: JsonObject) -> None:
        if self.get(path, {}) is None:
            raise RefusedError(f"{path} is gone")
        self.patches.append((path, body))

    def post(self, path: str, body: JsonObject) -> JsonObject:
        if self.user is None:
            raise RefusedError(f"this cluster does not know {path}")
        return {**body, "status": {"userInfo": {"username": self.user}}}

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        self.streamed.append((path, dict(query)))
        yield from self.logs[path.split("/")[-2]]

    def _near(self, each: JsonObject, parts: list[str]) -> bool:
        namespaced = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
        return namespaced in (None, each["metadata"].get("namespace", "lab"))

    @staticmethod
    def _split(parts: list[str]) -> tuple[str, str]:
        below = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts else parts[4:]
        return below[0], below[1] if len(below) > 1 else ""

    @staticmethod
    def _plural(each: JsonObject) -> str:
        return f"{each['kind'].lower()}s"


def selected(each: JsonObject, query: Mapping[str, str]) -> bool:
    """Whether label and field selectors of one term fit."""
    key, _, value = query.get("labelSelector", "").partition("=")
    if key and each["metadata"].get("labels", {}).get(key) != value:
        return False
    field, _, wanted = query.get("fieldSelector", "").partition("=")
    return not field or each.get(field) == wanted


def an_object(kind: str, name: str, **fields: Any) -> JsonObject:
    """An object with metadata."""
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", **fields.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **fields}


def a_condition(kind: str, status: str = "True", reason: str = "", message: str = "", second: int = 30) -> JsonObject:
    """A condition of a Job, pod or Workload."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": f"2026-01-01T00:00:{second:02d}Z",
    }


def a_job(name: str = "demo-i1-judge-a1", *conditions: JsonObject, pods: int = 1, **fields: Any) -> JsonObject:
    """A Job."""
    return an_object(
        "Job",
        name,
        metadata={"uid": "u1", **fields.pop("metadata", {})},
        spec={"parallelism": pods, "completions": pods, **fields.pop("spec", {})},
        status={"conditions": list(conditions)},
    )


def a_pod(
    index: int = 0,
    state: JsonObject | None = None,
    *conditions: JsonObject,
    phase: str = "Pending",
    job: str = "demo-i1-judge-a1",
    suffix: str = "x",
    last: JsonObject | None = None,
    **metadata: Any,
) -> JsonObject:
    """A pod of a Job, with one container."""
    container = {"name": "stage", "image": "registry.example/selftaught:1", "state": state, "lastState": last or {}}
    return an_object(
        "Pod",
        f"{job}-{index}-{suffix}",
        metadata={
            "labels": {"batch.kubernetes.io/job-name": job},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            **metadata,
        },
        spec={"containers": [{"name": "stage"}, {"name": "mesh"}]},
        status={
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": [container] if state is not None else [],
        },
    )


def a_warning(reason: str, message: str, kind: str = "Job", name: str = "demo-i1-judge-a1") -> JsonObject:
    """A warning Event."""
    return an_object(
        "Event",
        f"{name}.{reason}",
        type="Warning",
        reason=reason,
        message=message,
        eventTime=None,
        firstTimestamp="2026-01-01T00:00:20Z",
        lastTimestamp="2026-01-01T00:05:00Z",
        involvedObject={"kind": kind, "name": name},
    )
