"""The edge to a real API server, over HTTP, and the command line around it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from builders import a_manifest
from selftaught.plugin.cluster import Cluster, ForbiddenError, RefusedError, UnreachableError, connect

ANSWERS: dict[str, tuple[int, bytes]] = {
    "/good": (200, b'{"items": []}'),
    "/absent": (404, b'{"message": "not found"}'),
    "/forbidden": (403, b'{"message": "jobs is forbidden:\\n User cannot list"}'),
    "/stranger": (401, b'{"message": "Unauthorized"}'),
    "/invalid": (422, b'{"message": "spec.iterations may only be raised"}'),
    "/busy": (503, b"try later"),
    "/portal": (200, b"<html>log in</html>"),
    "/log": (200, "eins\nzwölf\nkein Ende".encode()),
    "/apis/selftaught.dev/v1alpha1/namespaces/lab/selftaughtruns/demo": (200, json.dumps(a_manifest()).encode()),
    "/apis/selftaught.dev/v1alpha1/namespaces/lab/selftaughtruns": (
        200,
        json.dumps({"items": [a_manifest()]}).encode(),
    ),
}


class Server(ThreadingHTTPServer):
    """Notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    """Answers from the table."""

    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        self.server.seen.append((self.command, self.path, self.headers.get("Content-Type", ""), body))
        code, answer = ANSWERS.get(path, (404, b"{}"))
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PATCH = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


def a_kubeconfig(path: Path, url: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "lab"}},
                    {"name": "plain", "context": {"cluster": "c", "user": "u"}},
                ],
            }
        )
    )
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> Path:
    return a_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_port}")


@pytest.fixture
def cluster(kubeconfig: Path) -> Cluster:
    return connect(kubeconfig, None, None)


def test_the_namespace_is_that_of_the_option_or_of_the_context(kubeconfig: Path) -> None:
    assert connect(kubeconfig, None, None).namespace == "lab"
    assert connect(kubeconfig, "plain", None).namespace == "default"
    assert connect(kubeconfig, None, "mine").namespace == "mine"


def test_what_is_there_is_read_and_what_is_not_is_none(cluster: Cluster, server: Server) -> None:
    assert cluster.get("/good", {"labelSelector": "a/b=c"}) == {"items": []}
    assert cluster.get("/absent", {}) is None
    assert server.seen[0][:2] == ("GET", "/good?labelSelector=a/b%3Dc")


def test_a_patch_is_a_merge_patch_under_our_name(cluster: Cluster, server: Server) -> None:
    cluster.patch("/good", {"spec": {"suspend": False}})
    method, path, kind, body = server.seen[0]
    assert (method, path) == ("PATCH", "/good?fieldManager=kubectl-selftaught")
    assert kind == "application/merge-patch+json"
    assert json.loads(body) == {"spec": {"suspend": False}}


def test_a_log_comes_line_by_line(cluster: Cluster) -> None:
    assert list(cluster.lines("/log", {})) == ["eins", "zwölf", "kein Ende"]
    with pytest.raises(RefusedError):
        list(cluster.lines("/absent", {}))


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        pytest.param("/forbidden", ForbiddenError, "not allowed: jobs is forbidden: User", id="forbidden"),
        pytest.param("/stranger", RefusedError, "does not accept your credentials", id="unknown user"),
        pytest.param("/invalid", RefusedError, "may only be raised", id="invalid"),
        pytest.param("/busy", UnreachableError, r"cannot answer now \(503\): try later", id="busy"),
        pytest.param("/portal", UnreachableError, "no Kubernetes API server", id="something else answers"),
    ],
)
def test_errors_tell_the_cause(cluster: Cluster, path: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        cluster.get(path, {})


def plugin(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from selftaught.plugin.cli import main; main()", *arguments],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_command_from_end_to_end(kubeconfig: Path, server: Server) -> None:
    ended = plugin("suspend", "demo", "--kubeconfig", str(kubeconfig), "-n", "lab")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("demo suspended")
    assert json.loads(server.seen[-1][3]) == {"spec": {"suspend": True}}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(
            ["status", "dmo"], 64, "error: no run 'dmo' in namespace lab; known there: demo", id="no such run"
        ),
        pytest.param(["why", "demo", "--context", "no"], 64, "cannot use the kubeconfig", id="no such context"),
        pytest.param(["list", "--kubeconfig", "/absent"], 64, "cannot use the kubeconfig /absent", id="no kubeconfig"),
    ],
)
def test_a_bad_request_is_one_line(kubeconfig: Path, arguments: list[str], code: int, message: str) -> None:
    given = arguments if "--kubeconfig" in arguments else [*arguments, "--kubeconfig", str(kubeconfig)]
    ended = plugin(*given)
    assert ended.returncode == code
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_unreachable_cluster_is_one_line_and_may_work_later(tmp_path: Path) -> None:
    ended = plugin("list", "--kubeconfig", str(a_kubeconfig(tmp_path / "config", "http://127.0.0.1:9")))
    assert ended.returncode == 75
    assert "cannot reach the cluster at http://127.0.0.1:9" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    debugged = plugin("list", "--debug", "--kubeconfig", str(tmp_path / "config"))
    assert "Traceback" in debugged.stderr


def test_help_needs_no_client_of_the_cluster() -> None:
    program = (
        "import sys, selftaught.plugin.cli; print(sorted({'kubernetes', 'rich.table', 'pydantic'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "kubernetes" not in ended.stdout
