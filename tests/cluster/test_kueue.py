"""Runs in the queues of a real Kueue: admission of every stage, quota, preemption, other flavors, a person."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.operator_lab import Object, OperatorLab, condition, words
from cluster.stub_kubelet import Course
from real_cluster import ROOT, Cluster, KubectlError
from selftaught.api.base import PLURAL
from selftaught.api.labels import QUEUE_LABEL

KUEUE = "kueue.x-k8s.io/v1beta1"
WORKLOADS = f"/apis/{KUEUE}/namespaces/{{}}/workloads"
MANAGED_LABEL = "selftaught.dev/kueue"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
POOLS = ("one", "two")
INSTALL_SECONDS = 600
STAGES = 7
"""Of a run with one iteration."""


class Queue:
    """A queue of its own for a test, with a quota of processors in each pool of nodes."""

    def __init__(self, lab: OperatorLab, name: str, **quota: int) -> None:
        self.lab = lab
        self.name = name
        self.cluster_name = f"{lab.namespace}-{name}"
        self.set(**quota)
        spec = {"clusterQueue": self.cluster_name}
        lab.apply({"apiVersion": KUEUE, "kind": "LocalQueue", "metadata": {"name": name}, "spec": spec})

    def set(self, **quota: int) -> None:
        """Change the quota: processors by pool."""
        flavors = [
            {
                "name": f"{self.lab.namespace}-{pool}",
                "resources": [{"name": "cpu", "nominalQuota": quota.get(pool, 0)}],
            }
            for pool in POOLS
        ]
        spec = {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{"coveredResources": ["cpu"], "flavors": flavors}],
        }
        self.lab.apply(
            {"apiVersion": KUEUE, "kind": "ClusterQueue", "metadata": {"name": self.cluster_name}, "spec": spec}
        )

    def apply_run(self, name: str, priority: str = "", **spec: Any) -> None:
        """Create a run whose pods need a processor each."""
        placed = {"template": self.lab.kubelet.placement, "resources": {"requests": {"cpu": "1"}}}
        manifest = self.lab.manifest(name, **({"stages": {"all": placed}} | spec))
        manifest["metadata"]["labels"] = {QUEUE_LABEL: self.name} | ({PRIORITY_LABEL: priority} if priority else {})
        self.lab.apply(manifest)

    def workloads(self, run: str) -> dict[str, Object]:
        """Kueue's Workloads of a run's Jobs, by Job."""
        items = self.lab.kubelet.request("GET", WORKLOADS.format(self.lab.namespace))["items"]
        found = {each["metadata"]["ownerReferences"][0]["name"]: each for each in items}
        return {job: each for job, each in found.items() if job.startswith(f"{run}-")}

    def activate(self, run: str, job: str, active: bool) -> None:
        """Have Kueue evict a Job, or consider it again."""
        name = self.workloads(run)[job]["metadata"]["name"]
        self.lab.kubectl(
            "patch", "workload", name, "--type=merge", f"--patch={json.dumps({'spec': {'active': active}})}"
        )

    def wait_until_queued(self, run: str, why: str) -> Object:
        """Until Kueue's words are in the condition."""

        def queued(status: Object) -> bool:
            return condition(status, "Queued") != "" and why in words(status, "Queued")

        return self.lab.wait_for(run, queued, f"{run} is queued: {why}")

    def job(self, name: str) -> Object:
        path = f"/apis/batch/v1/namespaces/{self.lab.namespace}/jobs/{name}"
        return self.lab.kubelet.request("GET", path)


def stage(status: Object, name: str, iteration: int = 0) -> Object:
    """What a status says of a stage."""
    stages: list[Object] = status["iterations"][iteration]["stages"]
    return next(each for each in stages if each["name"] == name)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def plugin(lab: OperatorLab, *arguments: str) -> str:
    """What `kubectl selftaught …` printed."""
    program = Path(sys.executable).parent / "kubectl-selftaught"
    command = [str(program), *arguments, "--namespace", lab.namespace]
    environment = {**os.environ, "KUBECONFIG": str(lab.cluster.kubeconfig)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def assert_nothing_was_lost(lab: OperatorLab, run: str, status: Object) -> None:
    """One attempt per stage, and each did its work once."""
    assert (status["restarts"], status["restartsCounted"]) == (0, 0)
    assert len(lab.jobs_of(run)) == STAGES
    assert len(set(lab.jobs_of(run))) == STAGES
    assert {each["attempts"] for told in status["iterations"] for each in told["stages"]} == {1}
    lab.worked(run)


def is_admitted(lab: OperatorLab) -> None:
    queue = Queue(lab, "admitted", one=1)
    queue.apply_run("admitted")
    status = lab.wait_until_complete("admitted")
    assert_nothing_was_lost(lab, "admitted", status)
    workloads = queue.workloads("admitted")
    assert sorted(workloads) == sorted(lab.jobs_of("admitted"))
    for workload in workloads.values():
        assert condition(workload["status"], "Finished") == "Succeeded", workload


def waits_for_its_turn(lab: OperatorLab) -> None:
    queue = Queue(lab, "turns", one=1)
    with lab.kubelet.hold(lab.namespace, "first-evaluate-a1"):
        queue.apply_run("first")
        lab.wait_until_at_work("first", "evaluate")
        began = datetime.now(UTC)
        queue.apply_run("second", deadlines={"stalledAfterSeconds": 2})
        status = queue.wait_until_queued("second", "insufficient unused quota for cpu")
        assert status["phase"] == "Queued"
        assert stage(status, "evaluate")["state"] == "Queued"
        header, row = lab.kubectl("get", PLURAL, "second", "--output=wide").splitlines()
        assert row[header.index("QUEUE") :].split()[0] == "turns"
        assert "Queued" in row
        why = plugin(lab, "why", "second")
        assert "insufficient unused quota for cpu" in why
        assert "turns" in why
        time.sleep(max(0.0, 6.0 - (datetime.now(UTC) - began).total_seconds()))
        assert condition(lab.status("second"), "ProgressDeadlineExceeded") == ""
        freed = datetime.now(UTC).replace(microsecond=0)
    status = lab.wait_until_complete("second")
    evaluate = stage(status, "evaluate")
    assert instant(evaluate["startTime"]) >= freed
    assert evaluate["activeSeconds"] <= 3
    assert_nothing_was_lost(lab, "second", status)
    assert_nothing_was_lost(lab, "first", lab.wait_until_complete("first"))
    order = [name for space, name, _ in lab.kubelet.jobs if space == lab.namespace]
    assert order.index("second-evaluate-a1") < order.index("first-i1-evaluate-a1"), "it goes on between stages"


def is_preempted(lab: OperatorLab) -> None:
    queue = Queue(lab, "preempted", one=1)
    with lab.kubelet.hold(lab.namespace, "modest-select-a1"):
        queue.apply_run("modest")
        lab.wait_until_at_work("modest", "select")
        with lab.kubelet.hold(lab.namespace, "urgent-evaluate-a1"):
            queue.apply_run("urgent", priority=f"{lab.namespace}-urgent")
            status = queue.wait_until_queued("modest", "insufficient unused quota for cpu")
            assert "Preempted: " in plugin(lab, "why", "modest")
            assert stage(status, "select")["state"] == "Queued"
            lab.wait_until_at_work("urgent", "evaluate")
        lab.wait_until_complete("urgent")
    status = lab.wait_until_complete("modest")
    assert_nothing_was_lost(lab, "modest", status)
    assert "StageFailed" not in lab.events("modest")


def moves_to_other_nodes(lab: OperatorLab) -> None:
    queue, job = Queue(lab, "moving", one=1), "moved-evaluate-a1"

    def pools() -> set[str]:
        return {key for key in queue.job(job)["spec"]["template"]["spec"]["nodeSelector"] if key.startswith("pool-")}

    with lab.kubelet.hold(lab.namespace, job):
        queue.apply_run("moved")
        lab.wait_until_at_work("moved", "evaluate")
        assert pools() == {"pool-one"}
        queue.activate("moved", job, active=False)
        queue.wait_until_queued("moved", "deactivated")
        assert "somebody to activate the Workload" in plugin(lab, "why", "moved")
        queue.set(two=1)
        queue.activate("moved", job, active=True)
        lab.wait_until_at_work("moved", "evaluate")
        assert pools() == {"pool-two"}
        writers = {entry["manager"] for entry in queue.job(job)["metadata"]["managedFields"]}
        time.sleep(2)  # some passes of the operator
        assert pools() == {"pool-two"}
        assert condition(lab.status("moved"), "Queued") == ""
    status = lab.wait_until_complete("moved")
    assert_nothing_was_lost(lab, "moved", status)
    assert "selftaught-operator" in writers
    mine = [e for e in queue.job(job)["metadata"]["managedFields"] if e["manager"] == "selftaught-operator"]
    assert [e["operation"] for e in mine] == ["Update"]


def is_half_done(lab: OperatorLab) -> None:
    queue, job = Queue(lab, "halves", one=2), "half-generate-a1"
    lab.kubelet.send(lab.namespace, job, Course(seconds=0), Course(seconds=600))
    placed = {"template": lab.kubelet.placement, "resources": {"requests": {"cpu": "1"}}}
    queue.apply_run("half", stages={"all": placed, "generate": {"shards": 2}})
    lab.wait(lambda: queue.job(job)["status"].get("completedIndexes") in ("0", "1"), "a shard is done")
    queue.activate("half", job, active=False)
    status = queue.wait_until_queued("half", "deactivated")
    assert stage(status, "generate")["state"] == "Queued"
    time.sleep(5)
    queue.activate("half", job, active=True)
    status = lab.wait_until_complete("half")
    assert_nothing_was_lost(lab, "half", status)
    assert stage(status, "generate")["activeSeconds"] <= 4, "waiting is not running"


def is_impatient(lab: OperatorLab) -> None:
    queue = Queue(lab, "full")
    queue.apply_run("impatient", deadlines={"queueSeconds": 8})
    status = lab.wait_for("impatient", lambda status: condition(status, "Failed") != "", "impatient fails")
    assert condition(status, "Failed") == "QueueDeadlineExceeded"
    assert "evaluate waited longer than deadlines.queueSeconds: Kueue: " in words(status, "Failed")
    assert "insufficient quota" in words(status, "Failed")
    lab.wait(
        lambda: not queue.workloads("impatient") and not lab.owned("jobs", "impatient"), "its Job leaves the queue"
    )


def is_suspended_in_the_queue(lab: OperatorLab) -> None:
    queue = Queue(lab, "later")
    queue.apply_run("patient")
    queue.wait_until_queued("patient", "insufficient quota")
    lab.patch_run("patient", {"spec": {"suspend": True}})
    lab.kubectl("wait", f"{PLURAL}/patient", "--for=condition=Suspended", "--timeout=60s")
    lab.wait(lambda: not queue.workloads("patient"), "it leaves the queue")
    assert not lab.owned("jobs", "patient")
    queue.set(one=1)
    time.sleep(2)
    assert not lab.owned("jobs", "patient")
    lab.patch_run("patient", {"spec": {"suspend": False}})
    status = lab.wait_until_complete("patient")
    assert (status["restarts"], status["restartsCounted"]) == (1, 0)
    assert len(lab.worked("patient")) == STAGES


def is_suspended_at_work(lab: OperatorLab) -> None:
    queue = Queue(lab, "yielding", one=1)
    with lab.kubelet.hold(lab.namespace, "yielding-evaluate-a1"):
        queue.apply_run("yielding")
        lab.wait_until_at_work("yielding", "evaluate")
        lab.patch_run("yielding", {"spec": {"suspend": True}})
        lab.kubectl("wait", f"{PLURAL}/yielding", "--for=condition=Suspended", "--timeout=60s")
    lab.wait(lambda: not queue.workloads("yielding"), "its quota is given back")
    queue.apply_run("heir")
    lab.wait_until_complete("heir")
    lab.patch_run("yielding", {"spec": {"suspend": False}})
    status = lab.wait_until_complete("yielding")
    assert status["restartsCounted"] == 0
    assert len(lab.worked("yielding")) == STAGES


FATES = (
    is_admitted,
    waits_for_its_turn,
    is_preempted,
    moves_to_other_nodes,
    is_half_done,
    is_impatient,
    is_suspended_in_the_queue,
    is_suspended_at_work,
)


@pytest.fixture(scope="module")
def kueue(cluster: Cluster) -> None:
    if cluster.ours:
        subprocess.run(["make", "--silent", "cluster-kueue"], cwd=ROOT, check=True, timeout=INSTALL_SECONDS)
        return
    try:
        cluster.kubectl("get", "crd/clusterqueues.kueue.x-k8s.io")
    except KubectlError:
        pytest.fail("these tests need Kueue on the cluster; they make ClusterQueues and ResourceFlavors of their own")


@pytest.fixture(scope="module")
def queued(attended: OperatorLab, kueue: None) -> Iterator[OperatorLab]:
    """A namespace with an operator that Kueue looks after, and two pools of nodes."""
    lab, kubectl = attended, attended.cluster.kubectl
    kubectl("label", "namespace", lab.namespace, f"{MANAGED_LABEL}=true")
    kubectl("label", "node", lab.kubelet.name, *(f"pool-{pool}=yes" for pool in POOLS))
    for pool in POOLS:
        spec = {"nodeLabels": {f"pool-{pool}": "yes"}}
        name = f"{lab.namespace}-{pool}"
        lab.apply({"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": spec})
    urgent = {"apiVersion": KUEUE, "kind": "WorkloadPriorityClass", "metadata": {"name": f"{lab.namespace}-urgent"}}
    lab.apply(urgent | {"value": 1000, "description": "before all others"})
    try:
        yield lab
    finally:
        for kind in ("clusterqueues", "resourceflavors", "workloadpriorityclasses"):
            names = kubectl("get", kind, "--output=name").split()
            ours = [name for name in names if f"/{lab.namespace}-" in name]
            if ours:
                kubectl("delete", "--wait=false", *ours)


@pytest.fixture(scope="module")
def fates(queued: OperatorLab) -> Iterator[dict[str, Future[None]]]:
    """All of them at once: what takes time is waiting."""
    with ThreadPoolExecutor(len(FATES)) as pool:
        yield {fate.__name__: pool.submit(fate, queued) for fate in FATES}


@pytest.mark.parametrize("fate", [pytest.param(fate, id=fate.__name__) for fate in FATES])
def test_a_run_that(fate: Callable[[OperatorLab], None], fates: dict[str, Future[None]]) -> None:
    fates[fate.__name__].result()
