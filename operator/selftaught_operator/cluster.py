"""What the operator asks of the API server. Nearly every method is one request."""

import hashlib
from datetime import datetime
from typing import Any

from selftaught.api.base import API_VERSION, GROUP, KIND, PLURAL, VERSION
from selftaught.api.labels import JOB_UID_LABEL, KUEUE_APIS, RUN_UID_LABEL
from selftaught.api.run import Metadata
from selftaught.api.status import RunStatus
from selftaught_operator.jobs import MANAGED_BY, Object
from selftaught_operator.notes import Note
from selftaught_operator.pods import AUDIENCE
from selftaught_operator.progress import PodIdentity
from selftaught_operator.transport import APPLY_PATCH, ApiError, Transport

CONFLICT = 409
NOT_FOUND = 404
ALREADY_EXISTS = "AlreadyExists"
REFUSALS = (400, 403, 413, 422)


class StaleError(Exception):
    """What was read is not the newest: look again."""


class GoneError(Exception):
    """The run does not exist any more."""


class RefusedError(Exception):
    """The cluster does not want the object as it is (quota, rights, a bad field). Its own words."""


class Cluster:
    """The API server, as one operator sees it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def check_installed(self, namespaces: tuple[str, ...]) -> None:
        """Raises ApiError while runs cannot be listed in each of the namespaces, or in all if none is named."""
        for place in [f"namespaces/{name}/" for name in namespaces] or [""]:
            await self._transport.request("GET", f"/apis/{GROUP}/{VERSION}/{place}{PLURAL}", query={"limit": "1"})

    async def write_status(self, run: Metadata, resource_version: str, status: RunStatus) -> str:
        """Replace a run's status, if it has not changed meanwhile; its new resource version.

        Raises StaleError, GoneError.
        """
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{run.namespace}/{PLURAL}/{run.name}/status"
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": run.name,
                "namespace": run.namespace,
                "uid": run.uid,
                "resourceVersion": resource_version,
            },
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            answer = await self._transport.request("PUT", path, query={"fieldManager": MANAGED_BY}, body=body)
        except ApiError as error:
            if error.status == CONFLICT:
                raise StaleError from error
            if error.status == NOT_FOUND:
                raise GoneError from error
            raise
        return str(answer["metadata"]["resourceVersion"])

    async def create(self, body: Object) -> bool:
        """Create a Job, Service or ConfigMap; False if one of that name exists. Raises RefusedError."""
        group = "/api/v1" if body["apiVersion"] == "v1" else f"/apis/{body['apiVersion']}"
        kind = f"{body['kind'].lower()}s"
        path = f"{group}/namespaces/{body['metadata']['namespace']}/{kind}"
        try:
            await self._transport.request("POST", path, query={"fieldManager": MANAGED_BY}, body=body)
        except ApiError as error:
            if error.reason == ALREADY_EXISTS:  # other conflicts, such as with a quota, are worth another try
                return False
            if error.status in REFUSALS:
                raise RefusedError(" ".join(str(error).split())) from error
            raise
        return True

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Delete a Job; it stays until its pods have ended."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        }
        await self._forgiving("DELETE", f"{jobs_path(namespace)}/{name}", body=body)

    async def delete_jobs(self, namespace: str, selector: str) -> None:
        """Delete all Jobs with a label, and their pods."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await self._transport.request("DELETE", jobs_path(namespace), query={"labelSelector": selector}, body=body)

    async def job_exists(self, namespace: str, name: str, uid: str) -> bool:
        """Whether that very Job exists."""
        answer = await self._forgiving("GET", f"{jobs_path(namespace)}/{name}")
        return answer is not None and answer["metadata"]["uid"] == uid

    async def run_of_job(self, namespace: str, name: str) -> str | None:
        """UID of the run that a Job belongs to, empty if to none; none if there is no such Job."""
        answer = await self._forgiving("GET", f"{jobs_path(namespace)}/{name}")
        return None if answer is None else str(answer["metadata"].get("labels", {}).get(RUN_UID_LABEL, ""))

    async def pod_exists(self, namespace: str, name: str, uid: str) -> bool:
        """Whether that very pod exists."""
        answer = await self._forgiving("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        return answer is not None and answer["metadata"]["uid"] == uid

    async def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """The data of a ConfigMap."""
        answer = await self._forgiving("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return None if answer is None else {key: str(value) for key, value in (answer.get("data") or {}).items()}

    async def apply_config_map(self, namespace: str, name: str, data: dict[str, str]) -> None:
        """Create a ConfigMap, or bring it to this content."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGED_BY}},
            "data": data,
        }
        await self._apply(f"/api/v1/namespaces/{namespace}/configmaps/{name}", body)

    async def publish(self, namespace: str, service: str, address: str, port: int) -> None:
        """Have a Service without selector lead to this replica."""
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv6" if ":" in address else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "progress", "port": port, "protocol": "TCP"}],
        }
        await self._apply(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{service}", body)

    async def warning(self, namespace: str, uid: str) -> str:
        """The newest warning about an object; empty if there is none."""
        selector = f"involvedObject.uid={uid},type=Warning"
        answer = await self._forgiving("GET", f"/api/v1/namespaces/{namespace}/events", fieldSelector=selector)
        entries = answer.get("items", []) if answer is not None else []
        newest = max(entries, key=event_time, default=None)
        return f"{newest.get('reason', '')}: {newest.get('message', '')}" if newest is not None else ""

    async def queue_words(self, namespace: str, job_uid: str) -> str:
        """Why Kueue has not admitted a Job, in its own words."""
        items: list[Object] = []
        for api in KUEUE_APIS:
            path = f"/apis/{api}/namespaces/{namespace}/workloads"
            answer = await self._forgiving("GET", path, labelSelector=f"{JOB_UID_LABEL}={job_uid}")
            if answer is not None:
                items = answer.get("items", [])
                break
        if not items:
            return "no Kueue Workload for it: is Kueue installed, and does it manage this namespace?"
        conditions = {entry["type"]: entry for entry in items[0].get("status", {}).get("conditions", [])}
        for kind, status in (("QuotaReserved", "False"), ("Admitted", "False"), ("Evicted", "True")):
            told = conditions.get(kind)
            if told is not None and told.get("status") == status:
                return f"Kueue: {told.get('message', '')}"
        return "Kueue has not decided yet"

    async def emit(self, run: Metadata, note: Note, now: datetime) -> None:
        """Leave an Event about a run."""
        time = now.isoformat().replace("+00:00", "Z")
        digest = hashlib.sha256(f"{run.uid}{note.reason}{note.message}{time}".encode()).hexdigest()[:16]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{run.name}.{digest}", "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.name,
                "namespace": run.namespace,
                "uid": run.uid,
            },
            "type": "Warning" if note.warning else "Normal",
            "reason": note.reason,
            "message": note.message[:1024],
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "source": {"component": MANAGED_BY},
            "reportingComponent": MANAGED_BY,
        }
        await self._transport.request("POST", f"/api/v1/namespaces/{run.namespace}/events", body=body)

    async def review(self, token: str) -> PodIdentity | None:
        """The pod that a token was made for; none if the token is not valid for telling progress."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        answer = await self._transport.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body)
        return pod_identity(answer.get("status", {}))

    async def _apply(self, path: str, body: Object) -> None:
        query = {"fieldManager": MANAGED_BY, "force": "true"}
        await self._transport.request("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    async def _forgiving(self, method: str, path: str, body: Object | None = None, **query: str) -> Object | None:
        """The answer; none if what is asked for is absent, or is no longer what was meant, or may not be seen."""
        try:
            return await self._transport.request(method, path, query=query, body=body)
        except ApiError as error:
            if error.status in (NOT_FOUND, CONFLICT) or (method == "GET" and error.status == 403):
                return None
            raise


def pod_identity(status: dict[str, Any]) -> PodIdentity | None:
    """The pod that a TokenReview is about."""
    if not status.get("authenticated") or AUDIENCE not in status.get("audiences", []):
        return None
    user = status.get("user", {})
    extra = user.get("extra") or {}
    names = extra.get("authentication.kubernetes.io/pod-name") or []
    uids = extra.get("authentication.kubernetes.io/pod-uid") or []
    kind, _, account = str(user.get("username", "")).partition("system:serviceaccount:")
    if kind or not account or not names or not uids:
        return None
    return PodIdentity(namespace=account.split(":", 1)[0], pod_name=names[0], pod_uid=uids[0])


def jobs_path(namespace: str) -> str:
    """Path of the Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def event_time(event: Object) -> str:
    """When an Event was last seen."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
