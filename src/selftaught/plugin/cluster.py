"""The only module of the plugin that talks to an API server; what it needs of one is the protocol `Cluster`."""

import codecs
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from selftaught.errors import PermanentError, TransientError

JsonObject = dict[str, Any]
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
FIELD_MANAGER = "kubectl-selftaught"


class UnreachableError(TransientError):
    """The API server does not answer, or not now."""


class RefusedError(PermanentError):
    """What was asked for cannot be done as it was asked."""


class ForbiddenError(RefusedError):
    """The user may not do that."""


class Cluster(Protocol):
    """An API server, seen from one namespace. All methods raise UnreachableError and RefusedError."""

    namespace: str

    def get(self, path: str, query: Mapping[str, str]) -> JsonObject | None:
        """An object or a list; None if there is no such thing. Raises ForbiddenError."""

    def patch(self, path: str, body: JsonObject) -> None:
        """Merge a part into an object."""

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """Send a review; its answer."""

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """A text line by line, as it comes; without line ends."""


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    """The cluster that kubectl would talk to. Raises RefusedError."""
    try:
        import yaml
        from kubernetes import config
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        raise RefusedError(
            f"the package {error.name or 'kubernetes'} is not installed; "
            "install it with: pip install 'selftaught[operator]'"
        ) from error
    settings: Any = Configuration()
    loader: Any = config  # untyped
    location = loader.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    try:
        if kubeconfig is None and context is None and in_cluster(location):
            loader.load_incluster_config(settings)
            default = NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        else:
            file = str(kubeconfig) if kubeconfig is not None else None
            loader.load_kube_config(file, context, settings)
            default = namespace_of(loader.list_kube_config_contexts(file), context)
    except (config.ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        where = kubeconfig or location
        said = one_line(str(error)).rstrip(".")
        raise RefusedError(f"cannot use the kubeconfig {where}: {said}; name another with --kubeconfig") from error
    settings.retries = False
    return KubernetesCluster(ApiClient(settings), namespace or default)


def in_cluster(kubeconfig: str) -> bool:
    """Whether this is a pod without a kubeconfig."""
    return NAMESPACE_FILE.exists() and not any(Path(part).expanduser().exists() for part in kubeconfig.split(":"))


def namespace_of(contexts: tuple[list[JsonObject], JsonObject], wanted: str | None) -> str:
    """The namespace of a context of the kubeconfig."""
    every, current = contexts
    chosen = next((each for each in every if each["name"] == wanted), current) if wanted else current
    return str(chosen.get("context", {}).get("namespace") or "default")


class KubernetesCluster:
    """A real one."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def get(self, path: str, query: Mapping[str, str]) -> JsonObject | None:
        """An object or a list; None if there is no such thing."""
        return self._json(self._request("GET", path, query))

    def patch(self, path: str, body: JsonObject) -> None:
        """Merge a part into an object."""
        query = {"fieldManager": FIELD_MANAGER}
        if (
            self._json(self._request("PATCH", path, query, body=body, content_type="application/merge-patch+json"))
            is None
        ):
            raise RefusedError(f"{path} is gone")

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """Send a review; its answer."""
        answer = self._json(self._request("POST", path, {}, body=body, content_type="application/json"))
        if answer is None:
            raise RefusedError(f"this cluster does not know {path}")
        return answer

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """A text line by line, as it comes."""
        response = self._request("GET", path, query, seconds=None if query.get("follow") else READ_SECONDS)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        rest = ""
        try:
            if response.status >= 400:
                self._json(response)
                raise RefusedError(f"there is no {path}")
            with self._reached():
                for chunk in response.response.stream(2**14):
                    *whole, rest = (rest + decode(chunk)).split("\n")
                    yield from whole
        finally:
            response.response.close()
        rest += decode(b"", final=True)
        if rest:
            yield rest

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: JsonObject | None = None,
        content_type: str | None = None,
        seconds: float | None = READ_SECONDS,
    ) -> Any:
        headers = {"Accept": "application/json, */*"} | ({"Content-Type": content_type} if content_type else {})
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        with self._reached():
            return self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, seconds))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Tells errors of the network as ours."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (HTTPError, OSError, ApiException) as error:
            host = self._client.configuration.host
            said = one_line(str(error).rsplit(": ", 1)[-1]).removesuffix(")")
            raise UnreachableError(
                f"cannot reach the cluster at {host}: {said}; check --context and the network"
            ) from error

    def _json(self, response: Any) -> JsonObject | None:
        """The answer, if it is one; None for 404."""
        with self._reached():
            text = response.read()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        told = answer.get("message", "") if isinstance(answer, dict) else text.decode("utf-8", "replace")
        said = one_line(told)[:500] or response.reason
        match response.status:
            case 404:
                return None
            case 401:
                raise RefusedError("the cluster does not accept your credentials; log in to it again")
            case 403:
                raise ForbiddenError(f"not allowed: {said}")
            case code if code == 429 or code >= 500:
                raise UnreachableError(f"the cluster cannot answer now ({code}): {said}; try again")
            case code if code >= 400:
                raise RefusedError(f"refused by the cluster: {said}")
        if not isinstance(answer, dict):
            raise UnreachableError("what answers is no Kubernetes API server; check --context")
        return answer


def one_line(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())


def escaped(name: str) -> str:
    """A name as part of a path, whatever a user typed."""
    return quote(name, safe="")
