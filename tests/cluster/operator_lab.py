"""A namespace with an operator: processes on this machine, with exactly the rights that an installation gives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from builders import a_manifest
from cluster.audit import AuditedRequest, audited
from cluster.stub_kubelet import StubKubelet
from real_cluster import ROOT, Cluster, KubectlError
from selftaught.api.base import GROUP, PLURAL, VERSION
from selftaught.api.labels import RUN_LABEL
from selftaught_operator.rbac import AT_HOME, EVERYWHERE, Rule, role
from selftaught_operator.transport import ApiError

Object = dict[str, Any]

ACCOUNT = "selftaught-operator"
RIGHTS = {(rule.group, rule.resource, verb) for rule in (*EVERYWHERE, *AT_HOME) for verb in rule.verbs}
"""All that an operator may do."""
WORKING = "this replica works now"
PATIENCE = 90.0
"""Seconds; the machine may be busy with other things."""


@dataclass
class OperatorProcess:
    """An operator that works, until it is stopped or killed."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    """Of metrics and probes."""

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_until_working(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while WORKING not in self.said:
            assert self.process.poll() is None, f"the operator ended: {self.said}"
            assert time.monotonic() < deadline, f"the operator does not work: {self.said}"
            time.sleep(0.02)

    def get(self, path: str) -> str:
        """What it answers to HTTP; empty if it does not, or not well."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()


@dataclass
class OperatorLab:
    """Runs, and operators that look after them."""

    cluster: Cluster
    namespace: str
    folder: Path
    kubelet: StubKubelet
    began: int = 0
    """Size of the audit log when it began."""
    _started: int = field(default=0)

    def install(self) -> None:
        """The resource, the operator's account, and its rights in this namespace alone."""
        kubectl = self.cluster.kubectl
        self.began = self.cluster.audit_log.stat().st_size if self.cluster.ours else 0
        kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests/crd/selftaughtruns.yaml'}")
        kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{PLURAL}.{GROUP}")
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
        objects = [account, *self._rights(ACCOUNT, EVERYWHERE), *self._rights(f"{ACCOUNT}-home", AT_HOME)]
        self.apply(*objects)
        token = kubectl("create", "token", f"--namespace={self.namespace}", ACCOUNT, "--duration=1h").strip()
        self.kubeconfig.write_text(json.dumps(self._kubeconfig(token)), encoding="utf-8")

    def _rights(self, name: str, rules: tuple[Rule, ...]) -> tuple[Object, Object]:
        subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}
        group = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        }
        return role("Role", rules) | {"metadata": {"name": name}}, binding

    def _kubeconfig(self, token: str) -> Object:
        shown: Object = json.loads(
            self.cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")
        )
        user = shown["contexts"][0]["context"]["user"]
        return shown | {"users": [{"name": user, "user": {"token": token}}]}

    def requests(self) -> list[AuditedRequest]:
        """All requests of this lab's operators, as the API server logged them; none on a cluster that is not ours."""
        if not self.cluster.ours:
            return []
        user = f"system:serviceaccount:{self.namespace}:{ACCOUNT}"
        return audited(self.cluster.audit_log, self.began, user)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "operator.kubeconfig"

    def start(self, **settings: object) -> OperatorProcess:
        """Start an operator; keywords are its settings."""
        self._started += 1
        given: Object = {
            "image": "selftaught/worker:dev",
            "namespaces": self.namespace,
            "pod_namespace": self.namespace,
            "pod_name": f"operator-{self._started}",
            "metrics_port": free_port(),
            "status_seconds": 0.5,
            "retry_seconds": 1,
            "lease_seconds": 3,
            "leader_election": False,
            **settings,
        }
        variables = {f"SELFTAUGHT_OPERATOR_{name.upper()}": str(value) for name, value in given.items()}
        environment = {**os.environ, **variables, "KUBECONFIG": str(self.kubeconfig), "PYTHONUNBUFFERED": "1"}
        log = self.folder / f"operator-{self._started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "selftaught_operator"], env=environment, stdout=output, stderr=output
            )
        return OperatorProcess(process, log, int(str(given["metrics_port"])))

    @contextmanager
    def operator(self, **settings: object) -> Iterator[OperatorProcess]:
        """An operator that has begun to work, until the end."""
        operator = self.start(**settings)
        try:
            operator.wait_until_working()
            yield operator
        finally:
            operator.kill()
        assert "Traceback" not in operator.said, operator.said

    # Runs.

    def apply(self, *objects: Object) -> None:
        self.cluster.apply(self.namespace, yaml.safe_dump_all(objects))

    def apply_run(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        """Create or change a run: one iteration, one stage after the other on the stub's node."""
        self.apply(self.manifest(name, annotations=annotations, **spec))

    def manifest(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        """The manifest of a run."""
        benchmarks = [
            {"name": "choice", "uri": "s3://stub/choice.jsonl", "role": "Selection"},
            {"name": "guard", "uri": "s3://stub/guard.jsonl", "role": "Gate", "maxDrop": "0.02"},
        ]
        defaults: Object = {
            "iterations": 1,
            "seed": {"model": {"uri": "s3://stub/seed"}},
            "instructions": {"sources": [{"name": "chat", "uri": "s3://stub/chat.jsonl"}]},
            "evaluation": {"benchmarks": benchmarks},
            "storage": {"uri": "s3://stub/runs"},
            "stages": {"all": {"template": self.kubelet.placement}},
        }
        manifest = a_manifest(**(defaults | spec))
        manifest["metadata"] = {"name": name, "annotations": annotations or {}}
        return manifest

    def patch_run(self, name: str, patch: Object) -> None:
        self.kubectl("patch", PLURAL, name, "--type=merge", f"--patch={json.dumps(patch)}")

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl(arguments[0], f"--namespace={self.namespace}", *arguments[1:])

    def status(self, name: str) -> Object:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}"
        status: Object = self.kubelet.request("GET", path).get("status", {})
        return status

    def owned(self, kind: str, run: str) -> list[str]:
        """Names of what has the label of a run: `jobs`, `pods`, `configmaps`, `services`."""
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        path = f"{group}/namespaces/{self.namespace}/{kind}"
        items = self.kubelet.request("GET", path, labelSelector=f"{RUN_LABEL}={run}")["items"]
        return [item["metadata"]["name"] for item in items]

    def worked(self, run: str) -> list[str]:
        """The stages of a run that really did their work, in order; fails if one did it twice."""
        work = self.kubelet.work_of(f"{self.namespace}/{run}")
        places = [(each.key, each.index) for each in work]
        assert len(places) == len(set(places)), f"work was done twice: {work}"
        return [each.job.removeprefix(f"{run}-").rsplit("-", 1)[0] for each in work]

    def jobs_of(self, run: str) -> list[str]:
        """Names of all Jobs at stages of a run that ever had pods on the stub's node, in order, once for each Job."""
        names = [name for space, name, _ in self.kubelet.jobs if space == self.namespace]
        return [name for name in names if name.startswith(f"{run}-") and not name.startswith(f"{run}-prune-")]

    def events(self, run: str) -> str:
        """What Events say of a run, a line each."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        items = self.kubelet.request("GET", path, fieldSelector=f"involvedObject.name={run}")["items"]
        return "\n".join(f"{item['reason']}: {item['message']}" for item in items)

    def wait(self, what: Callable[[], bool], why: str, seconds: float = PATIENCE) -> None:
        """Until it is so; an API server that is away answers nothing."""

        def holds() -> bool:
            try:
                return what()
            except (KubectlError, ApiError):
                return False

        self.cluster.wait(holds, seconds, why)

    def wait_for(self, name: str, what: Callable[[Object], bool], why: str, seconds: float = PATIENCE) -> Object:
        """The status of a run once it is so."""
        seen: Object = {}

        def holds() -> bool:
            seen.clear()
            seen.update(self.status(name))
            return bool(seen) and what(seen)

        try:
            self.wait(holds, why, seconds)
        except TimeoutError as error:
            logs = "\n".join(path.read_text(encoding="utf-8")[-2000:] for path in self.folder.glob("*.log"))
            raise AssertionError(f"{error}\nsummary: {seen.get('summary')}\n{logs}") from error
        return seen

    def wait_until_complete(self, name: str, seconds: float = PATIENCE) -> Object:
        return self.wait_for(name, lambda status: condition(status, "Complete") != "", f"{name} is complete", seconds)

    def wait_until_at_work(self, name: str, stage: str, iteration: int = 0) -> None:
        """Until the pods of a stage run."""

        def runs(status: Object) -> bool:
            return any(
                each["name"] == stage and each["state"] == "Running"
                for told in status.get("iterations", [])
                if told["index"] == iteration
                for each in told["stages"]
            )

        self.wait_for(name, runs, f"{stage} of {name} is at work")


def condition(status: Object, kind: str) -> str:
    """The reason of a condition that is true; empty if it is not."""
    conditions = status.get("conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == kind and each["status"] == "True"), "")


def words(status: Object, kind: str = "Complete") -> str:
    """Reason and message of a condition, whether it is true or not."""
    conditions = status.get("conditions", [])
    return next((f"{each['reason']}: {each.get('message', '')}" for each in conditions if each["type"] == kind), "")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
