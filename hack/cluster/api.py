"""Just enough of a client of the API server for the cluster's own needs."""

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from hack.cluster.layout import API_PORT, NODE_ADDRESS
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

TIMEOUT_SECONDS = 10.0


class Resource(BaseModel):
    """The fields of an object that somebody here reads."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class RequestError(Exception):
    """The API server said no; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A user's connection. Not to be shared between threads."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._connection = http.client.HTTPSConnection(NODE_ADDRESS, API_PORT, timeout=TIMEOUT_SECONDS, context=context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """The answer's body.

        Raises:
            RequestError: the server answered with an error.
            OSError, http.client.HTTPException: it cannot be reached.

        """
        return self._send(method, path, body).read()

    def watch(self, path: str, resource_version: str, seconds: int) -> Iterator[bytes]:
        """Events after a version, one JSON object each, until the time is over."""
        query = urllib.parse.urlencode(
            {"watch": "true", "resourceVersion": resource_version, "timeoutSeconds": seconds}
        )
        answer = self._send("GET", f"{path}?{query}", None)
        while line := answer.readline():
            yield line

    def _send(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "selftaught-cluster"}
        payload = None
        if body is not None:
            payload = json.dumps(body)
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, payload, headers)
        answer = self._connection.getresponse()
        if answer.status >= http.client.BAD_REQUEST:
            raise RequestError(answer.status, answer.read().decode(errors="replace"))
        return answer
