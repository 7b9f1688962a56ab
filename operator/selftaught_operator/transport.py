"""Requests to the API server, through kubernetes.aio's client; as objects of JSON, since its models cost 100 MB."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

Object = dict[str, Any]

TIMEOUT_SECONDS = 30.0
CONNECTIONS = 16
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server said no. `status` is the HTTP status, 0 if it did not answer; `reason` its own word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or reason)
        self.status = status
        self.reason = reason


class Transport(Protocol):
    """Sends one request. Raises ApiError."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        """The object that comes back."""
        ...


Count = Callable[[str, str, int, float], None]
"""Told of each request: verb, resource, status, seconds."""


class ApiTransport:
    """The real one."""

    def __init__(self, client: ApiClient, count: Count) -> None:
        self._client = client
        self._count = count

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        """The object that comes back. Raises ApiError."""
        began = time.monotonic()
        status = 0
        try:
            verb, url, headers, payload, _ = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": JSON, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(verb, url, headers, payload, _request_timeout=TIMEOUT_SECONDS)
            status = int(response.status)
            text = await response.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            status = int(error.status or 0)
            raise ApiError(status, *told_by(error.body, str(error.reason))) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, type(error).__name__, f"the API server did not answer: {error}") from error
        finally:
            self._count(method, resource_of(path), status, time.monotonic() - began)
        if status >= 400:
            raise ApiError(status, *told_by(text, str(response.reason)))
        answer: Object = json.loads(text) if text else {}
        return answer


async def connect() -> ApiClient:
    """A client for the cluster around this process, or for the kubeconfig's; it reads its token anew as it rotates."""
    settings = Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    settings.connection_pool_maxsize = CONNECTIONS
    client = ApiClient(settings)
    client.user_agent = "selftaught-operator"
    return client


def told_by(body: str | bytes | None, phrase: str) -> tuple[str, str]:
    """Reason and message of a Status object; HTTP's phrase and the text itself if it is none."""
    if not body:
        return phrase, ""
    text = body.decode("utf-8", errors="replace") if isinstance(body, bytes) else body
    try:
        told = json.loads(text)
    except ValueError:
        return phrase, text[:300]
    if not isinstance(told, dict):
        return phrase, text[:300]
    return str(told.get("reason") or phrase), str(told.get("message", ""))


def resource_of(path: str) -> str:
    """The resource that a path is about, such as `jobs` or `selftaughtruns/status`."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join([*parts[:1], *parts[2:3]])
